"""SIGTERM, with everything that may go wrong between it, the server and the application."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from server_process import REASON, TOKEN, ServerProcess, eventually
from websocket_clients import listeners

pytestmark = pytest.mark.anyio

STAND_IN = {"DRAIN_SIGTERM": "true", "DRAIN_SIGTERM_WINDOW": "2", "DRAIN_GRACE": "1"}
LONG = {**STAND_IN, "DRAIN_SIGTERM_WINDOW": "600"}
ON_ECS = {"ECS_CONTAINER_METADATA_URI_V4": "http://127.0.0.1:9/v4/nobody-there", "AWS_REGION": "eu-central-1"}
GUNICORN = (
    "-m",
    "gunicorn",
    "{app}",
    "--worker-class",
    "uvicorn_worker.UvicornWorker",
    "--workers",
    "2",
    "--bind",
    "127.0.0.1:{port}",
)
UVICORNS_OWN = (1012, "")
"""The close of a server that nobody stands in front of: no reason, all at once."""


async def stop(
    server: ServerProcess, *, sessions: int, number: signal.Signals = signal.SIGTERM
) -> tuple[list[tuple[int | None, str | None]], float, int]:
    """Send SIGTERM or another signal; return the goodbyes, the seconds from the first to the last, the exit status."""
    async with listeners([server.websocket("/ws")] * sessions) as clients:
        server.signal(number)
        goodbyes = [await each.close_policy() for each in clients]
    moments = [each.at for each in goodbyes]
    return [each.words for each in goodbyes], max(moments) - min(moments), await asyncio.to_thread(server.wait)


async def begun(server: ServerProcess) -> None:
    """Wait until the log says that a drain has begun."""
    await asyncio.to_thread(eventually, lambda: " starts, caused by " in server.log, "no drain began")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_sessions_leave_over_the_window_and_the_exit_is_as_without_us(serve, loop):
    """Twenty sessions leave one by one, not in one instant, and then the exit status is bare uvicorn's."""
    goodbyes, spread, status = await stop(serve("signals:app", "--loop", loop, env=STAND_IN), sessions=20)
    bare = serve("signals:app", "--loop", loop, env={"DRAIN_SIGTERM": "false"})
    bare_goodbyes, _, bare_status = await stop(bare, sessions=20)

    assert goodbyes == [(1012, REASON)] * 20
    assert spread > 1
    assert bare_goodbyes == [UVICORNS_OWN] * 20
    assert status == bare_status == -signal.SIGTERM


async def test_requests_are_answered_while_the_sessions_leave(serve):
    """The listener stays open until the signal is passed on: the balancer's last requests still find somebody."""
    server = serve("signals:app", env=LONG)
    async with listeners([server.websocket("/ws")] * 5):
        server.signal()
        await begun(server)
        assert await asyncio.to_thread(server.get, "/pid") == str(server.pid)


async def test_every_worker_sheds_its_own_sessions(serve):
    """With --workers 2 the parent's SIGTERM reaches both, all clients see 1012, and the exit is bare uvicorn's."""
    server = serve("signals:app", "--workers", "2", env=STAND_IN, workers=2)
    goodbyes, spread, status = await stop(server, sessions=40)
    bare = serve("signals:app", "--workers", "2", env={"DRAIN_SIGTERM": "false"}, workers=2)
    _, _, bare_status = await stop(bare, sessions=4)

    assert goodbyes == [(1012, REASON)] * 40
    assert spread > 1
    assert server.log.count(" starts, caused by ") == 2
    assert server.trouble == []
    assert status == bare_status


async def test_under_reload_it_sheds_where_it_is_told_to(serve):
    """With sigterm=True the reloader's SIGTERM is held like any other."""
    goodbyes, _, status = await stop(serve("signals:app", "--reload", env=STAND_IN), sessions=5)
    assert goodbyes == [(1012, REASON)] * 5
    assert status in (0, -signal.SIGTERM)


async def test_under_reload_a_developer_never_waits_for_a_window(serve, tmp_path):
    """Off ECS and unasked it stays out of the way: a changed file reloads at once, by uvicorn's own close."""
    watched = tmp_path / "watched"
    watched.mkdir()
    server = serve("signals:app", "--reload", "--reload-dir", str(watched), env={"DRAIN_SIGTERM_WINDOW": "600"})
    former = server.get("/pid")
    async with listeners([server.websocket("/ws")] * 3) as clients:
        (watched / "changed.py").write_text("")
        assert [(await each.close_policy()).words for each in clients] == [UVICORNS_OWN] * 3

    def is_new() -> bool:
        try:
            return server.get("/pid", timeout=2) != former
        except OSError:
            return False

    await asyncio.to_thread(eventually, is_new, "it was not reloaded")


async def test_a_second_sigterm_is_passed_on_at_once(serve):
    """Whoever cannot wait sends it twice, and the rest leave in one instant."""
    server = serve("signals:app", env=LONG)
    async with listeners([server.websocket("/ws")] * 5) as clients:
        server.signal()
        await begun(server)
        server.signal()
        goodbyes = [(await each.close_policy()).words for each in clients]
        status = await asyncio.to_thread(server.wait)
    assert {code for code, _ in goodbyes} == {1012}
    assert status == -signal.SIGTERM
    assert server.trouble == []


async def test_off_ecs_sigint_is_never_touched(serve):
    """Ctrl-C stops a server at once, with sessions open and a window of ten minutes."""
    server = serve("signals:app", env=LONG)
    async with listeners([server.websocket("/ws")] * 5) as clients:
        server.signal(signal.SIGINT)
        assert [(await each.close_policy()).words for each in clients] == [UVICORNS_OWN] * 5
        await asyncio.to_thread(server.wait)
    assert " starts, caused by " not in server.log


STOPSIGNAL_SIGINT = {**STAND_IN, **ON_ECS, "DRAIN_SIGTERM": "auto", "DRAIN_SOURCES": "none"}


@pytest.mark.parametrize("workers", [1, 3])
async def test_on_ecs_sigint_is_held_like_sigterm(serve, workers):
    """An image may say STOPSIGNAL SIGINT: the sessions leave over the window, and the exit is bare uvicorn's."""
    arguments = ("--workers", str(workers)) if workers > 1 else ()
    server = serve("signals:app", *arguments, env=STOPSIGNAL_SIGINT, workers=workers)
    goodbyes, spread, status = await stop(server, sessions=30, number=signal.SIGINT)
    bare = serve("signals:app", *arguments, env={"DRAIN_SIGTERM": "false"}, workers=workers)
    _, _, bare_status = await stop(bare, sessions=3, number=signal.SIGINT)
    assert goodbyes == [(1012, REASON)] * 30
    assert spread > 1
    assert status == bare_status
    assert server.trouble == []


async def test_on_ecs_a_second_sigint_is_passed_on_at_once(serve):
    """Whoever cannot wait sends it twice."""
    server = serve("signals:app", env={**STOPSIGNAL_SIGINT, "DRAIN_SIGTERM_WINDOW": "600"})
    async with listeners([server.websocket("/ws")] * 5) as clients:
        server.signal(signal.SIGINT)
        await begun(server)
        server.signal(signal.SIGINT)
        goodbyes = [(await each.close_policy()).words for each in clients]
        await asyncio.to_thread(server.wait)
    assert {code for code, _ in goodbyes} == {1012}
    assert server.trouble == []


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_handler_that_takes_our_place_is_noticed(serve, loop):
    """loop.add_signal_handler after the startup puts ours out of action: a warning names the remedy."""
    server = serve("signals:app", "--loop", loop, env={**STAND_IN, "APP_HANDLER": "after"})
    notice = "another SIGTERM handler has replaced ours"
    await asyncio.to_thread(eventually, lambda: notice in server.log, "nobody noticed")
    assert "WARNING:starlette_drain:" in next(line for line in server.log.splitlines() if notice in line)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_before_a_handler_that_is_not_uvicorns_it_stands_down(serve, loop):
    """loop.add_signal_handler in the application's startup is left alone on ECS, and one line says so."""
    server = serve(
        "signals:app", "--loop", loop, env={**STAND_IN, **ON_ECS, "DRAIN_SIGTERM": "auto", "APP_HANDLER": "before"}
    )
    line = "sigterm (the SIGTERM handler is not uvicorn's"
    await asyncio.to_thread(eventually, lambda: line in server.log, "it did not stand down")
    server.signal()
    own = "the application's own handler"
    await asyncio.to_thread(eventually, lambda: own in server.log, "the application's handler was lost")


@pytest.mark.parametrize(("accept", "cut"), [("text/event-stream", 0), ("*/*", 6)])
@pytest.mark.parametrize("workers", [1, 2])
async def test_open_event_streams_of_sse_starlette_do_not_keep_it_alive(serve, workers, accept, cut):
    """
    sse-starlette finds uvicorn through our handler (its __self__), so that streams end and the process exits.

    Sessions have left by then. Answers are cut by sse-starlette, as without us, for which uvicorn logs one error each.
    """
    server = serve("signals:app", "--workers", str(workers), env=STAND_IN, workers=workers)
    streams = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(6)]
    for reader, writer in streams:
        head = f"GET /stream HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAccept: {accept}\r\n\r\n"
        writer.write(head.encode())
        assert b" 200 " in await reader.readuntil(b"tick")
    goodbyes, _, status = await stop(server, sessions=3)
    for _, writer in streams:
        writer.close()
        await writer.wait_closed()
    assert goodbyes == [(1012, REASON)] * 3
    assert status in (0, -signal.SIGTERM)
    assert len(server.trouble) == cut


async def test_telemetry_is_sent_before_the_signal_is_passed_on(serve, tmp_path):
    """Uvicorn ends by the signal itself and atexit is never called: the spans of the drain have left before."""
    spans = tmp_path / "spans"
    server = serve("signals:app", env={**STAND_IN, "APP_SPANS": str(spans)})
    await stop(server, sessions=3)
    assert "atexit was called" not in server.log
    assert "drain" in spans.read_text().splitlines()


async def test_in_a_thread_it_stands_down_and_everything_else_works(serve):
    """Signals arrive in the main thread only: no handler, one line, and a drain by hand as ever."""
    command = (str(Path(__file__).parent / "apps" / "in_thread.py"), "{port}")
    server = serve("", command=command, env={**STAND_IN, "DRAIN_ADMIN_TOKEN": TOKEN})
    line = "sigterm (the event loop is not in the main thread"
    await asyncio.to_thread(eventually, lambda: line in server.log, "it did not say why")
    async with listeners([server.websocket("/uncaught")] * 5) as clients:
        await asyncio.to_thread(server.drain, "POST", window=0.5)
        assert [(await each.close_policy()).words for each in clients] == [(1012, REASON)] * 5
    server.signal()
    assert await asyncio.to_thread(server.wait) == 0
    assert server.trouble == []


async def test_gunicorn_with_uvicorn_workers_sheds_as_uvicorn_does(serve):
    """Gunicorn passes SIGTERM to its workers, whose handler is uvicorn's, and waits for them."""
    server = serve("signals:app", command=GUNICORN, env=STAND_IN, workers=2)
    goodbyes, spread, status = await stop(server, sessions=40)
    assert goodbyes == [(1012, REASON)] * 40
    assert spread > 1
    assert status == 0
    assert "Traceback" not in server.log


async def test_a_gunicorn_worker_on_ecs_holds_sigint_too(serve):
    """A worker whose handler is uvicorn's holds what uvicorn takes for a stop signal."""
    server = serve("signals:app", command=GUNICORN, env=STOPSIGNAL_SIGINT, workers=2)
    async with listeners([server.websocket("/ws")] * 20) as clients:
        for pid in server.pids:
            os.kill(pid, signal.SIGINT)
        goodbyes = [(await each.close_policy()).words for each in clients]
    assert goodbyes == [(1012, REASON)] * 20
