"""What the neighbours share: a server with or without the middleware, and a client that tells what it sees."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

__all__ = ["add_middleware", "answering", "say", "wrapped"]


def wrapped(app: Any) -> Any:
    """Return *app* behind a DrainMiddleware, or as it is where ``BARE`` is set."""
    if os.environ.get("BARE"):
        return app
    from starlette_drain import DrainMiddleware  # noqa: PLC0415 - a bare server knows nothing of it

    return DrainMiddleware(app)


def add_middleware(app: Any) -> None:
    """Add a DrainMiddleware to *app*, unless ``BARE`` is set."""
    if not os.environ.get("BARE"):
        from starlette_drain import DrainMiddleware  # noqa: PLC0415 - a bare server knows nothing of it

        app.add_middleware(DrainMiddleware)


def answering(app: Any) -> Any:
    """Let *app* answer at ``/pid``, where the tests knock until it is there."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/pid":
            body = str(os.getpid()).encode()
            headers = [(b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            await app(scope, receive, send)

    return answer


def say(*words: Any) -> None:
    """Tell the test what the client saw."""
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the client of a neighbour: ``python common.py NEIGHBOUR URL``."""
    name, url = sys.argv[1:]
    client: Callable[[str], Awaitable[None]] = import_module(name).client
    asyncio.run(client(url))


if __name__ == "__main__":
    main()
