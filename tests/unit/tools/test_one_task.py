"""``starlette-drain status | watch | start | cancel`` of a task in this container, which answers by hand."""

import os
import signal
import subprocess
import sys

import pytest

from starlette_drain.tools.cli import main
from starlette_drain.tools.tasks import channel, command, view
from starlette_drain.tools.tasks.channel import Ended, Refused, SocketChannel, Unreachable, find_channel
from starlette_drain.tools.tasks.seen import Seen

SESSIONS = {"open": 3, "waiting": 3, "held": 0, "leaving": 0, "opened": 3, "closed": 0}
SERVING = {"state": "serving", "sessions": SESSIONS, "workers": [], "triggers": {}}
DRAINED = {**SERVING, "state": "drained", "sessions": {**SESSIONS, "open": 0}}


class Answering:
    """Gives *answers* one after another, and the last one again."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def ask(self, _method, _body=None, _path=""):
        """Give the next answer."""
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def run(monkeypatch, capsys):
    """Return what runs a command on a task that gives *answers*, and returns its exit code, output and errors."""
    monkeypatch.setattr(command, "POLL_INTERVAL", 0.0)

    def run(answers, *arguments):
        monkeypatch.setattr(command, "find_channel", lambda *_: ("process 31", Answering(*answers)))
        code = main(arguments)
        told = capsys.readouterr()
        return code, told.out, " ".join(told.err.split())

    return run


def test_watch_ends_with_a_server_that_ends_while_it_serves(run):
    """It is gone, with exit code 1 if sessions were open."""
    code, out, _ = run([(200, SERVING), Ended("process 31 has ended")], "watch")
    assert code == 1
    assert "process 31, gone, 3 open when last seen" in out
    assert out.splitlines()[-1].split() == ["process", "31", "not", "known", *"-" * 9]
    assert run([(200, {**SERVING, "sessions": {**SESSIONS, "open": 0}}), Ended("it has ended")], "watch")[0] == 0


def test_watch_goes_on_if_a_task_does_not_answer(run):
    """A stuck process, or a network, may come back."""
    answers = [(200, SERVING), *[Unreachable("no answer in time")] * 9, (200, SERVING), Ended("it has ended")]
    out = run(answers, "watch")[1]
    assert out.count("process 31, not known, 3 open when last seen") == 1
    assert out.count("process 31, serving, 3 open\n") == 2


def test_a_process_that_has_ended(tmp_path):
    """Its sockets are gone with it; as long as it lives they are looked for again."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    with pytest.raises(Ended, match="has ended"):
        SocketChannel([tmp_path / "socket-1"], ended.pid).ask("GET")
    found = []
    way = SocketChannel([tmp_path / "socket-1"], os.getpid(), lambda: found)
    with pytest.raises(Unreachable, match="process 1: No such file"):
        way.ask("GET")
    found.append(tmp_path / "socket-2")
    for pid in (1, 2):
        with pytest.raises(Unreachable, match=f"process {pid}: No such file"):
            way.ask("GET")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows command lines in /proc")
def test_several_servers_are_named_by_their_commands(monkeypatch, tmp_path):
    """A pid alone does not tell one from another."""
    words = [sys.executable, "-c", "print(flush=True); input()", "--port", "8001"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()  # the kernel shows its command line now
        found = {pid: [tmp_path] for pid in (other.pid, os.getpid())}
        monkeypatch.setattr(channel, "find_sockets", lambda _: found)
        with pytest.raises(Unreachable, match=rf"--pid {other.pid} \(.* --port 8001\)"):
            find_channel(None, None, {})
        other.communicate(b"\n")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((202, DRAINED), "process 31 is drained. Open sessions: 0."),
        ((200, DRAINED), "process 31 is drained already, so nothing was started. Open sessions: 0."),
    ],
)
def test_a_start_that_is_over_at_once(run, answer, words):
    """It says whether it started anything."""
    assert run([answer], "start", "--window", "10")[:2] == (0, words + "\n")


@pytest.mark.parametrize(("left", "code"), [(3, 1), (0, 0)])
def test_a_drain_that_is_only_observed_has_emptied_nothing(run, left, code):
    """Its report tells what would have been; the exit code follows the sessions that are open."""
    report = {"outcome": "drained", "sessions_at_start": 3, "shed": 3, "still_open": 0}
    report |= {"left": 0, "forced": 0, "arrived": 0, "peak_rate": 1.0, "detection_lag": 0.0, "slack": 0.1}
    over = {**DRAINED, "mode": "observe", "sessions": {**SESSIONS, "open": left}, "report": report}
    begun = {**SERVING, "mode": "observe", "state": "draining", "drain": {"rate": 1.0, "time_left": 3.0}}
    got, out, _ = run([(202, begun), (200, over)], "start", "--window", "3", "--wait")
    assert got == code
    assert "starts to drain, only observed" in out
    words = out.splitlines()[-1].split()
    assert (words[2], words[8]) == ("observed", str(left))
    assert ("set DRAIN_MODE to 'drain'" in out) == (left > 0)


@pytest.mark.parametrize(("workers", "words"), [(1, "3 sessions, 1.0/s, 9 s remain."), (2, "3 sessions, 9 s remain.")])
def test_the_rate_of_a_part_of_the_workers_is_not_told(run, workers, words):
    """The answer to a start has the sessions of all workers, but the rate of those that have begun."""
    begun = {**SERVING, "state": "draining", "workers": [{}] * workers, "drain": {"rate": 1.0, "time_left": 9.0}}
    assert run([(202, begun)], "start")[1] == f"process 31 starts to drain: {words}\n"


def test_one_session_is_in_the_singular(run):
    """As people write it."""
    one = {**SERVING, "sessions": {**SESSIONS, "open": 1, "leaving": 1}}
    assert run([(200, one)], "cancel")[1] == (
        "process 31 serves again, with 1 session; 1 session already asked to leave will leave.\n"
    )


def test_what_to_do_about_a_task_that_does_not_answer(run):
    """It is part of the error, and in a table stands below the problem, once."""
    lost = Unreachable("ECS Exec needs aws", "run: aws ecs execute-command")
    assert run([lost], "status")[::2] == (2, "Error: ECS Exec needs aws; run: aws ecs execute-command")
    out = run([(200, SERVING), lost, Ended("it has ended")], "watch")[1]
    assert "PROBLEM process 31: ECS Exec needs aws\n  -> run: aws ecs execute-command\n" in out


def test_nothing_to_cancel(run):
    """Exit code 1, with what the task says."""
    refused = Refused(409, "no drain is running; there is nothing to cancel")
    assert run([refused], "cancel")[::2] == (1, "Error: no drain is running; there is nothing to cancel")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["start", "--timeout", "5"], "--timeout goes with --wait"),
        (["status", "--url", "http://127.0.0.1", "--pid", "4"], "give one of them"),
        (["status", "--url", "http://127.0.0.1", "--port", "9"], "--port goes with --cluster"),
        (["cancel", "--pid", "4", "--port", "9"], "--port goes with --cluster"),
        (["rotate", "--port", "99999"], "'99999' cannot work: give a port from 1 to 65,535"),
        (["status", "--pid", "0"], "'0' cannot work: give a process id, at least 1"),
        (["start", "--window", "x"], "'x' cannot work: give seconds from 0 to 3,600"),
        (["rotate", "--window", "0"], "give seconds from 1 to 2,678,400"),
        (["rotate", "--share", "3"], "give a part above 0, up to 1"),
    ],
)
def test_no_option_is_ignored(run, given, words):
    """One that has no effect, or an impossible value, is a wrong usage."""
    code, _, err = run([(200, SERVING)], *given)
    assert (code, words in err) == (2, True), err


def test_sigterm_gives_the_terminal_its_cursor_back():
    """It ends `watch` as an exception, and only as long as something is redrawn."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, command._terminable():
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_narrow_terminal_hides_no_number(monkeypatch, capsys):
    """Its lines wrap; no column becomes an ellipsis."""
    monkeypatch.setattr(view, "WIDTH", 40)
    view.print_out(view.screen([Seen("process 31", {**SERVING, "state": "draining"})]))
    told = capsys.readouterr().out
    assert "…" not in told
    assert "REMAINING" in told
