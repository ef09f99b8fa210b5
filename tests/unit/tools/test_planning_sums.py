"""The sums behind a deployment, and the command that tells them."""

import json
import math
import sys

import pytest

from starlette_drain.tools.cli import main
from starlette_drain.tools.plan.allowance import BAKE_TIME
from starlette_drain.tools.plan.clients import CLIENTS
from starlette_drain.tools.plan.deployment import Deployment, smallest_percent
from starlette_drain.tools.plan.rehearsal import rehearse
from starlette_drain.tools.plan.sums import Fleet


@pytest.mark.parametrize(
    ("tasks", "least", "most", "at_once", "batches", "targets"),
    [
        (8, 100, 200, 8, 1, 16),
        (8, 100, 113, 1, 8, 9),
        (8, 100, 112, 0, 0, 8),
        (8, 100, 100, 0, 0, 8),
        (8, 50, 100, 4, 2, 8),
        (8, 50, 200, 8, 1, 16),
        (10, 100, 150, 5, 2, 15),
        (3, 66, 100, 1, 3, 3),
        (1, 100, 200, 1, 1, 2),
        (1, 0, 100, 1, 1, 1),
    ],
)
def test_how_many_drain_at_once(  # noqa: PLR0917
    tasks, least, most, at_once, batches, targets
):
    """The minimum is rounded up, the maximum down, as ECS does; all old tasks at the most."""
    plan = Deployment(tasks, least, most)
    assert (plan.at_once, plan.batches, plan.targets) == (at_once, batches, targets)


def test_blue_green_takes_all():
    """Blue/green, linear and canary take the whole old fleet out together."""
    assert Deployment(8, 100, 113, whole_fleet=True).at_once == 8


@pytest.mark.parametrize(
    ("least", "most", "ahead", "healthy"),
    [(100, 200, 8, 8), (100, 113, 1, 8), (50, 100, 0, 4), (50, 150, 4, 4), (75, 125, 2, 6), (0, 100, 0, 0)],
)
def test_who_takes_in_those_who_are_shed(least, most, ahead, healthy):
    """At first there are as many new tasks as the maximum allows above the desired count, at 50/100 none."""
    plan = Deployment(8, least, most)
    assert (plan.ahead, plan.healthy) == (ahead, healthy)


@pytest.mark.parametrize("tasks", [1, 2, 3, 7, 8, 100])
@pytest.mark.parametrize("least", [0, 50, 66, 100])
def test_smallest_percent_is_the_smallest(tasks, least):
    """With it so many drain at a time, with one percent less not."""
    for at_once in range(1, tasks + 1):
        percent = smallest_percent(tasks, least, at_once)
        assert Deployment(tasks, least, percent).at_once >= at_once
        assert Deployment(tasks, least, percent - 1).at_once < at_once


def test_the_example_of_the_documentation():
    """8 tasks with 100,000 sessions at 100/200: the rate, and the delay that makes it 500/s."""
    fleet = Fleet(Deployment(8), 100_000)
    assert (fleet.lag, fleet.fits) == (8, 277)
    assert fleet.rate == pytest.approx(800_000 / 277)
    assert fleet.delay_for(500) == 1623
    assert Fleet(Deployment(8), 100_000, delay=1623).rate == pytest.approx(500)
    one = fleet.at(1)
    assert one.deployment.max_percent == 113
    assert one.heaviest == pytest.approx(100_000 * 1.125**7)
    assert fleet.remedies(500) == [
        "set the deregistration delay to 1,623 s",
        "set maximumPercent to 113 so that one task drains at a time, and the deregistration delay to 477 s",
    ]
    assert fleet.remedies(1000)[1] == "set maximumPercent to 113 so that one task drains at a time"


@pytest.mark.parametrize(
    ("least", "most", "at_once", "then", "words"),
    [
        (100, 200, 1, (100, 113), "maximumPercent to 113"),
        (50, 100, 1, (87, 100), "minimumHealthyPercent to 87"),
        (50, 150, 4, (100, 150), "minimumHealthyPercent to 100"),
        (50, 150, 1, (100, 113), "minimumHealthyPercent to 100 and maximumPercent to 113"),
    ],
)
def test_no_remedy_takes_a_service_below_its_desired_count(least, most, at_once, then, words):
    """A maximum below 100 percent is never advised: the minimum is raised instead."""
    plan = Deployment(8, least, most)
    changed = plan.at(at_once)
    assert (changed.min_percent, changed.max_percent) == then
    assert changed.at_once == at_once
    assert plan.changes_to(changed) == words


@pytest.mark.parametrize("delay", [12, 30, 60, 300, 3600])
@pytest.mark.parametrize("tasks", [1, 8, 30])
def test_the_delay_named_keeps_the_wish(delay, tasks):
    """Whatever the service, with the delay named the rate is what was wished for."""
    fleet = Fleet(Deployment(tasks), 500, delay=float(delay))
    wished = 100.0
    named = fleet.delay_for(wished)
    assert Fleet(Deployment(tasks), 500, delay=float(named)).rate <= wished * (1 + 1e-9)
    assert Fleet(Deployment(tasks), 500, delay=float(named - 1)).rate > wished


def test_where_no_task_may_be_ahead_the_second_half_is_twice_as_heavy():
    """At 50/100 everybody whom the first half sheds lands on the other half, which sheds twice as many."""
    assert Fleet(Deployment(8, 50, 100), 10_000).heaviest == 80_000
    fleet = Fleet(Deployment(8, 50, 100), 500, delay=120)
    course = rehearse(fleet, CLIENTS["at-once"])
    assert course.shed_twice == pytest.approx(2000, rel=0.02)
    assert course.peak_closes == pytest.approx(fleet.rate, rel=0.25)


def test_the_remedy_at_50_100_is_exact_too():
    """With what is advised the heaviest batch keeps to the wish, and one percent less would not do."""
    fleet = Fleet(Deployment(8, 50, 100), 10_000)
    assert fleet.remedies(100)[0] == f"set the deregistration delay to {fleet.delay_for(100):,} s"
    slower = fleet.at(2)
    assert fleet.remedies(slower.rate)[1].startswith("set minimumHealthyPercent to 75 so that 2 tasks drain at a time")


def test_nobody_to_come_back_to():
    """At 0/100 every attempt is refused until the old tasks are gone and new ones there; nobody is lost."""
    course = rehearse(Fleet(Deployment(2, 0, 100), 50, delay=60), CLIENTS["reconnecting-websocket"])
    assert course.refused > 100
    assert sum(course.arrivals) - course.refused == 100
    assert course.seconds > 60


@pytest.mark.parametrize(
    ("now", "advice", "cured"),
    [
        ({"delay": 3600, "window": 60}, "set the window to 800 s", {"delay": 3600, "window": 800}),
        ({"delay": 300, "window": 900}, "set the deregistration delay to 823 s", {"delay": 823, "window": 900}),
        (
            {"delay": 300, "window": 60},
            "set the deregistration delay to 823 s and the window to 800 s",
            {"delay": 823, "window": 800},
        ),
    ],
)
def test_a_window_that_is_too_short_is_named(now, advice, cured):
    """A window holds the sheds as tight as a delay does: the advice names each that has to grow, and is exact."""
    assert Fleet(Deployment(8), 10_000, **now).remedies(100)[0] == advice
    assert Fleet(Deployment(8), 10_000, **cured).rate <= 100


def test_a_bake_time_is_set_in_minutes():
    """Where the bake time of a blue/green deployment gives the time, the advice is in whole minutes of it."""
    fleet = Fleet(Deployment(8, whole_fleet=True), 100_000, delay=600, noticed=15.0, allowance=BAKE_TIME)
    (advice,) = fleet.remedies(100)
    assert advice == "set bakeTimeInMinutes to 134"
    assert Fleet(Deployment(8, whole_fleet=True), 100_000, delay=134 * 60, noticed=15.0).rate <= 100
    assert "bakeTimeInMinutes can be no longer" in fleet.remedies(1)[0]


def test_no_time_and_no_way():
    """A delay that the lag eats up has an infinite rate; a wish that no delay meets is answered with more tasks."""
    assert Fleet(Deployment(1), 10, delay=5).rate == math.inf
    assert "more tasks" in Fleet(Deployment(8, whole_fleet=True), 1_000_000).remedies(100)[0]


@pytest.mark.parametrize("clients", sorted(CLIENTS))
def test_everyone_leaves_by_the_deadline_and_comes_back(clients):
    """At an even pace the peak is the even rate, and every client arrives once."""
    fleet = Fleet(Deployment(4), 500, delay=120)
    course = rehearse(fleet, CLIENTS[clients])
    assert sum(course.closes) == sum(course.arrivals) == 2000
    assert course.peak_closes == pytest.approx(fleet.rate, abs=5)
    assert (course.refused, course.shed_twice) == (0, 0)
    assert course.at_deadline <= 4


def test_clients_that_come_back_to_old_tasks_are_shed_again():
    """In a rolling deployment the heaviest batch is as heavy as the sum says."""
    fleet = Fleet(Deployment(6, 100, 117), 400, delay=120)
    course = rehearse(fleet, CLIENTS["at-once"])
    assert course.shed_twice > 500
    assert course.peak_closes == pytest.approx(fleet.rate, rel=0.25)


def test_a_service_that_takes_few_in_refuses_and_they_come_again():
    """Attempts beyond what the service takes in are refused, and everyone is back in the end."""
    course = rehearse(Fleet(Deployment(4), 500, delay=60), CLIENTS["phoenix"], accepts=30)
    assert course.refused > 1000
    assert sum(course.arrivals) - course.refused == 2000
    assert course.seconds > 2000 / 30


@pytest.mark.unmeasured
def test_many_sessions_are_played_by_few():
    """A million sessions give the same peak, from a sample."""
    fleet = Fleet(Deployment(10), 100_000)
    course = rehearse(fleet, CLIENTS["at-once"])
    assert course.stands_for == 17
    assert course.peak_closes == pytest.approx(fleet.rate, rel=0.1)


@pytest.mark.unmeasured
def test_the_table(capsys):
    """The command tells the sum, the curves and what to set for a wish; the exit code says whether it is met."""
    assert main(["plan", "--sessions", "1000", "--tasks", "8", "--wish", "10"]) == 1
    out = capsys.readouterr().out
    assert "29 reconnects/s are more than the 10/s wished for: set the deregistration delay to 823 s, or " in out
    assert "8,000 in one instant" in out
    assert "closes/s" in out
    assert main(["plan", "--sessions", "1000", "--tasks", "8", "--wish", "100"]) == 0
    assert "All will be well" in capsys.readouterr().out


def test_the_table_as_json(capsys):
    """The same for a program."""
    assert main(["plan", "--sessions", "100", "--tasks", "2", "--wish", "0.1", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["at_once"] == 2
    assert sum(told["closes"]) == sum(told["arrivals"]) == 200
    assert told["remedies"][0] == "set the deregistration delay to 2,020 s"
    assert len(told["troubles"]) == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--max-percent", "100"], "No task may be taken out"),
        (["--min-percent", "0", "--max-percent", "100", "--sessions", "10"], "No task serves until"),
        (["--delay", "3600", "--window", "60", "--wish", "50"], "set the window to 160 s"),
        (["--delay", "5"], "No time is left"),
        (["--pacing", "fleet:5"], "do not fit into"),
        (["--window", "290"], "does not fit under the delay"),
        (["--tasks", "200", "--sessions", "10"], "add events by Lambda"),
    ],
)
def test_what_will_go_wrong(capsys, given, words):
    """Each trouble is told in a sentence, and the exit code is 1."""
    assert main(["plan", "--sessions", "1000", *given]) == 1
    assert words in capsys.readouterr().out


@pytest.mark.parametrize("given", [["--sessions", "0"], ["--delay", "4000"], ["--pacing", "fast"], ["--wish", "nan"]])
def test_an_argument_that_cannot_work(capsys, given):
    """It is named, and the exit code is that of a wrong usage."""
    with pytest.raises(SystemExit) as caught:
        main(["plan", *given])
    assert caught.value.code == 2
    assert given[0] in capsys.readouterr().err


def test_a_picture_without_matplotlib(capsys, monkeypatch):
    """Where matplotlib is not installed the remedy is named."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["plan", "--sessions", "10", "--plot", "x.svg"]) == 2
    assert "pip install matplotlib" in capsys.readouterr().out


def test_a_picture(tmp_path, capsys):
    """With matplotlib the curves are drawn, and a path that cannot be drawn into is told."""
    pytest.importorskip("matplotlib")
    assert main(["plan", "--sessions", "10", "--plot", str(tmp_path / "x.svg")]) == 0
    assert "<svg" in (tmp_path / "x.svg").read_text(encoding="utf-8")
    assert main(["plan", "--sessions", "10", "--plot", str(tmp_path / "no" / "x.svg")]) == 2
    assert "cannot be drawn" in capsys.readouterr().out
