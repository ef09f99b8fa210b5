"""The orders of a task, as one of its workers obeys and gives them: each once, and all workers in the same order."""

from contextlib import suppress
from dataclasses import replace

from starlette_drain._core.cause import DrainCause
from starlette_drain._engine.drain import Drain
from starlette_drain._workers.command import Order
from starlette_drain._workers.shared_directory import SharedDirectory
from starlette_drain.exceptions import IllegalTransition

__all__ = ["CommandLog"]


class CommandLog:
    """
    Obeys the orders of the others, and gives those of this worker.

    Args:
        drain: The drain of this worker.
    """

    def __init__(self, drain: Drain) -> None:
        self._drain = drain
        self.obeyed = 0
        """The number of the last order obeyed."""
        self.is_obeying = False
        """Whether what the drain does now was ordered, so that nobody need be told."""
        self._unsaid: list[DrainCause | None] = []

    def begin(self, place: SharedDirectory) -> None:
        """Begin with the drain that stands: what was taken back before this worker came is no news to it."""
        self.obeyed = max((order.number for order in place.read_orders(0) if order.cause is None), default=0)

    def obey(self, place: SharedDirectory) -> None:
        """Obey what is new."""
        for order in place.read_orders(self.obeyed):
            self.obeyed = order.number
            self.is_obeying = True
            try:
                self._follow(order)
            finally:
                self.is_obeying = False

    def keep(self, cause: DrainCause | None) -> None:
        """Keep an order until it can be given: a *cause* to drain, or ``None`` to take that back."""
        self._unsaid.append(cause)

    def give(self, place: SharedDirectory) -> None:
        """Give the orders kept."""
        while self._unsaid:
            # Where somebody has cleared up the place, its numbers begin again, and those obeyed before are no news.
            order = Order(max(place.last_number(), self.obeyed) + 1, self._unsaid[0])
            while not place.write_order(order):  # somebody else has given that number in the same moment
                order = replace(order, number=order.number + 1)
            del self._unsaid[0]
            # Where others have given orders meanwhile, this one is obeyed in its turn like theirs.
            if order.number == self.obeyed + 1:
                self.obeyed = order.number

    def _follow(self, order: Order) -> None:
        if order.cause is not None:
            self._drain.request(order.cause)
        else:
            with suppress(IllegalTransition):  # where it does not drain, or has been told to stop: nothing to take back
                self._drain.withdraw()
