"""Each remedy that `plan` prints, read from its output and played: the trouble is gone, and the peak holds."""

import json
import re

import pytest

from starlette_drain.tools.cli import main

SETTINGS = {
    r"deregistration delay to ([\d,]+) s": "--delay",
    r"(?:window to|set it to) ([\d,]+) s": "--window",
    r"maximumPercent to ([\d,]+)": "--max-percent",
    r"minimumHealthyPercent to ([\d,]+)": "--min-percent",
    r"bakeTimeInMinutes to ([\d,]+)": "--bake",
    r"PAUSE hook to ([\d,]+) minutes": "--pause",
    r"(?:pacing=|or |to |use |^)(even|fleet:[\d.]+|rate:\d+)": "--pacing",
    r"rotate over ([\d,]+) s": "--rotate",
    r"run (\d+) tasks of": "--tasks",
}
"""What a remedy says, and the argument that it changes."""

FLAGS = {
    r"give a shorter interval": ("--pacing", "batches:100"),
    r"the drain more time": ("--delay", "600"),
    r"add target-health": ("--sources", "service-deployment,target-health"),
}
"""Remedies that name a direction only."""

SET_UP = 0.02
"""Seconds that a handshake takes by default."""

TROUBLES = {
    "nothing can begin": "--max-percent 100",
    "nothing can begin with one task": "--tasks 1 --max-percent 150",
    "nothing serves": "--min-percent 0 --max-percent 100 --sessions 10",
    "one task does not serve": "--tasks 1 --min-percent 0 --max-percent 100 --sessions 10",
    "too fast": "--wish 10",
    "too fast, in a rolling deployment of many tasks": "--tasks 60 --sessions 200 --start-up 60 --wish 8",
    "too fast, however quickly tasks start": "--tasks 20 --max-percent 120 --sessions 400 --wish 5",
    "too fast, with a window": "--delay 600 --window 60 --wish 20",
    "too fast, in the bake time": "--blue-green --bake 5 --sources target-health,service-deployment --wish 10",
    "too fast, in a pause": "--blue-green --pause 5 --wish 10",
    "too fast, with three generations": "--next-after 60 --wish 20",
    "too fast for one service": "--blue-green --sessions 2000 --wish 3",
    "too fast for one service, with a window": "--blue-green --sessions 2000 --wish 3 --window 60",
    "a budget that is too small": "--pacing fleet:20",
    "a budget above the wish": "--tasks 4 --pacing fleet:500 --wish 100",
    "a budget above the wish, with a window": "--sessions 300 --tasks 3 --wish 10 --window 20 --pacing fleet:50",
    "a budget above the wish, and not enough time for either": "--tasks 4 --pacing fleet:12 --wish 10",
    "a rate above the wish, and not enough time": "--sessions 300 --tasks 3 --delay 60 --pacing rate:30 --wish 10",
    "batches that are too large": "--pacing batches:10 --wish 40",
    "batches that do not fit": "--pacing batches:500",
    "refused attempts": "--tasks 4 --accepts 9",
    "refused attempts, by a slow service": "--sessions 40 --tasks 10 --accepts 1 --window 20",
    "refused attempts, with three generations": "--tasks 1 --next-after 60 --poll-interval 100 --accepts 1",
    "refused attempts, by the pacing": "--tasks 4 --sessions 300 --accepts 60 --pacing rate:40",
    "refused attempts, by the pacing and the time": "--tasks 4 --sessions 300 --delay 60 --accepts 20 --pacing rate:40",
    "no time": "--delay 5",
    "a window that does not fit": "--window 290",
    "a rolling deployment that its only source does not follow": "--sources service-deployment",
    "blue/green without a bake time": "--blue-green --sources service-deployment",
    "too fast a rotation": "--rotate 600 --wish 5",
    "a rotation that its limit makes longer": "--rotate 10 --pacing rate:5",
    "a rotation that would take too long": "--sessions 1000000 --rotate 86400 --pacing rate:0.1",
    "a scale-out that cannot rebalance": "--scale-out 12",
    "too fast a scale-out": "--scale-out 12 --pacing fleet:90 --wish 50",
    "a crash of too large tasks": "--tasks 3 --crash 1 --sessions 3000 --at-once 4",
}


def plan(capsys, given):
    """Return what the command tells as JSON, or the sentence where it plays nothing."""
    code = main(["plan", "--json", *given])
    out = capsys.readouterr().out
    return code, json.loads(out) if out.startswith("{") else {"troubles": [out]}


def given_by(words):
    """Return the arguments that a remedy changes, and into how many services it splits the tasks."""
    matches = {option: re.search(pattern, words) for pattern, option in SETTINGS.items()}
    found = {option: match[1].replace(",", "") for option, match in matches.items() if match}
    found |= dict(each for pattern, each in FLAGS.items() if re.search(pattern, words))
    if rate := re.search(r"set up ([\d,]+)/s in each", words):
        found["--at-once"] = str(round(int(rate[1].replace(",", "")) * SET_UP))
    split = re.search(r"split the service into ([\d,]+)", words)
    return found, int(split[1].replace(",", "")) if split else 1


def remedies(trouble):
    """Return the remedies in a sentence: any one of them will do."""
    return [each for each in re.split(r", or |; ", trouble) if given_by(each)[0]]


def changed(given, remedy):
    """Return the arguments with those of a remedy."""
    settings, services = given_by(remedy)
    now = dict(zip(given[::2], given[1::2], strict=True))
    if services > 1:
        tasks, sessions = int(now.get("--tasks", 8)), int(now.get("--sessions", 1000))
        settings["--tasks"] = str(-(-tasks // services))
        settings["--sessions"] = str(-(-tasks * sessions // (services * int(settings["--tasks"]))))
    return [part for pair in (now | settings).items() for part in pair]


def busiest(told, seconds):
    """Return the closes per second of the busiest stretch."""
    width = max(1, round(seconds / told["stretch"]))
    return max(sum(told["closes"][begin : begin + width]) / width for begin in range(len(told["closes"])))


@pytest.mark.parametrize("name", TROUBLES)
def test_what_is_advised_works(capsys, name):
    """Each remedy by itself: the command with it has no such trouble any more, and what is played keeps the peak."""
    given = ["--sessions", "1000", *TROUBLES[name].replace("--blue-green", "--strategy blue-green").split()]
    given = [part for pair in dict(zip(given[::2], given[1::2], strict=True)).items() for part in pair]
    code, told = plan(capsys, given)
    assert code == 1
    advised = [remedy for trouble in told["troubles"] for remedy in remedies(trouble)]
    assert advised, told["troubles"]
    for trouble in told["troubles"]:
        told_once = [each.rstrip(".\n") for each in trouble.partition(": ")[2].split(", or ")]
        assert len({*told_once}) == len(told_once)
    wish = next(
        (float(value) for option, value in zip(given[::2], given[1::2], strict=True) if option == "--wish"), None
    )
    for remedy in advised:
        with_it = changed(given, remedy)
        code, now = plan(capsys, with_it)
        assert (code, now["troubles"]) == (0, []), (remedy, with_it)
        if wish is not None and "closes" in now:
            assert busiest(now, max(10, 500 / wish)) <= 1.06 * wish, (remedy, with_it)
        if "refused" in now:
            assert now["refused"] == 0


@pytest.mark.parametrize("strategy", ["rolling", "blue-green"])
def test_without_a_source_all_depends_on_events(capsys, strategy):
    """Where no source is polled, plan does not call it well without saying what must be deployed for that."""
    given = ["plan", "--strategy", strategy, "--tasks", "4", "--sessions", "1000", "--sources", "none"]
    assert main(given) == 0
    assert "With events by Lambda no problem was found." in capsys.readouterr().out
    assert main([*given, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["needs_events"]


@pytest.mark.parametrize(
    "given",
    [
        "--tasks 1 --accepts 3",
        "--tasks 1 --accepts 3 --delay 482 --margin 60",
        "--tasks 2 --max-percent 150 --sessions 2000 --accepts 3 --delay 3600",
        "--tasks 1 --accepts 0.5 --clients at-once",
    ],
)
def test_no_remedy_is_empty(capsys, given):
    """However little the service accepts: what is refused has a remedy that works, or none is named."""
    _, told = plan(capsys, ["--sessions", "1000", *given.split()])
    for trouble in told["troubles"]:
        assert remedies(trouble), trouble
        for remedy in remedies(trouble):
            _, now = plan(capsys, changed(["--sessions", "1000", *given.split()], remedy))
            assert now["troubles"] == [], remedy
