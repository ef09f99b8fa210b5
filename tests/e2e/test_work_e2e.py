"""What applications do after the end of their connections, on a real uvicorn: no drain cuts it short."""

import asyncio

import pytest
from server_process import TOKEN, eventually
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

pytestmark = pytest.mark.anyio

WORK = ("closes", "client", "drain", "denies")


@pytest.mark.parametrize("implementation", ["websockets-sansio", "wsproto", "websockets"])
async def test_work_after_the_end_is_counted_waited_for_and_never_cancelled(serve, implementation):
    """Whoever has ended a connection: all is saved, none of it is a session, and only then does the process end."""
    environment = {"DRAIN_ADMIN_TOKEN": TOKEN, "DRAIN_GRACE": "1", "DRAIN_EXIT_WHEN_DRAINED": "true"}
    server = serve("at_work:wrapped", "--ws", implementation, env=environment)

    def address(path):
        return connect(server.websocket(path), proxy=None)

    async with address("/left/drain") as last:
        with pytest.raises(InvalidStatus):
            async with address("/denies"):
                pass
        async with address("/left/client"):
            pass
        async with address("/closes") as closed:
            await closed.send("bye")
            with pytest.raises(ConnectionClosed):
                await closed.recv()

        def working():
            return server.drain()[1]

        await asyncio.to_thread(eventually, lambda: working()["working"] == 3, "not all are at work")
        assert working()["sessions"]["open"] == 1
        await asyncio.to_thread(server.drain, "POST", window=0)
        with pytest.raises(ConnectionClosed):
            await last.recv()
        assert last.close_code == 1012

    await asyncio.to_thread(eventually, lambda: working()["working"] == 4, "the last is not at work")
    shown = working()
    assert shown["state"] == "drained"
    assert (shown["report"]["shed"], shown["report"]["forced"], shown["report"]["still_open"]) == (1, 0, 0)
    await asyncio.to_thread(server.wait)
    assert sorted(line for line in server.log.splitlines() if line.startswith(("SAVED", "LOST"))) == [
        f"SAVED {name}" for name in sorted(WORK)
    ]
    assert server.trouble == []
