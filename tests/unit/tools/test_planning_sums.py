"""The sums behind a deployment, and the command that tells them."""

import json
import math
from dataclasses import replace

import pytest

from starlette_drain.tools.cli import main
from starlette_drain.tools.plan.allowance import BAKE_TIME
from starlette_drain.tools.plan.clients import CLIENTS
from starlette_drain.tools.plan.deployment import START_UPS, Deployment, smallest_percent
from starlette_drain.tools.plan.rehearsal import rehearse
from starlette_drain.tools.plan.sums import Fleet


@pytest.mark.parametrize(
    ("tasks", "least", "most", "at_once", "batches", "draining", "targets"),
    [
        (8, 100, 200, 8, 1, 8, 16),
        (8, 100, 113, 1, 8, 8, 16),
        (8, 100, 112, 0, 0, 0, 8),
        (8, 100, 100, 0, 0, 0, 8),
        (8, 50, 100, 4, 2, 8, 16),
        (10, 100, 150, 5, 2, 10, 20),
        (30, 100, 107, 2, 15, 20, 50),
        (3, 66, 100, 1, 3, 3, 6),
        (1, 100, 200, 1, 1, 1, 2),
    ],
)
def test_how_many_drain_together(  # noqa: PLR0917
    tasks, least, most, at_once, batches, draining, targets
):
    """The minimum is rounded up, the maximum down; a batch begins when its successors serve, not a delay later."""
    plan = Deployment(tasks, least, most, start_up=30.0)
    assert (plan.at_once, plan.batches) == (at_once, batches)
    assert (plan.draining(285.0), plan.listed(300.0)) == (draining, targets)


def test_a_slow_start_keeps_the_batches_apart():
    """Where a new task takes longer to serve than an old one to drain, no two batches drain together."""
    assert Deployment(8, 100, 113, start_up=400.0).draining(285.0) == 1


def test_blue_green_takes_all():
    """Blue/green, linear and canary take the whole old fleet out together."""
    assert Deployment(8, 100, 113, whole_fleet=True).at_once == 8


def test_three_generations():
    """With early success criteria the next deployment begins while the old tasks drain: two of three generations do."""
    plan = Deployment(8, next_after=60.0)
    assert plan.draining(285.0) == 16
    assert plan.listed(300.0) == 24
    assert Deployment(8, next_after=400.0).draining(285.0) == 8


@pytest.mark.parametrize(("least", "most", "serves"), [(100, 200, True), (50, 100, True), (0, 100, False)])
def test_whether_anything_serves(least, most, serves):
    """At 0/100 all old tasks go before a new one is there."""
    assert Deployment(8, least, most).always_serves is serves


@pytest.mark.parametrize("tasks", [1, 2, 3, 7, 8, 100])
def test_smallest_percent_is_the_smallest(tasks):
    """With it so many are taken out at a time, with one percent less not."""
    for at_once in range(1, tasks + 1):
        percent = smallest_percent(tasks, at_once)
        assert Deployment(tasks, 100, percent).at_once >= at_once
        assert Deployment(tasks, 100, percent - 1).at_once < at_once


def test_the_example_of_the_documentation():
    """8 tasks with 100,000 sessions at 100/200: the rate, and the delay that makes it 500/s."""
    fleet = Fleet(Deployment(8), 100_000)
    assert (fleet.lag, fleet.fits) == (8, 277)
    assert fleet.rate == pytest.approx(800_000 / 277)
    assert fleet.delay_for(500) == 1623
    assert Fleet(Deployment(8), 100_000, delay=1623).rate == pytest.approx(500)
    assert fleet.remedies(500) == ["set the deregistration delay to 1,623 s"]


def test_ecs_stands_in_where_polls_are_seldom():
    """A hundred tasks at 100/200 are 200 targets: the polls alone take 100 s, with ECS a quarter of the delay."""
    alone = Fleet(Deployment(100), 100)
    assert (alone.lag, replace(alone, stands_in=True).lag) == (100, 75)
    assert Fleet(Deployment(200), 100, stands_in=True).lag == 100
    assert Fleet(Deployment(8), 100, stands_in=True).lag == Fleet(Deployment(8), 100).lag


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), "75 s (without ecs:DescribeTasks 100 s)"),
        (("--tasks", "8"), "8 s"),
        (("--sources", "task-state"), "50 s"),
        (("--sources", "none"), "5 s (by events, since no source is polled)"),
        (("--sources", "target-health,task-state"), "50 s"),
    ],
)
def test_plan_counts_what_ecs_is_asked(given, words, capsys):
    """Which source tells first, and what it takes if ECS may not be asked."""
    assert main(["plan", "--tasks", "100", "--sessions", "10", "--start-up", "30", *given]) == 0
    (line,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith("noticed within")]
    assert line.split(maxsplit=2)[2] == words


def test_batches_that_overlap_are_no_gentler():
    """One of eight at a time: the batches are 30 s apart, each drains for minutes, and all eight drain together."""
    fleet = Fleet(Deployment(8, 100, 113), 100_000, delay=477)
    assert fleet.rate > 1700
    course = rehearse(fleet, CLIENTS["full-jitter"])
    assert course.peak_closes == pytest.approx(fleet.rate, rel=0.1)
    assert fleet.draining == 8


REMEDIES = {
    "time": (Fleet(Deployment(8), 10_000), 50),
    "time for many": (Fleet(Deployment(60, start_up=30), 200, start_delay=10), 24),
    "few at a time": (Fleet(Deployment(50, start_up=120), 200), 6),
    "one at a time, and time": (Fleet(Deployment(60, start_up=60), 200), 8),
    "from 50/100": (Fleet(Deployment(8, 50, 100), 1000, start_delay=10), 10),
    "from 0/100": (Fleet(Deployment(8, 0, 100), 1000), 10),
    "two generations": (Fleet(Deployment(8, next_after=60), 1000, delay=900), 8),
    "a window that is too short": (Fleet(Deployment(8), 1000, delay=3600, window=60), 10),
    "a delay and a window": (Fleet(Deployment(8), 1000, delay=300, window=60), 10),
    "bake time": (Fleet(Deployment(8, whole_fleet=True), 1000, 600, noticed=15.0, allowance=BAKE_TIME), 5),
    "short sessions of a large fleet": (Fleet(Deployment(120, start_up=45), 50), 8),
    "no delay is long enough": (Fleet(Deployment(8, whole_fleet=True), 2000), 3),
    "no delay for one task at a time": (Fleet(Deployment(4, 100, 125, start_up=4000), 10_000), 1),
    "an awkward number": (Fleet(Deployment(7, 66, 150, start_up=90), 777), 7),
}


@pytest.mark.parametrize("which", REMEDIES)
def test_a_remedy_keeps_its_peak_when_it_is_played(which):
    """Each remedy that is printed: the deployment is played with it, and nothing is busier than promised."""
    fleet, wish = REMEDIES[which]
    assert fleet.rate > wish
    cures = fleet.cures(wish)
    assert cures
    for words, cured in cures:
        assert cured.rate <= wish * (1 + 1e-6), words
        course = rehearse(cured, CLIENTS["full-jitter"])
        # By chance few sessions come unevenly, so the stretch is long enough for some hundreds.
        assert busiest(course, max(10, 500 // wish)) <= wish * 1.05, words
        assert course.peak_closes >= wish * 0.4, f"{words}: far too gentle"


@pytest.mark.parametrize(("least", "most"), [(100, 120), (50, 100), (100, 200)])
def test_a_remedy_does_not_stand_on_how_quickly_tasks_start(least, most):
    """Where nobody has said it, what is advised keeps its peak whatever it is."""
    fleet = Fleet(Deployment(20, least, most), 400, start_ups=START_UPS, start_delay=10)
    cures = fleet.cures(5)
    assert cures
    for words, cured in cures:
        for start_up in (5.0, 30.0, 75.0, 240.0):
            known = replace(cured, deployment=replace(cured.deployment, start_up=start_up), start_ups=())
            assert busiest(rehearse(known, CLIENTS["full-jitter"]), 100) <= 5 * 1.05, (words, start_up)


@pytest.mark.parametrize("next_after", [0.0, 200.0, 600.0, 780.0, 900.0])
@pytest.mark.parametrize("tasks", [4, 40])
def test_a_delay_that_will_do_for_two_generations(tasks, next_after):
    """What the doctor names where deployments may overlap: it holds whenever the second begins."""
    fleet = Fleet(Deployment(tasks), 2000 // tasks, delay=400, start_ups=START_UPS, start_delay=10)
    delay = fleet.delay_for(6, followed=0.9)
    known = replace(
        fleet, deployment=replace(fleet.deployment, next_after=next_after), delay=float(delay), start_ups=()
    )
    assert busiest(rehearse(known, CLIENTS["full-jitter"]), 60) <= 6 * 1.08


def busiest(course, seconds):
    """Return the closes per second of the busiest stretch."""
    width = max(1, seconds // course.stretch)
    return max(sum(course.closes[begin : begin + width]) / width for begin in range(len(course.closes)))


@pytest.mark.parametrize("delay", [12, 30, 60, 300, 3600])
@pytest.mark.parametrize("tasks", [1, 8, 30])
def test_the_delay_named_keeps_the_wish(delay, tasks):
    """Whatever the service, with the delay named the rate is no more than that."""
    fleet = Fleet(Deployment(tasks), 500, delay=float(delay))
    wished = 100.0
    named = fleet.delay_for(wished)
    assert Fleet(Deployment(tasks), 500, delay=float(named)).rate <= wished * (1 + 1e-9)
    assert Fleet(Deployment(tasks), 500, delay=float(named - 1)).rate > wished


def test_nobody_to_come_back_to():
    """At 0/100 every attempt is refused until the new tasks are there; all are away longer than without a drain."""
    fleet = Fleet(Deployment(2, 0, 100), 50, delay=60)
    course = rehearse(fleet, CLIENTS["reconnecting-websocket"])
    assert course.refused > 30
    assert sum(course.arrivals) - course.refused == 100
    assert course.away > rehearse(fleet, CLIENTS["reconnecting-websocket"], drains=False).away + 1


@pytest.mark.parametrize(("tasks", "sessions"), [(200, 501), (8, 10_003), (3, 77_777)])
def test_every_session_is_played(tasks, sessions):
    """Where each client stands for several, they stand for all sessions and not for a rounded number."""
    course = rehearse(Fleet(Deployment(tasks), sessions, noticed=5.0), CLIENTS["full-jitter"])
    assert round(sum(course.closes) * course.stretch) == tasks * sessions


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
    assert "set bakeTimeInMinutes to 1,440, and split the service into 10 " in fleet.remedies(1)[0]


def test_no_time_and_no_way():
    """A delay that the lag eats up has an infinite rate; a wish that no delay meets needs several services."""
    assert Fleet(Deployment(1), 10, delay=5).rate == math.inf
    assert "split the service into 23 " in Fleet(Deployment(8, whole_fleet=True), 1_000_000).remedies(100)[0]


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
    """In a rolling deployment the busiest moment is as busy as the sum says."""
    fleet = Fleet(Deployment(6, 100, 117, start_up=90), 400, delay=120)
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
    assert "29 reconnects/s exceed the 10/s that you want: set the deregistration delay to 823 s." in out
    assert "8,000 at once" in out
    assert "closes/s" in out
    assert main(["plan", "--sessions", "1000", "--tasks", "8", "--wish", "100"]) == 0
    assert "No problem was found" in capsys.readouterr().out


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
        (["--max-percent", "100"], "No task can be replaced"),
        (["--min-percent", "0", "--max-percent", "100", "--sessions", "10"], "No task serves until"),
        (["--min-percent", "0", "--max-percent", "100"], "s without a drain"),
        (["--tasks", "2", "--accepts", "2"], "attempts are refused because the service accepts 2/s"),
        (["--pacing", "batches:10", "--wish", "40"], "use even, or fleet:40"),
        (["--pacing", "batches:500"], "do not fit into it"),
        (
            ["--delay", "3600", "--next-after", "5", "--wish", "1"],
            "split the service into 3 that are deployed one after the other",
        ),
        (["--delay", "3600", "--window", "60", "--wish", "50"], "set the window to 160 s"),
        (["--delay", "5"], "No time is left"),
        (["--pacing", "fleet:5"], "do not fit into"),
        (["--window", "290"], "does not fit into the delay"),
        (["--tasks", "200", "--sessions", "10"], "add events by Lambda"),
    ],
)
def test_what_will_go_wrong(capsys, given, words):
    """Each trouble is told in a sentence, and the exit code is 1."""
    assert main(["plan", "--sessions", "1000", *given]) == 1
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    "given",
    [
        *(["--sessions", "0"], ["--sessions", "abc"], ["--delay", "4000"], ["--pacing", "fast"], ["--pacing", ""]),
        *(["--wish", "nan"], ["--window", "0"], ["--window", ""], ["--margin", "-1"], ["--margin", "inf"]),
        *(["--poll-share", "2"], ["--max-percent", "50"], ["--min-percent", "101"], ["--accepts", "0"]),
        *(["--sources", "targethealth"], ["--start-up", "0"], ["--strategy", "purple"]),
    ],
)
def test_an_argument_that_cannot_work(capsys, given):
    """It is named, with what to give instead, and the exit code is that of a wrong usage."""
    assert main(["plan", *given]) == 2
    error = capsys.readouterr().err
    assert given[0] in error
    assert "_" not in error.splitlines()[-1].replace("poll_share", "")


@pytest.mark.parametrize(
    ("given", "minutes"),
    [
        ([], 6),
        (["--max-percent", "113"], 9),
        (["--blue-green", "--bake", "60"], 66),
        (["--strategy", "blue-green", "--bake", "60", "--nlb"], 86),
        (["--strategy", "blue-green", "--bake", "60", "--pause", "30"], 96),
        (["--strategy", "express"], 12),
        (["--strategy", "canary"], 16),
    ],
)
def test_how_long_a_deployment_takes(capsys, given, minutes):
    """With the steps of its strategy, the ten minutes twice that ECS adds behind an NLB, and a pause."""
    assert main(["plan", "--sessions", "10", *given]) == 0
    assert f"a deployment takes   {minutes} minutes" in capsys.readouterr().out


WATCHED = ("--sources", "target-health,service-deployment")


@pytest.mark.parametrize(
    ("given", "time"),
    [
        (["--bake", "10", "--pause", "50"], "of the pause of 3000 s"),
        (["--bake", "10", "--pause", "50", *WATCHED], "of the bake time of 600 s"),
        (["--pause", "50", *WATCHED], "of the pause of 3000 s"),
        (["--pause", "600"], "of the pause of 3600 s"),
        (["--bake", "10"], "of the delay of 300 s"),
    ],
)
def test_sessions_may_leave_before_the_delay(capsys, given, time):
    """Tasks that watch the deployment take its bake time; in a PAUSE hook drains by hand take an hour at most."""
    assert main(["plan", "--blue-green", "--sessions", "1000", *given]) == 0
    assert time in capsys.readouterr().out


@pytest.mark.parametrize("wish", [1, 2])
def test_a_longer_pause_is_a_remedy(capsys, wish):
    """It is told in minutes, and keeps the peak; where an hour is too short, that is told."""
    given = ["plan", "--blue-green", "--sessions", "500", "--wish", str(wish), "--json", "--pause"]
    assert main([*given, "5"]) == 1
    (remedy,) = json.loads(capsys.readouterr().out)["remedies"]
    if wish == 1:
        assert remedy == (
            "set the PAUSE hook to 60 minutes, and split the service into 2 that are deployed one after the other"
        )
        return
    assert remedy == "set the PAUSE hook to 34 minutes"
    assert main([*given, "34"]) == 0
    assert json.loads(capsys.readouterr().out)["even_rate"] <= wish


def test_the_delay_comes_after_the_bake_time(capsys):
    """Where tasks leave in the bake time ECS still waits out the deregistration delay."""
    given = ["--blue-green", "--bake", "60", *WATCHED, "--start-up", "60"]
    assert main(["plan", "--sessions", "10", *given]) == 0
    assert "a deployment takes   66 minutes" in capsys.readouterr().out


def test_only_a_rolling_deployment_overlaps_with_the_next(capsys):
    """Early success criteria are for rolling deployments: a plan with another one is refused."""
    assert main(["plan", "--blue-green", "--next-after", "60"]) == 2
    assert "--next-after goes with --strategy rolling only" in capsys.readouterr().err


def test_a_picture(tmp_path, capsys):
    """With matplotlib the curves are drawn, and a path that cannot be drawn into is told."""
    pytest.importorskip("matplotlib")
    assert main(["plan", "--sessions", "10", "--plot", str(tmp_path / "x.svg")]) == 0
    assert "<svg" in (tmp_path / "x.svg").read_text(encoding="utf-8")
    assert main(["plan", "--sessions", "10", "--plot", str(tmp_path / "no" / "x.svg")]) == 2
    assert "name a file in a directory that exists" in capsys.readouterr().err
