"""No option turns a drain into the burst that it is there to prevent without a warning."""

import pytest
from guests import open_guests

from starlette_drain import BatchPacing, Drain, DrainCause

pytestmark = pytest.mark.anyio

BATCHES = BatchPacing(20)
TOO_LONG = (
    "the pacing's batches, 20 s apart, do not fit into it; they come {} s apart instead, each with a large part of the "
    "sessions; give a shorter interval, or the drain more time"
)
AT_ONCE = "all sessions are closed at once; give the drain more time"


class Unsure:
    """A strategy that cannot tell its interval once the options are checked."""

    def __init__(self):
        self.is_checked = False

    @property
    def interval(self):
        """Fail, or not."""
        if self.is_checked:
            raise ZeroDivisionError
        return 0.0

    def rate(self, remaining, time_left):
        """Answer."""
        return remaining / time_left

    def describe(self, remaining, time_left):
        """Answer."""
        return f"{remaining} in {time_left} s"


def warnings(caplog):
    """Return the warnings in the log, and forget them."""
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    caplog.clear()
    return told


@pytest.mark.parametrize(
    ("options", "advised", "warning"),
    [
        ({"pacing": BATCHES}, 15.0, TOO_LONG.format(5)),
        ({"pacing": BATCHES}, 20.0, TOO_LONG.format(6.67)),
        ({"pacing": BATCHES}, 21.0, None),
        ({}, 0.5, AT_ONCE),
        ({}, 1.0, None),
        ({"window": 240, "pacing": BATCHES}, 15.0, TOO_LONG.format(5)),
        ({"window": 15, "pacing": BATCHES}, 15.0, None),
        ({"window": 0.5}, 0.5, None),
    ],
)
async def test_a_window_that_a_trigger_finds_out_is_warned_of_once(options, advised, warning, caplog):
    """Where it is too short for the pacing; not where an option that is as short was warned of at the start."""
    drain = Drain(triggers=[], observers=[], sigterm=False, **options)
    async with drain.run():
        warnings(caplog)
        drain.host.engine.note_window(advised)
        told = [f"A drain has only {advised:g} s here: {warning}"] if warning else []
        assert warnings(caplog) == told
        drain.host.engine.note_window(advised)
        drain.host.engine.note_window(advised - 0.1 if warning else advised)
        assert warnings(caplog) == []


@pytest.mark.parametrize(("window", "warning"), [(10.0, TOO_LONG.format(3.33)), (30.0, None), (0.0, None)])
async def test_a_drain_that_begins_with_too_little_time_for_its_batches_is_warned_of(window, warning, caplog):
    """Once, before anyone is asked; a window of 0 was asked for."""
    drain = Drain(triggers=[], observers=[], pacing=BATCHES, sigterm=False, window=300, late_arrivals="accept")
    async with drain.run():
        open_guests(drain, 30)
        engine = drain.host.engine
        engine.claim(DrainCause("mine", "it is time", engine.time(), engine.time() + window))
        name = drain.progress().drain_id
        told = [f"Drain {name} has only {window:g} s: {warning}"] if warning else []
        assert warnings(caplog) == told
        engine.claim(DrainCause("other", "so it is", engine.time(), engine.time() + window / 2))
        assert await drain.wait_drained()
        open_guests(drain, 1)
    assert warnings(caplog) == []


async def test_a_pacing_that_cannot_tell_its_interval_is_no_reason_to_fail(caplog):
    """The plan logs what it raises, and the drain goes on evenly."""
    drain = Drain(triggers=[], observers=[], pacing=(pacing := Unsure()), sigterm=False)
    pacing.is_checked = True
    async with drain.run():
        open_guests(drain, 3)
        drain.host.engine.note_window(30)
        await drain.start(window=10)
        assert await drain.wait_drained()
    assert [(record.levelname, record.getMessage().partition(";")[0]) for record in caplog.records] == [
        ("ERROR", "The pacing failed")
    ]
    assert drain.report.shed == 3
