"""Channels to the admin route of a process: its socket in this container, or HTTP."""

import http.client
import json
import os
import shlex
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from starlette_drain._core.printable import printable
from starlette_drain._workers.shared_directory import find_sockets, has_ended

__all__ = [
    "PATIENCE",
    "ROTATION",
    "TOKEN",
    "Channel",
    "Ended",
    "HttpChannel",
    "NotListening",
    "Refused",
    "SocketChannel",
    "Stuck",
    "Unreachable",
    "check_token",
    "find_channel",
    "shown_in",
]

PATIENCE = 5.0
"""Seconds that a process has to answer. A command may wait 2 s for a slow file system."""

PROBE = 2.0
"""Seconds that a process has to answer a GET: a worker that takes longer is stuck, and another one is asked."""

ROTATION = "/rotation"
"""The path of rotations, below the admin route."""

LONGEST = 4 * 1024 * 1024
"""The most bytes of an answer."""

LONGEST_COMMAND = 160
"""Characters of a command line that tells one server from another."""

NO_ROUTE = "Set DRAIN_ADMIN_TOKEN in the task too, or give --url with its admin_path"
"""What to do about an application without an admin route."""

TOKEN = "DRAIN_ADMIN_TOKEN"  # noqa: S105 - the name of the variable


UNAUTHORIZED = 401


class Unreachable(Exception):
    """
    A process does not answer; the message says why and what to do.

    Attributes:
        problem: Why.
        remedy: What to do, if that is not part of it.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem}; {remedy}" if remedy else problem)
        self.problem, self.remedy = problem, remedy


class NotListening(Unreachable):
    """There is a route to the process, but its port is closed: its server has not started, or has another port."""


class Stuck(Unreachable):
    """The process accepts connections, but does not answer."""


class Ended(Unreachable):
    """The process has ended."""


class Refused(Exception):
    """
    The process refused the request.

    Attributes:
        status: The HTTP status.
        problem: Why.
        remedy: What to do, if that is not part of it.
    """

    def __init__(self, status: int, why: str) -> None:
        remedy = f"set {TOKEN} here to the task's own" if status == UNAUTHORIZED else ""
        super().__init__(f"{why}; {remedy}" if remedy else why)
        self.status, self.problem, self.remedy = status, why, remedy


class Channel(Protocol):
    """A channel to one task."""

    def ask(self, method: str, body: Mapping[str, Any] | None = None, path: str = "") -> tuple[int, dict[str, Any]]:
        """
        Send a request to the admin route, or to *path* below it; return the status and the answer.

        Raises:
            Unreachable: If there is no answer.
            Refused: If the answer is an error.
        """


class SocketChannel:
    """
    A channel to a process of this user in this container, without a token.

    Args:
        sockets: The sockets of the workers of one task, any of which answers for all.
        main: The main process of the task, if it is known.
        find: Finds the sockets again if none answers: a supervisor may have replaced all workers.
    """

    def __init__(
        self, sockets: Sequence[Path], main: int | None = None, find: Callable[[], Sequence[Path]] = tuple
    ) -> None:
        self._sockets = list(sockets)
        self._main = main
        self._find = find

    def ask(self, method: str, body: Mapping[str, Any] | None = None, path: str = "") -> tuple[int, dict[str, Any]]:
        """Ask the first worker that answers a probe: one that is stuck would run a command whenever it wakes up."""
        reasons: dict[str, None] = {}
        for file in list(self._sockets):
            try:
                answer = _ask_socket(file, {"method": "GET", "path": path}, PROBE)
                if method != "GET":
                    answer = _ask_socket(file, {"method": method, "body": body, "path": path}, PATIENCE)
            except (OSError, ValueError) as error:
                reasons[f"process {file.name.rpartition('-')[2]}: {_why(error)}"] = None
                self._sockets.remove(file)  # from now on it is asked last
                self._sockets.append(file)
                continue
            return _judged(int(answer.get("status") or 0), answer.get("body"), path)
        if self._main is not None and has_ended(self._main):
            msg = f"process {self._main} has ended"
            raise Ended(msg)
        self._sockets = list(self._find()) or self._sockets
        raise Unreachable("no process of the task answers (" + "; ".join(reasons) + ")")


class HttpChannel:
    """
    A channel to the admin route at a URL.

    Args:
        url: The URL of the admin route, or of the server.
        token: The admin token.
        timeout: Seconds that it has to answer.

    Raises:
        Unreachable: If *url* or *token* is not valid.
    """

    def __init__(self, url: str, token: str, timeout: float = PATIENCE) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            msg = f"{url!r} is not an address: give one such as http://10.0.3.17:8000/drain"
            raise Unreachable(msg)
        check_token(token)
        self._url = url if parts.path.strip("/") else urllib.parse.urljoin(url, "/drain")
        self._token = token
        self._timeout = timeout
        # No proxy and no redirects: the token is for this address only.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Stay())

    def ask(self, method: str, body: Mapping[str, Any] | None = None, path: str = "") -> tuple[int, dict[str, Any]]:
        """Ask over HTTP."""
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(self._url.rstrip("/") + path, data, headers, method=method)  # noqa: S310 - checked above
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                return _judged(response.status, json.loads(response.read(LONGEST)), path)
        except urllib.error.HTTPError as error:
            with error, suppress(ValueError):
                body = json.loads(error.read(LONGEST))
                if isinstance(body, dict) and "error" in body:  # of the admin route, not of the application
                    return _judged(error.code, body, path)
            raise Refused(error.code, f"{self._url} answers {error.code}{_meaning(error.code)}") from None
        except TimeoutError:  # that of the connection is a URLError
            msg = f"{self._url} accepts the connection, but does not answer within {self._timeout:g} s"
            raise Stuck(msg) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ConnectionRefusedError):
                msg = f"{self._url} does not answer: nothing listens there"
                raise NotListening(msg) from None
            msg = f"{self._url} does not answer: {_why(reason)}"
            raise Unreachable(msg) from None
        except ValueError:
            msg = f"{self._url} is not the admin route of starlette_drain: give its address"
            raise Unreachable(msg) from None


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        """Follow no redirect."""


def check_token(token: str) -> None:
    """
    Check that a header can carry *token*.

    Raises:
        Unreachable: If it cannot, so that no task has this token.
    """
    if not all("!" <= each <= "~" for each in token):
        msg = f"{TOKEN} has a character that no token has, such as a line break or a blank: give the tasks' own"
        raise Unreachable(msg)


def find_channel(url: str | None, pid: int | None, environ: Mapping[str, str] = os.environ) -> tuple[str, Channel]:
    """
    Return the name of a task and the channel to it.

    Args:
        url: The URL of its admin route; by default the task in this container is used.
        pid: The id of a process in this container; by default the only one.
        environ: The environment variables.

    Raises:
        Unreachable: If there is no channel, or there are several.
    """
    if url is not None:
        token = environ.get(TOKEN)
        if not token:
            msg = f"--url needs the admin token in {TOKEN}"
            raise Unreachable(msg)
        return urllib.parse.urlsplit(url).netloc or url, HttpChannel(url, token)
    found = find_sockets(environ)
    if pid is not None:
        found = {main: paths for main, paths in found.items() if pid in (main, *map(_pid_of, paths))}
    if not found:
        msg = (
            f"process {pid} does not answer the command here" if pid else "no process here answers the command"
        ) + "; run it in the container of the server and as its user, or give --url"
        raise Unreachable(msg)
    if len(found) > 1:
        which = " or ".join(f"--pid {main}{_command_of(main)}" for main in sorted(found))
        msg = f"several servers run here: give {which}"
        raise Unreachable(msg)
    ((main, paths),) = found.items()
    return f"process {main}", SocketChannel(paths, main, lambda: find_sockets(environ).get(main, ()))


def shown_in(body: Any, path: str = "") -> dict[str, Any]:
    """
    Return *body* if it is an answer of the admin route, or of *path* below it.

    Raises:
        Unreachable: If it is not.
    """
    if not isinstance(body, dict) or not ({"state"} if path else {"state", "sessions", "triggers"}) <= body.keys():
        msg = "that is not an answer of starlette_drain: give the address of the admin route"
        raise Unreachable(msg)
    return body


def _ask_socket(path: Path, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(str(path))
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as answer:
            line = answer.readline(LONGEST)
    if not line:
        msg = "it has ended"
        raise ConnectionError(msg)
    answered = json.loads(line)
    if not isinstance(answered, dict):
        msg = "invalid answer"
        raise ValueError(msg)  # noqa: TRY004 - it was read, not passed by the caller
    return answered


def _judged(status: int, body: Any, path: str) -> tuple[int, dict[str, Any]]:
    if status >= 400:
        raise Refused(status, str(body.get("error") if isinstance(body, dict) else f"it answers {status}"))
    return status, shown_in(body, path)


def _pid_of(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _command_of(pid: int) -> str:
    """Return the command line of a process in brackets, shortened; nothing where the system does not show it."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
    line = printable(shlex.join(words.split("\0")[:-1]))
    return f" ({line if len(line) <= LONGEST_COMMAND else f'{line[:LONGEST_COMMAND]}…'})" if line else ""


def _why(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _meaning(status: int) -> str:
    if status in (301, 302, 303, 307, 308):
        return ": it redirects, and the token is not sent to other addresses"
    return {401: ": the process has another token", 404: f": no admin route is there. {NO_ROUTE}"}.get(status, "")
