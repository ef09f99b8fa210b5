"""``starlette-drain rotate``: what it asks of one task and of all tasks of a service, and what it tells."""

import json
from contextlib import nullcontext

import pytest

from starlette_drain.tools.cli import main
from starlette_drain.tools.tasks import rotate
from starlette_drain.tools.tasks.channel import ROTATION, Refused, Unreachable

WEB = ("--cluster", "main", "--service", "web")


class Task:
    """Answers like the admin route of a task with *open_* sessions."""

    def __init__(self, open_=0, error=None, workers=1):
        self.open = open_
        self.error = error
        self.workers = [{}] * workers
        self.asked = []
        self.has_begun = workers == 1

    def ask(self, method, body=None, path=""):
        """Take note, and answer."""
        self.asked.append((method, body, path))
        if self.error is not None:
            raise self.error
        if not path:
            sessions = {"open": self.open}
            return 200, {"state": "serving", "sessions": sessions, "triggers": {}, "workers": self.workers}
        if method != "POST" and (not self.orders or self.has_begun):
            return 200, {"state": "none"}
        order = self.orders[-1]
        remaining = self.open if self.has_begun or method == "GET" else self.open // len(self.workers)
        return 202, {
            "state": "rotating", "trigger": "rotation", "reason": order["reason"], "window": order["window"],
            "time_left": order["window"], "rate": remaining / order["window"], "asked": 0, "remaining": remaining,
        }  # fmt: skip

    @property
    def orders(self):
        """The rotations that it was told."""
        return [body for method, body, _ in self.asked if method == "POST"]


@pytest.fixture
def run(monkeypatch, capsys):
    """Return what runs the command on *tasks*, and returns its exit code, output and errors."""

    def run(tasks, *arguments):
        monkeypatch.setattr(rotate, "channels_of", lambda _which: nullcontext(tasks))
        code = main(["rotate", *arguments])
        told = capsys.readouterr()
        return code, told.out, " ".join(told.err.split())

    return run


def test_one_task(run):
    """The window is the one that was asked for, and no age is sent."""
    task = Task(600)
    code, out, _ = run({"process 31": task}, "--window", "60", "--share", "0.5", "--reason", "a test")
    assert (code, out) == (0, "process 31: rotating (a test): 0 asked, 600 remain, 10.00/s, 60 s left\n")
    assert task.orders == [{"window": 60.0, "share": 0.5, "reason": "a test"}]


def test_all_tasks_of_a_service_keep_to_one_rate(run):
    """One window in which the sessions of all fit; later tasks let those stay that come from the first."""
    tasks = {"a": Task(600), "b": Task(1400)}
    code, out, _ = run(tasks, *WEB, "--window", "60", "--fleet-rate", "10", "--json")
    assert code == 0
    orders = [order for task in tasks.values() for order in task.orders]
    assert [each["window"] for each in orders] == [200.0, 200.0]
    assert all(0 <= each.get("age", 0.0) < 10 for each in orders)
    assert sum(each["rate"] for each in json.loads(out).values()) == 10.0


def test_the_sessions_of_all_workers_are_told(run, monkeypatch):
    """The first answer of a task counts only the worker that got the order; the others begin within two seconds."""
    waits = []
    monkeypatch.setattr(rotate.time, "sleep", waits.append)
    tasks = {"a": Task(40, workers=2), "b": Task(60), "c": Task(error=Unreachable("gone"))}
    out = run(tasks, *WEB, "--window", "50")[1]
    assert out.splitlines() == [
        "a: rotating (requested by the starlette-drain command): 0 asked, 40 remain, 0.80/s, 50 s left",
        "b: rotating (requested by the starlette-drain command): 0 asked, 60 remain, 1.20/s, 50 s left",
        "c: gone",
        "3 tasks: 2.00/s",
    ]
    assert waits == [rotate.BEGINS]


def test_a_longer_window_and_a_share_are_kept(run):
    """The rate is a limit, not a wish; half of the sessions need half of the time."""
    task = Task(1000)
    run({"a": task}, *WEB, "--window", "500", "--fleet-rate", "10")
    run({"a": task}, *WEB, "--share", "0.5", "--fleet-rate", "10")
    run({"a": task}, *WEB, "--window", "500", "--age", "20")
    assert [(each["window"], round(each.get("age", 0.0))) for each in task.orders] == [(500, 0), (50, 0), (500, 20)]


def test_where_the_sessions_cannot_be_counted_no_task_is_told(run):
    """The rate would not hold."""
    tasks = {"a": Task(100), "b": Task(error=Unreachable("b does not answer"))}
    code, _, err = run(tasks, *WEB, "--fleet-rate", "10")
    assert (code, err) == (2, "Error: b does not answer")
    assert tasks["a"].orders == []


def test_a_task_that_refuses_is_named_and_the_others_rotate(run):
    """Exit code 1; alone it is the error of the command."""
    tasks = {"a": Task(100), "b": Task(error=Refused(409, "it drains"))}
    code, out, _ = run(tasks, *WEB, "--window", "10")
    assert code == 1
    assert out.splitlines()[1:] == ["b: it drains", "2 tasks: 10.00/s"]
    assert run({"b": tasks["b"]}, "--window", "10")[::2] == (1, "Error: it drains")
    assert run({"c": Task(error=Unreachable("gone"))}, "--window", "10")[::2] == (2, "Error: gone")


def test_without_options_it_only_looks(run):
    """Nothing is started by mistake."""
    task = Task(100)
    assert run({"a": task}) == (0, "a: no rotation is running\n", "")
    assert task.asked == [("GET", None, ROTATION)]


def test_without_a_session_it_says_so(run, monkeypatch):
    """A rotation that was over at once is no failure, and not the same as none."""
    task = Task()
    monkeypatch.setattr(task, "ask", lambda *_: (202, {"state": "none"}))
    assert run({"process 31": task}, "--window", "60") == (0, "process 31: no session to rotate\n", "")


def test_a_cancel_for_all(run):
    """Tasks that do not rotate are no failure, unless none does."""
    idle = Refused(409, "no rotation runs")
    code, out, _ = run({"a": Task(), "b": Task(error=idle)}, *WEB, "--cancel")
    assert (code, out.splitlines()) == (
        0, ["a: the rotation is cancelled; sessions not yet asked to leave stay", "b: no rotation runs"],
    )  # fmt: skip
    assert run({"a": Task(error=idle), "b": Task(error=idle)}, *WEB, "--cancel")[0] == 1
    assert run({"a": Task(), "b": Task(error=Unreachable("gone"))}, *WEB, "--cancel")[0] == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--cancel", "--window", "60"], "--cancel goes with none of"),
        (["--share", "0.5"], "give --window or --fleet-rate"),
        (["--share", "0", "--window", "60"], "'--share': '0' cannot work"),
        (["--fleet-rate", "0.0001"], "at 0.0001/s that takes 10,000,000 s"),
    ],
)
def test_a_wrong_usage(run, given, words):
    """It is refused before any task is told."""
    task = Task(1000)
    code, _, err = run({"a": task}, *given)
    assert (code, words in err) == (2, True)
    assert task.orders == []
