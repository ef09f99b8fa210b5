"""
The same fleet out of the ``websockets`` package: ``python -m example_app.rollout.clients.stock``.

It takes the same options but two: it can be neither deaf nor patient (``--deaf``, ``--honour-retry-after``).
"""

import argparse
import asyncio
import math
import time
from random import Random

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from example_app.rollout.clients.backoff import BEHAVIOURS, Behaviour, Traits
from example_app.rollout.clients.fleet import parse
from example_app.rollout.clients.records import NO_CLOSE_FRAME, Loss, Records
from example_app.rollout.clients.reports import report
from example_app.rollout.loops import listen_to_orders, run, say

__all__ = ["StockClient", "noting"]


class StockClient:
    """One client, with a task and everything else that the package brings."""

    def __init__(self, number: int, behaviour: Behaviour, records: Records, kind: type[ClientConnection]) -> None:
        self.number = number
        self.is_open = False
        self.loss: tuple[float, int] | None = None
        self._behaviour = behaviour
        self._records = records
        self._kind = kind
        self._traits = Traits(Random(number))

    async def live(self, url: str, after: float) -> None:
        """Keep a connection for ever."""
        await asyncio.sleep(after)
        attempt = 0
        while True:
            try:
                async with connect(
                    f"{url}/{self.number}",
                    compression=None,
                    proxy=None,
                    open_timeout=self._behaviour.patience,
                    create_connection=self._kind,
                ) as websocket:
                    self._opened()
                    code = await _until_closed(websocket)
                self.is_open = False
                self.loss, attempt = (time.time(), code), 0
            except (OSError, TimeoutError, WebSocketException) as error:
                self._records.failures[type(error).__name__] += 1
            if math.isinf(wait := self._behaviour.wait(attempt, self._traits)):
                return
            await asyncio.sleep(wait)
            attempt += 1

    def _opened(self) -> None:
        now = time.time()
        self.is_open = True
        self._records.opened.append(now)
        if self.loss:
            self._records.losses.append(Loss(self.number, *self.loss, now))
            self.loss = None


def noting(records: Records) -> type[ClientConnection]:
    """Return a kind of connection that is remembered as soon as there is one, whatever comes of the handshake."""

    class Noted(ClientConnection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            records.connected.append(time.time())
            super().connection_made(transport)

    return Noted


async def _until_closed(websocket: ClientConnection) -> int:
    try:
        while True:
            await websocket.recv()
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else NO_CLOSE_FRAME


async def sail(options: argparse.Namespace) -> None:
    """Hold the connections until the lab hangs up, then leave the records."""
    records = Records()
    numbers = range(options.first, options.first + options.clients)
    kind = noting(records)
    clients = [StockClient(number, BEHAVIOURS[options.reconnect], records, kind) for number in numbers]
    lives = [
        asyncio.create_task(client.live(options.url, place / options.ramp)) for place, client in enumerate(clients)
    ]
    reporting = asyncio.create_task(report(clients, records))
    await listen_to_orders(lambda _: None)
    reporting.cancel()
    records.losses += [Loss(client.number, *client.loss, None) for client in clients if client.loss]
    records.write(options.records)
    say(done=True)
    for life in lives:
        life.cancel()


if __name__ == "__main__":
    run(sail(parse()))
