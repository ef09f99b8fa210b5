"""What one worker tells the others, on paper."""

import json

import pytest

from starlette_drain._core.cause import DrainCause
from starlette_drain._workers.command import Order


@pytest.mark.parametrize(
    "order",
    [
        Order(1, DrainCause("manual", "the rack burns", 12.5, 300.25)),
        Order(2, DrainCause("lookout", "ümläut \u2028", 1.0, None, revocable=False, lag=5.0)),
        Order(3, None),
    ],
)
def test_an_order_comes_back_as_it_was_written(order):
    """Nothing is lost on the way through the file."""
    assert Order.load(order.dump()) == order


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", "null", "{}", '{"number": 1}', '{"number": null, "cause": null}']
    + [json.dumps({"number": 1, "cause": cause}) for cause in ({}, {"trigger": "x"}, {"colour": "blue"}, 7)],
)
def test_what_is_no_order_is_told_as_such(text):
    """A half-written or foreign file is a `ValueError`, whatever is wrong with it."""
    with pytest.raises(ValueError, match=r"not an order|Expecting|JSON"):
        Order.load(text)
