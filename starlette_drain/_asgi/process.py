# Does SIGTERM reach the server, and what does the server do then?
#
# ECS signals the first process of the container, as Docker does, with the image's STOPSIGNAL. Whether the server gets
# the signal depends on the processes in between: an init passes it on, a shell does not, and a process manager may or
# may not. This process finds its parents in /proc, and the server's configuration in the server object, wherever that
# was set. From outside, all of this would be guesswork.
#
# At a terminal every server runs under a shell. So all but a limit on requests is a problem only on ECS, or if SIGTERM
# is to be held.
"""Finds out how this process will be stopped: its parent processes, its server, the server's limits."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from starlette_drain.triggers.base import Control

__all__ = [
    "INITS",
    "SERVERS",
    "SHELLS",
    "Process",
    "ProcessCheck",
    "StopProblem",
    "ancestors",
    "program_of",
    "stop_problems",
    "words_of",
]

SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "busybox"})
"""Programs that do not pass signals on."""

INITS = frozenset({"tini", "tini-static", "dumb-init", "docker-init", "catatonit"})
"""Programs that pass signals on to the program that they start."""

SERVERS = frozenset({"uvicorn", "gunicorn", "hypercorn", "granian", "daphne", "fastapi"})
"""Servers, which pass the signal on to their workers."""

PROC = Path("/proc")

OPTIONS = (
    *("lifespan", "limit_concurrency", "limit_max_requests", "reload"),
    *("timeout_graceful_shutdown", "timeout_worker_healthcheck", "workers", "ws"),
)
"""The options of uvicorn that are shown."""

logger = logging.getLogger("starlette_drain")


@dataclass(frozen=True, slots=True)
class StopProblem:
    """
    A reason why this process may not stop properly.

    Attributes:
        level: ``"unsafe"``, or ``"note"`` if it is only worth knowing.
        problem: What is wrong.
        remedy: What to do about it.
    """

    level: str
    problem: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Process:
    """
    What a process knows about itself.

    Attributes:
        pid: Its process id.
        parents: The programs of its parent processes, topmost first.
        is_whole: Whether they begin with the container's first process.
        server: The name of the server; empty if it is unknown.
        options: The server's actual configuration, as far as it matters; ``None`` if it is unknown.
    """

    pid: int
    parents: tuple[str, ...] = ()
    is_whole: bool = False
    server: str = ""
    options: Mapping[str, Any] | None = None


def program_of(words: Sequence[str]) -> str:
    """Return the name of the program in a command line; for Python, the module or script that it runs."""
    if not words:
        return ""
    name = PurePosixPath(words[0]).name
    if not name.startswith("python"):
        return name.rstrip(":")
    rest = iter(words[1:])
    for word in rest:
        if word == "-m":
            return next(rest, name)
        if word in ("-c", "-"):
            return name
        if word in ("-X", "-W"):
            next(rest, None)
        elif not word.startswith("-"):
            return PurePosixPath(word).name
    return name


def words_of(pid: int, proc: Path = PROC) -> tuple[str, ...]:
    """Return the command line of a process; empty if it cannot be read."""
    with suppress(OSError):
        return tuple(filter(None, (proc / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")))
    return ()


def ancestors(pid: int, proc: Path = PROC) -> tuple[list[int], bool]:
    """
    Return the parent processes of *pid*, topmost first, and whether the first is the container's first process.

    It stops at the start of a process session, such as a shell opened in the container.
    """
    found: list[int] = []
    session = _stat(pid, proc)[1]
    while True:
        parent = _stat(pid, proc)[0]
        if parent <= 0:
            return found, pid == 1
        is_init = program_of(words_of(parent, proc)) in INITS
        if _stat(parent, proc)[1] != session and not is_init:
            return found, False
        found.insert(0, parent)
        pid, session = parent, _stat(parent, proc)[1]


def look_at_self(proc: Path = PROC) -> Process:
    """Return what this process knows about itself."""
    above, is_whole = ancestors(os.getpid(), proc)
    server, options = _server()
    return Process(os.getpid(), tuple(program_of(words_of(each, proc)) for each in above), is_whole, server, options)


def stop_problems(process: Process, *, is_deployed: bool = True) -> Iterator[StopProblem]:
    """Yield what will go wrong when the process is stopped, or before."""
    options = process.options or {}
    # gunicorn's workers express "no limit" as sys.maxsize.
    if 0 < (options.get("limit_max_requests") or 0) < sys.maxsize:
        limit = f"limit_max_requests={options['limit_max_requests']}"
        problem = f"a limit on requests ({limit}) ends the process and all its sessions at once"
        yield StopProblem("unsafe", problem, "remove it; max_session_age moves sessions gradually")
    if not is_deployed:
        return
    yield from _parent_problems(process)
    if options.get("reload"):
        yield StopProblem("unsafe", "--reload runs the application in a child process", "remove --reload")
    if options.get("lifespan") == "off":
        problem = "lifespan=off: the drain begins to watch with the first connection"
        yield StopProblem("note", problem, "remove --lifespan, so that it watches from the start")
    if process.server == "uvicorn" and options.get("timeout_graceful_shutdown") is None:
        problem = "without timeout_graceful_shutdown uvicorn waits until SIGKILL for a client that does not read"
        yield StopProblem("note", problem, "add --timeout-graceful-shutdown 5")


def _parent_problems(process: Process) -> Iterator[StopProblem]:
    if not process.is_whole:
        return
    for each in process.parents:
        if each in SHELLS:
            problem = f"a shell ({each}) runs the server and does not pass SIGTERM on"
            yield StopProblem("unsafe", problem, "put 'exec' before the server, or use the exec form of CMD")
        elif each not in INITS | SERVERS:
            problem = f"{each or 'an unknown process'} runs the server and may not pass SIGTERM on"
            yield StopProblem("note", problem, "make sure that it does, or start the server directly")


class ProcessCheck:
    """
    Checks at the start how this process will be stopped, and shows the result in ``GET /drain``.

    Args:
        speaks: Returns whether this process writes the log lines of the task: only one of several workers does.
        holds_sigterm: Whether SIGTERM is to be held off ECS too.
        environ: The environment variables.
    """

    name = "process"

    def __init__(
        self, speaks: Callable[[], bool], *, holds_sigterm: bool = False, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._speaks = speaks
        self._holds_sigterm = holds_sigterm
        self._environ = environ
        self._process: Process | None = None

    async def watch(self, control: Control) -> None:  # noqa: ARG002 - it claims no drain
        """Check once, and log what is unsafe."""
        self._process = look_at_self()
        if self._speaks():
            for each in self._problems(self._process):
                if each.level == "unsafe":
                    logger.warning("This process will not stop properly: %s. Remedy: %s", each.problem, each.remedy)
        await asyncio.get_running_loop().create_future()

    def status(self, now: float) -> Mapping[str, Any]:  # noqa: ARG002
        """Return what the process knows about itself, and the problems with it."""
        if self._process is None:
            return {}
        problems = [asdict(each) for each in self._problems(self._process)]
        return {**asdict(self._process), "problems": problems}

    def _problems(self, process: Process) -> Iterator[StopProblem]:
        is_on_ecs = "ECS_CONTAINER_METADATA_URI_V4" in self._environ
        return stop_problems(process, is_deployed=is_on_ecs or self._holds_sigterm)


def _stat(pid: int, proc: Path) -> tuple[int, int]:
    """Return the ids of a process's parent and session; 0 if they cannot be read."""
    with suppress(OSError, ValueError, IndexError):
        fields = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return int(fields[1]), int(fields[3])
    return 0, 0


def _server() -> tuple[str, Mapping[str, Any] | None]:
    """Return the name and the configuration of the server whose signal handlers are installed, if it is known."""
    for number in (signal.SIGTERM, signal.SIGINT):
        server: Any = getattr(signal.getsignal(number), "__self__", None)
        config = getattr(server, "config", None)
        if config is not None and hasattr(server, "should_exit"):
            shown = {name: getattr(config, name) for name in OPTIONS if hasattr(config, name)}
            return _name_of(server), {name: value for name, value in shown.items() if _is_plain(value)}
    return "", None


def _name_of(server: object) -> str:
    modules = (each.__module__.partition(".")[0] for each in type(server).__mro__)
    return next((each for each in modules if each in SERVERS), "")


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str)
