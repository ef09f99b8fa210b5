"""The life of a drain, as a table."""

import re
from itertools import product
from pathlib import Path

import pytest

from starlette_drain._core.state import TRANSITIONS, DrainEvent, DrainState, advance
from starlette_drain.exceptions import DrainError, IllegalTransition

PAGE = Path(__file__).parents[3] / "docs" / "how-a-drain-works.md"
ROW = re.compile(r"^\| (serving|draining|drained) \|(.*)\|$", re.MULTILINE)

SERVING, DRAINING, DRAINED = DrainState.SERVING, DrainState.DRAINING, DrainState.DRAINED
START, FINISH, ARRIVE, CANCEL = DrainEvent.START, DrainEvent.FINISH, DrainEvent.ARRIVE, DrainEvent.CANCEL

LEGAL = {
    (SERVING, START): DRAINING,
    (SERVING, ARRIVE): SERVING,
    (DRAINING, START): DRAINING,
    (DRAINING, ARRIVE): DRAINING,
    (DRAINING, FINISH): DRAINED,
    (DRAINING, CANCEL): SERVING,
    (DRAINED, START): DRAINED,
    (DRAINED, ARRIVE): DRAINING,
    (DRAINED, CANCEL): SERVING,
}
ILLEGAL = [pair for pair in product(DrainState, DrainEvent) if pair not in LEGAL]


@pytest.mark.parametrize(("state", "event"), LEGAL)
def test_legal_move(state, event):
    """Every legal move leads where the design says."""
    assert LEGAL[state, event] is advance(state, event)


@pytest.mark.parametrize(("state", "event"), ILLEGAL)
def test_illegal_move_raises_and_changes_nothing(state, event):
    """What is not in the table cannot happen, and the error says what can."""
    before = {each: dict(moves) for each, moves in TRANSITIONS.items()}
    with pytest.raises(IllegalTransition) as caught:
        advance(state, event)
    assert f"a drain that is {state.value} cannot {event.value}" in str(caught.value)
    assert str(caught.value).endswith(", ".join(each.value for each in TRANSITIONS[state]))
    assert before == TRANSITIONS
    assert isinstance(caught.value, DrainError)
    assert isinstance(caught.value, RuntimeError)


def test_a_second_cause_never_changes_the_state_of_a_drain():
    """A second START is a fact to record, not a move."""
    assert DRAINING is advance(DRAINING, START)
    assert DRAINED is advance(DRAINED, START)


def test_every_state_is_reached_and_left():
    """No state is a trap, none is an island."""
    reached = {following for moves in TRANSITIONS.values() for following in moves.values()}
    assert set(DrainState) == reached
    assert all(any(following is not state for following in moves.values()) for state, moves in TRANSITIONS.items())


@pytest.mark.skipif(not PAGE.parent.is_dir(), reason="the documentation is not here: these are the tests of a wheel")
def test_table_in_the_documentation_shows_every_move_and_no_other():
    """docs/how-a-drain-works.md has the transitions, one row a state."""
    page = PAGE.read_text(encoding="utf-8").partition("<!-- states:")[2].partition("<!-- end of states -->")[0]
    heading = re.search(r"^\| in \|(.*)\|$", page, re.MULTILINE)
    assert heading
    events = [each.strip() for each in heading[1].split("|")]
    shown = {
        (state, event): following.strip()
        for state, cells in ROW.findall(page)
        for event, following in zip(events, cells.split("|"), strict=True)
        if following.strip()
    }
    assert shown == {(state.value, event.value): following.value for (state, event), following in LEGAL.items()}
