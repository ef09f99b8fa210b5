"""Connections that end by themselves: counted, and cancelled at the deadline only where asked."""

import asyncio

import pytest
from worker_crowd import Guest

from starlette_drain import Drain, DrainCause
from starlette_drain._engine.answers import Transfers

pytestmark = pytest.mark.anyio


class Download:
    """A transfer that notes when it was cut."""

    def __init__(self) -> None:
        self.aborted_at = None

    def abort(self):
        """Be cut."""
        self.aborted_at = asyncio.get_running_loop().time()


def make(**options):
    """Return a running drain, and one transfer under way in it."""
    drain = Drain(triggers=[], observers=[], **options)
    drain.equip(triggers=tuple, observers=tuple)
    drain.begin()
    download = Download()
    drain.transfers.began(download)
    return drain, download


async def test_they_are_counted_from_begin_to_end():
    """Ending twice does no harm."""
    transfers, download = Transfers(cancels=False), Download()
    transfers.began(download)
    assert len(transfers) == 1
    transfers.ended(download)
    transfers.ended(download)
    assert len(transfers) == 0


async def test_by_default_they_are_left_alone():
    """A download that takes longer than the window is not cut by us."""
    drain, download = make()
    await drain.start(window=10)
    await asyncio.sleep(100)
    assert download.aborted_at is None


async def test_they_are_cut_at_the_deadline_where_asked_and_not_before():
    """Although the drain itself is over at once, for there is no session."""
    drain, download = make(cancel_transfers=True)
    at = drain.time()
    await drain.start(window=10)
    await asyncio.sleep(20)
    assert download.aborted_at == at + 10


async def test_whoever_has_ended_is_not_cut():
    """The deadline is for those who are still there."""
    drain, download = make(cancel_transfers=True)
    await drain.start(window=10)
    drain.transfers.ended(download)
    await asyncio.sleep(20)
    assert download.aborted_at is None


async def test_a_drain_taken_back_cuts_nobody(caplog):
    """Cancelled is cancelled, and the next drain finds the transfers counted as before."""
    drain, download = make(cancel_transfers=True)
    await drain.start(window=10)
    await drain.cancel()
    await asyncio.sleep(20)
    assert download.aborted_at is None
    assert caplog.records == []
    at = drain.time()
    await drain.start(window=10)
    await asyncio.sleep(20)
    assert download.aborted_at == at + 10


async def test_a_deadline_brought_forward_is_theirs_too():
    """SIGTERM during a long drain shortens it for transfers as well, while sessions are still there."""
    drain, download = make(cancel_transfers=True)
    drain.enter(Guest(drain))
    at = drain.time()
    await drain.start(window=100)
    drain.request(DrainCause("sigterm", "told to stop", drain.time(), drain.time() + 5, revocable=False))
    await asyncio.sleep(20)
    assert download.aborted_at == at + 5


async def test_a_deadline_brought_forward_when_drained_is_theirs_too():
    """A long drain of no session is over at once; SIGTERM cuts its downloads in its own window all the same."""
    drain, download = make(cancel_transfers=True)
    await drain.start(window=280)
    await asyncio.sleep(10)
    at = drain.time()
    drain.request(DrainCause("sigterm", "told to stop", at, at + 6, revocable=False))
    await asyncio.sleep(300)
    assert download.aborted_at == at + 6


async def test_a_drain_that_has_ended_cuts_nobody_of_its_next_life():
    """A new life on the same event loop serves; the deadline of the former one is forgotten."""
    drain, download = make(cancel_transfers=True)
    await drain.start(window=100)
    await drain.end()
    drain.begin()
    await asyncio.sleep(200)
    assert download.aborted_at is None
    await drain.end()
