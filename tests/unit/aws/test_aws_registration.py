"""Registering oneself: what is wished comes about, whatever AWS answers, and never breaks a drain."""

import asyncio
import contextlib
from random import Random

import pytest
from aws_fakes import ON_ECS, ClientError, MetadataOf

from starlette_drain import Drain, DrainCause, DrainState, Session
from starlette_drain._core.events import (
    DrainCancelled,
    DrainReplanned,
    DrainStarted,
    TriggerActed,
    TriggerImpaired,
    TriggerRestored,
    TriggerStoodDown,
)
from starlette_drain.aws.actions.registration import SelfRegistration
from starlette_drain.aws.identity.identity import OwnTarget
from starlette_drain.aws.identity.targets import find_own, is_out
from starlette_drain.telemetry.base import Observer
from starlette_drain.testing import ManualTrigger, RecordingObserver
from starlette_drain.testing.fake_aws.target_group import FakeTargetGroup
from starlette_drain.triggers.base import Trigger

pytestmark = pytest.mark.anyio

IN, OUT, LOOK = "RegisterTargets", "DeregisterTargets", "DescribeTargetHealth"
MANUAL = DrainCause("manual", "asked for", at=1000.0)
SIGTERM = DrainCause("sigterm", "told to stop", at=1000.0, revocable=False)
DEPLOYMENT = DrainCause("service-deployment", "no traffic", at=1000.0)


class Scene:
    """A task whose service names no target group, and the group it registers itself with."""

    def __init__(self, stage, delay=300.0):
        self.stage = stage
        self.fake, self.clients = stage.fake, stage.clients
        self.group = self.fake.add_target_group("web", delay=delay)
        self.task = self.fake.add_task(self.fake.add_service(registrations=[]))

    @property
    def states(self):
        """The states of the targets in the group."""
        return [self.group.health(each).state for each in self.group.listed()]

    @contextlib.asynccontextmanager
    async def watching(self, *, registers=True, **options):
        """Let a SelfRegistration watch, with a control that only records."""

        def kind(**source):
            return SelfRegistration(registers=registers, **source)

        options.setdefault("target_group_arn", self.group.arn)
        async with self.stage.watching(self.task, kind=kind, **options) as control:
            await asyncio.sleep(1)
            yield control, self.stage.trigger

    def called(self, operation):
        """Return the targets that an operation was called with."""
        return [given["Targets"] for _, called, given in self.clients.calls if called == operation]


@pytest.fixture
def scene(stage):
    """Set the scene."""
    return Scene(stage)


def started(cause=MANUAL):
    """Return the fact that a drain began."""
    return DrainStarted(1000.0, "d-1", cause, 1300.0, 10, "evenly")


def cancelled():
    """Return the fact that a drain was cancelled."""
    return DrainCancelled(1000.0, "d-1", None)


OWN = OwnTarget("arn:aws:elasticloadbalancing:r:1:targetgroup/web/1", frozenset({"10.0.0.5"}), frozenset({8000}), 300)


@pytest.mark.parametrize(
    ("state", "reason", "out"),
    [
        ("draining", "Target.DeregistrationInProgress", True),
        ("unused", "Target.NotRegistered", True),
        ("unused", "Target.NotInUse", False),
        ("initial", "Elb.RegistrationInProgress", False),
        ("healthy", None, False),
        ("unhealthy", "Target.Timeout", False),
        ("unhealthy.draining", None, False),
        ("unavailable", None, False),
        ("something new", None, False),
    ],
)
def test_what_is_out(state, reason, out):
    """Only a deregistration keeps the balancer from sending; an ailing target is still in."""
    assert is_out({"TargetHealth": {"State": state, "Reason": reason}}) is out


def test_what_is_our_own():
    """An entry is our own by address and port, in whatever spelling; without a port of ours every port is."""
    entries = [
        {"Target": {"Id": each, "Port": port}} for each, port in [("10.0.0.5", 8000), ("10.0.0.5", 9), ("x", 8000)]
    ]
    assert find_own([*entries, {}], OWN) == entries[:1]
    anywhere = OwnTarget(OWN.target_group_arn, OWN.ids, frozenset(), 300)
    assert find_own(entries, anywhere) == entries[:2]


async def test_registers_after_startup_and_says_so(scene):
    """The task is registered once, with its own address and the port of the group, and an operator can read it."""
    async with scene.watching() as (control, registration):
        assert isinstance(registration, Trigger)
        assert isinstance(registration, Observer)
        await asyncio.sleep(300)
        assert scene.states == ["healthy"]
        assert scene.called(IN) == [[{"Id": "10.0.0.5"}]]
        assert [f.deed for f in control.told(TriggerActed)] == ["registered 10.0.0.5 (any port) with the group web"]
        assert registration.status(control.time())["state"] == "registered"
        assert len(scene.clients.times(LOOK)) == 3, (
            "one to come in, two for what others left; what has come about is not polled"
        )
        assert control.advice == [285]
        assert control.causes == []


async def test_the_port_that_is_given(scene):
    """DRAIN_TARGET_PORT registers another port than the group's."""
    async with scene.watching(target_port=9000):
        assert scene.called(IN) == [[{"Id": "10.0.0.5", "Port": 9000}]]


async def test_one_of_several_addresses(stage):
    """A task with addresses of both families is registered with its IPv4 address."""
    scene = Scene(stage)
    scene.task.addresses, scene.task.ipv6_addresses = ("10.0.0.9", "10.0.0.7"), ("2001:db8::5",)
    async with scene.watching():
        assert scene.called(IN) == [[{"Id": "10.0.0.7"}]]


async def test_deregisters_when_a_drain_begins(scene):
    """Any drain takes the task out, and hears by when the balancer cuts: the delay from the call, less the margin."""
    async with scene.watching() as (control, registration):
        began = control.time()
        registration.notify(started())
        await asyncio.sleep(10)
        assert scene.states == ["draining"]
        (cause,) = control.causes
        assert (cause.trigger, cause.revocable) == ("self-registration", True)
        assert cause.deadline == pytest.approx(began + 300 - 15, abs=0.1)
        assert registration.status(control.time())["state"] == "deregistered"
        registration.notify(DrainReplanned(1.0, "d-1", SIGTERM, 1.0, shortened=True, remaining=1, pacing=""))
        await asyncio.sleep(60)
        assert len(scene.called(OUT)) == len(control.causes) == 1


async def test_registers_again_when_cancelled(scene):
    """A drain that is cancelled puts the task back; the next one takes it out again, with a new deadline."""
    async with scene.watching() as (control, registration):
        deadlines = []
        for _ in range(2):
            registration.notify(started())
            await asyncio.sleep(10)
            assert scene.states == ["draining"]
            (cause,) = control.causes
            deadlines.append(cause.deadline)
            registration.notify(cancelled())
            await asyncio.sleep(10)
            assert scene.states == ["healthy"]
            assert control.causes == []
        assert [len(scene.called(each)) for each in (IN, OUT)] == [3, 2]
        assert deadlines[0] < deadlines[1]


async def test_a_change_of_mind_while_a_call_is_under_way(scene):
    """The last word counts, and a drain that was cancelled meanwhile is not begun again."""
    async with scene.watching() as (control, registration):
        scene.clients.taking = 2.0
        registration.notify(started())
        await asyncio.sleep(3)
        registration.notify(cancelled())
        await asyncio.sleep(60)
        assert scene.states == ["healthy"]
        assert control.causes == []


@pytest.mark.parametrize(
    ("cause", "workers", "out"),
    [(MANUAL, 1, True), (MANUAL, 4, True), (SIGTERM, 1, True), (SIGTERM, 4, False), (DEPLOYMENT, 1, False)],
)
async def test_which_drains_take_the_task_out(scene, cause, workers, out):
    """Not the end of one worker of several, and not a deployment whose bake time shall outlast the delay."""
    async with scene.watching() as (control, registration):
        control.workers = workers
        registration.notify(started(cause))
        await asyncio.sleep(10)
        assert scene.states == ["draining" if out else "healthy"]


async def test_a_task_that_ecs_registered(stage):
    """With registers=False nothing happens until a drain; only what was taken out is put back."""
    service = stage.fake.add_service(delay=300)
    task = stage.fake.add_task(service)

    async with stage.watching(task, kind=taking_out) as control:
        await asyncio.sleep(60)
        assert not set(stage.clients.operations()) & {IN, OUT, LOOK}
        stage.trigger.notify(started())
        await asyncio.sleep(10)
        assert [g["Targets"] for _, c, g in stage.clients.calls if c == OUT] == [[{"Id": "10.0.0.5", "Port": 8000}]]
        assert len(control.causes) == 1
        stage.trigger.notify(cancelled())
        await asyncio.sleep(10)
        assert stage.clients.operations().count(IN) == 1
    assert stage.clients.operations().count(OUT) == 1, "its end is the affair of ECS"


async def test_a_target_that_ecs_took_out(stage):
    """Where the balancer takes the task out already there is nothing to do, and nothing is put back."""
    task = stage.fake.add_task(stage.fake.add_service())

    async with stage.watching(task, kind=taking_out) as control:
        await asyncio.sleep(1)
        stage.fake.deactivate(task)
        stage.trigger.notify(started(DrainCause("target-health", "draining", at=1.0)))
        await asyncio.sleep(10)
        stage.trigger.notify(cancelled())
        await asyncio.sleep(10)
        assert not set(stage.clients.operations()) & {IN, OUT}
        assert control.causes == []


def taking_out(**source):
    """Make a SelfRegistration for a task that ECS registers."""
    return SelfRegistration(registers=False, **source)


async def drain_and_cancel(registration, seconds=10.0):
    """Let a drain begin, and be cancelled after a while."""
    registration.notify(started())
    await asyncio.sleep(seconds)
    registration.notify(cancelled())
    await asyncio.sleep(60)


def entries_of(group):
    """Return what of a group gets traffic, as (id, port)."""
    return [(each.id, each.port) for each in group.listed() if group.health(each).state == "healthy"]


@pytest.mark.parametrize("registers", [True, False])
async def test_a_cancelled_drain_registers_nothing_new(stage, registers):
    """Of a blue and a green group that name the task, only the one that it was in gets it back."""
    service = stage.fake.add_service()
    blue, green = service.registrations[0].group, stage.fake.add_target_group("green")
    task = stage.fake.add_task(service)
    groups = (blue.arn,) if registers else (blue.arn, green.arn)

    def kind(**source):
        return SelfRegistration(registers=registers, **source)

    async with stage.watching(task, kind=kind, target_group_arn=groups):
        await asyncio.sleep(1)
        before = entries_of(blue)
        await drain_and_cancel(stage.trigger)
        assert (entries_of(blue), entries_of(green)) == (before, [])


@pytest.mark.parametrize("registers", [True, False])
async def test_a_cancelled_drain_puts_back_the_same_port(scene, registers):
    """Where no port is given, the entry comes back with the port that it had, not with the group's."""
    scene.group.port = 80
    scene.group.register("10.0.0.5", 8000)
    async with scene.watching(registers=registers) as (_, registration):
        await drain_and_cancel(registration)
        assert entries_of(scene.group) == [("10.0.0.5", 8000)]


@pytest.mark.parametrize("registers", [True, False])
async def test_a_cancelled_drain_puts_back_the_same_address(scene, registers):
    """A task of both families that is registered by its IPv6 address, however spelled, is put back by that one."""
    scene.task.ipv6_addresses = ("2001:db8::5",)
    scene.group.register("2001:DB8:0::5", 8000)
    async with scene.watching(registers=registers) as (_, registration):
        await drain_and_cancel(registration)
        assert entries_of(scene.group) == [("2001:DB8:0::5", 8000)]


@pytest.mark.parametrize("taking", [0.0, 2.0])
@pytest.mark.parametrize("after", [0.0, 1.0, 2.5, 3.5, 4.5])
async def test_cancelled_at_any_moment_a_task_of_ecs_is_in(stage, taking, after):
    """Whenever the drain is cancelled, also while it is being deregistered, the task is in a minute later."""
    service = stage.fake.add_service()
    task = stage.fake.add_task(service)
    async with stage.watching(task, kind=taking_out):
        await asyncio.sleep(20)
        stage.clients.taking = taking
        await drain_and_cancel(stage.trigger, after)
        assert entries_of(service.registrations[0].group) == [("10.0.0.5", 8000)]


@pytest.mark.parametrize("done_after", [0.0, 9.0, 15.0])
async def test_a_deregistration_whose_answer_was_lost_is_undone(stage, done_after):
    """A call that timed out may be done all the same, even after the task was put back; in the end the task is in."""
    service = stage.fake.add_service()
    task = stage.fake.add_task(service)
    async with stage.watching(task, kind=taking_out) as control:
        await asyncio.sleep(1)
        stage.clients.lost[OUT] = done_after
        await drain_and_cancel(stage.trigger, 5.0)
        assert entries_of(service.registrations[0].group) == [("10.0.0.5", 8000)]
        assert control.causes == []
        assert stage.trigger.status(control.time())["state"] == "watching"
        settled = len(stage.clients.calls)
        await asyncio.sleep(300)
        assert len(stage.clients.calls) == settled, "nobody asks for ever"


async def test_a_lost_answer_counts_from_the_call(scene):
    """A deregistration that was done although its answer was lost brings the deadline of its first moment."""
    async with scene.watching() as (control, registration):
        scene.clients.lost[OUT] = 0.0
        began = control.time()
        registration.notify(started())
        await asyncio.sleep(20)
        (cause,) = control.causes
        assert cause.deadline == pytest.approx(began + 300 - 15, abs=0.1)
        assert registration.status(control.time())["deregistered_ago"] == pytest.approx(20, abs=0.1)


async def test_a_refused_deregistration_is_no_deregistration(scene):
    """Time passes for nobody while AWS refuses; the deadline counts from the call that worked."""
    async with scene.watching() as (control, registration):
        scene.clients.failures[OUT] = ClientError("AccessDenied")
        registration.notify(started())
        await asyncio.sleep(200)
        assert registration.status(control.time())["deregistered_ago"] is None
        scene.clients.failures.clear()
        await asyncio.sleep(40)
        assert control.causes[0].deadline > control.time() + 300 - 15 - 40


async def test_what_ecs_registered_is_not_taken_out_unseen(stage):
    """Where nobody may look, nothing could be put back as it was, so the task stays in, and it is said why."""
    service = stage.fake.add_service()
    task = stage.fake.add_task(service)
    async with stage.watching(task, kind=taking_out) as control:
        await asyncio.sleep(1)
        stage.clients.failures[LOOK] = ClientError("AccessDenied")
        await drain_and_cancel(stage.trigger)
        assert not {IN, OUT} & set(stage.clients.operations())
        assert "DescribeTargetHealth" in control.told(TriggerImpaired)[0].problem


@pytest.mark.parametrize("error", ["ThrottlingException", "AccessDenied", "TargetGroupNotFound", "ServiceUnavailable"])
@pytest.mark.parametrize("operation", [IN, OUT])
async def test_failing_calls_are_tried_again(scene, operation, error):
    """A call that fails is told once and tried again with back-off, until it works or the mind is changed."""
    async with scene.watching() as (control, registration):
        if operation == IN:
            registration.notify(started())
            await asyncio.sleep(5)
        control.events.clear()
        scene.clients.failures[operation] = ClientError(error)
        registration.notify(cancelled() if operation == IN else started())
        await asyncio.sleep(300)
        (impaired,) = control.told(TriggerImpaired)
        assert f"elasticloadbalancing:{operation}" in impaired.problem
        assert 10 < len(scene.called(operation)) < 60
        assert registration.status(control.time())["last_error"] == impaired.problem
        scene.clients.failures.clear()
        await asyncio.sleep(31)
        assert scene.states == ["healthy" if operation == IN else "draining"]
        assert len(control.told(TriggerRestored)) == 1
        assert registration.status(control.time())["last_error"] is None


async def test_where_nobody_may_look(scene):
    """Without DescribeTargetHealth it registers and deregisters blindly, once, and is done after a bounded wait."""
    scene.clients.failures[LOOK] = ClientError("AccessDenied")
    async with scene.watching() as (control, registration):
        assert scene.states == ["healthy"]
        registration.notify(started())
        await asyncio.sleep(120)
        assert scene.states == ["draining"]
        assert len(scene.called(OUT)) == len(control.causes) == 1
        assert registration.status(control.time())["state"] == "deregistered"


async def test_deregisters_at_stop(scene):
    """An application that ends without a drain takes its task out on the way."""
    async with scene.watching():
        assert scene.states == ["healthy"]
    assert scene.states == ["draining"]


async def test_stop_is_not_held_up(scene):
    """AWS that does not answer delays the end by a few seconds at the most."""
    async with scene.watching() as (control, _):
        scene.clients.taking = 1e6
        ended = control.time()
    assert asyncio.get_running_loop().time() - ended <= 5.1


@pytest.mark.parametrize("hangs", [True, False])
async def test_a_group_that_fails_keeps_no_other_at_stop(scene, hangs):
    """Each group is left by itself: one that is gone, or hangs, keeps the task in no other."""
    others = [scene.fake.add_target_group(name) for name in ("first", "last")]
    arns = (others[0].arn, scene.group.arn, others[1].arn)
    async with scene.watching(target_group_arn=arns) as (control, registration):
        assert [entries_of(each) for each in others] == [[("10.0.0.5", 8000)]] * 2
        if hangs:
            scene.clients.hanging.add(scene.group.arn)
        else:
            del scene.fake.groups[scene.group.arn]
    assert [entries_of(each) for each in others] == [[], []]
    assert "could not deregister" in registration.status(control.time())["last_error"]


async def test_a_group_that_hangs_keeps_no_other(scene):
    """While one group's calls hang, the task gets out of the others, and the error stays to be seen."""
    other = scene.fake.add_target_group("other")
    async with scene.watching(target_group_arn=(scene.group.arn, other.arn)) as (control, registration):
        scene.clients.hanging.add(scene.group.arn)
        registration.notify(started())
        await asyncio.sleep(1)
        assert entries_of(other) == []
        await asyncio.sleep(60)
        assert "not answered in time" in registration.status(control.time())["last_error"]


async def test_stopped_while_registering(scene, monkeypatch):
    """A registration under way at the end is taken back, although the balancer does not list it yet."""
    scene.clients.lost[IN] = 0.0
    with monkeypatch.context() as patch:
        patch.setattr(FakeTargetGroup, "described", lambda _self, _named: [])
        async with scene.watching():
            assert scene.called(IN)
    assert scene.states == ["draining"]


async def test_drained_while_registering(scene, monkeypatch):
    """A drain takes out what was registered a moment ago, although the balancer does not list it yet."""
    with monkeypatch.context() as patch:
        patch.setattr(FakeTargetGroup, "described", lambda _self, _named: [])
        async with scene.watching() as (control, registration):
            registration.notify(started(SIGTERM))
            await asyncio.sleep(1)
            assert scene.states == ["draining"]
            assert len(control.causes) == 1


async def test_one_worker_of_several_ends(scene):
    """The end of one worker of several is not the end of the task."""
    async with scene.watching() as (control, _):
        control.workers = 2
    assert scene.states == ["healthy"]


async def test_no_target_group(scene):
    """Where no target group is given or found, it says what to set, and ends."""
    async with scene.watching(target_group_arn=()) as (control, _):
        (event,) = control.told(TriggerStoodDown)
        assert "DRAIN_TARGET_GROUP_ARN" in event.why


async def test_off_ecs(scene):
    """Off ECS, with nothing given by hand, it stands down."""
    async with scene.watching(environ={}, target_group_arn=()) as (control, registration):
        assert "not an ECS task" in control.told(TriggerStoodDown)[0].why
        assert registration.status(control.time())["state"] == "stood down"


async def test_the_exit_waits_until_the_balancer_has_stopped(scene):
    """Before the exit it waits until the target is seen draining, and not when nothing is to be waited for."""
    async with scene.watching() as (_, registration):
        await asyncio.wait_for(registration.before_exit(), 0.01)
        scene.clients.taking = 2.0
        registration.notify(started(SIGTERM))
        await asyncio.wait_for(registration.before_exit(), 10)
        assert scene.states == ["draining"]
        await asyncio.wait_for(registration.before_exit(), 0.01)


async def test_the_exit_waits_for_no_task_that_it_does_not_know(scene):
    """Where it has stood down, there is nothing to wait for, whatever drains."""
    async with scene.watching(environ={}, target_group_arn=()) as (_, registration):
        registration.notify(started(SIGTERM))
        await asyncio.wait_for(registration.before_exit(), 0.01)


async def test_a_watch_that_ends_lets_the_exit_go_on(scene):
    """Nothing waits for a trigger that does not run any more."""
    scene.clients.failures[OUT] = ClientError("AccessDenied")
    async with scene.watching() as (_, registration):
        registration.notify(started(SIGTERM))
        waiting = asyncio.create_task(registration.before_exit())
        await asyncio.sleep(1)
        assert not waiting.done()
    await asyncio.wait_for(waiting, 0.01)


class Guest(Session):
    """A session that goes when asked to."""

    kind = "guest"

    def __init__(self, drain):
        super().__init__("/", drain.host.engine.time())
        self._drain = drain

    def begin_close(self, _policy):
        """Go at once."""
        self._drain.host.engine.closed(self, forced=False)


async def test_with_a_real_drain(scene):
    """With a Drain: registered, taken out by a drain by hand whose window the delay shortens, put back on cancel."""
    manual, recording = ManualTrigger(), RecordingObserver()
    registration = SelfRegistration(
        clients=scene.clients, environ=ON_ECS, rng=Random(7), fetch=MetadataOf(scene.task), registers=True
    )
    drain = Drain(
        triggers=[registration, manual], observers=[recording], rng=Random(7), target_group_arn=scene.group.arn
    )
    drain.host.equip(list, list)
    async with drain.run():
        await asyncio.sleep(2)
        assert scene.states == ["healthy"]
        for _ in range(50):
            guest = Guest(drain)
            drain.host.engine.track(guest)
            drain.host.engine.opened(guest)
        await drain.start(window=900)
        await asyncio.sleep(30)
        assert scene.states == ["draining"]
        assert [each.trigger for each in drain.progress().causes] == ["manual", "self-registration"]
        assert drain.progress().window == pytest.approx(285, abs=1)
        await drain.cancel()
        await asyncio.sleep(10)
        assert scene.states == ["healthy"]
        assert drain.state is DrainState.SERVING
        await drain.start()
        assert await drain.wait_drained()
        assert drain.report.slack >= 0
        assert drain.report.window == pytest.approx(285, abs=1)
