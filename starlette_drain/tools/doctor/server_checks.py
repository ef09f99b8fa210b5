"""What the server's own command line will do to a drain."""

from collections.abc import Iterator

from starlette_drain.tools.doctor.outlook import after_sheds
from starlette_drain.tools.doctor.record import Finding, SetUp
from starlette_drain.tools.doctor.server_command import ServerCommand

__all__ = ["check_server"]

GUNICORN_TIMEOUT = 30.0
"""Seconds that gunicorn gives its workers by default."""

RUN_ASGI = ("uvicorn", "asgi")
"""What the names of gunicorn's worker classes contain that run ASGI applications: uvicorn's, and its own."""


def check_server(found: SetUp) -> Iterator[Finding]:
    """The signal must arrive, the lifespan should run, and nothing may end the process sooner."""
    if not found.command:
        return
    command = ServerCommand(found.command)
    faults = [*_signals(command, is_process=found.is_process), *_ends(command), *_gunicorn(command, found)]
    yield from faults
    if not faults:
        yield Finding("fine", "server", str(command))


def _signals(command: ServerCommand, *, is_process: bool) -> Iterator[Finding]:
    if command.is_under_shell and command.script_file and not is_process:
        text = f"a shell runs {command.script_file}, and whether that ends in an exec is not seen from here"
        yield Finding("note", "server", text, "start the server with exec there, so that it hears SIGTERM")
    elif command.is_under_shell:
        text = "a shell stands before the server and does not pass SIGTERM on"
        yield Finding("unsafe", "server", text, "put 'exec' before the server, or use the exec form of CMD")
    if command.has("--reload"):
        yield Finding("unsafe", "server", "--reload runs the application in a child", "leave --reload out")
    if command.option("--lifespan") == "off":
        text = "--lifespan off: the drain begins to watch with the first connection"
        yield Finding("note", "server", text, "leave --lifespan out, so that it watches from the start")
    if command.server and command.server not in ("uvicorn", "gunicorn", "fastapi"):
        text = f"{command.server} stops in its own way; SIGTERM is held under uvicorn only"
        yield Finding("note", "server", text, "target health works; see the page about servers for the rest")


def _ends(command: ServerCommand) -> Iterator[Finding]:
    if command.server == "uvicorn" and command.graceful_timeout is None:
        text = "without --timeout-graceful-shutdown uvicorn waits for a client that reads nothing until SIGKILL"
        yield Finding("note", "server", text, "add --timeout-graceful-shutdown 5")
    if command.has("--limit-max-requests", "--max-requests"):
        text = "a limit on requests ends the process with all its sessions in one instant"
        yield Finding("unsafe", "server", text, "leave it out; max_session_age moves sessions gently")


def _gunicorn(command: ServerCommand, found: SetUp) -> Iterator[Finding]:
    if command.server != "gunicorn":
        return
    needed = found.options.sigterm_window + after_sheds(found)
    worker, limit = command.option("-k", "--worker-class"), command.number("--graceful-timeout")
    config = command.option("-c", "--config")
    if config and (worker is None or limit is None):
        text = f"what {config} says is not seen from here"
        remedy = f"see that worker_class runs ASGI and graceful_timeout is {needed:g} or more"
        yield Finding("note", "server", text, remedy)
    elif limit is None:
        limit = GUNICORN_TIMEOUT
    if limit is not None and limit < needed:
        text = f"gunicorn kills its workers {limit:g} s after SIGTERM, and a drain may take {needed:g} s"
        yield Finding("unsafe", "server", text, f"set --graceful-timeout to {needed:g} or more")
    if not any(each in (worker or "").lower() for each in RUN_ASGI) and not (config and worker is None):
        text = f"gunicorn's {worker or 'default'} workers run no ASGI application"
        remedy = "add --worker-class uvicorn_worker.UvicornWorker, or name the file that does with --config"
        yield Finding("unsafe", "server", text, remedy)
