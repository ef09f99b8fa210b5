"""Which sessions leave first."""

from collections.abc import Callable
from typing import Any, Literal

from starlette_drain._core.session import Session

__all__ = ["Precedence", "ShedFirst", "find_precedence"]

Precedence = Callable[[Session], Any]
"""Returns something to compare sessions by; the one with the smallest is asked first."""

ShedFirst = Literal["random", "oldest", "newest", "idle"]


def _oldest(session: Session) -> float:
    return session.opened_at


def _newest(session: Session) -> float:
    return -session.opened_at


def _idle(session: Session) -> float:
    return session.active_at


def find_precedence(choice: ShedFirst | Precedence) -> Precedence | None:
    """
    Return the precedence of that name; ``None`` stands for a random one.

    Args:
        choice: ``"random"``, ``"oldest"``, ``"newest"``, ``"idle"`` (no message for longest), or the application's own.

    Raises:
        KeyError: If there is none of that name.
    """
    if callable(choice):
        return choice
    return {"random": None, "oldest": _oldest, "newest": _newest, "idle": _idle}[choice]
