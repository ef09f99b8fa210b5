"""The poll loop of the target health trigger, on virtual time."""

import asyncio
from functools import partial
from itertools import pairwise

import pytest
from aws_fakes import ClientError, NoCredentialsError
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, get_value

from starlette_drain._core.events import (
    TriggerImpaired,
    TriggerPolled,
    TriggerRestored,
    TriggerStoodDown,
    WindowTooLong,
)
from starlette_drain.aws import session
from starlette_drain.aws.sources.target_health import TargetHealthTrigger
from starlette_drain.testing import FakeRegistration
from starlette_drain.triggers.base import Trigger

pytestmark = pytest.mark.anyio

POLL = "DescribeTargetHealth"


def steps(times):
    """Return the waits between moments."""
    return [later - earlier for earlier, later in pairwise(times)]


async def test_one_call_per_interval_without_naming_targets(stage):
    """Each target group is asked once per interval, about all of its targets, at a phase drawn by lot."""
    async with stage.watching(stage.fake.add_task(stage.fake.add_service())):
        await asyncio.sleep(60)

    first, *regular = steps(stage.clients.times(POLL))
    assert 0 < first < 5
    assert regular == pytest.approx([5] * len(regular))
    assert all(set(given) == {"TargetGroupArn"} for _, called, given in stage.clients.calls if called == POLL)
    assert 12 <= len(regular) + 2 <= 13


async def test_tasks_started_together_do_not_beat_together(stage, monkeypatch):
    """Two tasks of a fleet have two phases."""
    monkeypatch.setattr(session, "PAIR", 10)
    service = stage.fake.add_service()
    phases = set()
    for seed in range(5):
        async with stage.watching(stage.fake.add_task(service), seed=seed):
            stage.clients.calls.clear()
            await asyncio.sleep(6)
            phases.add(round(steps(stage.clients.times(POLL))[0], 3))

    assert len(phases) == 5


async def test_a_slow_answer_does_not_shift_the_phase(stage):
    """The interval counts from question to question."""
    stage.clients.taking = 1.5
    async with stage.watching(stage.fake.add_task(stage.fake.add_service())):
        await asyncio.sleep(60)

    assert steps(stage.clients.times(POLL))[1:] == pytest.approx([5] * (len(stage.clients.times(POLL)) - 2))


async def test_deregistration_asks_for_one_drain(stage):
    """The first answer that says "draining" asks for a drain; the following ones, and "gone", do not ask again."""
    task = stage.fake.add_task(stage.fake.add_service(delay=300))
    async with stage.watching(task) as control:
        await asyncio.sleep(30)
        stage.fake.deregister(task)
        began = control.time()
        await asyncio.sleep(400)

        (cause,) = control.causes
        assert cause.trigger == "target-health"
        assert cause.reason == "the target 10.0.0.5 (8000) is being deregistered from the target group web"
        assert cause.revocable
        assert began <= cause.at <= began + 5
        assert cause.lag == pytest.approx(5)
        assert cause.deadline == pytest.approx(cause.at - 5 + 300 - 15)
        assert stage.trigger.status(control.time())["target_groups"][0]["verdict"] == "gone"


async def test_draining_at_the_first_look(stage):
    """Who comes up in the middle of a deregistration assumes one poll interval, and says that the age is unknown."""
    task = stage.fake.add_task(stage.fake.add_service(delay=300))
    stage.fake.deactivate(task)
    async with stage.watching(task) as control:
        await asyncio.sleep(1)

        (cause,) = control.causes
        assert "since when is unknown" in cause.reason
        assert cause.lag == 5
        assert cause.deadline == cause.at - 5 + 285


async def test_an_inherited_address(stage):
    """A new task that got the address of one still draining waits for its own registration, and drains with that."""
    service = stage.fake.add_service(delay=60)
    former = stage.fake.add_task(service)
    stage.fake.deactivate(former)
    task = stage.fake.add_task(service, register=False)
    async with stage.watching(task) as control:
        await asyncio.sleep(30)
        assert control.causes == []
        assert stage.trigger.status(control.time())["target_groups"][0]["verdict"] == "not-yet"

        stage.fake.register(task)
        await asyncio.sleep(10)
        assert control.causes == []
        looked_up = len(stage.clients.times("DescribeTasks"))

        stage.fake.deactivate(task)
        await asyncio.sleep(6)
        assert len(control.causes) == 1
        assert len(stage.clients.times("DescribeTasks")) == looked_up


@pytest.mark.parametrize("code", ["AccessDeniedException", "ThrottlingException", "ServiceUnavailable"])
async def test_an_address_that_ecs_does_not_explain(stage, code):
    """Where ECS may not or cannot be asked, a target that drains when it is first seen is not ours; later it is."""
    task = stage.fake.add_task(stage.fake.add_service(delay=60))
    stage.fake.deregister(task)
    arn = task.service.registrations[0].group.arn
    stage.clients.failures["DescribeTasks"] = ClientError(code)
    async with stage.watching(task, target_group_arn=arn) as control:
        await asyncio.sleep(20)
        assert control.causes == []
        assert stage.trigger.status(control.time())["watch"] == "not yet"

        stage.fake.register(task)
        await asyncio.sleep(20)
        stage.fake.deregister(task)
        await asyncio.sleep(20)
        assert len(control.causes) == 1


async def test_not_yet_registered(stage):
    """Before ECS has registered the target, its absence asks for nothing; after, it does."""
    task = stage.fake.add_task(stage.fake.add_service(delay=0), register=False)
    async with stage.watching(task) as control:
        await asyncio.sleep(30)
        assert control.causes == []
        assert stage.trigger.status(control.time())["target_groups"][0]["verdict"] == "not-yet"

        stage.fake.register(task)
        await asyncio.sleep(10)
        assert control.causes == []

        stage.fake.deregister(task)  # a delay of 0: gone without having been seen draining
        await asyncio.sleep(10)
        (cause,) = control.causes
        assert cause.deadline == cause.at
        assert "no longer registered" in cause.reason


async def test_gone_before_the_delay_is_over(stage):
    """A balancer that forgets a target sooner than promised leaves the sessions the time that was promised."""
    task = stage.fake.add_task(stage.fake.add_service(delay=300))
    async with stage.watching(task) as control:
        await asyncio.sleep(30)
        task.service.registrations[0].group._targets.clear()
        await asyncio.sleep(11)

        (cause,) = control.causes
        assert cause.deadline == pytest.approx(cause.at - cause.lag + 285)


async def test_gone_with_a_delay_that_was_only_assumed(stage):
    """A delay that was assumed is refuted when the target is gone too early: the deadline is now."""
    task = stage.fake.add_task(stage.fake.add_service(delay=0))
    stage.clients.failures["DescribeTargetGroupAttributes"] = ClientError("AccessDenied")
    async with stage.watching(task) as control:
        await asyncio.sleep(30)
        stage.fake.deregister(task)
        await asyncio.sleep(11)

        (cause,) = control.causes
        assert cause.deadline == cause.at


async def test_back_in_service_arms_again(stage):
    """A target that is registered again and taken out again asks for a second drain."""
    task = stage.fake.add_task(stage.fake.add_service(delay=60))
    async with stage.watching(task) as control:
        for _ in range(2):
            await asyncio.sleep(20)
            assert control.causes == []
            stage.fake.deregister(task)
            await asyncio.sleep(20)
            assert len(control.causes) == 1
            stage.fake.register(task)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("unhealthy", "Target.Timeout"),
        ("unhealthy.draining", "Target.FailedHealthChecks"),
        ("unused", "Target.NotInUse"),
        ("unavailable", "Elb.InternalError"),
        ("something new", None),
    ],
)
async def test_what_is_no_deregistration(stage, state, reason):
    """An ailing target asks for nothing, and does not arm a trigger that has spoken."""
    task = stage.fake.add_task(stage.fake.add_service())
    group = task.service.registrations[0].group
    async with stage.watching(task) as control:
        await asyncio.sleep(10)
        group.show("10.0.0.5", state, reason)
        await asyncio.sleep(60)
        assert control.causes == []

        for each in ("draining", state, "draining"):
            group.show("10.0.0.5", each, reason)
            await asyncio.sleep(10)
        assert len(control.causes) == 1


async def test_throttling_slows_down_and_success_speeds_up(stage):
    """On throttling the interval grows at once, to a minute at most in a small service; answers shorten it slowly."""
    async with stage.watching(stage.fake.add_task(stage.fake.add_service(delay=3600))) as control:
        await asyncio.sleep(10)
        stage.clients.failures[POLL] = ClientError("ThrottlingException")
        before = len(stage.clients.times(POLL))
        await asyncio.sleep(600)
        throttled = len(stage.clients.times(POLL)) - before
        assert throttled < 60
        assert 5 < stage.trigger.status(control.time())["target_groups"][0]["interval"] <= 60

        stage.clients.failures.clear()
        await asyncio.sleep(400)
        assert 50 < stage.trigger.status(control.time())["target_groups"][0]["interval"] < 60
        await asyncio.sleep(6000)
        assert stage.trigger.status(control.time())["target_groups"][0]["interval"] == 5


async def test_throttling_never_sleeps_through_a_deregistration(stage):
    """With a short delay the interval stays well below it."""
    async with stage.watching(stage.fake.add_task(stage.fake.add_service(delay=40))):
        await asyncio.sleep(10)
        stage.clients.failures[POLL] = ClientError("Throttling")
        await asyncio.sleep(300)

    assert max(steps(stage.clients.times(POLL))) <= 10 + 1e-9


@pytest.mark.parametrize(
    ("error", "problem", "remedy"),
    [
        (ClientError("ThrottlingException"), "AWS throttles", "DRAIN_POLL_INTERVAL"),
        (ClientError("AccessDenied"), "may not call elasticloadbalancing:DescribeTargetHealth", "task role"),
        (ClientError("ExpiredToken"), "no credentials", "AWS_SESSION_TOKEN"),
        (ClientError("TargetGroupNotFound"), "does not know", "DRAIN_TARGET_GROUP_ARN"),
        (ClientError("ServiceUnavailable"), "failed (ServiceUnavailable: AWS says why)", "tried again"),
        (NoCredentialsError(), "no credentials", "taskRoleArn"),
        (ConnectionError(), "cannot be reached", "VPC endpoint"),
        (TimeoutError(), "not answered in time", "longer time limits"),
        (KeyError("TargetHealthDescriptions"), "failed (KeyError: 'TargetHealthDescriptions')", "tried again"),
    ],
)
async def test_failed_polls_change_nothing_and_are_told_once(stage, error, problem, remedy):
    """However a poll fails: no drain, no end of one, one warning with the remedy, and one line when it works again."""
    async with stage.watching(stage.fake.add_task(stage.fake.add_service())) as control:
        await asyncio.sleep(10)
        stage.clients.failures[POLL] = error
        await asyncio.sleep(120)
        (impaired,) = control.told(TriggerImpaired)
        assert problem in impaired.problem
        assert remedy in impaired.remedy
        assert "secret" not in str(control.events)
        assert stage.trigger.status(control.time())["last_error"] == impaired.problem
        assert stage.trigger.status(control.time())["target_groups"][0]["verdict"] == "serving"

        stage.clients.failures.clear()
        await asyncio.sleep(80)
        (restored,) = control.told(TriggerRestored)
        assert restored.seconds == pytest.approx(restored.at - impaired.at)
        assert stage.trigger.status(control.time())["last_error"] is None
        assert control.causes == []


async def test_one_lost_poll_is_no_warning(stage):
    """A single failure that passes by itself is seen in the facts, and warns nobody."""
    async with stage.watching(stage.fake.add_task(stage.fake.add_service())) as control:
        await asyncio.sleep(10)
        stage.clients.failures[POLL] = TimeoutError()
        await asyncio.sleep(5)
        stage.clients.failures.clear()
        await asyncio.sleep(30)

        assert [each.outcome for each in control.told(TriggerPolled)].count("slow") == 1
        assert control.told(TriggerImpaired) == control.told(TriggerRestored) == []


async def test_an_outage_counts_as_lag(stage):
    """After polls have failed, the deregistration may have begun any time since the last answer."""
    task = stage.fake.add_task(stage.fake.add_service(delay=300))
    async with stage.watching(task) as control:
        await asyncio.sleep(10)
        stage.clients.failures[POLL] = TimeoutError()
        await asyncio.sleep(60)
        stage.fake.deregister(task)
        stage.clients.failures.clear()
        await asyncio.sleep(5)

        (cause,) = control.causes
        assert 60 <= cause.lag <= 75
        assert cause.deadline == pytest.approx(cause.at - cause.lag + 285)


async def test_a_call_that_never_ends_is_cut(stage):
    """Also clients without time limits cannot stop the loop from polling."""
    async with stage.watching(stage.fake.add_task(stage.fake.add_service())) as control:
        await asyncio.sleep(10)
        stage.clients.taking = 1e6
        await asyncio.sleep(60)

        assert "slow" in {each.outcome for each in control.told(TriggerPolled)}


async def test_several_groups(stage):
    """The first group that takes the target out asks for the drain; the shortest delay of all rules."""
    public = stage.fake.add_target_group("public", delay=300)
    internal = stage.fake.add_target_group("internal", delay=120, port=9000)
    entries = [FakeRegistration(public, "app", 8000), FakeRegistration(internal, "app", 9000)]
    task = stage.fake.add_task(stage.fake.add_service(registrations=entries))
    async with stage.watching(task) as control:
        await asyncio.sleep(10)
        stage.fake.deregister(task, public)
        await asyncio.sleep(10)
        stage.fake.deregister(task, internal)
        await asyncio.sleep(10)

        (cause,) = control.causes
        assert cause.reason.endswith("the target group public")
        assert cause.deadline == pytest.approx(cause.at - cause.lag + 120 - 15)
        assert control.advice == [120 - 5 - 15]


def pair(stage, **options):
    """Return the two halves of a blue/green pair, and a service that registers its tasks with the first."""
    blue, green = stage.fake.add_target_group("blue", **options), stage.fake.add_target_group("green", **options)
    return blue, green, stage.fake.add_service(registrations=[FakeRegistration(blue, "app", 8000, alternate=green)])


async def test_all_groups_means_all_that_the_task_is_in(stage):
    """With the policy "all" the half of a blue/green pair that the task never was in is not waited for."""
    blue, _, service = pair(stage)
    task = stage.fake.add_task(service)
    async with stage.watching(task, kind=partial(TargetHealthTrigger, policy="all")) as control:
        await asyncio.sleep(30)
        stage.fake.deregister(task, blue)
        await asyncio.sleep(10)

        (cause,) = control.causes
        assert cause.reason.endswith("the target group blue")


async def test_all_groups_waits_for_the_last_of_them(stage):
    """With the policy "all" a task in two groups drains when the second takes it out, too."""
    public, internal = stage.fake.add_target_group("public"), stage.fake.add_target_group("internal", port=9000)
    entries = [FakeRegistration(public, "app", 8000), FakeRegistration(internal, "app", 9000)]
    task = stage.fake.add_task(stage.fake.add_service(registrations=entries))
    async with stage.watching(task, kind=partial(TargetHealthTrigger, policy="all")) as control:
        await asyncio.sleep(30)
        stage.fake.deregister(task, public)
        await asyncio.sleep(20)
        assert control.causes == []
        stage.fake.deregister(task, internal)
        await asyncio.sleep(10)
        assert len(control.causes) == 1


async def test_the_idle_half_of_a_pair_is_asked_no_more_often_than_the_other(stage):
    """However empty a group is, it is asked as often as all tasks that ask about it may: none knows it is empty."""
    blue, green, service = pair(stage, delay=3600)
    task = stage.fake.add_task(service)
    for number in range(39):
        blue.register(f"10.1.0.{number}")
    async with stage.watching(task) as control:
        await asyncio.sleep(200)
        polls = [given["TargetGroupArn"] for at, called, given in stage.clients.calls if called == POLL and at > 1100]
        assert polls.count(green.arn) <= 100 / 40 + 1
        assert polls.count(blue.arn) <= 100 / 40 + 1
        status = stage.trigger.status(control.time())
        assert status["detection_lag"] == 40
        assert status["budget_used"] == pytest.approx(0.2)
        assert [each["interval"] for each in status["target_groups"]] == [40, 40]


async def test_a_task_in_two_groups_is_one_task(stage):
    """Groups that list the same tasks do not count them twice."""
    public, internal = stage.fake.add_target_group("public"), stage.fake.add_target_group("internal", port=9000)
    entries = [FakeRegistration(public, "app", 8000), FakeRegistration(internal, "app", 9000)]
    task = stage.fake.add_task(stage.fake.add_service(registrations=entries))
    for number in range(39):
        public.register(f"10.1.0.{number}")
        internal.register(f"10.1.0.{number}")
    async with stage.watching(task) as control:
        await asyncio.sleep(300)
        assert stage.trigger.status(control.time())["detection_lag"] == 40


async def test_a_group_that_fails_does_not_stop_the_others(stage):
    """Where only one group can be read, it still asks for the drain."""
    service = stage.fake.add_service(
        registrations=[
            FakeRegistration(stage.fake.add_target_group("lost"), "app", 8000),
            FakeRegistration(stage.fake.add_target_group("kept"), "app", 8000),
        ]
    )
    task = stage.fake.add_task(service)
    async with stage.watching(task) as control:
        await asyncio.sleep(10)
        del stage.fake.groups[service.registrations[0].group.arn]
        await asyncio.sleep(10)
        stage.fake.deregister(task)
        await asyncio.sleep(10)

        assert len(control.causes) == len(control.told(TriggerImpaired)) == 1


async def test_advice_and_a_window_that_does_not_fit(stage):
    """The drain hears how long it may take, and a window that is longer is told once, with the numbers."""
    async with stage.watching(stage.fake.add_task(stage.fake.add_service(delay=60)), window=240) as control:
        await asyncio.sleep(60)

        assert control.advice == [40]
        (told,) = control.told(WindowTooLong)
        assert (told.window, told.fits, told.delay) == (240, 40, 60)


async def test_a_window_that_fits_is_no_news(stage):
    """A window under the delay is not talked about."""
    async with stage.watching(stage.fake.add_task(stage.fake.add_service(delay=300)), window=240) as control:
        await asyncio.sleep(10)

        assert control.told(WindowTooLong) == []


async def test_off_ecs(stage):
    """Where this is not an ECS task and nothing was given by hand, the trigger says so and ends."""
    async with stage.watching(None, environ={}) as control:
        await asyncio.sleep(1)

        (event,) = control.told(TriggerStoodDown)
        assert "not an ECS task" in event.why
        assert stage.clients.calls == []
        assert stage.trigger.status(control.time())["state"] == "stood down"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, None),
        ({"target_id": "i-0123"}, "; with DRAIN_TARGET_ID set DRAIN_TARGET_GROUP_ARN too"),
        ({"target_id": "i-0123", "target_port": 80}, "; with DRAIN_TARGET_ID and DRAIN_TARGET_PORT set"),
    ],
)
async def test_half_a_target_off_ecs(stage, options, words):
    """A target without its group was meant to be watched, so it is an alarm that it is not."""
    async with stage.watching(None, environ={}, **options) as control:
        await asyncio.sleep(1)

        (event,) = control.told(TriggerStoodDown)
        assert event.is_alarm is bool(options)
        assert words is None or words in event.why


async def test_polls_make_no_traces(stage):
    """Instrumentation of HTTP clients is switched off around each call, and only there."""
    seen = []

    class Watched(Exception):
        def __init__(self):
            seen.append(get_value(_SUPPRESS_INSTRUMENTATION_KEY))

    class Failing(dict):
        def get(self, key, default=None):
            return Watched() if key == POLL else super().get(key, default)

    stage.clients.failures = Failing()
    async with stage.watching(stage.fake.add_task(stage.fake.add_service())):
        await asyncio.sleep(10)

    assert set(seen) == {True}
    assert get_value(_SUPPRESS_INSTRUMENTATION_KEY) is None


async def test_clients_are_opened_once_and_closed(stage):
    """A client is kept for as long as the trigger watches, is asked in the task's own region, and is then closed."""
    async with stage.watching(stage.fake.add_task(stage.fake.add_service())) as control:
        assert isinstance(stage.trigger, Trigger)
        await asyncio.sleep(60)
        assert control.events

    assert sorted(stage.clients.opened) == ["ecs", "elbv2"]
    assert sorted(stage.clients.closed) == ["ecs", "elbv2"]
    assert set(stage.clients.regions) == {"eu-central-1"}


async def test_credentials_that_come_later(stage):
    """A client that was opened without credentials is closed, and another is opened for the next poll."""
    async with stage.watching(stage.fake.add_task(stage.fake.add_service())) as control:
        await asyncio.sleep(10)
        stage.clients.failures[POLL] = NoCredentialsError()
        await asyncio.sleep(20)
        stage.clients.failures.clear()
        await asyncio.sleep(80)

        assert stage.clients.opened.count("elbv2") > 1
        assert control.told(TriggerPolled)[-1].outcome == "serving"
