"""What a process full of clients tells the lab, all the time."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from example_app.rollout.clients.records import Records
from example_app.rollout.loops import say

__all__ = ["report"]

REPORT_EVERY = 0.5


class HasConnection(Protocol):
    """A client, of whatever kind."""

    @property
    def is_open(self) -> bool: ...


async def report(clients: Sequence[HasConnection], records: Records) -> None:
    """Say how many have a connection, and how many were established so far, until cancelled."""
    while True:
        say(open=sum(client.is_open for client in clients), opened=len(records.opened))
        await asyncio.sleep(REPORT_EVERY)
