"""The main job: one line in the application, the environment of an ECS task, and a target that is deregistered."""

import asyncio
import time
from collections import Counter

import pytest
from server_process import REASON, TOKEN, ServerProcess, eventually
from websocket_clients import listeners

from starlette_drain.testing import FakeAWS

pytestmark = pytest.mark.anyio

DELAY = 20.0
ENVIRONMENT = {
    "DRAIN_ADMIN_TOKEN": TOKEN,
    "DRAIN_MARGIN": "5",
    "DRAIN_POLL_INTERVAL": "1",
    "DRAIN_GRACE": "1",
    "DRAIN_SIGTERM_WINDOW": "600",
}
WATCHED = "target-health"


def verdict(server: ServerProcess) -> str | None:
    """Return what the process knows of its only target."""
    groups = server.drain()[1]["triggers"][WATCHED]["target_groups"]
    return groups[0]["verdict"] if groups else None


async def known(server: ServerProcess, wanted: str) -> None:
    """Wait until the process knows this of its target."""
    await asyncio.to_thread(eventually, lambda: verdict(server) == wanted, f"its target is never {wanted}")


async def test_sessions_leave_evenly_before_the_delay_ends(serve):
    """Eighty sessions leave at an even pace, all with 1012, none is left at the deadline; SIGTERM then ends at once."""
    fake = FakeAWS()
    task = fake.add_task(fake.add_service("web", delay=DELAY, initial=2.0))
    with fake.serve() as aws:
        server = serve("one_line:app", env={**ENVIRONMENT, **aws.environment(task)})
        async with listeners([server.websocket("/ws")] * 80) as clients:
            await known(server, "serving")
            began = time.monotonic()
            fake.deregister(task)
            goodbyes = [await each.close_policy() for each in clients]
        _, shown = await asyncio.to_thread(server.drain, "GET", "?wait=30")
        told = time.monotonic()
        server.signal()
        await asyncio.to_thread(server.wait)
        ended = time.monotonic()

    assert Counter(each.words for each in goodbyes) == {(1012, REASON): 80}
    moments = sorted(each.at - began for each in goodbyes)
    assert moments[-1] < DELAY
    assert moments[-1] - moments[0] > 8, "they left in a hurry"
    quarter = (moments[-1] - moments[0]) / 4
    by_quarter = Counter(min(3, int((each - moments[0]) / quarter)) for each in moments)
    assert all(10 <= by_quarter[number] <= 32 for number in range(4)), by_quarter
    report = shown["report"]
    assert (report["shed"], report["forced"], report["still_open"]) == (80, 0, 0)
    assert [cause["trigger"] for cause in report["causes"]] == [WATCHED]
    assert ended - told < 20, "it waited out the SIGTERM window with nobody left"
    assert server.trouble == []


async def test_calls_that_fail_neither_start_a_drain_nor_stop_it(serve):
    """Throttled, refused, broken, silent, before and while it drains: no poll that fails has an effect."""
    fake = FakeAWS()
    task = fake.add_task(fake.add_service("web", delay=10.0))
    fake.fail("error", action="metadata", times=2)
    with fake.serve() as aws:
        server = serve("one_line:app", env={**ENVIRONMENT, **aws.environment(task)})
        async with listeners([server.websocket("/ws")] * 20) as clients:
            await known(server, "serving")
            for kind in ("throttle", "error", "hang", "deny"):
                fake.fail(kind, times=1)
            polled = fake.calls["DescribeTargetHealth"]
            many = polled + 7
            await asyncio.to_thread(eventually, lambda: fake.calls["DescribeTargetHealth"] >= many, "it gave up")
            await known(server, "serving")
            assert all(each.is_open for each in clients)
            assert (await asyncio.to_thread(server.drain))[1]["state"] == "serving"

            fake.deregister(task)
            begun = " starts, caused by target-health"
            await asyncio.to_thread(eventually, lambda: begun in server.log, "no drain began")
            fake.fail("error")
            goodbyes = [(await each.close_policy()).words for each in clients]
        _, shown = await asyncio.to_thread(server.drain, "GET", "?wait=30")

    assert goodbyes == [(1012, REASON)] * 20
    assert shown["state"] == "drained"
    assert len(shown["report"]["causes"]) == 1
    assert server.trouble == []


async def test_a_target_that_is_only_unhealthy_keeps_its_sessions(serve):
    """Unhealthy, unavailable, not in use: the balancer's trouble, and no deregistration."""
    fake = FakeAWS()
    service = fake.add_service("web", delay=DELAY)
    task = fake.add_task(service)
    group = service.registrations[0].group
    states = [("unhealthy", "Target.Timeout"), ("unavailable", "Elb.InternalError"), ("unused", "Target.NotInUse")]
    with fake.serve() as aws:
        server = serve("one_line:app", env={**ENVIRONMENT, **aws.environment(task)})
        async with listeners([server.websocket("/ws")] * 3) as clients:
            await known(server, "serving")
            for state, reason in states:
                group.show(task.addresses[0], state, reason)
                seen = fake.calls["DescribeTargetHealth"] + 2
                await asyncio.to_thread(eventually, lambda n=seen: fake.calls["DescribeTargetHealth"] >= n, "gave up")
            assert all(each.is_open for each in clients)
            assert (await asyncio.to_thread(server.drain))[1]["state"] == "serving"
    assert " starts, caused by " not in server.log


async def test_off_ecs_one_line_says_so_and_the_rest_works(serve):
    """A laptop: no target, no warning, and a drain by hand as everywhere."""
    server = serve("one_line:app", env={"DRAIN_ADMIN_TOKEN": TOKEN})
    async with listeners([server.websocket("/ws")] * 3) as clients:
        await asyncio.to_thread(server.drain, "POST", window=0.5)
        assert [(await each.close_policy()).words for each in clients] == [(1012, REASON)] * 3
    assert server.log.count("target-health (this is not an ECS task") == 1
    assert "WARNING" not in server.log
    assert server.trouble == []
