"""``plan --rotate`` and ``plan --scale-out``: sums, the package's own plan played, and what to set."""

import json

import pytest

from starlette_drain import RateCapPacing
from starlette_drain.tools.cli import main
from starlette_drain.tools.plan import moves


@pytest.fixture
def ask(capsys):
    """Return what asks the command, and returns its exit code and its JSON."""

    def ask(*arguments):
        code = main(["plan", "--json", *arguments])
        return code, json.loads(capsys.readouterr().out)

    return ask


def test_a_rotation_of_a_fleet_over_a_day(ask):
    """800,000 sessions in a day are 9.26 a second, in no stretch many more; each task asks its part."""
    code, told = ask("--sessions", "100000", "--tasks", "8", "--rotate", "86400")
    assert code == 0
    assert (told["sessions"], told["window"]) == (800_000, 86_400)
    assert told["rate"] == pytest.approx(9.259, abs=0.001)
    assert told["rate"] <= told["peak"] <= 1.05 * told["rate"]
    assert told["each_task"] == pytest.approx(1.157, abs=0.001)


def test_a_rotation_faster_than_wished_says_how_long_it_should_take(ask):
    """And what it says is enough."""
    code, told = ask("--sessions", "1000", "--tasks", "8", "--rotate", "600", "--wish", "5")
    assert code == 1
    assert "rotate over 1,600 s" in told["troubles"][0]
    assert ask("--sessions", "1000", "--tasks", "8", "--rotate", "1600", "--wish", "5")[0] == 0


def test_a_limit_of_the_pacing_makes_a_rotation_longer(ask):
    """It holds in each task."""
    code, told = ask("--sessions", "1000", "--tasks", "8", "--rotate", "10", "--pacing", "rate:5")
    assert (code, told["window"]) == (1, 200)


def test_a_scale_out_from_8_to_12(ask):
    """A third of the sessions moves within the budget; by turns it would have ended at four to one."""
    code, told = ask("--sessions", "1200", "--tasks", "8", "--scale-out", "12", "--pacing", "fleet:100")
    assert code == 0
    assert (told["sessions"], told["in_each_task"], told["by_round_robin"]) == (3200, 800, 4.0)
    assert told["window"] == pytest.approx(3200 / 90, abs=0.01)
    assert told["peak"] <= 100


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (("--pacing", "even"), "fleet:500"),
        (("--wish", "50"), "fleet:50"),
        (("--pacing", "fleet:90", "--wish", "50"), "fleet:50"),
    ],
)
def test_a_scale_out_that_cannot_rebalance_says_what_to_set(ask, arguments, remedy):
    """It needs the budget of the fleet, and one that is not more than wished."""
    code, told = ask("--tasks", "8", "--scale-out", "12", *arguments)
    assert code == 1
    assert any(remedy in each for each in told["troubles"])


def test_a_scale_in_is_no_scale_out(capsys):
    """A wrong usage."""
    assert main(["plan", "--tasks", "8", "--scale-out", "8"]) == 2
    assert "give more" in capsys.readouterr().err


def test_on_a_terminal_it_is_a_table(capsys):
    """With units, and a verdict."""
    assert main(["plan", "--tasks", "8", "--scale-out", "12", "--pacing", "fleet:100"]) == 0
    shown = capsys.readouterr().out
    assert "by round robin       4 times as many in an old task as in a new one" in shown
    assert shown.endswith("No problem was found.\n")


def test_few_sessions_are_a_rate_too():
    """Where fewer than one would be played, the sums do."""
    assert moves.rotation(30_000, 1, 60.0, pacing=RateCapPacing(5), wish=None, seed=7).peak == 500


def test_a_rotation_that_takes_longer_than_one_may(ask):
    """A limit that is too low for the sessions is named."""
    code, told = ask("--sessions", "1000000", "--rotate", "86400", "--pacing", "rate:0.1")
    assert code == 1
    assert "at most" in told["troubles"][-1]
