"""From records to figures."""

import pytest

measuring = pytest.importorskip("example_app.rollout.measure", reason="the example is no part of the wheel")
records_module = pytest.importorskip("example_app.rollout.clients.records")
events_module = pytest.importorskip("example_app.rollout.events")
times_module = pytest.importorskip("example_app.rollout.times")

TIMES = times_module.Times(scale=0.1)
"""A delay of 30 s, a margin of 1.5 s."""


def make_events(*pairs):
    """Make a log."""
    return events_module.Events([events_module.Event(at, kind, "") for at, kind in pairs])


def test_the_busiest_second_may_begin_anywhere():
    """Three connections around the turn of a second count as three."""
    assert measuring.busiest_second([0.0, 0.8, 1.1, 1.2, 5.0]) == 3
    assert measuring.busiest_second([]) == 0


@pytest.mark.parametrize(("share", "expected"), [(0.5, 2), (0.99, 4), (1.0, 4), (0.0, 1)])
def test_percentiles_are_values_that_occurred(share, expected):
    """No interpolation: each is somebody's wait."""
    assert measuring.percentile([1, 2, 3, 4], share) == expected


def test_windows_that_overlap_count_once():
    """Tasks that drain together share their time; those that drain later add theirs."""
    assert measuring.windows([100.0, 101.0, 200.0], TIMES) == [(100.0, 129.5), (200.0, 228.5)]


def test_a_rollout_in_figures():
    """What was before the deployment does not count; 1006 is a cut; who has no connection yet is named."""
    records = records_module.Records(
        opened=[1.0, 110.0, 110.5, 120.0],
        connected=[1.0, 110.0, 110.5, 110.9, 120.0],
        losses=[
            records_module.Loss(1, 109.0, 1012, 110.0),
            records_module.Loss(2, 109.5, 1012, 110.5),
            records_module.Loss(1, 119.0, 1006, 120.0),
            records_module.Loss(3, 125.0, 1006, None),
        ],
    )
    events = make_events((100.0, "deployment began"), (105.0, "deregistered"), (140.0, "deployment ended"))
    figures = measuring.measure(records, events, TIMES)
    assert (figures.peak, figures.peak_opened, figures.new_connections) == (3, 2, 4)
    assert (figures.windows, figures.mean, figures.ratio) == (28.5, 4 / 28.5, 3 * 28.5 / 4)
    assert figures.codes == {1006: 2, 1012: 2}
    assert (figures.cut, figures.never_back, figures.duration) == (2, 1, 40.0)
    assert (figures.without_p50, figures.without_max) == (1.0, 1.0)
    assert figures.hops == pytest.approx(4 / 3)


def test_the_mean_counts_every_new_connection():
    """Who changes twice makes two connections, who never comes back none: it is the peak of an even pace."""
    moments = [110.0 + second / 10 for second in range(190)]
    losses = [records_module.Loss(index % 95, moment, 1012, moment) for index, moment in enumerate(moments)]
    events = make_events((100.0, "deployment began"), (105.0, "deregistered"), (140.0, "deployment ended"))
    figures = measuring.measure(records_module.Records(moments, moments, losses), events, TIMES)
    assert figures.mean == pytest.approx(190 / 28.5)


def test_the_records_of_several_processes_are_put_together(tmp_path):
    """What one process writes is what the lab reads, and a foreign generator may leave out what it does not know."""
    first = records_module.Records([1.0], [0.5], [records_module.Loss(1, 2.0, 1012, None)])
    first.failures["HTTP 503"] = 2
    first.write(tmp_path / "first.json")
    (tmp_path / "second.json").write_text('{"opened": [3.0], "losses": [[2, 4.0, 1006, 5.0]]}')
    together = records_module.Records.read([tmp_path / "first.json", tmp_path / "second.json"])
    assert together.opened == [1.0, 3.0]
    assert together.connected == [0.5, 3.0]
    assert together.losses == [(1, 2.0, 1012, None), (2, 4.0, 1006, 5.0)]
    assert together.failures == {"HTTP 503": 2}
