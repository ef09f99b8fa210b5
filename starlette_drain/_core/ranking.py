"""A queue whose ranks change while things stand in it."""

import heapq
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

__all__ = ["Ranking"]

LOOKS = 64
"""Members whose rank is looked at again, at most, to find the first: busy clients change their rank all the time."""

MemberT = TypeVar("MemberT")


class Ranking(Generic[MemberT]):
    """
    Tells who comes first, in O(log n). What the rank raises, `first` raises.

    Those who have gone are passed over. It is made anew when it has grown to twice what it needs.

    Args:
        rank: Returns something to compare members by, the smallest first.
        is_waiting: Tells whether a member has not gone.
    """

    def __init__(self, rank: Callable[[MemberT], Any], is_waiting: Callable[[MemberT], bool]) -> None:
        self._rank = rank
        self._is_waiting = is_waiting
        self._queue: list[tuple[Any, int, MemberT]] | None = None
        self._queued = 0

    def first(self, everybody: Sequence[MemberT]) -> MemberT:
        """Return who comes first of *everybody* who waits, of whom there is at least one."""
        queue, self._queue = self._queue, None  # should the rank fail, the next call makes it anew
        if queue is None:
            queue = [(self._rank(each), number, each) for number, each in enumerate(everybody)]
            heapq.heapify(queue)
        # A rank may have changed since it was queued: a message passed. So the first are looked at again, until one is
        # still before the next, or it has been enough.
        seen: list[tuple[Any, int, MemberT]] = []
        while queue and len(seen) < LOOKS and not (seen and seen[0][0] <= queue[0][0]):
            _, _, member = heapq.heappop(queue)
            if self._is_waiting(member):
                self._enqueue(seen, member)
        _, _, first = heapq.heappop(seen)
        for each in seen:
            heapq.heappush(queue, each)
        self._queue = queue
        return first

    def join(self, member: MemberT, number: int) -> None:
        """Let *member* stand in the queue too, now that *number* wait."""
        if self._queue is None:
            return
        if len(self._queue) > 2 * number + LOOKS:
            self._queue = None  # most of it has gone, or was held and stands there twice: the next call makes it anew
            return
        try:
            self._enqueue(self._queue, member)
        except Exception:  # noqa: BLE001 - whoever asks for the first meets the same error, and can do something about it
            self._queue = None

    def _enqueue(self, queue: list[tuple[Any, int, MemberT]], member: MemberT) -> None:
        self._queued += 1
        heapq.heappush(queue, (self._rank(member), -self._queued, member))
