"""The way to a task by ECS Exec: the line to copy, and what a session brings back."""

import json
import subprocess

import pytest

from starlette_drain.tools.tasks.channel import ROTATION, Refused, Unreachable
from starlette_drain.tools.tasks.ecs_exec import EcsTask, ExecChannel, exec_line
from starlette_drain.tools.tasks.service import place_of

ARN = "arn:aws:ecs:eu-central-1:123456789012:task/main/0123456789abcdef0123456789abcdef"
TASK = EcsTask(ARN, "0123456789ab", "main", "app", None, None, is_stopping=False)
SHOWN = {"state": "draining", "sessions": {"open": 1}, "triggers": {}}
LINE = (
    f"aws ecs execute-command --cluster main --task {ARN} --container app --interactive "
    "--command 'starlette-drain status'"
)


def session(text):
    """Return what a session of ECS Exec writes around *text*."""
    before = "\nThe Session Manager plugin was installed successfully.\n\nStarting session with SessionId: x"
    return f"{before}\n{text}\n\nExiting session\n"


def channel(text, ran=None):
    """Return the way to a task in which the command writes *text*."""

    def run(words):
        if ran is not None:
            ran.append(words)
        if isinstance(text, Exception):
            raise text
        return session(text)

    return ExecChannel(TASK, run, lambda _name: "/usr/bin/it")


def test_a_look():
    """What the command prints there is the answer, whatever the session says around it."""
    ran = []
    answer = channel(json.dumps({"tasks": [{"task": "process 1", "shown": SHOWN}], "problems": []}), ran).ask("GET")
    assert answer == (200, SHOWN)
    assert ran[0][-1] == "starlette-drain status --json"


def test_a_command():
    """The fields become the options; a text with blanks stays one."""
    ran = []
    body = {"window": 60.0, "taken_out": True, "reason": "rack 7"}
    assert channel(json.dumps(SHOWN), ran).ask("POST", body) == (200, SHOWN)
    assert ran[0][-1] == "starlette-drain start --json --window 60.0 --taken-out --reason 'rack 7'"


def test_a_rotation():
    """It is asked for by its own command, whose answer is the rotation."""
    ran = []
    way = channel(json.dumps({"state": "none"}), ran)
    for method, body in (("GET", None), ("POST", {"window": 60.0}), ("DELETE", None)):
        assert way.ask(method, body, ROTATION) == (200, {"state": "none"})
    assert [words[-1].removeprefix("starlette-drain ") for words in ran] == [
        "rotate --json", "rotate --json --window 60.0", "rotate --cancel --json",
    ]  # fmt: skip


def test_a_refusal():
    """It is the task's own."""
    with pytest.raises(Refused, match="there is no drain"):
        channel("Error: there is no drain").ask("DELETE")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sh: starlette-drain: not found", "returned no answer"),
        ("{broken", "returned no answer"),
        (OSError("TargetNotConnectedException"), "TargetNotConnectedException"),
        (subprocess.TimeoutExpired("aws", 30), "did not work"),
    ],
)
def test_what_does_not_work(text, words):
    """The line to run by hand is in the error."""
    with pytest.raises(Unreachable, match=words) as raised:
        channel(text).ask("GET")
    assert LINE in str(raised.value)


def test_without_the_tools():
    """It says what is missing, and what to run where it is not."""
    with pytest.raises(Unreachable) as raised:
        ExecChannel(TASK, None, lambda _name: None).ask("GET")
    assert "aws and session-manager-plugin" in str(raised.value)
    assert raised.value.remedy == "run: " + exec_line(TASK, ["starlette-drain", "status"])
    assert raised.value.problem.count("aws ecs") == 0


def test_the_cluster():
    """It is that which was given, or that which an ARN names; the ARNs of before 2018 name none."""
    service = "arn:aws:ecs:eu-central-1:123456789012:service/main/web"
    assert place_of(None, service, None) == "main"
    assert place_of("other", service, None) == "other"
    assert place_of(None, None, ARN) == "main"
    assert place_of(None, "arn:aws:ecs:eu-central-1:123456789012:service/web", None) is None
