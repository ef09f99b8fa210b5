"""What the server's own command line will do to a drain."""

from collections.abc import Iterator

from starlette_drain.doctor.record import Finding, SetUp
from starlette_drain.doctor.server_command import ServerCommand

__all__ = ["check_server"]

GUNICORN_TIMEOUT = 30.0
"""Seconds that gunicorn gives its workers where nobody says otherwise."""


def check_server(found: SetUp) -> Iterator[Finding]:
    """The signal must arrive, the lifespan must run, and nothing may end the process sooner."""
    if not found.command:
        return
    command = ServerCommand(found.command)
    faults = [*_signals(command), *_ends(command, found)]
    yield from faults
    if not faults:
        yield Finding("fine", "server", str(command))


def _signals(command: ServerCommand) -> Iterator[Finding]:
    if command.is_under_shell:
        text = "a shell is process 1 and does not pass SIGTERM on"
        yield Finding("unsafe", "server", text, "put 'exec' before the server, or use the exec form of CMD")
    if command.has("--reload"):
        yield Finding("unsafe", "server", "--reload runs the application in a child", "leave --reload out")
    if command.option("--lifespan") == "off":
        text = "--lifespan off: the middleware never starts, so nobody watches the target"
        yield Finding("unsafe", "server", text, "leave --lifespan out")
    if command.server and command.server not in ("uvicorn", "gunicorn", "fastapi"):
        text = f"{command.server} stops in its own way; SIGTERM is held under uvicorn only"
        yield Finding("note", "server", text, "target health works; see the page about servers for the rest")


def _ends(command: ServerCommand, found: SetUp) -> Iterator[Finding]:
    needed = found.stopping
    if command.server == "gunicorn":
        given = command.option("--graceful-timeout")
        limit = _number(given) if given else GUNICORN_TIMEOUT
        if limit is not None and limit < needed:
            text = f"gunicorn kills its workers {limit:g} s after SIGTERM, and a drain may take {needed:g} s"
            yield Finding("unsafe", "server", text, f"set --graceful-timeout to {needed:g} or more")
        if "uvicorn" not in (command.option("-k", "--worker-class") or ""):
            text = "gunicorn without uvicorn's workers runs no ASGI application"
            yield Finding("unsafe", "server", text, "add --worker-class uvicorn_worker.UvicornWorker")
    if command.has("--limit-max-requests", "--max-requests"):
        text = "a limit on requests ends the process with all its sessions in one instant"
        yield Finding("unsafe", "server", text, "leave it out; max_session_age moves sessions gently")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
