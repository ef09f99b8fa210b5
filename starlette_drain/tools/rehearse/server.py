# The process that serves the application in a rehearsal. Environment variables with an AWS endpoint and credentials
# would also redirect the application's own clients to FakeAWS, so only our clients get them, as arguments. Everything
# else that the application talks to is real.
"""Serves an application under uvicorn, with a FakeAWS that only this package uses."""

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
"""The prefix of a line with the path of an endpoint that did not return."""


def main() -> None:
    """Serve; the argument is JSON with the application, the socket's descriptor and the arguments for AWS clients."""
    import uvicorn  # noqa: PLC0415 - the command works without it

    arguments = json.loads(sys.argv[1])
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as uvicorn does
    threading.Thread(target=_leash, daemon=True).start()
    AWSSession.make_clients = partial(Aioboto3Clients, **arguments["clients"])
    logger = logging.getLogger("starlette_drain")
    logger.setLevel(logging.DEBUG)
    logger.addFilter(_overhear)
    config = uvicorn.Config(
        arguments["app"],
        factory=arguments["factory"],
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    startup = server.startup

    async def start(sockets: list[socket.socket] | None = None) -> None:
        await startup(sockets)
        if server.started:
            _tell(STARTED)

    server.startup = start  # type: ignore[method-assign]
    server.run(sockets=[socket.socket(fileno=arguments["descriptor"])])


def _leash() -> None:
    """End when the process that started this one ends, by any cause."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)


def _overhear(record: logging.LogRecord) -> bool:
    """Report endpoints that have to be cancelled, and drop other DEBUG records."""
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
