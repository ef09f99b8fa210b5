"""Sessions, and the registry that knows them all."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Any

__all__ = ["ClosePolicy", "Outcome", "RegistryStatistics", "Session", "SessionRegistry"]


HOOK_TIMEOUT = 2.0
"""Seconds that the close hooks may take for one session."""


class Outcome(Enum):
    """How a session ended."""

    LEFT = "left"
    """By itself: the client or the application closed it."""
    SHED = "shed"
    """It was asked to leave, and left."""
    FORCED = "forced"
    """It was asked to leave and its application had to be cancelled after the grace."""


@dataclass(frozen=True, slots=True)
class ClosePolicy:
    """
    How sessions are asked to leave.

    Attributes:
        code: Close code for protocols that have one (RFC 6455 section 7.4; 1012 is Service Restart).
        grace: Seconds that a session has to be gone after its disconnect: in which the close must be sent, and after
            which the application is cancelled.
        reason: A few words for the client, at most 123 bytes of UTF-8 (RFC 6455 section 5.5.1).
    """

    code: int
    grace: float
    reason: str = "server draining"


OUTSIDE, HELD, LEAVING = -1, -2, -3
"""Where a session stands in its registry, in place of its position among those that wait."""


class Session:
    """
    One tracked long-lived connection.

    Each kind of connection is a subclass that knows how to close in its protocol.
    """

    __slots__ = (
        "_holds",
        "_position",
        "_registry",
        "active_at",
        "is_open",
        "opened_at",
        "path",
        "reconnect_after",
        "shed_at",
    )

    kind = "session"

    def __init__(self, path: str, opened_at: float) -> None:
        self.path = path
        self.opened_at = opened_at
        self.is_open = False
        """Whether the handshake is complete: a session in its handshake is tracked too, and shed like any other."""
        self.shed_at: float | None = None
        self.active_at = opened_at
        """When the last message passed, in seconds; kept up to date only where ``shed_first`` is ``"idle"``."""
        self.reconnect_after: float | None = None
        """Seconds after which the client should come back, once it is asked to leave."""
        self._registry: SessionRegistry | None = None
        self._position = OUTSIDE
        self._holds = 0

    @property
    def is_held(self) -> bool:
        """Whether the application holds it."""
        return self._holds > 0

    def begin_close(self, policy: ClosePolicy) -> None:
        """Begin to close, and return at once. Called once, on the event loop's thread."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class RegistryStatistics:
    """
    A registry at one moment.

    Attributes:
        open: All sessions in it: ``waiting + held + leaving``.
        waiting: Neither asked to leave nor held.
        held: In a `hold`.
        leaving: Asked to leave, not yet gone.
        opened: Ever added.
        closed: Ever discarded.
        working: Applications still at work after their connection ended; not counted above.
    """

    open: int
    waiting: int
    held: int
    leaving: int
    opened: int
    closed: int
    working: int = 0


class SessionRegistry:
    """
    All sessions of one process. Every operation but `rank` is O(1).

    Those that wait stand in a list, each knowing its position, so that a random one can be picked and any one removed
    by moving the last into its place.
    """

    def __init__(self) -> None:
        self._waiting: list[Session] = []
        self._ranked: list[Session] = []
        """Those to pick before all others, the first of them at the end; some may have gone meanwhile."""
        self._held: dict[Session, None] = {}
        self._leaving = 0
        self._opened = 0
        self._closed = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._held) + self._leaving

    @property
    def waiting(self) -> int:
        """How many may be picked now."""
        return len(self._waiting)

    @property
    def remaining(self) -> int:
        """How many have not been asked to leave."""
        return len(self._waiting) + len(self._held)

    def statistics(self, working: int = 0) -> RegistryStatistics:
        """Return the counts at this moment, beside those *working*, which are not in here."""
        return RegistryStatistics(
            open=len(self),
            waiting=len(self._waiting),
            held=len(self._held),
            leaving=self._leaving,
            opened=self._opened,
            closed=self._closed,
            working=working,
        )

    def add(self, session: Session) -> None:
        """Take in a new session."""
        if session._registry is not None:
            msg = f"{session!r} is in a registry already; add each session once"
            raise ValueError(msg)
        self._opened += 1
        session._registry = self
        if session._holds:
            self._stand_aside(session)
        else:  # as in `_stand_in_line`: for every connection
            session._position = len(self._waiting)
            self._waiting.append(session)

    def discard(self, session: Session) -> bool:
        """Forget a session that is over; return whether it was there, and not in another registry or none."""
        if session._registry is not self:
            return False
        if session._position >= 0:
            self._step_out_of_line(session)
        elif session._position == HELD:
            del self._held[session]
        else:
            self._leaving -= 1
        session._position = OUTSIDE
        session._registry = None
        self._closed += 1
        return True

    def open_before(self, moment: float) -> list[Session]:
        """Return the sessions that were asked for until *moment*, are open, and have not been asked to leave."""
        return [each for each in (*self._waiting, *self._held) if each.is_open and each.opened_at <= moment]

    def pick(self, rng: Random, *, even_held: bool = False) -> Session | None:
        """
        Return a session that has not been asked to leave, marked as leaving; ``None`` when there is none.

        Args:
            rng: The source of randomness.
            even_held: Whether those that are held may be picked too, once no other is left.
        """
        if self._waiting:
            session = self._first() or self._waiting[int(rng.random() * len(self._waiting))]
        elif even_held and self._held:
            session = next(iter(self._held))
        else:
            return None
        self.take(session)
        return session

    def take(self, session: Session) -> None:
        """Mark *session*, which has not been asked to leave, as leaving."""
        position = session._position if session._registry is self else OUTSIDE
        if position >= 0:
            self._step_out_of_line(session)
        elif position == HELD:
            del self._held[session]
        else:
            msg = f"{session!r} has gone or was asked to leave already; take each session once"
            raise ValueError(msg)
        session._position = LEAVING
        self._leaving += 1

    def hold(self, session: Session) -> None:
        """Do not pick this one for now. Holds nest."""
        session._holds += 1
        if session._position >= 0 and session._registry is self:
            self._step_out_of_line(session)
            self._stand_aside(session)

    def release(self, session: Session) -> None:
        """End one hold."""
        if session._holds == 0:
            msg = f"{session!r} is not held; release each hold once"
            raise ValueError(msg)
        session._holds -= 1
        if session._holds == 0 and session._position == HELD and session._registry is self:
            del self._held[session]
            self._stand_in_line(session)

    def rank(self, precedence: Callable[[Session], Any]) -> None:
        """
        Pick the sessions that are here now in this order, the smallest first.

        Those that come later, and those that are held when their turn comes, are picked at random after them.

        Raises:
            Exception: Whatever *precedence*, or comparing what it returns, raises; all are picked at random then.
        """
        self._ranked = []
        self._ranked = sorted((*self._waiting, *self._held), key=precedence, reverse=True)

    def unrank(self) -> None:
        """Pick at random again."""
        self._ranked = []

    def _first(self) -> Session | None:
        while self._ranked:
            session = self._ranked.pop()
            if session._position >= 0 and session._registry is self:
                return session
        return None

    def _stand_aside(self, session: Session) -> None:
        session._position = HELD
        self._held[session] = None

    def _stand_in_line(self, session: Session) -> None:
        session._position = len(self._waiting)
        self._waiting.append(session)

    def _step_out_of_line(self, session: Session) -> None:
        last = self._waiting.pop()
        if last is not session:
            self._waiting[session._position] = last
            last._position = session._position
