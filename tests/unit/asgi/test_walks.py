"""
Two of the four walks of docs/contributing.md, held to the code: what a reader follows from one event to its effect.

A page's walk is a numbered list of files and functions. The functions that stand on the stack at the way's turning
points (sys.setprofile sees them) must all be in it, each of its steps must really be taken, in that order, and it must
not grow longer than stated.
"""

import asyncio
import signal
from random import Random

import pytest
from hand_server import ACCEPT, CLOSE, HandServer, settle
from walks import walking

from starlette_drain import Drain, DrainMiddleware
from starlette_drain.triggers.sigterm import SigtermTrigger

pytestmark = pytest.mark.anyio


class Turning(HandServer):
    """A server that notes the way at which accept and close reach it."""

    walk = None

    async def send(self, message):
        """Note how it got here."""
        if self.walk and message in (ACCEPT, CLOSE):
            self.walk.turn()
        await super().send(message)


async def app(scope, receive, send):
    """Accept, and wait for the end."""
    await receive()
    await send(ACCEPT)
    await receive()


async def test_from_accept_to_close():
    """From the accept of a WebSocket to its close in a drain a reader follows at most 15 calls."""
    drain = Drain(triggers=[], observers=[], rng=Random(7))
    server = Turning(DrainMiddleware(app, drain=drain), connected=True)
    with walking() as server.walk:
        await settle()
        await drain.start(window=1)
        while CLOSE not in server.sent:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    server.walk.holds("From a WebSocket's accept to its close", 15)


async def test_from_sigterm_to_the_servers_handler():
    """From SIGTERM to the handler that the server installed a reader follows at most 10 calls."""
    heard = []
    walk = None

    def servers(signum, frame):
        heard.append(signum)
        walk.turn()

    former = signal.signal(signal.SIGTERM, servers)
    try:
        drain = Drain(triggers=[SigtermTrigger()], observers=[], sigterm=True)
        async with drain.run():
            await settle()
            with walking() as walk:
                signal.raise_signal(signal.SIGTERM)
                while not heard:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
    finally:
        signal.signal(signal.SIGTERM, former)
    walk.holds("From SIGTERM to the server's handler", 10)
