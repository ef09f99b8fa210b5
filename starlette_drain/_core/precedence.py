"""Which sessions leave first."""

from collections.abc import Callable
from typing import Any, Literal

from starlette_drain._core.session import Session

__all__ = ["Precedence", "ShedFirst", "find_precedence"]

Precedence = Callable[[Session], Any]
"""Returns a sort key for a session; the session with the smallest key is asked to leave first."""

ShedFirst = Literal["random", "oldest", "newest", "idle"]


def _oldest(session: Session) -> float:
    return session.opened_at


def _newest(session: Session) -> float:
    return -session.opened_at


def _idle(session: Session) -> float:
    return session.active_at


def find_precedence(choice: ShedFirst | Precedence) -> Precedence | None:
    """
    Return the precedence called *choice*, or *choice* itself if it is callable; ``None`` means random order.

    Args:
        choice: ``"random"``, ``"oldest"``, ``"newest"``, ``"idle"`` (longest without a message), or a callable.

    Raises:
        KeyError: If *choice* is an unknown name.
    """
    if callable(choice):
        return choice
    return {"random": None, "oldest": _oldest, "newest": _newest, "idle": _idle}[choice]
