"""A process full of clients: ``python -m example_app.rollout.clients.fleet --url … --clients … --records …``."""

import argparse
import asyncio
from pathlib import Path
from random import Random

from example_app.limits import raise_file_limit
from example_app.rollout.clients.backoff import BEHAVIOURS
from example_app.rollout.clients.client import Client, Habits
from example_app.rollout.clients.records import Records
from example_app.rollout.clients.reports import report
from example_app.rollout.loops import listen_to_orders, run, say

__all__ = ["parse", "sail"]

AT_ONCE = 50
LOOK_BACK = 200
"""Of the last so many clients, not more than so many are connecting for the first time."""

LAST_LOOK = 1.0
"""Seconds that deaf clients read in the end."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the options; a load generator of another kind is given the same."""
    parser = argparse.ArgumentParser(description="Hold WebSockets open, and open them again when they end.")
    parser.add_argument("--url", required=True, help="where to connect; the client's number is appended")
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--first", type=int, default=0, help="number of the first client")
    parser.add_argument("--ramp", type=float, default=500.0, help="clients per second that connect at first")
    parser.add_argument("--records", type=Path, required=True, help="file to leave the records in")
    parser.add_argument("--reconnect", choices=BEHAVIOURS, default="phoenix")
    parser.add_argument("--honour-retry-after", action="store_true")
    parser.add_argument("--deaf", type=float, default=0.0, help="share of the clients that never read")
    return parser.parse_args(arguments)


async def sail(options: argparse.Namespace) -> None:
    """Hold the connections until the lab hangs up, then leave the records."""
    raise_file_limit()
    records = Records()
    rng = Random(options.first)
    habits = Habits(options.url, BEHAVIOURS[options.reconnect], options.honour_retry_after)
    clients = [
        Client(number, habits, records, Random(rng.random()), is_deaf=rng.random() < options.deaf)
        for number in range(options.first, options.first + options.clients)
    ]
    boarding = asyncio.create_task(_board(clients, options.ramp))
    reporting = asyncio.create_task(report(clients, records))
    await listen_to_orders(lambda _: None)
    boarding.cancel()
    reporting.cancel()
    for client in clients:
        client.look()
    if options.deaf:
        await asyncio.sleep(LAST_LOOK)
    records.losses += [loss for client in clients if (loss := client.loss)]
    for client in clients:
        client.stop()
    records.write(options.records)
    say(done=True)


async def _board(clients: list[Client], ramp: float) -> None:
    """Let the clients connect for the first time; a server that is slow gets them slowly."""
    for place, client in enumerate(clients):
        client.connect()
        await asyncio.sleep(1 / ramp)
        # A few of them may stay out; there is no one event to wait for.
        while sum(not each.is_open for each in clients[max(0, place - LOOK_BACK) : place + 1]) > AT_ONCE:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


if __name__ == "__main__":
    run(sail(parse()))
