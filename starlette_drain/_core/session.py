"""Sessions, and the registry of all sessions of a process."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Any

__all__ = ["ClosePolicy", "Outcome", "RegistryStatistics", "Session", "SessionRegistry"]


HOOK_TIMEOUT = 2.0
"""Seconds that all close hooks together may take for one session."""


class Outcome(Enum):
    """How a session ended."""

    LEFT = "left"
    """The client or the application closed it, without being asked."""
    SHED = "shed"
    """It was asked to leave, and left."""
    FORCED = "forced"
    """It was asked to leave, and its application had to be cancelled after the grace."""


@dataclass(frozen=True, slots=True)
class ClosePolicy:
    """
    How sessions are asked to leave.

    Attributes:
        code: The close code, for protocols that have one (RFC 6455 section 7.4; 1012 is Service Restart).
        grace: Seconds after the disconnect in which the close must be sent, and after which the application is
            cancelled.
        reason: The close reason, at most 123 bytes of UTF-8 (RFC 6455 section 5.5.1).
    """

    code: int
    grace: float
    reason: str = "server draining"


OUTSIDE, HELD, LEAVING = -1, -2, -3
"""The position of a session that is not in the registry's list of those that may be picked."""


class Session:
    """
    One tracked long-lived connection.

    Each kind of connection has a subclass that closes it in its protocol.
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
        """Whether the handshake is complete. Sessions are tracked, and shed, from the start of their handshake."""
        self.shed_at: float | None = None
        self.active_at = opened_at
        """When the last message passed, in seconds; updated only if ``shed_first`` is ``"idle"``."""
        self.reconnect_after: float | None = None
        """Seconds after which the client should reconnect; set when the session is asked to leave."""
        self._registry: SessionRegistry | None = None
        self._position = OUTSIDE
        self._holds = 0

    @property
    def is_held(self) -> bool:
        """Whether the application is inside a `hold`."""
        return self._holds > 0

    def begin_close(self, policy: ClosePolicy) -> None:
        """Begin to close, without blocking. Called once, on the event loop's thread."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class RegistryStatistics:
    """
    The number of sessions in each state, at one moment.

    Attributes:
        open: All sessions: ``waiting + held + leaving``.
        waiting: Sessions neither asked to leave nor held.
        held: Sessions in a `hold`, not asked to leave.
        leaving: Sessions asked to leave but not gone yet.
        opened: Sessions added since the start.
        closed: Sessions discarded since the start.
        working: Applications still running after their connection has ended; not counted in the others.
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
    All sessions of one process. Every operation except `rank` and `open_before` is O(1).

    Sessions that may be picked are in a list, and each knows its position: a random one can be picked, and any one can
    be removed by moving the last into its place.
    """

    def __init__(self) -> None:
        self._waiting: list[Session] = []
        self._ranked: list[Session] = []
        """The sessions to pick first, in reverse order; some may have gone since."""
        self._held: dict[Session, None] = {}
        self._leaving = 0
        self._opened = 0
        self._closed = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._held) + self._leaving

    @property
    def waiting(self) -> int:
        """The number of sessions that may be picked now."""
        return len(self._waiting)

    @property
    def remaining(self) -> int:
        """The number of sessions that have not been asked to leave."""
        return len(self._waiting) + len(self._held)

    def statistics(self, working: int = 0) -> RegistryStatistics:
        """Return the current counts; *working* is passed through, since those are not in the registry."""
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
        """
        Add a new session.

        Raises:
            ValueError: If it is in a registry already.
        """
        if session._registry is not None:
            msg = f"{session!r} is in a registry already; add each session once"
            raise ValueError(msg)
        self._opened += 1
        session._registry = self
        if session._holds:
            self._set_aside(session)
        else:  # `_enqueue`, inlined: this runs for every connection
            session._position = len(self._waiting)
            self._waiting.append(session)

    def discard(self, session: Session) -> bool:
        """Remove a session that is over; return whether it was in this registry."""
        if session._registry is not self:
            return False
        if session._position >= 0:
            self._dequeue(session)
        elif session._position == HELD:
            del self._held[session]
        else:
            self._leaving -= 1
        session._position = OUTSIDE
        session._registry = None
        self._closed += 1
        return True

    def open_before(self, moment: float) -> list[Session]:
        """Return the open sessions whose handshake began by *moment* and that have not been asked to leave. O(n)."""
        return [each for each in (*self._waiting, *self._held) if each.is_open and each.opened_at <= moment]

    def pick(self, rng: Random, *, even_held: bool = False) -> Session | None:
        """
        Pick a session that has not been asked to leave, and mark it as leaving; ``None`` if there is none.

        Args:
            rng: The source of randomness.
            even_held: Whether held sessions may be picked too, once no others are left.
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
        """
        Mark *session* as leaving.

        Raises:
            ValueError: If it is not in this registry, or was asked to leave already.
        """
        position = session._position if session._registry is self else OUTSIDE
        if position >= 0:
            self._dequeue(session)
        elif position == HELD:
            del self._held[session]
        else:
            msg = f"{session!r} has gone or was asked to leave already; take each session once"
            raise ValueError(msg)
        session._position = LEAVING
        self._leaving += 1

    def hold(self, session: Session) -> None:
        """Do not pick *session* for now. Holds nest."""
        session._holds += 1
        if session._position >= 0 and session._registry is self:
            self._dequeue(session)
            self._set_aside(session)

    def release(self, session: Session) -> None:
        """
        End one hold.

        Raises:
            ValueError: If *session* is not held.
        """
        if session._holds == 0:
            msg = f"{session!r} is not held; release each hold once"
            raise ValueError(msg)
        session._holds -= 1
        if session._holds == 0 and session._position == HELD and session._registry is self:
            del self._held[session]
            self._enqueue(session)

    def rank(self, precedence: Callable[[Session], Any]) -> None:
        """
        Pick the current sessions in the order of their sort keys, the smallest first.

        Sessions added later, and sessions that are held at their turn, are picked at random after them.

        Raises:
            Exception: What *precedence*, or the comparison of its keys, raises; then all are picked at random.
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

    def _set_aside(self, session: Session) -> None:
        session._position = HELD
        self._held[session] = None

    def _enqueue(self, session: Session) -> None:
        session._position = len(self._waiting)
        self._waiting.append(session)

    def _dequeue(self, session: Session) -> None:
        last = self._waiting.pop()
        if last is not session:
            self._waiting[session._position] = last
            last._position = session._position
