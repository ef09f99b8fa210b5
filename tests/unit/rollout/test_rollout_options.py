"""The command line, and the times made from it."""

import pytest

options = pytest.importorskip("example_app.rollout.options", reason="the example is no part of the wheel")
times_module = pytest.importorskip("example_app.rollout.times")


def test_without_options_it_is_the_short_rollout():
    """4 tasks, 2,000 clients, before and after."""
    scenarios, plan = options.parse([])
    assert [each.name for each in scenarios] == ["sigterm-only", "drain"]
    assert (plan.tasks, plan.fleet.clients, plan.times.delay) == (4, 2000, 30.0)
    assert plan.results.is_absolute()


def test_scenarios_and_faults_may_be_repeated():
    """Each scenario once, in the order given; a fault may change the clients."""
    arguments = ["--scenario", "drain", "--scenario", "seed", "--scenario", "drain", "--fault", "deaf-clients"]
    scenarios, plan = options.parse(arguments)
    assert [each.name for each in scenarios] == ["drain", "seed"]
    assert plan.fleet.deaf == 0.05


@pytest.mark.parametrize("arguments", [["--tasks", "0"], ["--scenario", "hope"], ["--fault", "none"]])
def test_what_cannot_be_is_refused(arguments, capsys):
    """With a usage line, before anything is started."""
    with pytest.raises(SystemExit):
        options.parse(arguments)
    assert "usage" in capsys.readouterr().err


def test_one_factor_scales_everything_but_the_shortest_poll():
    """The package polls no faster than once a second, and AWS knows whole seconds of delay only."""
    times = times_module.Times(scale=0.05)
    assert (times.delay, times.margin, times.cut, times.stop_timeout) == (15.0, 0.75, 0.4, 1.5)
    assert times.poll_interval == 1.0
    assert times_module.Times(scale=0.5).poll_interval == 2.5
    assert times_module.Times(scale=0.1, ecs_delay=33).delay == 3.0
