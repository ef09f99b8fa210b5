"""ECS's order, in virtual time, with hands that only remember."""

import asyncio

import pytest

from starlette_drain.testing.fake_aws.strategy import STRATEGIES

deployment = pytest.importorskip("example_app.rollout.deployment", reason="the example is no part of the wheel")
events_module = pytest.importorskip("example_app.rollout.events")
times_module = pytest.importorskip("example_app.rollout.times")

pytestmark = pytest.mark.anyio

TIMES = times_module.Times(scale=1.0)


class FakeTask:
    """A task with a name."""

    def __init__(self, name):
        self.name = name


class FakeHands:
    """Remembers what was done, and when; a task is up after 2 s and healthy after 10 s."""

    def __init__(self, *, exits_after=1.0):
        self.done = []
        self.stages = []
        self.most = 0
        self._exits_after = exits_after
        self._running = 0
        self._number = 0
        self._zero = asyncio.get_running_loop().time()

    def adopt(self, count):
        """Return tasks that run already."""
        self._running += count
        self.most = self._running
        return [FakeTask(f"old-{number}") for number in range(1, count + 1)]

    def note(self, what, task):
        """Remember."""
        self.done.append((round(asyncio.get_running_loop().time() - self._zero, 3), what, task.name))

    async def start(self):
        """Start a task."""
        self._number += 1
        task = FakeTask(f"new-{self._number}")
        self._running += 1
        self.most = max(self.most, self._running)
        await asyncio.sleep(2.0)
        return task

    async def register(self, task):
        """Wait until it is healthy."""
        await asyncio.sleep(10.0)
        self.note("healthy", task)

    async def deregister(self, task):
        """It is DEACTIVATING from here on, and does not count."""
        self._running -= 1
        self.note("deregister", task)

    def terminate(self, task):
        """SIGTERM."""
        self.note("SIGTERM", task)

    async def cut(self, task):
        """The balancer's cut."""
        self.note("cut", task)

    async def exited(self, task, seconds):  # noqa: ARG002
        """Exit, or not in time."""
        await asyncio.sleep(min(seconds, self._exits_after))
        return self._exits_after <= seconds

    async def kill(self, task):
        """SIGKILL."""
        self.note("SIGKILL", task)

    async def begin_shift(self, strategy):
        """Remember nothing."""

    async def enter(self, stage, old):
        """Remember the stage, and what it means for new connections."""
        self.stages.append((stage.name, stage.percent, len(old)))

    async def pause(self, _old, seconds):
        """Let the deployment go on when half of the time is over."""
        await asyncio.sleep(seconds / 2)


def make_events():
    """Make a log on the loop's clock."""
    return events_module.Events(clock=asyncio.get_running_loop().time)


async def test_one_task_is_replaced_in_exactly_this_order():
    """New one healthy, old one deregistered, 300 s, SIGTERM, 8 s, the cut; it had ended before."""
    hands = FakeHands()
    new = await deployment.deploy(hands.adopt(1), hands, deployment.Configuration(), TIMES, make_events())
    assert hands.done == [
        (12.0, "healthy", "new-1"),
        (12.0, "deregister", "old-1"),
        (312.0, "SIGTERM", "old-1"),
        (320.0, "cut", "old-1"),
    ]
    assert [task.name for task in new] == ["new-1"]


async def test_a_task_that_does_not_exit_is_killed_after_its_stop_timeout():
    """SIGKILL comes 30 s after SIGTERM, long after the cut."""
    hands = FakeHands(exits_after=1000.0)
    await deployment.deploy(hands.adopt(1), hands, deployment.Configuration(), TIMES, make_events())
    assert hands.done[1:] == [
        (12.0, "deregister", "old-1"),
        (312.0, "SIGTERM", "old-1"),
        (320.0, "cut", "old-1"),
        (342.0, "SIGKILL", "old-1"),
    ]


async def test_with_the_usual_percentages_the_whole_fleet_drains_together():
    """100 and 200 percent: a second fleet comes up, then all old targets are deregistered in one moment."""
    hands = FakeHands()
    await deployment.deploy(hands.adopt(4), hands, deployment.Configuration(), TIMES, make_events())
    assert [at for at, what, _ in hands.done if what == "deregister"] == [12.0] * 4
    assert hands.most == 8


async def test_maximum_percent_bounds_the_tasks_that_run():
    """With 125 percent of eight never more than ten run, and two drain at a time."""
    hands = FakeHands()
    limits = deployment.Configuration(100, 125)
    new = await deployment.deploy(hands.adopt(8), hands, limits, TIMES, make_events())
    assert hands.most == 10
    assert [at for at, what, _ in hands.done if what == "deregister"] == [
        12.0,
        12.0,
        24.0,
        24.0,
        36.0,
        36.0,
        48.0,
        48.0,
    ]
    assert len(new) == 8


async def test_below_a_hundred_percent_old_tasks_go_first():
    """With 50 and 100 percent nothing can start before something has gone."""
    hands = FakeHands()
    limits = deployment.Configuration(50, 100)
    await deployment.deploy(hands.adopt(4), hands, limits, TIMES, make_events())
    assert hands.most == 4
    assert [what for _, what, _ in hands.done[:2]] == ["deregister", "deregister"]


async def test_in_turn_each_batch_ends_before_the_next_begins():
    """As somebody deploys who waits for the balancer."""
    hands = FakeHands()
    limits = deployment.Configuration(100, 150, in_turn=True)
    await deployment.deploy(hands.adopt(2), hands, limits, TIMES, make_events())
    assert [at for at, what, _ in hands.done if what == "deregister"] == [12.0, 332.0]


@pytest.mark.parametrize(
    ("limits", "remedy"),
    [
        ((100, 100), "raise the maximum or lower the minimum"),
        ((150, 200), "use a minimum from 0 to 100"),
        ((50, 99), "a maximum of at least 100"),
    ],
)
async def test_limits_that_let_nothing_happen_are_an_error(limits, remedy):
    """ECS would wait for ever and say so in the service's events."""
    hands = FakeHands()
    with pytest.raises(ValueError, match=remedy):
        await deployment.deploy(hands.adopt(2), hands, deployment.Configuration(*limits), TIMES, make_events())
    assert hands.done == []


async def test_a_canary_shifts_the_traffic_first():
    """5 % for ten minutes, all of it, a hook that lets it go on, the bake time; then all old tasks go together."""
    hands = FakeHands()
    strategy = STRATEGIES["canary"].with_times(bake=5, pause=30, is_network=False)
    configuration = deployment.Configuration(100, 100, strategy=strategy)
    events = make_events()
    new = await deployment.deploy(hands.adopt(2), hands, configuration, TIMES, events)
    assert hands.stages == [
        ("TEST_TRAFFIC_SHIFT", 0.0, 2),
        ("PRODUCTION_TRAFFIC_SHIFT", 5.0, 2),
        ("PRODUCTION_TRAFFIC_SHIFT", 100.0, 2),
        ("POST_PRODUCTION_TRAFFIC_SHIFT", 100.0, 2),
        ("BAKE_TIME", 100.0, 2),
    ]
    assert [at for at, what, _ in hands.done if what == "deregister"] == [12.0 + 600 + 900 + 300] * 2
    assert len(events.times("stage")) == 5
    assert len(new) == 2


async def test_the_next_deployment_begins_while_the_old_tasks_drain():
    """With early success criteria and deferred clean-up: one minute after the new tasks are healthy."""
    hands = FakeHands()
    new = await deployment.deploy(
        hands.adopt(2), hands, deployment.Configuration(next_after=60.0), TIMES, make_events()
    )
    gone = [(at, name) for at, what, name in hands.done if what == "deregister"]
    assert gone == [(12.0, "old-1"), (12.0, "old-2"), (84.0, "new-1"), (84.0, "new-2")]
    assert [task.name for task in new] == ["new-3", "new-4"]
