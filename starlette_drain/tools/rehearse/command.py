"""``starlette-drain rehearse``: drains the user's own application, with a report, a drawing and a verdict."""

import asyncio
import dataclasses
import json
import resource
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import click

from starlette_drain._core.printable import printable
from starlette_drain.tools.drawing import PLOT, PlotNotPossible, drawing
from starlette_drain.tools.rehearse.clients import CLEAN, CUT, event_stream, given, websocket
from starlette_drain.tools.rehearse.run import CannotRehearse, Wanted, is_on_ecs, missing, play
from starlette_drain.tools.rehearse.verdict import Rehearsal, bars, reasons
from starlette_drain.tools.tasks.command import CannotRun
from starlette_drain.tools.tasks.seen import Seen
from starlette_drain.tools.tasks.view import is_lively, line, outcome_table, print_out
from starlette_drain.tools.values import Number, WholeNumber

__all__ = ["rehearse"]

REAL = (
    "Only AWS is simulated, and only for the drain. Everything else that the application talks to is real. "
    "Clients about to connect: {}."
)
EVERY = 5.0
SPARE_FILES = 200


@click.command()
@click.argument("app", metavar="MODULE:APP")
@click.option("--factory", is_flag=True, help="MODULE:APP is a function that returns the application.")
@click.option(
    "--sessions",
    type=WholeNumber("count", least=1, unit="a whole number"),
    default=500,
    show_default=True,
    help="Number of clients.",
)
@click.option(
    "--delay", type=Number(least=4, most=3600), default=60.0, show_default=True, help="Deregistration delay, seconds."
)
@click.option("--path", default="/ws", show_default=True, help="Path to connect to; {n} is the client's number.")
@click.option("--header", multiple=True, metavar="NAME:VALUE", help="Header to send; repeatable.")
@click.option("--stream", is_flag=True, help="The path is an event stream, not a WebSocket.")
@click.option(
    "--client",
    metavar="MODULE:COROUTINE",
    help="Your own client, for example one that logs in: called with the address and a number, it connects, stays "
    "until the connection ends, and returns the close code.",
)
@click.option(
    "--plot", type=PLOT, metavar="FILE", help="Draw the closes into FILE (.svg, .png, .pdf); needs matplotlib."
)
@click.option("--json", "as_json", is_flag=True, help="Print only JSON, at the end.")
def rehearse(*, app: str, plot: str | None, as_json: bool, **asked: Any) -> int:
    """
    Drain your application on this machine, as on ECS.

    uvicorn serves it with a stand-in for AWS. Clients connect, the target is deregistered, SIGTERM comes after the
    delay, and the balancer cuts the rest. Exit code 0 if every client was asked to leave and all ended cleanly;
    otherwise 1, with the reasons.
    """
    if is_on_ecs():
        msg = "this is a task on ECS, where the application's sessions are real: rehearse on your own machine"
        raise CannotRun(msg)
    if lacking := missing(("uvicorn", "websockets")):
        msg = f"rehearse needs {' and '.join(lacking)}: pip install 'uvicorn[standard]'"
        raise CannotRun(msg)
    wanted = _wanted(app, asked)
    _raise_file_limit(wanted.sessions)
    screen = _Screen(is_silent=as_json)
    screen.say(REAL.format(wanted.sessions))
    try:
        seen = asyncio.run(play(wanted, screen.say, screen.show))
    except CannotRehearse as error:
        screen.clear()
        written = ["It wrote:", *error.written] if as_json and error.written else []  # otherwise it is shown above
        raise CannotRun("\n".join([str(error), *written])) from None
    screen.clear()
    wrong = reasons(seen)
    if as_json:
        found = [{"reason": reason, "remedy": remedy} for reason, remedy in wrong]
        click.echo(json.dumps({**dataclasses.asdict(seen), "is_good": not wrong, "reasons": found}))
    else:
        _report(seen, wrong, is_stream=asked["stream"])
    if plot is not None:
        try:
            _draw(seen, plot)
        except PlotNotPossible as problem:
            raise CannotRun(str(problem)) from None
    return 1 if wrong else 0


def _wanted(app: str, asked: dict[str, Any]) -> Wanted:
    if asked["client"] and asked["header"]:
        msg = "--header is for the built-in clients; let your --client send its own"
        raise click.UsageError(msg)
    headers = {}
    for each in asked["header"]:
        name, colon, value = each.partition(":")
        if not (colon and name.strip()):
            msg = f"{each!r} is not a header: give one such as 'Authorization: Bearer abc'"
            raise click.BadParameter(msg, param_hint="--header")
        headers[name.strip()] = value.strip()
    if not asked["path"].startswith("/"):
        msg = f"{asked['path']!r} is not a path: begin it with '/'"
        raise click.BadParameter(msg, param_hint="--path")
    try:
        client = (
            given(asked["client"]) if asked["client"] else (event_stream if asked["stream"] else websocket)(headers)
        )
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--client") from None
    scheme = "http" if asked["stream"] else "ws"
    return Wanted(app, asked["factory"], asked["sessions"], asked["delay"], client, scheme, asked["path"])


def _raise_file_limit(sessions: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = sessions + SPARE_FILES
    if soft < wanted:
        if 0 <= hard < wanted:
            msg = f"this system allows a process {hard} files: give --sessions {max(1, hard - SPARE_FILES)} at most"
            raise CannotRun(msg)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Screen:
    """Prints lines, and the progress: in place on a terminal, as occasional lines elsewhere."""

    def __init__(self, *, is_silent: bool) -> None:
        self._is_silent = is_silent
        self._is_lively = is_lively()
        self._next = 0.0
        self._shown = ""

    def say(self, text: str) -> None:
        """Print a permanent line."""
        if not self._is_silent:
            self.clear()
            click.echo(printable(text))

    def show(self, seen: Seen) -> None:
        """Show the progress."""
        if self._is_silent:
            return
        text = line([seen])
        if self._is_lively:
            self.clear()
            click.echo(text, nl=False)
        elif text != self._shown and time.monotonic() >= self._next:
            self._shown, self._next = text, time.monotonic() + EVERY
            click.echo(text)

    def clear(self) -> None:
        """Remove the progress line."""
        if self._is_lively and not self._is_silent:
            click.echo("\r\x1b[2K", nl=False)


def _report(seen: Rehearsal, wrong: list[tuple[str, str]], *, is_stream: bool) -> None:
    click.echo("\nAs the clients saw it")
    names = {CLEAN: "complete", CUT: "cut"} if is_stream else {}
    codes = Counter(seen.codes).most_common()
    text = ", ".join(f"{count} x {names.get(code, code)}" for code, count in codes) or "none"
    click.echo(f"  {'ends of streams' if is_stream else 'closes by code':<19}{text}")
    if seen.moments:
        click.echo(f"  over {seen.delay:g} s".ljust(21) + bars(seen.moments, seen.delay, _steps()))
        click.echo(f"  last one           {seen.delay - max(seen.moments):.1f} s before SIGTERM")
    for error in seen.errors[:3]:
        click.echo(f"  error              {printable(error)}")
    if seen.shown.get("report"):
        click.echo("\nAs the task saw it")
        print_out(outcome_table([Seen("rehearsal", seen.shown)]))
    if not wrong:
        click.echo("\nGood: every client was asked to leave, and none was cut.")
        return
    click.echo("\nNot good:")
    for reason, remedy in wrong:
        click.echo(f"  - {printable(reason)}\n    -> {remedy}")


def _steps() -> str:
    steps = " ▁▂▃▄▅▆▇█"
    try:
        steps.encode(sys.stdout.encoding)
    except UnicodeError:
        return " .:-=+*#@"
    return steps


def _draw(seen: Rehearsal, path: str) -> None:
    """Draw how many clients are connected, against the even plan."""
    moments = sorted(seen.moments)
    left = [seen.sessions - number for number in range(len(moments) + 1)]
    with drawing(path) as axes:
        axes.step([0.0, *moments], left, where="post", label="connected clients")
        axes.plot([0.0, seen.delay], [seen.sessions, 0], linestyle=":", label="evenly over the delay")
        axes.axvline(seen.delay, linestyle="--", linewidth=1, label="SIGTERM")
        axes.set_xlabel("seconds from the deregistration")
