"""What is wrong with tasks, how far they are against their plan, and what came of them."""

from itertools import pairwise

import pytest

from starlette_drain.tools.tasks.seen import Seen, counted, lag_of, outcome, planned, problems, totals
from starlette_drain.tools.tasks.view import line


def shown(state="draining", sessions=None, drain=None, **more):
    """Return an answer of ``GET /drain``."""
    counted = {"open": 40, "waiting": 40, "held": 0, "leaving": 0, "opened": 100, "closed": 60, **(sessions or {})}
    answer = {"state": state, "sessions": counted, "workers": [], "triggers": {}, **more}
    if state == "draining":
        plan = {"window": 100.0, "time_left": 40.0, "rate": 1.0, "eta": 39.0, "shed": 50, "left": 10, "refused": 0}
        answer["drain"] = {**plan, "forced": 0, **(drain or {})}
    return answer


STUCK = {"pid": 34, "silent": True, "seconds_ago": 12.3, "sessions": {"open": 206}}
ELSEWHERE = {"state": "another worker watches", "watched_by": 12}
LIMIT = {"level": "unsafe", "problem": "a limit on requests ends the process", "remedy": "remove it"}
NOTE = {"level": "note", "problem": "uvicorn waits for a client that does not read", "remedy": "set a limit"}
BLIND = {"watch": "blind", "last_error": "AccessDenied\x1b[2J", "because": "denied"}


def test_a_stuck_worker_comes_first():
    """Whatever else is wrong with other tasks: it names the worker, its sessions, and what to do."""
    late, silent = shown(drain={"eta": 60.0}), Seen("b", why_not="no answer in time")
    found = problems([Seen("a", late), silent, Seen("c", shown(workers=[STUCK]))])
    assert [each.task for each in found] == ["c", "b", "a"]
    assert found[0].problem == (
        "worker 34 is stuck: no heartbeat for 12 s, with 206 open sessions that it does not ask to leave"
    )
    assert "py-spy dump --pid 34" in found[0].remedy
    assert "kill -KILL 34" in found[0].remedy
    assert found[2].problem == "the last session would be asked 20 s after the deadline"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (shown("serving", triggers={"target-health": BLIND}), r"target-health sees nothing: AccessDenied\x1b[2J"),
        (
            shown("serving", triggers={"target-health": {"watch": "not yet", "last_error": "AccessDenied"}}),
            "target-health sees nothing: AccessDenied",
        ),
        (
            shown("serving", watch="blind for 30 s: target-health: denied\n", triggers={"target-health": ELSEWHERE}),
            "its sources see nothing: blind for 30 s: target-health: denied",
        ),
        (shown("serving", process={"problems": [NOTE, LIMIT]}), "a limit on requests ends the process"),
        (shown("serving", scope="worker"), "its workers cannot reach each other"),
        (shown("serving", triggers={"own": {"failed": "OSError; it restarts within 2 s"}}), "own sees nothing"),
        (shown("drained"), "drained, with 40 sessions still open"),
        (shown("drained", mode="observe"), "only observed: 40 sessions open, and none is closed"),
        (shown(mode="observe"), "only observed: 40 sessions open, and none is closed"),
        (shown(sessions={"held": 40, "waiting": 0}), "all remaining sessions are held: 40"),
    ],
)
def test_other_problems(answer, words):
    """Each is found, says what to do, and lets nothing from outside through to the terminal."""
    (problem,) = problems([Seen("a", answer)])
    assert words in problem.problem
    assert problem.problem.isprintable()
    assert problem.remedy


def test_nothing_is_wrong():
    """Neither with a task that serves or has just started, nor with one that drains as planned or is gone."""
    quiet = shown("serving", scope="task", process={"problems": [NOTE]})
    assert problems([Seen("d", quiet)]) == []
    young = shown("serving", watch="not yet", triggers={"target-health": {"watch": "not yet", "last_error": None}})
    assert problems([Seen("a", young)]) == []
    assert (
        problems([Seen("a", shown("serving")), Seen("b", shown()), Seen("c", shown("drained"), "", is_gone=True)]) == []
    )


def test_against_the_plan():
    """An even drain of 100 sessions has 40 left after 60 of 100 seconds. The sum counts those that serve as open."""
    assert planned(shown()) == 40
    assert planned(shown(sessions={"open": 42, "leaving": 2}, drain={"shed": 50})) == 40
    assert planned(shown("serving")) is None
    seen = [Seen("a", shown()), Seen("b", shown("serving")), Seen("c", shown(), is_gone=True)]
    every = totals(seen)
    assert (every.tasks, every.draining, every.open, every.planned, every.rate) == (2, 1, 80, 80, 1.0)


def test_the_plan_falls_evenly():
    """Whatever leaves by itself, what is planned never rises."""
    moments = [
        planned(shown(sessions={"open": left}, drain={"shed": 100 - left, "left": 0, "time_left": left}))
        for left in range(100, -1, -5)
    ]
    assert all(later <= earlier for earlier, later in pairwise(moments))
    assert moments[-1] == 0


def test_the_lag():
    """It is the report's, as in the log, not that of a trigger's next poll; after a cancel, too."""
    triggers = {"target-health": {"detection_lag": 2.5}, "workers": {}}
    running = {"causes": [{"detection_lag": 0.6}, {"detection_lag": 9.0}]}
    assert lag_of(shown(drain=running, triggers=triggers)) == 0.6
    assert lag_of(shown("drained", report={"detection_lag": 0.6}, triggers=triggers)) == 0.6
    (row,) = outcome([Seen("a", shown("serving", report={"detection_lag": 0.0}, triggers=triggers))])
    assert row["detection_lag"] == 0.0
    assert lag_of(shown("serving", triggers=triggers)) is None


def test_a_task_that_ended_without_a_drain():
    """It has a row, because its sessions have not left as far as is known."""
    (row,) = outcome([Seen("a", shown("serving"), is_gone=True)])
    assert (row["outcome"], row["last_seen_open"]) == (None, 40)


def test_the_numbers_of_a_task_that_does_not_answer():
    """A line says that they are old."""
    lost = Seen("a", shown(), why_not="no answer in time")
    assert line([lost]) == "a, not known, 40 open when last seen"
    assert line([Seen("a", shown(), is_gone=True)]) == "a, gone, 40 open when last seen"
    assert line([Seen("a", shown("serving"))]) == "a, serving, 40 open"


def test_one_and_many():
    """Only one of a kind is in the singular."""
    assert [counted(number, "session") for number in (0, 1, 1200)] == ["0 sessions", "1 session", "1,200 sessions"]


def test_what_is_not_known_of_a_task_that_is_gone():
    """Its last look stands; the report that it did not live to give is not made up."""
    done = shown(
        "drained", sessions={"open": 0}, report={"outcome": "drained", "shed": 90, "slack": 1.5, "still_open": 0}
    )
    rows = outcome([Seen("a", shown(), is_gone=True), Seen("b", done), Seen("c", shown("serving"))])
    assert [each["task"] for each in rows] == ["a", "b"]
    assert (rows[0]["shed"], rows[0]["last_seen_open"]) == (50, 40)
    assert [rows[0][name] for name in ("outcome", "slack", "still_open", "peak_rate")] == [None] * 4
    assert (rows[1]["outcome"], rows[1]["slack"]) == ("drained", 1.5)
