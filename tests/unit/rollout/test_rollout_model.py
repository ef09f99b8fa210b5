"""One model of a deployment: what `plan` and the doctor work out is what FakeAWS and the rollout lab play."""

import asyncio

import pytest
from test_rollout_deployment import FakeHands, make_events

from starlette_drain.testing import FakeAWS
from starlette_drain.testing.fake_aws.strategy import STRATEGIES
from starlette_drain.tools.plan.deployment import Deployment

lab = pytest.importorskip("example_app.rollout.deployment", reason="the example is no part of the wheel")
times_module = pytest.importorskip("example_app.rollout.times")

pytestmark = pytest.mark.anyio

TASKS, DELAY, START_UP = 8, 300.0, 12.0
TIMES = times_module.Times(scale=1.0, ecs_delay=DELAY)


def shifting(name, bake=None, pause=0.0, *, is_network=False):
    """Return the plan of a strategy that shifts traffic."""
    strategy = STRATEGIES[name].with_times(bake, pause, is_network=is_network)
    return Deployment(TASKS, whole_fleet=True, start_up=START_UP), strategy


def rolling(least, most, next_after=None):
    """Return the plan of a rolling deployment."""
    return Deployment(TASKS, least, most, start_up=START_UP, next_after=next_after), STRATEGIES["rolling"]


PLANS = {
    "rolling": rolling(100, 200),
    "rolling in batches": rolling(100, 125),
    "rolling from below": rolling(50, 100),
    "three generations": rolling(100, 200, next_after=60.0),
    "three generations in batches": rolling(100, 150, next_after=100.0),
    "blue/green": shifting("blue-green", bake=10),
    "blue/green behind an NLB": shifting("blue-green", bake=10, is_network=True),
    "blue/green with a pause": shifting("blue-green", bake=5, pause=30),
    "linear": shifting("linear"),
    "canary": shifting("canary", bake=5),
    "canary of Express mode": shifting("express"),
}


@pytest.fixture(params=PLANS)
def planned(request):
    """Return a plan, its strategy, and when each task is taken out, in seconds since the first new one was started."""
    plan, strategy = PLANS[request.param]
    last = plan.leaving[-1].leaves_at
    moments = [
        plan.seconds - last + each.leaves_at + strategy.seconds for each in plan.leaving for _ in range(each.tasks)
    ]
    return plan, strategy, moments


def test_fake_aws_plays_what_is_planned(planned):
    """Each task is told to stop a delay after the moment at which the plan takes it out."""
    plan, strategy, moments = planned
    now = 0.0
    fake = FakeAWS(clock=lambda: now)
    service = fake.add_service("web", delay=DELAY)
    service.min_percent, service.max_percent = plan.min_percent, plan.max_percent
    for number in range(TASKS):
        fake.add_task(service, addresses=(f"10.1.0.{number}",))
    if strategy.is_shifting:
        going = [fake.shift(service, strategy, start_up=START_UP)]
        held = moments[0] - strategy.bake - 1.0
    else:
        going = [fake.roll(service, start_up=START_UP)]
    healthy = None
    while not all(each.is_over for each in going):
        now += 1.0
        fake.advance()
        assert now < 10_000
        if healthy is None and going[0].is_early_success:
            healthy = now
        if plan.next_after is not None and len(going) == 1 and healthy and now >= healthy + plan.next_after:
            going.append(fake.roll(service, start_up=START_UP))
        if strategy.pause and now >= held and (hook := going[0].deployment.hook):
            hook.status, hook.action = "SUCCEEDED", "CONTINUE"
    stopped = sorted(moment - DELAY for each in going for moment in each.stopped.values())
    assert stopped == pytest.approx(moments, abs=2.0)


async def test_the_lab_plays_what_is_planned(planned):
    """Each old task is deregistered at the moment of the plan, if a hook takes its whole time."""
    plan, strategy, moments = planned

    class Hands(FakeHands):
        async def pause(self, _old, seconds):
            await asyncio.sleep(seconds)

    hands = Hands()
    configuration = lab.Configuration(plan.min_percent, plan.max_percent, strategy=strategy, next_after=plan.next_after)
    await lab.deploy(hands.adopt(TASKS), hands, configuration, TIMES, make_events())
    assert [at for at, what, _ in hands.done if what == "deregister"] == pytest.approx(moments)
    assert [at - DELAY for at, what, _ in hands.done if what == "SIGTERM"] == pytest.approx(moments)
