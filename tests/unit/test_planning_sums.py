"""The sums behind a deployment, and the command that tells them."""

import json
import math
import sys

import pytest

from starlette_drain.cli import main
from starlette_drain.planning.clients import CLIENTS
from starlette_drain.planning.rehearsal import rehearse
from starlette_drain.planning.sums import Deployment, Fleet, smallest_percent


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
        "set maximumPercent to 113 so that one task drains at a time, with a deregistration delay of 477 s",
    ]
    assert fleet.remedies(1000)[1] == "set maximumPercent to 113 so that one task drains at a time"


@pytest.mark.parametrize("delay", [12, 30, 60, 300, 3600])
@pytest.mark.parametrize("tasks", [1, 8, 30])
def test_the_delay_named_keeps_the_wish(delay, tasks):
    """Whatever the service, with the delay named the rate is what was wished for."""
    fleet = Fleet(Deployment(tasks), 500, delay=float(delay))
    wished = 100.0
    named = fleet.delay_for(wished)
    assert Fleet(Deployment(tasks), 500, delay=float(named)).rate <= wished * (1 + 1e-9)
    assert Fleet(Deployment(tasks), 500, delay=float(named - 1)).rate > wished


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


def test_many_sessions_are_played_by_few():
    """A million sessions give the same peak, from a sample."""
    fleet = Fleet(Deployment(10), 100_000)
    course = rehearse(fleet, CLIENTS["at-once"])
    assert course.stands_for == 17
    assert course.peak_closes == pytest.approx(fleet.rate, rel=0.1)


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
        (["--delay", "5"], "No time is left"),
        (["--fleet-rate", "5"], "do not fit into"),
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
