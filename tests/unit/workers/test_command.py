"""What one worker publishes to the others, on paper."""

import json
from itertools import product

import pytest

from starlette_drain._core.cause import DrainCause
from starlette_drain._workers.command import Cancel, Claim, Entry, Withdraw, compact, fold

CAUSE = {"trigger": "x", "reason": "y", "at": 1.0, "deadline": 2.0}


@pytest.mark.parametrize(
    "entry",
    [
        Entry(1, 31, Claim(DrainCause("manual", "the rack burns", 12.5, 300.25))),
        Entry(2, 32, Claim(DrainCause("watcher", "ümläut \u2028", 1.0, 9.0, revocable=False, lag=5.0))),
        Entry(3, 31, Withdraw("watcher")),
        Entry(4, 33, Cancel()),
    ],
)
def test_a_command_comes_back_as_it_was_written(entry):
    """Nothing is lost on the way through the file."""
    assert Entry.load(entry.dump()) == entry


def test_fields_that_are_not_known_are_ignored():
    """A later version may add some, and its commands reach the workers that run this one."""
    text = json.dumps({"version": 1, "number": 1, "pid": 7, "colour": "blue", "claim": {**CAUSE, "sure": True}})
    assert Entry.load(text) == Entry(1, 7, Claim(DrainCause("x", "y", 1.0, 2.0)))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", "null", "{}", '{"number": 1}', '{"version": 2, "number": 1, "pid": 1, "cancel": true}']
    + [json.dumps({"version": 1, "number": number, "pid": 1, "cancel": True}) for number in (None, "x", [])]
    + [json.dumps({"version": 1, "number": 1, "pid": 1, **act}) for act in ({}, {"cancel": 0}, {"withdraw": 7})]
    + [
        json.dumps({"version": 1, "number": 1, "pid": 1, "claim": cause})
        for cause in (
            {},
            7,
            {"trigger": "x"},
            {**CAUSE, "deadline": "z"},
            {**CAUSE, "trigger": 1},
            {**CAUSE, "at": None},
        )
    ],
)
def test_what_is_no_command_is_refused(text):
    """A half-written or foreign file is a `ValueError`, whatever is wrong with it."""
    with pytest.raises(ValueError, match=r"not a command|not a file of|version|Expecting|JSON|invalid literal"):
        Entry.load(text)


def claim(trigger, deadline):
    """Return a claim."""
    return Claim(DrainCause(trigger, "because", 1.0, deadline))


KINDS = (claim("manual", 50.0), claim("manual", 20.0), claim("health", 30.0), Withdraw("health"), Cancel())


def state(commands):
    """Return the claims that *commands* lead to."""
    claims = fold(commands)
    return claims.standing, claims.muted


def test_the_log_without_what_is_pruned_leads_to_the_same_claims():
    """No sequence means anything else afterwards, whatever follows; and nothing stays of drains that have ended."""
    for commands in product(KINDS, repeat=4):
        entries = [Entry(number, 1, command) for number, command in enumerate(commands, 1)]
        needless = compact(entries)
        left = [entry.command for entry in entries if entry.number not in needless]
        assert state(left) == state(commands)
        for follow in KINDS:
            assert state([*left, follow]) == state([*commands, follow])
        assert state(commands) != ((), ()) or left == []
