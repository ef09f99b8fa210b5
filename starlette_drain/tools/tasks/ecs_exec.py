"""Runs the command in a task by ECS Exec, where it needs no token."""

import json
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette_drain.tools.tasks.channel import ROTATION, Refused, Unreachable, shown_in

__all__ = ["UNKNOWN", "EcsTask", "ExecChannel", "exec_line"]

EXEC_TIMEOUT = 30.0
"""Seconds that a command in the container may take."""

UNKNOWN = "<container>"
"""Stands for the container that serves, if it is not known which one does."""

INSIDE = {
    "": {"GET": ["status"], "POST": ["start"], "DELETE": ["cancel"]},
    ROTATION: {"GET": ["rotate"], "POST": ["rotate"], "DELETE": ["rotate", "--cancel"]},
}
"""The equivalent commands in the container, by path and method."""

TOOLS = ("aws", "session-manager-plugin")
"""The programs that ECS Exec needs on this machine."""

Run = Callable[[Sequence[str]], str]
"""Runs a command line and returns its output; raises `OSError` if that fails."""


@dataclass(frozen=True, slots=True)
class EcsTask:
    """
    A task as ECS shows it.

    Attributes:
        arn: Its ARN.
        name: The beginning of its id, or the whole id if that is not unique.
        cluster: The name or ARN of its cluster.
        container: The name of the container that serves.
        address: Its private address, if it has its own.
        port: The port on which it is asked, if it is known.
        is_stopping: Whether ECS is stopping it.
        is_starting: Whether its containers have not started yet.
    """

    arn: str
    name: str
    cluster: str
    container: str
    address: str | None
    port: int | None
    is_stopping: bool
    is_starting: bool = False


class ExecChannel:
    """
    A channel to a task by ECS Exec, if that is installed here.

    Args:
        task: The task.
        run: Runs a command line.
        which: Finds a program.
    """

    def __init__(self, task: EcsTask, run: Run | None = None, which: Callable[[str], object] = shutil.which) -> None:
        self._task = task
        self._run = run or _run
        self._which = which

    def ask(self, method: str, body: Mapping[str, Any] | None = None, path: str = "") -> tuple[int, dict[str, Any]]:
        """Run the command in the container."""
        inside = ["starlette-drain", *INSIDE[path][method], "--json"]
        for name, value in (body or {}).items():
            inside.append(f"--{name.replace('_', '-')}")
            inside += [] if value is True else [str(value)]
        words = _exec_words(self._task, inside)
        remedy = "run: " + exec_line(self._task, [each for each in inside if each != "--json"])
        if missing := [each for each in TOOLS if not self._which(each)]:
            msg = f"ECS Exec needs {' and '.join(missing)} on this machine"
            raise Unreachable(msg, remedy)
        if self._task.container == UNKNOWN:
            msg = "ECS does not tell which of the task's containers serves"
            raise Unreachable(msg, remedy)
        try:
            written = self._run(words)
        except (OSError, subprocess.SubprocessError) as error:
            msg = f"ECS Exec did not work ({error})"
            raise Unreachable(msg, remedy) from None
        # The output of the session itself surrounds the answer.
        for each in written.splitlines():
            if each.startswith("{"):
                try:
                    answer = json.loads(each)
                except ValueError:
                    break
                return 200, shown_in(answer["tasks"][0]["shown"] if "tasks" in answer else answer, path)
            if each.startswith("Error: "):
                raise Refused(409 if method == "DELETE" else 500, each.removeprefix("Error: "))
        msg = "ECS Exec returned no answer"
        raise Unreachable(msg, remedy)


def exec_line(task: EcsTask, inside: Sequence[str]) -> str:
    """Return the command line, for copying, that runs *inside* in the task."""
    return shlex.join(_exec_words(task, inside))


def _exec_words(task: EcsTask, inside: Sequence[str]) -> list[str]:
    words = ["aws", "ecs", "execute-command", "--cluster", task.cluster, "--task", task.arn]
    return [*words, "--container", task.container, "--interactive", "--command", shlex.join(inside)]


def _run(words: Sequence[str]) -> str:
    # Keep the input open: the plugin ends the session when its input ends.
    with subprocess.Popen(  # noqa: S603 - no shell, and the words are ours
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        try:
            code = process.wait(EXEC_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        out = process.stdout.read()
        if code and process.stderr is not None:
            raise OSError(process.stderr.read().strip() or f"it ended with {code}")
    return out
