"""Checks of the server's command line and configuration."""

from collections.abc import Iterable, Iterator

from starlette_drain._asgi.process import SERVERS
from starlette_drain.tools.doctor.outlook import after_sheds
from starlette_drain.tools.doctor.record import Finding, SetUp
from starlette_drain.tools.doctor.server_command import ServerCommand

__all__ = ["check_process", "check_server", "check_stop_signal"]

GUNICORN_TIMEOUT = 30.0
"""The default of gunicorn's ``--graceful-timeout``, in seconds."""

RUN_ASGI = ("uvicorn", "asgi")
"""Parts of the names of gunicorn's worker classes that run ASGI applications: uvicorn's, and its own."""

PASSES_ON = frozenset({"env", "gosu", "su-exec", "opentelemetry-instrument", "ddtrace-run", "newrelic-admin"})
"""Programs that replace themselves by the program that they start."""

LIMITS = ("--limit-max-requests", "--max-requests", "--workers-lifetime", "--workers-max-rss")
"""Options with which hypercorn, granian and unknown servers end a worker."""

LOCAL = frozenset({"127.0.0.1", "localhost", "::1", "[::1]"})
"""Hosts that only the container, or those that share its network, can reach."""

RELOADS = "--reload", "remove --reload"

STOP_SIGNALS = frozenset({"SIGTERM", "TERM", "15", "SIGINT", "INT", "2"})


def check_server(found: SetUp) -> Iterator[Finding]:
    """Check by the command line that the server gets SIGTERM, and that nothing ends the process early."""
    if found.process:
        return  # what the process reports is more reliable: see check_process
    if not found.command:
        if found.is_in_image:
            text = f"cannot tell how {found.container} is started: its command stands in the image"
            yield Finding("note", "server", text, "run the doctor inside the task, or give --command")
        return
    command = ServerCommand(found.command, found.environ)
    faults = [*_signals(command, is_process=found.is_process), *_ends(command), *_gunicorn(command, found)]
    faults += _listens(command, found)
    yield from faults
    if not faults:
        yield Finding("fine", "server", str(command))


def check_process(found: SetUp) -> Iterator[Finding]:
    """Check what the process reports about itself."""
    process = found.process
    if not process:
        if found.url and found.answer is not None and found.answer.why_not:
            text = f"cannot tell what the process knows of itself: {found.answer.why_not}"
            yield Finding("note", "process", text, "check that it runs, and has the token that is set here")
        return
    problems = process.get("problems") or ()
    for each in problems:
        words = str(each.get("problem")), str(each.get("remedy"))
        yield Finding("unsafe" if each.get("level") == "unsafe" else "note", "server", *words)
    faults = [*_gunicorn(ServerCommand(found.command or (), found.environ), found)]
    faults += _refuses((process.get("options") or {}).get("limit_concurrency"))
    yield from faults
    server, above = process.get("server"), ", ".join(process.get("parents") or ())
    if not server:
        text = "the process is not under uvicorn, which alone lets it hold SIGTERM"
        yield Finding("note", "server", text, "target health works; see the page about servers for the rest")
    elif not problems and not faults:
        yield Finding("fine", "server", f"{server}, process {process.get('pid')}{f' under {above}' if above else ''}")


def check_stop_signal(found: SetUp) -> Iterator[Finding]:
    """Check that the stop signal is one of those at which uvicorn stops; any other cuts all sessions."""
    signal = (found.stop_signal or "").upper()
    if signal and signal not in STOP_SIGNALS:
        text = f"STOPSIGNAL {found.stop_signal}: Fargate sends it in place of SIGTERM, and no drain follows"
        yield Finding("unsafe", "STOPSIGNAL", text, "leave STOPSIGNAL out of the image, or set it to SIGTERM")


def _signals(command: ServerCommand, *, is_process: bool) -> Iterator[Finding]:
    if command.is_under_shell and command.script_file and not is_process:
        text = f"cannot tell whether {command.script_file}, which a shell runs, ends in an exec"
        yield Finding("note", "server", text, "start the server with exec there, so that it hears SIGTERM")
    elif command.is_under_shell:
        text = "a shell runs the server and does not pass SIGTERM on"
        yield Finding("unsafe", "server", text, "put 'exec' before the server, or use the exec form of CMD")
    elif not command.server:
        text = f"cannot tell what {command} starts, and whether that hears SIGTERM"
        remedy = "check that SIGTERM reaches the server, or run the doctor inside the task with DRAIN_ADMIN_TOKEN set"
        yield Finding("note", "server", text, remedy)
    elif command.starts_with and command.starts_with not in SERVERS | PASSES_ON:
        text = f"cannot tell whether {command.starts_with}, which starts {command.server}, passes SIGTERM on"
        yield Finding("note", "server", text, "make sure that it does, or start the server directly")
    if command.has("--reload") or command.is_for_development:
        what, remedy = ("fastapi dev", "use fastapi run") if command.is_for_development else RELOADS
        yield Finding("unsafe", "server", f"{what} runs the application in a child process", remedy)
    if command.option("--ws") == "none":
        text = "--ws none refuses WebSockets: only event streams are sessions"
        yield Finding("note", "server", text, "remove --ws if clients use WebSockets")
    if command.option("--lifespan") == "off":
        text = "--lifespan off: the drain begins to watch with the first connection"
        yield Finding("note", "server", text, "remove --lifespan, so that it watches from the start")
    if command.server and command.server not in ("uvicorn", "gunicorn", "fastapi"):
        text = f"{command.server} stops in its own way; SIGTERM is held under uvicorn only"
        yield Finding("note", "server", text, "target health works; see the page about servers for the rest")


def _ends(command: ServerCommand) -> Iterator[Finding]:
    if command.server == "uvicorn" and command.graceful_timeout is None:
        text = "without --timeout-graceful-shutdown uvicorn waits for a client that reads nothing until SIGKILL"
        yield Finding("note", "server", text, "add --timeout-graceful-shutdown 5")
    yield from _refuses(command.number("--limit-concurrency"))
    names = {"uvicorn": ("--limit-max-requests",), "gunicorn": ("--max-requests",)}
    if command.has(*names.get(command.server, LIMITS)):
        text = "a limit on requests ends the process and all its sessions at once"
        yield Finding("unsafe", "server", text, "remove it; max_session_age moves sessions gradually")


def _refuses(limit: float | None) -> Iterator[Finding]:
    if limit:
        text = f"--limit-concurrency {limit:g} refuses all requests while {limit:g} connections, sessions too, are open"
        yield Finding("note", "server", text, "allow more than a task holds, clients that come back included")


def _listens(command: ServerCommand, found: SetUp) -> Iterator[Finding]:
    """Check that the server listens on the port of the target group."""
    addresses = command.addresses
    if not found.ports or not addresses:
        return
    ports = dict.fromkeys(port for _, port in addresses)
    if not ports.keys() & {*found.ports}:
        text = f"the server listens on port {_and(ports)}, and the target group sends to {_and(found.ports)}"
        yield Finding("unsafe", "server", text, "give both the same port")
    elif not found.proxies and all(host in LOCAL for host, _ in addresses):
        text = f"the server listens on {addresses[0][0]}, which the balancer does not reach"
        yield Finding("unsafe", "server", text, "let it listen on 0.0.0.0")


def _and(ports: Iterable[int]) -> str:
    return ", ".join(map(str, ports))


def _gunicorn(command: ServerCommand, found: SetUp) -> Iterator[Finding]:
    if command.server != "gunicorn":
        return
    needed = found.options.sigterm_window + after_sheds(found)
    worker, limit = command.option("-k", "--worker-class"), command.number("--graceful-timeout")
    config = command.option("-c", "--config")
    if config and (worker is None or limit is None):
        text = f"cannot tell what {config} says"
        remedy = f"check that worker_class runs ASGI and graceful_timeout is {needed:g} or more"
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
