"""The arithmetic of the deregistration delay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starlette_drain._core.deadline import deadline, effective_margin, fitting_window

seconds = st.floats(0, 3600)


@pytest.mark.parametrize(
    ("delay", "margin", "kept"), [(300, 15, 15), (30, 15, 15), (20, 15, 10), (0, 15, 0), (300, 0, 0)]
)
def test_the_margin_takes_at_most_half_of_the_delay(delay, margin, kept):
    """A short delay still leaves time to spread the sheds."""
    assert kept == effective_margin(margin, delay)


@pytest.mark.parametrize(
    ("now", "began", "delay", "ends"), [(1005, 1000, 300, 1285), (1005, 1000, 20, 1010), (1005, 1000, 0, 1005)]
)
def test_the_deadline_counts_from_the_earliest_beginning(now, began, delay, ends):
    """The deadline is the beginning, plus the delay, less the margin, and never in the past."""
    assert ends == deadline(now, began, delay, 15)


@pytest.mark.parametrize(("window", "ends"), [(None, 1285), (60, 1065), (600, 1285), (0, 1005)])
def test_a_window_that_was_set_counts_from_the_moment_it_was_noticed(window, ends):
    """A window can only bring the deadline forward."""
    assert ends == deadline(1005, 1000, 300, 15, window)


@given(now=seconds, lag=seconds, delay=seconds, margin=seconds)
def test_the_deadline_lies_between_now_and_the_cut(now, lag, delay, margin):
    """Whatever the numbers, nobody is shed after the balancer may cut, unless it may already."""
    ends = deadline(now, now - lag, delay, margin)

    assert now <= ends <= max(now, now - lag + delay)


@given(delay=seconds, interval=seconds, margin=seconds)
def test_the_window_that_fits(delay, interval, margin):
    """A window that fits ends by the deadline also when the poll comes as late as it may."""
    fits = fitting_window(delay, interval, margin)

    assert fits >= 0
    assert interval + fits <= max(interval, deadline(0, 0, delay, margin)) + 1e-6
