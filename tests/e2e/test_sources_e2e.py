"""Every source drains the running example server end to end: its environment, FakeAWS on a socket, real devices."""

import asyncio
import time
from collections import Counter

import pytest
from server_process import TOKEN, eventually
from websocket_clients import listeners

from starlette_drain.testing import FakeAWS

pytestmark = pytest.mark.anyio

DEVICES = 30
DELAY = 20.0
ENVIRONMENT = {
    "DRAIN_ADMIN_TOKEN": TOKEN,
    "DRAIN_MARGIN": "5",
    "DRAIN_POLL_INTERVAL": "1",
    "DRAIN_GRACE": "1",
}


@pytest.fixture
def fake():
    """Return a FakeAWS with one task of a service."""
    fake = FakeAWS()
    fake.add_task(fake.add_service("streams", delay=DELAY))
    return fake


@pytest.fixture
def start(serve, fake):
    """Start the example server as the task of the FakeAWS, with further variables."""
    with fake.serve() as aws:

        def start(app="example:app", *arguments, workers=1, **env):
            return serve(app, *arguments, env=ENVIRONMENT | aws.environment(fake.tasks[0]) | env, workers=workers)

        yield start


def devices_of(server, count=DEVICES):
    """Return the addresses of so many devices."""
    return [server.websocket(f"/devices/{number}") for number in range(count)]


async def shown(server, path, wanted):
    """Wait until ``GET /drain`` shows *wanted* under the names in *path*."""

    def is_so():
        value = server.drain()[1]
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        return value == wanted

    await asyncio.to_thread(eventually, is_so, f"{path} is never {wanted!r}")


async def gone(clients):
    """Wait until every device was said goodbye to with 1012; return over how many seconds that spread."""
    goodbyes = [await each.close_policy() for each in clients]
    assert Counter(each.code for each in goodbyes) == {1012: len(clients)}
    moments = sorted(each.at for each in goodbyes)
    return moments[-1] - moments[0]


def causes(server):
    """Return the names of those who asked for the drain that is over."""
    return [each["trigger"] for each in server.drain()[1]["report"]["causes"]]


async def test_task_state(fake, start):
    """DEACTIVATING, and nothing else, lets the devices leave evenly within the deregistration delay."""
    server = start(DRAIN_SOURCES="task-state")
    async with listeners(devices_of(server)) as clients:
        await shown(server, "triggers.task-state.verdict", "serving")
        await shown(server, "triggers.task-state.delay", DELAY)
        began = time.monotonic()
        fake.tasks[0].last_status, fake.tasks[0].desired_status = "DEACTIVATING", "STOPPED"
        assert await gone(clients) > 6
        assert time.monotonic() - began < DELAY
        assert causes(server) == ["task-state"]
    assert server.trouble == []


async def test_target_health_and_task_state_together(fake, start):
    """Two sources, one drain: whichever sees it first begins it, and the other joins."""
    server = start(DRAIN_SOURCES="target-health,task-state")
    async with listeners(devices_of(server)) as clients:
        await shown(server, "triggers.task-state.verdict", "serving")
        await shown(server, "triggers.target-health.state", "watching")
        fake.deactivate(fake.tasks[0])
        await gone(clients)
        assert sorted(causes(server)) == ["target-health", "task-state"]


async def test_service_deployment(fake, start):
    """The traffic goes to another revision: the devices leave over the bake time; a rollback serves again."""
    server = start(DRAIN_SOURCES="service-deployment", DRAIN_WINDOW="12", DRAIN_POLL_INTERVAL="1")
    service = fake.services[0]
    going = fake.deploy(service, bake=10)
    async with listeners(devices_of(server)) as clients:
        await shown(server, "triggers.service-deployment.verdict", "serving")
        going.stage = "POST_PRODUCTION_TRAFFIC_SHIFT"
        await shown(server, "state", "draining")
        going.status = "ROLLBACK_IN_PROGRESS"
        await shown(server, "state", "serving")
        assert any(each.is_open for each in clients)
    going.status = "ROLLBACK_SUCCESSFUL"
    again = fake.deploy(service, bake=10)
    again.source = going.source
    async with listeners(devices_of(server)) as clients:
        again.stage = "BAKE_TIME"
        assert await gone(clients) > 6
        assert causes(server) == ["service-deployment"]
    assert server.trouble == []


async def test_self_registration(fake, start):
    """The task registers itself; a drain by hand takes it out and ends before the balancer cuts; cancel undoes it."""
    group = fake.add_target_group("own", delay=DELAY)

    def states():
        return [group.health(each).state for each in group.listed()]

    server = start(DRAIN_SOURCES="none", DRAIN_SELF_REGISTRATION="1", DRAIN_TARGET_GROUP_ARN=group.arn)
    await asyncio.to_thread(eventually, lambda: states() == ["healthy"], "it does not register")
    await asyncio.to_thread(server.drain, "POST", window=600)
    await asyncio.to_thread(eventually, lambda: states() == ["draining"], "it does not deregister")
    await asyncio.to_thread(server.drain, "DELETE")
    await asyncio.to_thread(eventually, lambda: states() == ["healthy"], "it does not register again")
    async with listeners(devices_of(server)) as clients:
        began = time.monotonic()
        await asyncio.to_thread(server.drain, "POST", window=600)
        assert await gone(clients) > 6
        assert time.monotonic() - began < DELAY
        assert causes(server) == ["manual", "self-registration"]
        assert states() == ["draining"]
    await asyncio.to_thread(server.drain, "DELETE")
    await asyncio.to_thread(eventually, lambda: states() == ["healthy"], "it does not register again")
    server.signal()
    await asyncio.to_thread(server.wait)
    assert states() == ["draining"], "SIGTERM takes it out before the process ends"


async def test_self_registration_of_several_workers(fake, start, tmp_path):
    """SIGTERM to the supervisor ends all workers of a task that ECS wants to run: the last one takes the task out."""
    group = fake.add_target_group("own", delay=DELAY)

    def states():
        return [group.health(each).state for each in group.listed()]

    env = {"DRAIN_SOURCES": "none", "DRAIN_SELF_REGISTRATION": "1", "DRAIN_TARGET_GROUP_ARN": group.arn}
    server = start("example:app", "--workers", "2", workers=2, TMPDIR=str(tmp_path), **env)
    await asyncio.to_thread(eventually, lambda: states() == ["healthy"], "it does not register")
    server.signal()
    await asyncio.to_thread(server.wait)
    assert states() == ["draining"]


async def test_deregistering_a_task_that_ecs_registered(fake, start):
    """With DRAIN_SELF_REGISTRATION=deregister a drain by hand takes out the target that ECS registered."""
    group = fake.services[0].registrations[0].group
    server = start(DRAIN_SELF_REGISTRATION="deregister")
    await shown(server, "triggers.self-registration.state", "watching")
    assert fake.calls["RegisterTargets"] == 0
    async with listeners(devices_of(server)) as clients:
        await asyncio.to_thread(server.drain, "POST")
        await gone(clients)
    assert [group.health(each).state for each in group.listed()] == ["draining"]
    assert "self-registration" in causes(server)


async def test_task_protection(fake, start, tmp_path):
    """A drain by hand is protected from its beginning to its end; a process that ends gives protection back."""
    task = fake.tasks[0]
    server = start("protected:app", TMPDIR=str(tmp_path))
    async with listeners(devices_of(server)) as clients:
        await shown(server, "triggers.task-protection.state", "watching")
        await asyncio.to_thread(server.drain, "POST", window=5)
        await asyncio.to_thread(eventually, lambda: task.protected_until is not None, "it is not protected")
        await gone(clients)
        await asyncio.to_thread(eventually, lambda: task.protected_until is None, "protection is not given back")
    await asyncio.to_thread(server.drain, "DELETE")
    async with listeners(devices_of(server, 45)):
        await asyncio.to_thread(eventually, lambda: task.protected_until is not None, "it is not protected")
        server.signal()
        await asyncio.to_thread(eventually, lambda: task.protected_until is None, "protection is not given back")
        server.signal()
        await asyncio.to_thread(server.wait)
    assert task.protected_until is None
