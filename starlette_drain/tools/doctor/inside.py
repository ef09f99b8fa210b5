"""What can be seen from inside a container: what the process itself tells at ``/drain``, else the process table."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette_drain._asgi.process import PROC, SERVERS, ancestors, program_of, words_of
from starlette_drain.aws.identity.metadata import METADATA_VARIABLE

__all__ = ["Answer", "ask_process", "command_of_server"]

PATIENCE = 3.0
"""Seconds; the process answers from this machine, at once or not at all."""


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What came of asking the process.

    Attributes:
        shown: What ``GET /drain`` shows; ``None`` where it did not.
        why_not: Why it did not.
    """

    shown: Mapping[str, Any] | None = None
    why_not: str = ""


async def ask_process(urls: Iterable[str], token: str | None) -> Answer:
    """Ask the process at the first of *urls* that answers."""
    if not token:
        return Answer(why_not="there is no DRAIN_ADMIN_TOKEN here to ask it with")
    reasons: dict[str, None] = {}
    for url in urls:
        try:
            return Answer(await asyncio.to_thread(_get, url, token))
        except urllib.error.HTTPError as error:
            with error:
                reasons[f"{url} answers {error.code}{_meaning(error.code)}"] = None
        except (OSError, ValueError) as error:
            reasons[f"{url} does not answer ({getattr(error, 'reason', error)})"] = None
    return Answer(why_not="; ".join(reasons) or "it is not known where it listens; give --url")


def command_of_server(environ: Mapping[str, str], proc: Path = PROC) -> tuple[str, ...]:
    """
    Return the command line of the server that runs in this container, with the programs above it.

    It is that of process 1 where that names a server; else of a server that is known, or of what stands above it, such
    as under a supervisor. The metadata endpoint tells whose it is, where the containers of a task share processes.
    """
    first = words_of(1, proc)
    if _is_server(first):
        return first
    ours = f"{METADATA_VARIABLE}={environ.get(METADATA_VARIABLE)}".encode()
    for pid in sorted(_pids(proc)):
        words = words_of(pid, proc)
        if pid != 1 and program_of(words) in SERVERS and ours in _environ_of(pid, proc):
            above, _ = ancestors(pid, proc)
            outer = next((words_of(each, proc) for each in above), ())
            return outer or words
    return first


def _get(url: str, token: str) -> Mapping[str, Any]:
    if not url.startswith(("http://", "https://")):
        msg = "give a URL that begins with http:// or https://"
        raise ValueError(msg)
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - checked above
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=PATIENCE) as response:
        shown = json.load(response)
    if not isinstance(shown, dict) or "triggers" not in shown:
        msg = "that is not the answer of starlette_drain"
        raise ValueError(msg)
    return shown


def _meaning(code: int) -> str:
    match code:
        case 401:
            return ": the process has another token"
        case 404:
            return ": there is no admin route"
    return ""


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
