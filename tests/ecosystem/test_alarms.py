"""The alarms of example_app/deploy/monitoring fire when they should and only then: in Prometheus, in virtual time."""

import json
import shutil
import subprocess
from dataclasses import dataclass, field

from prometheus_process import RULES, program

STEP = 15
"""Seconds between two scrapes, and two looks at the rules."""

GONE = None
"""In place of a value: the process is there no longer."""


@dataclass
class Story:
    """
    What the tasks of a service export, and which alarms that must raise.

    Attributes:
        name: What happens.
        series: The values of each series, one for each scrape.
        fires: The alarms, and for each the minutes at which it is not yet raised, and is.
    """

    name: str
    series: dict[str, list[float | None]]
    fires: dict[str, tuple[float, float]] = field(default_factory=dict)


def minutes(number, value):
    """Return the same value for *number* of minutes."""
    return [value] * int(number * 60 / STEP)


def rising(number, each):
    """Return the values of a counter."""
    return [each * at for at in range(int(number * 60 / STEP))]


def worker(name, *, task="a", number=30, **changes):
    """Return the series of a process that serves in peace; *changes* replaces those of a metric, or adds some."""
    at = f'job="streams", task="{task}", instance="{name}"'
    series = {
        "drain_state": minutes(number, 0),
        "drain_sessions_remaining": minutes(number, 0),
        'drain_watch|drain_trigger="target-health"': minutes(number, 1),
        'drain_trigger_polls_total|drain_trigger="target-health"': rising(number, 3),
        'drain_workers|drain_worker_state="active"': minutes(number, 2),
        'drain_workers|drain_worker_state="silent"': minutes(number, 0),
        'drain_sessions_closed_total|drain_close_reason="normal_closure"': rising(number, 1),
        **changes,
    }
    return {
        f"{metric}{{{at}{labels and ', ' + labels}}}": values
        for metric, labels, values in ((*name.partition("|")[::2], values) for name, values in series.items())
        if values is not None
    }


def drain(sessions, *, window=280, at=120, ends=300, left=lambda planned: planned, waits=0, mode="drain"):
    """
    Return the series of a drain of *sessions* that begins *at* a second; the process is gone *ends* seconds later.

    *left* says how many are left where so many are planned. For the first *waits* seconds none is to leave.
    """
    before = at // STEP
    seconds = [each * STEP for each in range(ends // STEP)]
    planned = [sessions * min(1, max(0.0, (window - each) / (window - waits))) for each in seconds]
    remaining = [round(left(each)) for each in planned]

    def then(value, values):
        return [value] * before + values + [GONE] * 200

    return {
        "drain_state": then(0, [2 if each == 0 else 1 for each in remaining]),
        "drain_sessions_remaining": then(0, remaining),
        "drain_sessions_planned": then(GONE, planned),
        f'drain_time_left_seconds|drain_mode="{mode}"': then(GONE, [window - each for each in seconds]),
        'drain_watch|drain_trigger="target-health"': then(1, [1] * len(seconds)),
        'drain_trigger_polls_total|drain_trigger="target-health"': then(0, [3 * each for each in range(len(seconds))]),
        'drain_sessions_closed_total|drain_close_reason="app_shutdown"': then(
            GONE, [sessions - each for each in remaining]
        ),
    }


def cut_off(series, seconds, at=120):
    """Return *series* of a process that is killed so many *seconds* after *at*."""
    keep = (at + seconds) // STEP
    return {name: values[:keep] + [GONE] * (len(values) - keep) for name, values in series.items()}


PEACE = worker("a:1") | worker("a:2") | worker("b:1", task="b") | worker("b:2", task="b")
SILENT = 'drain_workers|drain_worker_state="silent"'
WATCH = 'drain_watch|drain_trigger="target-health"'
POLLS = 'drain_trigger_polls_total|drain_trigger="target-health"'
HELD = 'drain_handshakes|drain_handshakes_state="held"'
STORMS = 'drain_sessions_refused_total|drain_refusal_reason="storm"'
FORCED = 'drain_sessions_closed_total|drain_close_reason="timeout"'


def forced(number):
    """Return the series of a drain of 1,200 sessions of which so many had to be cancelled, at its end."""
    series = drain(1200)
    ends = next(at for at, state in enumerate(series["drain_state"]) if state == 2)
    return series | {
        FORCED: [GONE if at < ends or each is GONE else number for at, each in enumerate(series["drain_state"])]
    }


STORIES = [
    Story("all is well", PEACE),
    Story("a worker stalls for a moment", PEACE | worker("a:1", **{SILENT: [0] * 20 + [1] + [0] * 99})),
    Story(
        "a worker hangs",
        PEACE | worker("a:1", **{SILENT: [0] * 20 + [1] * 100}),
        {"DrainWorkerSilent": (5.25, 5.75)},
    ),
    Story("a drain goes evenly", PEACE | worker("c:1", **drain(1200))),
    Story(
        "a small drain goes in steps", PEACE | worker("c:1", **drain(8, left=lambda planned: planned + (planned > 0)))
    ),
    Story(
        "a large drain has slow clients",
        PEACE | worker("c:1", **drain(16000, left=lambda planned: planned + 285 * (planned > 0))),
    ),
    Story("a drain waits for the next one", PEACE | worker("c:1", **drain(1200, waits=140))),
    Story("a drain ends early, and so does the process", PEACE | worker("c:1", **drain(1200, ends=270))),
    Story(
        "a drain is held up",
        PEACE | worker("c:1", **drain(1200, ends=270, left=lambda planned: max(planned, 900))),
        {"DrainBehindPlan": (4.0, 5.0)},
    ),
    Story(
        "sessions stay beyond the deadline",
        PEACE | worker("c:1", **drain(1200, ends=600, left=lambda planned: max(planned, 3))),
        {"DrainDeadlineMissed": (6.5, 7.25)},
    ),
    Story(
        "a drain is only observed",
        PEACE | worker("c:1", **drain(1200, ends=600, left=lambda _: 1200, mode="observe")),
    ),
    Story(
        "a process is killed in its drain",
        PEACE | worker("c:1", **cut_off(drain(1200), 120)),
        {"DrainKilled": (4.5, 5.5)},
    ),
    Story(
        "one scrape fails in a drain",
        PEACE | worker("c:1", **{name: [*values[:16], GONE, *values[17:]] for name, values in drain(1200).items()}),
    ),
    Story("a few sessions are forced", PEACE | worker("c:1", **forced(5))),
    Story("many sessions are forced", PEACE | worker("c:1", **forced(60)), {"DrainSessionsForced": (6.25, 7.25)}),
    Story("some connections wait for a moment", PEACE | worker("a:1", **{HELD: [0] * 20 + [9] * 3 + [0] * 97})),
    Story(
        "connections wait for minutes",
        PEACE | worker("a:1", **{HELD: [0] * 20 + [9] * 20 + [0] * 80}),
        {"DrainStorm": (5.75, 6.5)},
    ),
    Story(
        "connections are refused in a storm",
        PEACE | worker("a:1", **{STORMS: [GONE] * 20 + [7] * 100}),
        {"DrainStormRefuses": (4.75, 5.25)},
    ),
    Story("the first look takes a while", PEACE | worker("a:1", **{WATCH: [0] * 16 + [1] * 104})),
    Story(
        "a trigger is blind",
        PEACE | worker("a:1", **{WATCH: [1] * 20 + [-1] * 100}),
        {"DrainWatchBlind": (9.75, 10.25)},
    ),
    Story(
        "a target is in none of its groups",
        PEACE | worker("a:1", **{WATCH: [0] * 120}),
        {"DrainWatchBlind": (4.75, 5.25)},
    ),
    Story(
        "a trigger asks no longer, and does not know it",
        PEACE | worker("a:1", **{POLLS: [*rising(5, 3), *minutes(25, 57)]}),
        {"DrainWatchStalled": (24.5, 25.5)},
    ),
    Story(
        "no task of the service watches",
        worker("a:1", **{WATCH: None, POLLS: None}),
        {"DrainWatchMissing": (9.75, 10.25)},
    ),
]


def test_each_alarm_fires_when_it_should_and_only_then(tmp_path):
    """In each story these alarms and no others, neither too early nor too late; each fires in one story at least."""
    shutil.copy(RULES, tmp_path)
    nothing = {"input_series": [], "promql_expr_test": [ever([("", "DrainWatchMissing")])]}
    tests = {
        "rule_files": [RULES.name],
        "evaluation_interval": f"{STEP}s",
        "tests": [{"interval": f"{STEP}s"} | each for each in (all_stories(), nothing)],
    }
    (tmp_path / "tests.json").write_text(json.dumps(tests))
    done = subprocess.run(
        [program("promtool"), "test", "rules", "tests.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    names = {line.split()[-1] for line in RULES.read_text().splitlines() if "- alert:" in line}
    assert {name for story in STORIES for name in story.fires} == names


def all_stories():
    """Return one test of all stories, each that of a service of its own: they need one database, not many."""
    return {
        "input_series": [
            {"series": name, "values": " ".join("_" if each is None else str(each) for each in values)}
            for story in STORIES
            for name, values in series_of(story)
        ],
        "promql_expr_test": [
            ever((story.name, name) for story in STORIES for name in story.fires),
            *(each for story in STORIES for name, when in story.fires.items() for each in at_last(story, name, *when)),
        ],
    }


def series_of(story):
    """Return the series of *story*. Like Prometheus, mark at the first scrape that fails that a process is gone."""
    for name, values in story.series.items():
        shown, was_there = [], False
        for each in values:
            shown.append("stale" if each is GONE and was_there else each)
            was_there = each is not GONE
        yield name.replace('job="streams"', f'job="{story.name}"'), shown


def ever(fired):
    """Expect exactly these alarms of these services in the whole time."""
    return {
        "expr": 'group by (job, alertname) (max_over_time(ALERTS{alertstate="firing"}[1h]))',
        "eval_time": "30m",
        "exp_samples": [sample(service, name) for service, name in fired],
    }


def at_last(story, name, not_yet, by_now):
    """Expect that an alarm is raised between two moments."""
    query = f'group by (job, alertname) (ALERTS{{alertstate="firing", alertname="{name}", job="{story.name}"}})'
    for at, samples in ((not_yet, []), (by_now, [sample(story.name, name)])):
        yield {"expr": query, "eval_time": f"{round(at * 60)}s", "exp_samples": samples}


def sample(service, name):
    """Return a raised alarm; one that tells of no service has no such label."""
    labels = [f'alertname="{name}"', *([f'job="{service}"'] if service else [])]
    return {"labels": "{" + ", ".join(labels) + "}", "value": 1}
