"""Whom to ask first."""

from random import Random

import pytest

from starlette_drain._core.precedence import find_precedence
from starlette_drain._core.session import Session, SessionRegistry


def guests():
    """Return three sessions: by age, by activity and by name they stand in different orders."""
    sessions = []
    for path, opened_at, active_at in (("/b", 1.0, 30.0), ("/c", 2.0, 10.0), ("/a", 3.0, 20.0)):
        session = Session(path, opened_at)
        session.active_at = active_at
        sessions.append(session)
    return sessions


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("oldest", ["/b", "/c", "/a"]),
        ("newest", ["/a", "/c", "/b"]),
        ("idle", ["/c", "/a", "/b"]),
        (lambda session: session.path, ["/a", "/b", "/c"]),
    ],
)
def test_every_choice_asks_in_its_order(choice, expected):
    """By age, by silence, or by the application's own key."""
    registry = SessionRegistry()
    for session in guests():
        registry.add(session)
    registry.rank(find_precedence(choice))
    assert [registry.pick(Random(1)).path for _ in range(3)] == expected


def test_random_is_no_precedence():
    """The default needs no order at all."""
    assert find_precedence("random") is None


def test_there_are_no_others():
    """A name that is none is an error of ours: the settings have checked it."""
    with pytest.raises(KeyError):
        find_precedence("loudest")
