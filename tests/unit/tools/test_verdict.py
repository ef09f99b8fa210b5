"""Why a rehearsal is good, or is not."""

from dataclasses import replace

import pytest

from starlette_drain.tools.rehearse.verdict import Rehearsal, bars, reasons

GOOD = Rehearsal(
    sessions=40,
    delay=60.0,
    moments=[float(second) for second in range(2, 42)],
    codes=[1012] * 40,
    cut=0,
    shown={"report": {"outcome": "drained"}, "failed_hooks": 0, "working": 0},
    forced=(),
    tracebacks=(),
    status=-15,
    errors=(),
)


def test_all_is_well():
    """Nothing is said where nothing is wrong."""
    assert reasons(GOOD) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"codes": [1012] * 38 + [1006] * 2}, "2 of 40 clients lost the connection without a close"),
        ({"shown": {}}, "it did not finish draining before SIGTERM"),
        ({"shown": {"report": {"outcome": "incomplete"}}}, "the drain ended incomplete"),
        ({"forced": ["/a/1", "/a/22"]}, "the endpoint /a/{n} had to be cancelled 2 times"),
        ({"shown": {**GOOD.shown, "failed_hooks": 3}}, "3 close hooks failed or took too long"),
        ({"shown": {**GOOD.shown, "working": 4}}, "4 endpoints still running when the server stopped"),
        ({"tracebacks": ["OSError: x"] * 2}, "a traceback was logged 2 times: OSError: x"),
        ({"moments": [2.0] * 20 + GOOD.moments[:20]}, "21 of 40 clients left within one second"),
        ({"moments": [2.0] * 40}, "40 of 40 clients left within one second"),
        ({"delay": 15.0, "moments": [2 + number / 20 for number in range(40)]}, "20 of 40 clients left within one"),
        ({"moments": [*GOOD.moments[:38], 60.2, 60.3]}, "2 of 40 clients left only after SIGTERM"),
        ({"moments": [60.1] * 40, "shown": {**GOOD.shown, "mode": "observe"}}, "mode='observe' asked no client"),
        ({"moments": [68.0] * 40, "codes": [1006] * 40, "cut": 40}, "40 of 40 clients did not return when"),
        ({"status": None}, "the server did not end within 30 s of SIGTERM"),
        ({"status": 3}, "the server ended with exit code 3"),
    ],
)
def test_what_is_not(change, reason):
    """Each has a reason of its own, and a remedy."""
    ((found, remedy),) = reasons(replace(GOOD, **change))
    assert found.startswith(reason)
    assert remedy


@pytest.mark.parametrize("delay", [4.0, 6.0, 15.0, 60.0])
def test_a_short_delay_is_no_burst(delay):
    """A drain that uses what a short delay leaves is even."""
    half = delay / 4
    assert reasons(replace(GOOD, delay=delay, moments=[1 + half * number / 40 for number in range(40)])) == []


def test_an_endpoint_that_does_not_return_is_the_first_reason():
    """More time for the drain is no remedy for it."""
    late = replace(GOOD, forced=["/ws"], shown={"report": {"outcome": "late"}})
    (first, _), (second, remedy) = reasons(late)
    assert first.startswith("the endpoint /ws had to be cancelled 1 time:")
    assert (second, remedy) == ("the drain ended late", "let the endpoints above return sooner")


def test_the_picture():
    """A character for each second up to the end of the delay, or for several of a long one, as high as its closes."""
    assert bars([0.5, 1.5, 1.7, 3.2], 4, steps=" ab") == "ab a "
    assert len(bars([1.0], 3600)) <= 101
    assert bars([7.0], 4, steps=" ab") == "       b"
    assert bars([], 2) == "   "
