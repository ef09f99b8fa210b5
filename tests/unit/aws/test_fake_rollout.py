"""How ECS replaces tasks: the scheduler's steps, and a deployment that goes on by itself on FakeAWS."""

import math

import pytest

from starlette_drain.testing import FakeAWS
from starlette_drain.testing.fake_aws.deployments import answer
from starlette_drain.testing.fake_aws.faults import ApiError
from starlette_drain.testing.fake_aws.scheduler import Cohort, Limits, Step, roll, swap
from starlette_drain.testing.fake_aws.strategy import STRATEGIES


@pytest.mark.parametrize(
    ("percents", "counts", "step"),
    [
        ((100, 200), {"old": 8, "new": 0}, Step(0, 8)),
        ((100, 200), {"old": 8, "new": 0, "starting": 8}, Step(0, 0)),
        ((100, 200), {"old": 8, "new": 8}, Step(8, 0)),
        ((100, 113), {"old": 8, "new": 0}, Step(0, 1)),
        ((100, 113), {"old": 8, "new": 1}, Step(1, 1)),
        ((50, 100), {"old": 8, "new": 0}, Step(4, 4)),
        ((50, 100), {"old": 4, "new": 0, "starting": 4}, Step(0, 0)),
        ((0, 100), {"old": 8, "new": 0}, Step(8, 8)),
        ((100, 100), {"old": 8, "new": 0}, Step(0, 0)),
    ],
)
def test_a_step(percents, counts, step):
    """RUNNING and PENDING tasks count, those that drain do not; the minimum is rounded up, the maximum down."""
    assert Limits(*percents).step(8, **counts) == step


@pytest.mark.parametrize("tasks", [1, 2, 5, 8, 30])
@pytest.mark.parametrize("percents", [(100, 200), (100, 150), (50, 100), (66, 150), (0, 100), (100, 120)])
def test_a_deployment_replaces_every_task(tasks, percents):
    """As many new ones as old ones, never more than the maximum and never fewer than the minimum at a time."""
    limits = Limits(*percents)
    if limits.step(tasks, old=tasks, new=0) == Step(0, 0):
        with pytest.raises(ValueError, match="raise the maximum or lower the minimum"):
            roll([Cohort(tasks)], limits, start_up=30.0)
        return
    fleet = roll([Cohort(tasks)], limits, start_up=30.0)
    assert sum(each.tasks for each in fleet if each.leaves_at < math.inf) == tasks
    assert sum(each.tasks for each in fleet if each.serves_from > -math.inf) == tasks
    for now in {each.serves_from for each in fleet} | {each.leaves_at for each in fleet}:
        counted = sum(each.tasks for each in fleet if each.serves_from - 30.0 <= now < each.leaves_at)
        serving = sum(each.tasks for each in fleet if each.serves_from <= now < each.leaves_at)
        assert counted <= limits.most(tasks) or now in (-math.inf, math.inf)
        assert serving >= limits.least(tasks) or now in (-math.inf, math.inf)


def test_blue_green_swaps_the_fleet():
    """All old tasks go in one moment, in which the new ones serve."""
    assert swap([Cohort(8)], begin=5.0) == [Cohort(8, leaves_at=5.0), Cohort(8, 5.0)]


class Clock:
    """A clock that goes when it is told to."""

    now = 0.0

    def __call__(self):
        """Return the time."""
        return self.now


@pytest.fixture
def clock():
    """Return a clock."""
    return Clock()


def run(fake, clock, seconds, *, step=1.0):
    """Let the time pass."""
    for _ in range(int(seconds / step)):
        clock.now += step
        fake.advance()


def service_of(fake, tasks, **attributes):
    """Return a service with as many tasks."""
    service = fake.add_service("web", delay=300)
    service.desired = tasks
    for name, value in attributes.items():
        setattr(service, name, value)
    for number in range(tasks):
        fake.add_task(service, addresses=(f"10.1.0.{number}",))
    return service


def test_batches_overlap(clock):
    """At 125 % of eight two go every 30 s, and all eight drain before the first has gone; SIGTERM comes by itself."""
    fake = FakeAWS(clock=clock)
    told = []
    rollout = fake.roll(service_of(fake, 8, max_percent=125), start_up=30.0, on_stop=lambda _: told.append(clock.now))
    run(fake, clock, 125)
    (group,) = fake.groups.values()
    states = [health.state for _, _, health in group.described(())]
    assert (states.count("draining"), states.count("healthy")) == (8, 8)
    assert [task.last_status for task in rollout.old] == ["DEACTIVATING"] * 8
    assert rollout.is_early_success
    assert not rollout.is_complete
    run(fake, clock, 310)
    assert told == [330.0] * 2 + [360.0] * 2 + [390.0] * 2 + [420.0] * 2
    assert {task.last_status for task in rollout.old} == {"STOPPING", "STOPPED"}
    run(fake, clock, 60)
    assert rollout.is_complete


def test_three_generations_at_once(clock):
    """With early success criteria the next deployment begins while the old tasks of the first one drain."""
    fake = FakeAWS(clock=clock)
    service = service_of(fake, 4)
    first = fake.roll(service, start_up=30.0)
    run(fake, clock, 60)
    assert first.is_early_success
    second = fake.roll(service, start_up=30.0)
    run(fake, clock, 60)
    assert second.old == first.new
    (group,) = fake.groups.values()
    states = [health.state for _, _, health in group.described(())]
    assert (states.count("draining"), states.count("healthy")) == (8, 4)
    run(fake, clock, 400)
    assert first.is_complete
    assert second.is_complete
    assert [each.last_status for each in second.new] == ["RUNNING"] * 4


def test_a_process_that_has_ended(clock):
    """A task that was told to stop is STOPPING until its process ends."""
    fake = FakeAWS(clock=clock)
    rollout = fake.roll(service_of(fake, 1), start_up=1.0, on_stop=lambda _: False)
    run(fake, clock, 302)
    (old,) = rollout.old
    assert old.last_status == "STOPPING"
    rollout.end(old)
    run(fake, clock, 1)
    assert rollout.is_complete


def test_what_denies_every_call_spares_the_endpoints_of_the_task():
    """A permission is one of AWS's: the metadata endpoint knows none."""
    fake = FakeAWS()
    fake.fail("deny")
    assert fake._faults.strike("metadata", "task") is None
    assert fake._faults.strike("DescribeTasks", "ecs") is not None
    fake.fail("hang")
    fake.recover()
    fake.fail("hang")
    assert fake._faults.strike("metadata", "task") is not None


@pytest.mark.parametrize(("fault", "typo"), [({"kind": "thottle"}, "thottle"), ({"kind": "deny", "api": "elb"}, "elb")])
def test_a_fault_that_is_not_known_is_refused(fault, typo):
    """A typo would leave the test without the fault that it is about."""
    with pytest.raises(ValueError, match=f"'{typo}' is not one of "):
        FakeAWS().fail(**fault)


def shift(fake, clock, *, pair=False, pause=0.0, **times):
    """Begin a canary deployment of two tasks, let the new ones come up, and return it."""
    service = service_of(fake, 2)
    if pair:
        service.registrations[0].alternate = fake.add_target_group("green", delay=300)
        service.revisions[0].registrations = tuple(service.registrations)
    strategy = STRATEGIES["canary"].with_times(times.get("bake", 5), pause, is_network=False)
    going = fake.shift(service, strategy, start_up=30.0)
    run(fake, clock, 31)
    return going


def weights(going):
    """Return the part of the traffic that the old and the new revision get, as the API shows it."""
    record = going.deployment.record()
    both = (*record["sourceServiceRevisions"], record["targetServiceRevision"])
    return [each["requestedProductionTrafficWeight"] for each in both]


def test_a_canary_goes_through_its_stages(clock):
    """New tasks in the other group of the pair, 5 % for ten minutes, the bake time, and all old tasks together."""
    fake = FakeAWS(clock=clock)
    going = shift(fake, clock, pair=True)
    blue, green = fake.groups.values()
    assert [len(blue.listed()), len(green.listed())] == [2, 2]
    assert (going.deployment.stage, weights(going)) == ("PRODUCTION_TRAFFIC_SHIFT", [95.0, 5.0])
    run(fake, clock, 600)
    assert (going.deployment.stage, weights(going)) == ("BAKE_TIME", [0.0, 100.0])
    assert {each.last_status for each in going.old} == {"RUNNING"}
    run(fake, clock, 300)
    assert (going.deployment.stage, going.deployment.status) == ("CLEAN_UP", "IN_PROGRESS")
    assert {health.state for _, _, health in blue.described(())} == {"draining"}
    run(fake, clock, 301)
    assert going.deployment.status == "SUCCESSFUL"
    assert going.is_complete
    task = fake.add_task(going.service, register=False)
    assert task.started_by == going.deployment.target.started_by


def order(fake, going, action):
    """Return the answer to ContinueServiceDeployment."""
    (hook,) = going.deployment.record()["lifecycleHookDetails"]
    assert (hook["status"], hook["targetType"]) == ("AWAITING_ACTION", "PAUSE")
    request = {"serviceDeploymentArn": going.deployment.arn, "hookId": hook["hookId"], "action": action}
    return answer("ContinueServiceDeployment", request, fake.deployments, fake.services)


def test_a_pause_hook_holds_a_deployment_until_it_is_continued(clock):
    """However long the bake time is, it begins then; a hook that is not paused takes no order."""
    fake = FakeAWS(clock=clock)
    going = shift(fake, clock, pause=60)
    run(fake, clock, 600 + 1800)
    assert going.deployment.stage == "POST_PRODUCTION_TRAFFIC_SHIFT"
    assert order(fake, going, "CONTINUE") == {"serviceDeploymentArn": going.deployment.arn}
    with pytest.raises(ApiError, match="not awaiting"):
        answer(
            "ContinueServiceDeployment",
            {"serviceDeploymentArn": going.deployment.arn, "hookId": "hook-1"},
            fake.deployments,
            fake.services,
        )
    run(fake, clock, 10)
    assert going.deployment.stage == "BAKE_TIME"


@pytest.mark.parametrize("is_asked", [True, False])
def test_a_pause_hook_that_is_rolled_back_or_times_out(clock, is_asked):
    """The new tasks go, the old ones stay, and the traffic is theirs."""
    fake = FakeAWS(clock=clock)
    going = shift(fake, clock, pause=60)
    run(fake, clock, 700)
    if is_asked:
        order(fake, going, "ROLLBACK")
    run(fake, clock, 10 if is_asked else 3600, step=5.0)
    assert (going.deployment.status, weights(going)) == ("ROLLBACK_SUCCESSFUL", [100.0, 0.0])
    run(fake, clock, 400)
    assert {each.last_status for each in going.new} == {"STOPPED"}
    assert {each.last_status for each in going.old} == {"RUNNING"}
    assert going.is_over


@pytest.mark.parametrize("ends", [True, False])
def test_a_deactivated_task_is_stopped_by_itself(ends):
    """After the delay SIGTERM is due; the task ends with it, or by the stop timeout. Its version grows each time."""
    now, stopped, versions = [0.0], [], []
    fake = FakeAWS(clock=lambda: now[0])
    task, idle = (fake.add_task(fake.add_service(name, delay=30)) for name in ("web", "other"))
    fake.deactivate(task, on_stop=lambda each: stopped.append((now[0], each)) or ends)
    seen = {}
    for now[0] in (0.0, 29.0, 30.0, 31.0, 59.0, 60.0, 200.0):
        fake.advance()
        seen[now[0]] = task.last_status
        versions.append(task.record()["version"])
    between = "STOPPED" if ends else "STOPPING"
    assert list(seen.values()) == ["DEACTIVATING"] * 2 + [between] * 3 + ["STOPPED"] * 2
    assert stopped == [(30.0, task)]
    assert versions == sorted(versions)
    assert versions[0] > idle.record()["version"] == 3
    assert versions[-1] == versions[0] + 2


def test_a_task_that_was_put_back_is_not_stopped():
    """A test that sets its status again decides."""
    now = [0.0]
    fake = FakeAWS(clock=lambda: now[0])
    task = fake.add_task(fake.add_service("web", delay=30))
    fake.deactivate(task)
    task.last_status = task.desired_status = "RUNNING"
    now[0] = 100.0
    fake.advance()
    assert task.last_status == "RUNNING"
