# The process in which the application is rehearsed. The variables that name an AWS endpoint and credentials would lead
# the application's own clients to the stand-in too, so ours alone get these, as arguments. What the application talks
# to besides is real.
"""Serves an application under uvicorn, with a stand-in for AWS that only this package sees."""

import json
import logging
import os
import signal
import socket
import sys
import threading
from functools import partial

from starlette_drain._core.printable import printable
from starlette_drain.aws.api.client import Aioboto3Clients
from starlette_drain.aws.session import AWSSession

__all__ = ["FORCED", "STARTED", "main"]

STARTED = "starlette-drain rehearse: started"
"""The line that says that the application has started."""

FORCED = "starlette-drain rehearse: forced "
"""What a line begins with that names an endpoint that did not return."""


def main() -> None:
    """Serve; the one argument says what, on which descriptor, and where the stand-in is."""
    import uvicorn  # noqa: PLC0415 - the command works without it

    told = json.loads(sys.argv[1])
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as uvicorn does
    threading.Thread(target=_leash, daemon=True).start()
    AWSSession.make_clients = partial(Aioboto3Clients, **told["clients"])
    logger = logging.getLogger("starlette_drain")
    logger.setLevel(logging.DEBUG)
    logger.addFilter(_overhear)
    config = uvicorn.Config(
        told["app"], factory=told["factory"], log_level="warning", access_log=False, timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    startup = server.startup

    async def start(sockets: list[socket.socket] | None = None) -> None:
        await startup(sockets)
        if server.started:
            _tell(STARTED)

    server.startup = start  # type: ignore[method-assign]
    server.run(sockets=[socket.socket(fileno=told["descriptor"])])


def _leash() -> None:
    """End with the process that started this one, whatever ends that."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)


def _overhear(record: logging.LogRecord) -> bool:
    """Name the endpoints that have to be cancelled, and keep other details to ourselves."""
    if record.levelno > logging.DEBUG:
        return True
    if record.msg.startswith("The application on %s is cancelled") and isinstance(record.args, tuple):
        _tell(f"{FORCED}{printable(str(record.args[0]))}")
    return False


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
