"""``plan --crash``: the clients of tasks that crash come to the others, and what it advises is played."""

import json

import pytest

from starlette_drain.tools.cli import main

THREE = ("--tasks", "3", "--crash", "1", "--sessions", "2000")


@pytest.fixture
def ask(capsys):
    """Return what asks the command, and returns its exit code and its JSON."""

    def ask(*arguments):
        code = main(["plan", "--json", *arguments])
        return code, json.loads(capsys.readouterr().out)

    return ask


def test_its_advice_keeps_set_ups_short(ask):
    """With either limit no set-up takes three times as long, and all are back as soon as without one."""
    code, told = ask(*THREE, "--clients", "at-once")
    assert (code, told["arrive"], told["rate"]) == (0, 1000, 1000.0)
    assert told["advice"] == 'Set admission="auto", or "20" if that is what each task sets up at once.'
    off = told["admission"].pop("off")
    assert off["set_up_p99"] > 0.9
    for each in told["admission"].values():
        assert each["set_up_p99"] <= 3 * 0.02
        assert each["back_after"] <= 1.2 * off["back_after"]
        assert each["gave_up"] == each["refused"] == each["not_back"] == 0
        assert each["most_in_progress"] < 60


def test_a_database_that_slows_collapses_without_a_limit_only(ask):
    """With the limit it notices nothing."""
    _, told = ask(*THREE, "--clients", "phoenix", "--slows")
    off, auto = told["admission"]["off"], told["admission"]["auto"]
    assert off["back_after"] is None or off["back_after"] > 10 * auto["back_after"]
    assert (auto["gave_up"], auto["refused"], auto["not_back"]) == (0, 0, 0)
    assert auto["set_up_p99"] < 0.1


def test_more_than_can_be_held_says_with_how_many_tasks_they_can(ask):
    """What it says is enough: played with it, none is refused."""
    code, told = ask("--tasks", "3", "--crash", "1", "--sessions", "3000", "--at-once", "4")
    assert code == 1
    assert "run 4 tasks of 3,000 sessions, or set up 250/s in each" in told["troubles"][0]
    assert told["admission"]["4"]["refused"] > 0
    code, told = ask("--tasks", "4", "--crash", "1", "--sessions", "3000", "--at-once", "4")
    assert (code, told["admission"]["4"]["refused"]) == (0, 0)


def test_impatient_clients_give_up_without_a_limit(ask):
    """They wait for 4 s, and a slow service has not come to them by then; those that come first stay served."""
    _, told = ask(*THREE, "--sessions", "4000", "--clients", "reconnecting-websocket", "--set-up", "0.1", "--slows")
    assert told["admission"]["off"]["gave_up"] > 1000
    assert told["admission"]["20"]["gave_up"] < told["admission"]["off"]["gave_up"] / 2


def test_on_a_terminal_it_is_a_table(capsys):
    """A column for each limit."""
    assert main(["plan", *THREE, "--slows"]) == 0
    shown = capsys.readouterr().out
    assert "admission                     off          20        auto" in shown
    assert shown.splitlines()[-1].startswith('Set admission="auto"')


def test_a_crash_of_all_is_none(capsys):
    """A wrong usage."""
    assert main(["plan", "--tasks", "2", "--crash", "2"]) == 2
    assert "leaves none of 2 tasks" in capsys.readouterr().err
