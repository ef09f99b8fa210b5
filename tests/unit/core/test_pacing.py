"""How fast sessions are asked to leave."""

import math

import pytest

from starlette_drain._core.pacing import BatchPacing, EvenPacing, Pacing, RateCapPacing, parse_pacing
from starlette_drain.exceptions import SettingsError

STRATEGIES = [EvenPacing(), RateCapPacing(50), BatchPacing(2)]


@pytest.mark.parametrize("pacing", STRATEGIES, ids=repr)
def test_strategy_satisfies_the_protocol(pacing):
    """Every strategy is a Pacing, and its answer never leaves a burst to the deadline."""
    assert isinstance(pacing, Pacing)
    for remaining, time_left in ((0.0, 10.0), (0.3, 1e-9), (1e6, 3600.0), (7.0, 3.0)):
        assert remaining / time_left <= pacing.rate(remaining, time_left) < math.inf
        assert pacing.describe(remaining, time_left)


@pytest.mark.parametrize("pacing", STRATEGIES, ids=repr)
def test_strategy_keeps_no_state(pacing):
    """A strategy may be shared by drains: it cannot be changed, and the same question gets the same answer."""
    assert pacing.rate(100, 10) == pacing.rate(100, 10)
    with pytest.raises((AttributeError, TypeError)):
        pacing.interval = 5.0


def test_even_takes_all_the_time_there_is():
    """The even rate is sessions by seconds."""
    assert EvenPacing().rate(20_000, 285) == pytest.approx(70.1754, abs=1e-4)
    assert EvenPacing().describe(20_000, 285) == "evenly, 70.2 sessions/s"


def test_rate_cap_finishes_early_where_it_can():
    """With time to spare the limit is the rate."""
    pacing = RateCapPacing(50)
    assert pacing.rate(1000, 100) == 50
    assert pacing.describe(1000, 100) == "at most 50 sessions/s"


def test_rate_cap_gives_way_to_the_deadline_and_says_so():
    """Where the limit cannot meet the deadline the rate is the even one, no more."""
    pacing = RateCapPacing(50)
    assert pacing.rate(10_000, 100) == 100
    assert pacing.describe(10_000, 100) == "100 sessions/s: the limit of 50/s gives way to the deadline"


def test_rate_cap_that_just_suffices_does_not_cry():
    """The last digit of a float is no reason to say that the limit gives way."""
    assert "gives way" not in RateCapPacing(0.1).describe(0.1 * 3 * 7, 0.3 * 70)


@pytest.mark.parametrize(
    ("remaining", "time_left", "size"), [(100, 10, 20), (101, 10, 21), (3, 300, 1), (7, 1, 7), (0, 10, 0), (3e-9, 1, 0)]
)
def test_batches_name_their_size(remaining, time_left, size):
    """The announced size is the greatest that a batch may have; no batch has more than are left."""
    assert BatchPacing(2).describe(remaining, time_left) == f"batches of {size} every 2 s"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("even", EvenPacing()),
        (" Even ", EvenPacing()),
        ("rate:50", RateCapPacing(50.0)),
        ("RATE: 0.5", RateCapPacing(0.5)),
        ("batches:2", BatchPacing(2.0)),
        ("batches:1e1", BatchPacing(10.0)),
    ],
)
def test_short_forms(text, expected):
    """Each strategy has a short form for the environment."""
    assert parse_pacing(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "evenly", "even:5", "rate", "rate:", "rate:x", "rate:0", "rate:-1", "rate:inf", "batches", "batches:nan"],
)
def test_wrong_short_form_says_what_would_be_right(text):
    """The error repeats what was given and shows all three forms."""
    with pytest.raises(SettingsError) as caught:
        parse_pacing(text)
    assert (caught.value.option, caught.value.value) == ("pacing", text)
    assert all(form in caught.value.remedy for form in ("even", "rate:50", "batches:2"))


@pytest.mark.parametrize("number", [0, -1, math.nan, math.inf, "50", None])
@pytest.mark.parametrize(("strategy", "option"), [(RateCapPacing, "limit"), (BatchPacing, "interval")])
def test_numbers_that_cannot_work(strategy, option, number):
    """A strategy that can never work is not made."""
    with pytest.raises(SettingsError) as caught:
        strategy(number)
    assert caught.value.option == option
    assert "such as" in caught.value.remedy
