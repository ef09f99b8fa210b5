"""What is visible inside a container: the answer of the process at ``/drain``, and the process table."""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from starlette_drain._asgi.process import PROC, SERVERS, ancestors, program_of, words_of
from starlette_drain._workers.shared_directory import find_sockets
from starlette_drain.aws.identity.metadata import METADATA_VARIABLE
from starlette_drain.tools.tasks.channel import PATIENCE, HttpChannel, Refused, SocketChannel, Unreachable

__all__ = ["Answer", "ask_own_process", "ask_process", "command_of_server", "is_alone"]

COMMANDS = ("starlette-drain", "starlette_drain")
"""The names of our command, as a program and as a module."""


@dataclass(frozen=True, slots=True)
class Answer:
    """
    The answer of the process.

    Attributes:
        shown: The answer to ``GET /drain``; ``None`` if there was none.
        why_not: Why there was none.
    """

    shown: Mapping[str, Any] | None = None
    why_not: str = ""


async def ask_own_process(environ: Mapping[str, str], proc: Path = PROC) -> Answer | None:
    """Ask the process of this container on its socket, which needs no token; ``None`` if none answers."""
    for sockets in await asyncio.to_thread(_own_sockets, environ, proc):
        with suppress(Unreachable, Refused):
            _, shown = await asyncio.to_thread(SocketChannel(sockets).ask, "GET")
            return Answer(shown)
    return None


async def ask_process(urls: Iterable[str], token: str | None, within: float = PATIENCE) -> Answer:
    """Ask the process at the first of *urls* that answers; any server that listens there gets the token."""
    if not token:
        return Answer(why_not="there is no DRAIN_ADMIN_TOKEN here to ask it with")
    reasons: dict[str, None] = {}
    for url in urls:
        try:
            _, shown = await asyncio.to_thread(HttpChannel(url, token, within).ask, "GET")
        except (Unreachable, Refused) as problem:
            reasons[str(problem)] = None
        else:
            return Answer(shown)
    return Answer(why_not="; ".join(reasons) or "it is not known where it listens; give --url")


def command_of_server(environ: Mapping[str, str], proc: Path = PROC) -> tuple[str, ...]:
    """
    Return the command line that starts the server in this container.

    If process 1 does not name a server, it is that of a known server's outermost parent, such as a supervisor. If the
    containers of a task share processes, the metadata endpoint in their environments distinguishes them.
    """
    first = words_of(1, proc)
    if _is_server(first):
        return first
    for pid in sorted(_pids(proc)):
        words = words_of(pid, proc)
        if pid != 1 and program_of(words) in SERVERS and _is_of_container(pid, environ, proc):
            above, _ = ancestors(pid, proc)
            outer = next((words_of(each, proc) for each in above), ())
            return outer or words
    return first


def is_alone(proc: Path = PROC) -> bool:
    """Return whether this command is the main process of its container, which then has no server."""
    return any(PurePosixPath(each).name in COMMANDS for each in words_of(1, proc))


def _own_sockets(environ: Mapping[str, str], proc: Path) -> list[list[Path]]:
    """Return the sockets of the server in this container; the containers of a task may share processes."""
    if not environ.get(METADATA_VARIABLE):
        return []
    found = [
        [each for each in sockets if _is_of_container(int(each.name.rpartition("-")[2]), environ, proc)]
        for sockets in find_sockets(environ).values()
    ]
    found = [each for each in found if each]
    return found if len(found) == 1 else []


def _is_of_container(pid: int, environ: Mapping[str, str], proc: Path) -> bool:
    return f"{METADATA_VARIABLE}={environ.get(METADATA_VARIABLE)}".encode() in _environ_of(pid, proc)


def _is_server(words: tuple[str, ...]) -> bool:
    return any(program_of((word,)) in SERVERS for word in words) or program_of(words) in SERVERS


def _environ_of(pid: int, proc: Path) -> list[bytes]:
    with suppress(OSError):
        return (proc / str(pid) / "environ").read_bytes().split(b"\0")
    return []


def _pids(proc: Path) -> list[int]:
    with suppress(OSError):
        return [int(each.name) for each in proc.iterdir() if each.name.isdigit()]
    return []
