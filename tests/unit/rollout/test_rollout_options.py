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


REFUSED = {
    "--scenario hope": "invalid choice: 'hope'",
    "--fault none": "invalid choice: 'none'",
    "--tasks 0": "--tasks: must be a whole number of at least 1, not '0'",
    "--clients 1.5": "--clients: must be a whole number of at least 1, not '1.5'",
    "--scale 0": "--scale: must be more than 0",
    "--scale -1": "--scale: must be a number of at least 0, not '-1'",
    "--scale nan": "--scale: must be a number of at least 0, not 'nan'",
    "--ramp 0": "--ramp: must be more than 0",
    "--delay 0": "--delay: must be more than 0",
    "--delay inf": "--delay: must be a number of at least 0, not 'inf'",
    "--margin 400": "--margin 400 leaves nothing of a delay of 300 s",
    "--maximum-percent 100": "raise the maximum or lower the minimum",
    "--minimum-healthy-percent 110": "use a minimum from 0 to 100",
    "--strategy canary --next-after 60": "--next-after goes with --strategy rolling",
    "--in-turn --next-after 60": "--next-after goes with --strategy rolling without --in-turn",
    "--strategy express --routing least-connections": "it shifts traffic by weights",
    "--fleet websockets --fault deaf-clients": "--fleet websockets does not know --fault deaf-clients",
    "--fleet websockets --honour-retry-after": "--fleet websockets does not know --honour-retry-after",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_cannot_be_is_refused(arguments, capsys):
    """With a usage line and the reason, before anything is started."""
    with pytest.raises(SystemExit):
        options.parse(arguments.split())
    error = capsys.readouterr().err
    assert "usage" in error
    assert REFUSED[arguments] in error


def test_one_factor_scales_everything_but_the_shortest_poll():
    """The package polls no faster than once a second, and AWS knows whole seconds of delay only."""
    times = times_module.Times(scale=0.05)
    assert (times.delay, times.margin, times.cut, times.stop_timeout) == (15.0, 0.75, 0.4, 1.5)
    assert times.poll_interval == 1.0
    assert times_module.Times(scale=0.5).poll_interval == 2.5
    assert times_module.Times(scale=0.1, ecs_delay=33).delay == 3.0


def test_everything_that_a_session_waits_for_is_scaled_too():
    """Or the last closes would take longer than the margin that is kept free for them."""
    environment = times_module.Times(scale=0.1).environment()
    names = ("DRAIN_GRACE", "DRAIN_MARGIN")
    assert [environment[name] for name in names] == ["0.5", "1.5"]


@pytest.mark.parametrize(("scale", "share"), [(1.0, "0.2"), (0.5, "0.4"), (0.1, "1")])
def test_the_budget_of_polls_is_scaled(scale, share):
    """Or a fleet whose polls fit into the budget on ECS would poll less often here, and see that it drains late."""
    assert times_module.Times(scale=scale).environment()["DRAIN_POLL_SHARE"] == share
