# Who gets SIGTERM, and what does the server make of it?
#
# ECS signals the first process of the container (and so does Docker, with the image's STOPSIGNAL). What stands between
# it and the server decides whether the server hears of it: an init passes the signal on, a shell does not, and a
# process manager may or may not. A process knows its parents from /proc, and the server's configuration from the
# server itself, whatever file, variable or line of code it was set in: from outside all of that is guesswork.
#
# Only on ECS is any of this a problem: at a terminal a shell stands before every server.
"""What this process knows of how it will be stopped: its parents, its server, the server's limits."""

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
"""They keep the signal to themselves."""

INITS = frozenset({"tini", "tini-static", "dumb-init", "docker-init", "catatonit"})
"""They pass signals on to the program that they start."""

SERVERS = frozenset({"uvicorn", "gunicorn", "hypercorn", "granian", "daphne", "fastapi"})
"""They pass the signal on to their workers."""

PROC = Path("/proc")

OPTIONS = (
    *("lifespan", "limit_concurrency", "limit_max_requests", "reload"),
    *("timeout_graceful_shutdown", "timeout_worker_healthcheck", "workers", "ws"),
)
"""What is shown of uvicorn's configuration."""

logger = logging.getLogger("starlette_drain")


@dataclass(frozen=True, slots=True)
class StopProblem:
    """
    Why this process may not stop as it should.

    Attributes:
        level: ``"unsafe"``, or ``"note"`` for what is only worth knowing.
        problem: What it is.
        remedy: What to do about it.
    """

    level: str
    problem: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Process:
    """
    What a process knows of itself.

    Attributes:
        pid: Its number.
        parents: The programs above it, from the container's first process on.
        is_whole: Whether those reach the container's first process.
        server: The name of the server; empty where it is none that shows itself.
        options: The server's real configuration, as far as it matters.
    """

    pid: int
    parents: tuple[str, ...] = ()
    is_whole: bool = False
    server: str = ""
    options: Mapping[str, Any] | None = None


def program_of(words: Sequence[str]) -> str:
    """Return the name of the program in a command line, which of Python is the module or script that it runs."""
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
    """Return the command line of a process; nothing where it cannot be seen."""
    with suppress(OSError):
        return tuple(filter(None, (proc / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")))
    return ()


def ancestors(pid: int, proc: Path = PROC) -> tuple[list[int], bool]:
    """
    Return the processes above one, from the first on, and whether that is the first of the container.

    A session that somebody opened in the container, or a server that was started apart, is not followed further up.
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
    """Return what this process knows of itself."""
    above, is_whole = ancestors(os.getpid(), proc)
    server, options = _server()
    return Process(os.getpid(), tuple(program_of(words_of(each, proc)) for each in above), is_whole, server, options)


def stop_problems(process: Process) -> Iterator[StopProblem]:
    """Yield what will go wrong when the container is told to stop, or before."""
    yield from _parent_problems(process)
    options = process.options or {}
    if options.get("reload"):
        yield StopProblem("unsafe", "--reload runs the application in a child", "leave --reload out")
    # gunicorn's workers stand for "no limit" with the largest number there is.
    if 0 < (options.get("limit_max_requests") or 0) < sys.maxsize:
        limit = f"limit_max_requests={options['limit_max_requests']}"
        problem = f"a limit on requests ({limit}) ends the process and all its sessions at once"
        yield StopProblem("unsafe", problem, "leave it out; max_session_age moves sessions gently")
    if options.get("lifespan") == "off":
        problem = "lifespan=off: the drain begins to watch with the first connection"
        yield StopProblem("note", problem, "leave --lifespan out, so that it watches from the start")
    if process.server == "uvicorn" and options.get("timeout_graceful_shutdown") is None:
        problem = "without timeout_graceful_shutdown uvicorn waits until SIGKILL for a client that does not read"
        yield StopProblem("note", problem, "add --timeout-graceful-shutdown 5")


def _parent_problems(process: Process) -> Iterator[StopProblem]:
    if not process.is_whole:
        return
    for each in process.parents:
        if each in SHELLS:
            problem = f"a shell ({each}) stands before the server and does not pass SIGTERM on"
            yield StopProblem("unsafe", problem, "put 'exec' before the server, or use the exec form of CMD")
        elif each not in INITS | SERVERS:
            problem = f"{each or 'a process without a name'} stands before the server, and whether it passes SIGTERM on"
            yield StopProblem("note", f"{problem} cannot be told", "see that it does, or start the server itself")


class ProcessCheck:
    """
    Checks at the start how this process will be stopped, and shows what it knows in ``GET /drain``.

    Args:
        speaks: Returns whether this process writes the log of the task: of several workers one does.
        environ: The environment.
    """

    name = "process"

    def __init__(self, speaks: Callable[[], bool], environ: Mapping[str, str] = os.environ) -> None:
        self._speaks = speaks
        self._environ = environ
        self._process: Process | None = None

    async def watch(self, control: Control) -> None:  # noqa: ARG002 - it asks for no drain
        """Check, and say what is unsafe."""
        self._process = look_at_self()
        if self._is_on_ecs and self._speaks():
            for each in stop_problems(self._process):
                if each.level == "unsafe":
                    logger.warning("This task will not stop properly: %s. Remedy: %s", each.problem, each.remedy)
        await asyncio.get_running_loop().create_future()

    def status(self, now: float) -> Mapping[str, Any]:  # noqa: ARG002
        """Return what the process knows, and what of it is a problem."""
        if self._process is None:
            return {}
        problems = [asdict(each) for each in stop_problems(self._process)] if self._is_on_ecs else []
        return {**asdict(self._process), "problems": problems}

    @property
    def _is_on_ecs(self) -> bool:
        return "ECS_CONTAINER_METADATA_URI_V4" in self._environ


def _stat(pid: int, proc: Path) -> tuple[int, int]:
    """Return the parent and the session of a process; 0 where it cannot be seen."""
    with suppress(OSError, ValueError, IndexError):
        fields = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return int(fields[1]), int(fields[3])
    return 0, 0


def _server() -> tuple[str, Mapping[str, Any] | None]:
    """Return the name and the configuration of the server that handles the signals here, where it shows them."""
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
