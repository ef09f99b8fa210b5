"""``doctor --wait``: what the process shows, judged; how long it is asked."""

import json
import os
import socket
import threading

import pytest

from starlette_drain.aws.api.errors import Incomplete, Trouble, TroubleKind
from starlette_drain.aws.identity.identity import OwnTarget
from starlette_drain.aws.identity.metadata import METADATA_VARIABLE
from starlette_drain.aws.options import AwsSettings
from starlette_drain.tools.doctor import inside
from starlette_drain.tools.doctor import wait as waiting
from starlette_drain.tools.doctor.inside import Answer, ask_own_process, ask_process, command_of_server
from starlette_drain.tools.doctor.look import Given, urls_of
from starlette_drain.tools.doctor.record import Group, SetUp
from starlette_drain.tools.doctor.wait import wait_watched
from starlette_drain.tools.doctor.watching import judge

ENVIRON = {"ECS_CONTAINER_METADATA_URI_V4": "http://metadata", "DRAIN_ADMIN_TOKEN": "a-token-of-the-tests"}


def showing(verdict="serving", **status):
    """Return what a process shows whose target is in that state."""
    group = {
        "arn": "arn:aws:elasticloadbalancing:eu-central-1:1:targetgroup/web/0",
        "target": "10.0.0.5 (8000)",
        "verdict": verdict,
    }
    return Answer({"triggers": {"target-health": {"state": "watching", "target_groups": [group], **status}}})


def watched_elsewhere(watch):
    """Return what a worker shows that is not the one that watches."""
    return Answer({"watch": watch, "triggers": {"target-health": {"state": "another worker watches", "watched_by": 9}}})


@pytest.mark.parametrize(
    ("answer", "sources", "words"),
    [
        (showing(), "target-health", ""),
        (showing("ailing"), "target-health", ""),
        (showing("not-yet"), "target-health", "10.0.0.5 (8000) in web: not-yet"),
        (showing("unknown", last_error="elbv2:DescribeTargetHealth is denied"), "target-health", "is denied"),
        (showing(target_groups=[]), "target-health", "has not found its target group yet"),
        (showing(why="this is not an ECS task"), "target-health", "this is not an ECS task"),
        (watched_elsewhere("watching"), "target-health", ""),
        (watched_elsewhere("not yet"), "target-health", "worker 9 watches, and tells: not yet"),
        (showing(watch="blind", blind_for=74.0, because="no answer has come"), "target-health", "blind for 74 s"),
        (showing(watch="watching", last_error="Throttling"), "target-health", ""),
        (showing(failed="OSError; it watches again within 5 s"), "target-health", "OSError"),
        (showing(), "target-health,task-state", "task-state is not in place"),
        (Answer({"triggers": {"task-state": {"answer_age": 2.0}}}), "task-state", ""),
        (Answer({"triggers": {"task-state": {"answer_age": None}}}), "task-state", "no answer yet"),
        (Answer(why_not="it does not answer"), "target-health", "it does not answer"),
    ],
)
def test_what_the_process_shows(answer, sources, words):
    """Each source that is wanted must watch; why it does not is said."""
    findings = [*judge(answer, AwsSettings(sources=sources))]
    assert findings
    unsafe = [each.found for each in findings if each.level == "unsafe"]
    assert bool(unsafe) is bool(words)
    assert words in " ".join(unsafe)


async def looking(*_):
    """Find nothing on AWS, as for a service without a fault."""
    return SetUp(service="web", service_status="ACTIVE")


@pytest.mark.anyio
@pytest.mark.parametrize(("limit", "is_watched"), [(60.0, True), (1.0, False)])
async def test_it_is_asked_until_it_watches_or_the_time_is_up(limit, is_watched, monkeypatch):
    """As soon as the target has been seen, or with the last reason when the time is up."""
    answers = [Answer(why_not="not up"), showing("not-yet"), showing("not-yet"), showing("serving")]
    clock = [0.0]

    async def ask(urls, token, patience=5.0):
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def sleep(seconds):
        clock[0] += seconds

    monkeypatch.setattr(waiting, "ask_process", ask)
    monkeypatch.setattr(waiting.asyncio, "sleep", sleep)
    monkeypatch.setattr(waiting.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(waiting, "look", looking)
    findings = await wait_watched(Given(), None, ENVIRON, limit)
    assert (not [each for each in findings if each.level == "unsafe"]) is is_watched
    assert clock[0] <= limit


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "this is not an ECS task"),
        ({**ENVIRON, "DRAIN_CLOSE_CODE": "1000"}, "CLOSE_CODE"),
        ({**ENVIRON, "DRAIN_MODE": "off"}, "switches everything off"),
    ],
)
async def test_what_need_not_be_waited_for(environ, words):
    """Off ECS, switched off, and with options that cannot work, nothing will change."""
    (fault,) = await wait_watched(Given(), None, environ, 60.0)
    assert words in fault.found


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("environ", "shown", "words"),
    [
        ({}, {"triggers": {"sigterm": {}}}, "no AWS source is watched"),
        ({"DRAIN_SOURCES": "none"}, {"triggers": {"sigterm": {}}}, "no AWS source is watched"),
        ({}, {**showing().shown, "mode": "observe"}, "mode=observe"),
        ({}, {"triggers": {"task-state": {"answer_age": 1.0}}}, ""),
    ],
)
async def test_what_was_set_is_not_waited_for(environ, shown, words, monkeypatch):
    """What the process was told to do it does: that nothing is watched, or nothing closed, is said at once."""

    async def ask(urls, token, patience=5.0):
        return Answer(shown)

    monkeypatch.setattr(waiting, "ask_process", ask)
    findings = await wait_watched(Given(), None, {**ENVIRON, **environ}, 60.0)
    assert not [each for each in findings if each.level == "unsafe"]
    assert words in " ".join(each.found for each in findings if each.level == "note")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("first", "level"), [("uvicorn app:app", "unsafe"), ("tini -- starlette-drain doctor --wait 60", "note")]
)
async def test_without_a_token_the_process_of_this_container_must_answer(first, level, tmp_path, monkeypatch):
    """Only a container that was started for the check has none, and looks for the target itself."""

    async def look(*_):
        return SetUp()

    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "cmdline").write_bytes("\0".join(first.split()).encode())
    monkeypatch.setattr(waiting, "look", look)
    monkeypatch.setattr(waiting, "is_alone", lambda: inside.is_alone(tmp_path))
    (finding,) = await wait_watched(Given(), None, {METADATA_VARIABLE: "http://metadata"}, 0.0)
    assert finding.level == level
    assert "DRAIN_ADMIN_TOKEN" in finding.remedy


WEB = "arn:aws:elasticloadbalancing:eu-central-1:1:targetgroup/web/0"
OWN = OwnTarget(WEB, frozenset({"10.0.0.5"}), frozenset({9999}), 300.0)
DENIED = Trouble(TroubleKind.DENIED, "elbv2", "DescribeTargetHealth", "AccessDenied")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("found", "remedy"),
    [
        (
            SetUp(own=(OWN,), groups=(Group(WEB, targets=1, listed=(("10.0.0.5", 8000, "healthy"),)),)),
            "the group has it with port 8000: set DRAIN_TARGET_PORT to that",
        ),
        (SetUp(own=(OWN,), groups=(Group(WEB),), troubles=(DENIED,)), "elasticloadbalancing:DescribeTargetHealth"),
        (SetUp(task_arn="a-task", stuck=Incomplete(problem="no group", remedy="name it")), "name it"),
        (None, "see the log of the task"),
    ],
)
@pytest.mark.parametrize("environ", [ENVIRON, {METADATA_VARIABLE: "http://metadata"}])
async def test_when_the_time_is_up_the_cause_is_named(found, remedy, environ, monkeypatch):
    """What AWS shows of the target says more than what the process knows; an AWS that hangs holds nothing up."""

    async def ask(urls, token, patience=5.0):
        return showing("not-yet")

    async def look(*_):
        if found is None:
            raise TimeoutError
        return found

    monkeypatch.setattr(waiting, "ask_process", ask)
    monkeypatch.setattr(waiting, "look", look)
    monkeypatch.setattr(waiting, "is_alone", lambda: True)
    findings = await wait_watched(Given(), None, environ, 0.0)
    unsafe = [each for each in findings if each.level == "unsafe"]
    assert len({each.found for each in unsafe}) == len(unsafe)
    assert remedy in " ".join(each.remedy for each in unsafe)


@pytest.mark.anyio
async def test_a_process_that_cannot_be_asked():
    """Why not is said: no token, nobody who listens, a URL that is none."""
    assert "DRAIN_ADMIN_TOKEN" in (await ask_process(["http://127.0.0.1:9/drain"], None)).why_not
    assert "does not answer" in (await ask_process(["http://127.0.0.1:9/drain"], "a-token")).why_not
    assert "http://" in (await ask_process(["file:///etc/passwd"], "a-token")).why_not
    assert "give --url" in (await ask_process([], "a-token")).why_not


@pytest.mark.parametrize(
    ("processes", "command"),
    [
        ([(1, 0, "uvicorn app:app")], "uvicorn app:app"),
        ([(1, 0, "sh -c uvicorn"), (7, 1, "uvicorn app:app")], "sh -c uvicorn"),
        ([(1, 0, "/pause"), (7, 0, "uvicorn app:app"), (8, 7, "python -c spawn")], "uvicorn app:app"),
        ([(1, 0, "supervisord -n"), (7, 1, "uvicorn app:app")], "supervisord -n"),
        ([(1, 0, "node server.js")], "node server.js"),
        ([], ""),
    ],
)
def test_the_command_line_of_the_server(tmp_path, processes, command):
    """The first process, unless another container's is first; or what stands above the server."""
    for pid, parent, line in processes:
        folder = tmp_path / str(pid)
        folder.mkdir()
        (folder / "cmdline").write_bytes("\0".join(line.split()).encode())
        (folder / "stat").write_text(f"{pid} (a) S {parent} 1 1 0", encoding="utf-8")
        (folder / "environ").write_bytes(b"A=1\0ECS_CONTAINER_METADATA_URI_V4=http://metadata\0")
    assert " ".join(command_of_server(ENVIRON, tmp_path)) == command
    elsewhere = {"ECS_CONTAINER_METADATA_URI_V4": "http://another-container"}
    assert command_of_server(elsewhere, tmp_path) == tuple(processes[0][2].split() if processes else ())


@pytest.fixture
def answering(tmp_path, monkeypatch):
    """Let a process of this container answer on its own socket; return the environment and the process table."""
    folder, proc = tmp_path / "sockets", tmp_path / "proc"
    path = folder / f"socket-{os.getpid()}"
    environ = {METADATA_VARIABLE: "http://metadata"}
    for each in (folder, proc / str(os.getpid())):
        each.mkdir(parents=True)
    (proc / str(os.getpid()) / "environ").write_bytes(f"A=1\0{METADATA_VARIABLE}=http://metadata\0".encode())
    monkeypatch.setattr(inside, "find_sockets", lambda _: {os.getpid(): [path]})
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def answer():
            try:
                connection, _ = listening.accept()
            except OSError:  # closed before this thread ran, in a test that does not ask
                return
            with connection, connection.makefile("rb") as asked:
                asked.readline()
                body = {"state": "serving", "sessions": {}, "triggers": {}}
                connection.sendall(json.dumps({"status": 200, "body": body}).encode() + b"\n")

        threading.Thread(target=answer, daemon=True).start()
        yield environ, proc


@pytest.mark.anyio
async def test_the_process_of_this_container_needs_no_token(answering):
    """It answers on its own socket."""
    environ, proc = answering
    answer = await ask_own_process(environ, proc)
    assert answer.shown["state"] == "serving"


@pytest.mark.anyio
async def test_the_doctor_asks_it_before_any_port(answering, monkeypatch):
    """What listens on a port is shown no token then; with --url it is asked, and nothing else."""
    environ, proc = answering
    shown = []

    async def ask_own(_):
        return await ask_own_process(environ, proc)

    async def ask(urls, token, patience=5.0):
        shown.append(token)
        return Answer(why_not="not up")

    monkeypatch.setattr(waiting, "ask_own_process", ask_own)
    monkeypatch.setattr(waiting, "ask_process", ask)
    monkeypatch.setattr(waiting, "look", looking)
    await wait_watched(Given(), None, ENVIRON, 0.0)
    assert shown == []
    await wait_watched(Given(url="http://127.0.0.1:9/drain"), None, ENVIRON, 0.0)
    assert shown == ["a-token-of-the-tests"]


@pytest.mark.anyio
@pytest.mark.parametrize("environ", [{}, {METADATA_VARIABLE: "http://another"}])
async def test_the_process_of_another_container_is_not_asked(answering, environ):
    """Nor is any off ECS: the token and the port are left, as before."""
    assert await ask_own_process(environ, answering[1]) is None


@pytest.mark.parametrize(
    ("command", "target_port", "ports"),
    [
        ("uvicorn app:app --port 9000", None, [9000]),
        ("uvicorn app:app --port 9000", 9001, [9000, 9001]),
        ("uvicorn app:app", 9001, [9001]),
        ("uvicorn app:app", None, [8000]),
    ],
)
def test_where_the_token_is_shown(command, target_port, ports):
    """The usual port is a guess, and only made where no port is known."""
    found = urls_of(Given(command=tuple(command.split())), {}, AwsSettings(target_port=target_port))
    assert found == [f"http://127.0.0.1:{port}/drain" for port in ports]
