"""``starlette-drain status | watch | start | cancel``: show running tasks, and act on them."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import click
from rich.live import Live

from starlette_drain.tools.tasks.channel import TOKEN, Channel, Ended, Refused, Unreachable, find_channel
from starlette_drain.tools.tasks.seen import Seen, as_json, counted, only_observes, outcome, problems
from starlette_drain.tools.tasks.service import ServiceTasks, place_of
from starlette_drain.tools.tasks.view import console, is_lively, line, outcome_table, print_out, screen
from starlette_drain.tools.values import Number, WholeNumber

__all__ = [
    "CannotRun",
    "ask",
    "cancel",
    "channels_of",
    "json_option",
    "start",
    "status",
    "watch",
    "which_task",
]

POLL_INTERVAL = 0.5
"""Seconds between two requests to a task."""

EVERY = 10.0
"""Seconds between two lines if the output cannot be redrawn and nothing changes."""

LOST = 3
"""How many requests in a row must fail until a process that drained counts as gone."""

LONGEST = 3600.0
"""The longest deregistration delay of ELBv2, in seconds."""

BEGAN = 202
"""The HTTP status if the task has begun to drain."""

CONFLICT = 409
"""The HTTP status if there is nothing to cancel, or it is too late."""


PID = WholeNumber("pid", least=1, unit="a process id")
PORT = WholeNumber("port", least=1, most=65_535, unit="a port")


class CannotRun(click.ClickException):
    """The command cannot run; the message says why."""

    exit_code = 2


class Source(Protocol):
    """The tasks to show: one task, or all tasks of a service."""

    def look(self) -> Sequence[Seen]:
        """Return the current state of the tasks."""

    def is_over(self, tasks: Sequence[Seen]) -> bool:
        """Return whether there is nothing more to watch."""

    def close(self) -> None:
        """Close all connections."""


class OneTask:
    """
    One task that is asked directly.

    Args:
        name: Its name.
        channel: The channel to it.
    """

    def __init__(self, name: str, channel: Channel) -> None:
        self._last = Seen(name)
        self._channel = channel
        self._failures = 0
        self._has_drained = False

    def look(self) -> Sequence[Seen]:
        """Return the current state of the task. It is gone if its process has ended, or it drained and is silent."""
        try:
            shown = self._channel.ask("GET")[1]
        except (Unreachable, Refused) as error:
            self._failures += isinstance(error, Unreachable)
            is_gone = isinstance(error, Ended) or (self._has_drained and self._failures >= LOST)
            return [replace(self._last, why_not=error.problem, remedy=error.remedy, is_gone=is_gone)]
        self._failures = 0
        self._has_drained = self._has_drained or shown["state"] != "serving"
        self._last = Seen(self._last.task, shown)
        return [self._last]

    def close(self) -> None:
        """Close nothing: every request has its own connection."""

    def is_over(self, tasks: Sequence[Seen]) -> bool:
        """Return whether its drain is over: it has drained, was cancelled, or is gone."""
        (task,) = tasks
        return task.is_gone or (self._has_drained and task.state in ("drained", "serving"))


def which_task(function: Callable[..., Any]) -> Callable[..., Any]:
    """Declare the options that select a task or tasks."""
    options = (
        click.option(
            "--url",
            metavar="URL",
            help="Address of the task's server, asked with the token in DRAIN_ADMIN_TOKEN. Default: the server in this "
            "container, without a token.",
        ),
        click.option("--pid", type=PID, metavar="PID", help="Process id, if several servers run in this container."),
        click.option("--cluster", metavar="NAME", help="ECS cluster; the ARN of a service or task includes it."),
        click.option("--service", metavar="NAME", help="All tasks of this ECS service."),
        click.option("--task", metavar="ID", help="One ECS task."),
        click.option(
            "--port", type=PORT, metavar="PORT", help="Port of the ECS tasks. Default: that of their targets."
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


json_option = click.option("--json", "as_json_", is_flag=True, help="Print JSON.")
timeout_option = click.option(
    "--timeout", type=Number(most=86_400), default=None, help="Give up after this many seconds, with exit code 1."
)


@click.command()
@which_task
@json_option
def status(*, as_json_: bool, **which: Any) -> int:
    """
    Show a task, or all tasks of a service.

    Exit code 1 if something is wrong.
    """
    with _source(which) as source:
        tasks = _look(source)
    if all(each.shown is None for each in tasks) and len(tasks) == 1:
        raise CannotRun(_explain(tasks[0]))
    if as_json_:
        click.echo(json.dumps(as_json(tasks)))
    else:
        print_out(screen(tasks))
        if any((each.shown or {}).get("report") for each in tasks):
            click.echo()
            print_out(outcome_table(tasks))
    return 1 if problems(tasks) else 0


@click.command()
@which_task
@timeout_option
@json_option
def watch(*, timeout: float | None, as_json_: bool, **which: Any) -> int:
    """
    Follow a drain to its end and print its report.

    With --service it follows all tasks until the deployment is over. Exit code 0 if all sessions left in time.
    """
    with _source(which) as source:
        return follow(source, timeout, as_json=as_json_)


@click.command()
@which_task
@click.option("--window", type=Number(most=LONGEST), help="Time for the sessions to leave.")
@click.option(
    "--age", type=Number(most=LONGEST), help="Time since the event that this command is about; taken off the window."
)
@click.option("--reason", help="Reason, for the log and the report.")
@click.option("--taken-out", is_flag=True, help="The balancer sends nothing new here: refuse late arrivals.")
@click.option("--wait", is_flag=True, help="Wait for the end of the drain.")
@timeout_option
@json_option
def start(
    *,
    wait: bool,
    timeout: float | None,
    as_json_: bool,
    window: float | None,
    age: float | None,
    reason: str | None,
    taken_out: bool,
    **which: Any,
) -> int:
    """
    Start a drain of one task, or join a running one.

    With --wait, for preStop hooks and pipelines, exit code 0 if all sessions left in time.
    """
    if which["service"] and not which["task"]:
        msg = "start takes one --task: draining all tasks of a service at once is an outage"
        raise click.UsageError(msg)
    if timeout is not None and not wait:
        msg = "--timeout goes with --wait"
        raise click.UsageError(msg)
    order = {"window": window, "age": age, "taken_out": taken_out}
    body: dict[str, Any] = {field: value for field, value in order.items() if value not in (None, False)}
    body["reason"] = reason or "requested by the starlette-drain command"
    with channels_of(which) as channels:
        ((name, channel),) = channels.items()
        code, shown = ask(channel, "POST", body)
        if not wait:
            _tell(as_json_, shown, _started(name, shown, is_new=code == BEGAN))
            return 0
        if not as_json_:
            click.echo(_started(name, shown, is_new=code == BEGAN))
        return follow(OneTask(name, channel), timeout, as_json=as_json_)


@click.command()
@which_task
@json_option
def cancel(*, as_json_: bool, **which: Any) -> int:
    """
    Cancel the drain of a task or a service.

    The tasks serve again. Exit code 1 if there is no drain, or it is too late.
    """
    with channels_of(which) as channels:
        if len(channels) == 1:
            ((name, channel),) = channels.items()
            _, shown = ask(channel, "DELETE")
            _tell(as_json_, shown, _cancelled(name, shown))
            return 0
        outcomes: dict[str, Any] = {}
        for name, channel in channels.items():
            try:
                outcomes[name] = channel.ask("DELETE")[1]
            except (Unreachable, Refused) as error:
                outcomes[name] = {"error": str(error), "is_refusal": isinstance(error, Refused)}
    for name, shown in outcomes.items():
        if not as_json_:
            click.echo(f"{name}: {shown['error']}" if "error" in shown else _cancelled(name, shown))
    if as_json_:
        click.echo(json.dumps(outcomes))
    # A task that does not drain is not a failure, unless none of them does.
    is_reached = all(each.get("is_refusal", True) for each in outcomes.values())
    return 0 if is_reached and any("error" not in each for each in outcomes.values()) else 1


def follow(source: Source, timeout: float | None, *, as_json: bool) -> int:
    """Watch until the drain is over, show the report, and return the exit code."""
    until = None if timeout is None else time.monotonic() + timeout
    tasks = _look(source)
    if all(each.shown is None for each in tasks):
        raise CannotRun("\n".join(f"{each.task}: {_explain(each)}" for each in tasks) or "there is no task")
    show = _json_lines if as_json else (None if is_lively() else _Lines().show)
    if show is None:
        with _terminable(), Live(screen(tasks), console=console(), auto_refresh=False) as live:
            tasks = _until_over(source, tasks, until, lambda seen: live.update(screen(seen), refresh=True))
    else:
        show(tasks)
        tasks = _until_over(source, tasks, until, show)
    rows = outcome(tasks)
    is_over = source.is_over(tasks)
    if as_json:
        click.echo(json.dumps({"is_over": is_over, "report": rows}))
    elif rows:
        click.echo()
        print_out(outcome_table(tasks))
    if not is_over:
        click.echo(f"Not over after {timeout:g} s.", err=True)
    return 0 if is_over and all(_is_good(row) for row in rows) else 1


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM raise, so that the terminal gets its cursor back."""

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _until_over(
    source: Source, tasks: Sequence[Seen], until: float | None, show: Callable[[Sequence[Seen]], object]
) -> Sequence[Seen]:
    while not source.is_over(tasks) and (until is None or time.monotonic() < until):
        time.sleep(POLL_INTERVAL)
        tasks = _look(source)
        show(tasks)
    return tasks


def _is_good(row: dict[str, Any]) -> bool:
    """Return whether all sessions of a task have left; for a task that is gone, as far as was seen."""
    if row["outcome"] is not None:
        return bool(row["outcome"] in ("drained", "observed") and not row["still_open"])
    return bool(row["is_gone"] and not row["last_seen_open"])


class _Lines:
    """Prints a line when the state or a problem changes, and every `EVERY` seconds."""

    def __init__(self) -> None:
        self._known: object = None
        self._next = 0.0

    def show(self, tasks: Sequence[Seen]) -> None:
        """Print what has changed."""
        wrong = problems(tasks)
        known = [each.state for each in tasks], [(each.task, each.remedy) for each in wrong]
        if known == self._known and time.monotonic() < self._next:
            return
        for each in wrong:
            if self._known is None or known[1] != self._known[1]:  # type: ignore[index]
                click.echo(f"PROBLEM {each.task}: {each.problem}\n  -> {each.remedy}")
        self._known, self._next = known, time.monotonic() + EVERY
        click.echo(line(tasks))


def _json_lines(tasks: Sequence[Seen]) -> None:
    click.echo(json.dumps(as_json(tasks)))


@contextlib.contextmanager
def _source(which: dict[str, Any]) -> Iterator[Source]:
    """Yield the selected tasks."""
    try:
        source = _service(which) or OneTask(*find_channel(which["url"], which["pid"]))
    except Unreachable as error:
        raise CannotRun(str(error)) from None
    with contextlib.closing(source):
        yield source


@contextlib.contextmanager
def channels_of(which: dict[str, Any]) -> Iterator[dict[str, Channel]]:
    """Yield the channels to the selected tasks, by name."""
    try:
        service = _service(which)
        if service is None:
            yield dict([find_channel(which["url"], which["pid"])])
            return
        with contextlib.closing(service):
            yield service.channels()
    except Unreachable as error:
        raise CannotRun(str(error)) from None


def _service(which: dict[str, Any]) -> ServiceTasks | None:
    """Return the selected tasks on ECS, if ECS options were given."""
    service, task = which["service"], which["task"]
    cluster = place_of(which["cluster"], service, task)
    if not (cluster or service or task):
        if which["port"]:
            msg = "--port goes with --cluster; a --url has its own, such as http://10.0.3.17:8000"
            raise click.UsageError(msg)
        if which["url"] and which["pid"]:
            msg = "--pid is for a server in this container, and --url for one elsewhere: give one of them"
            raise click.UsageError(msg)
        return None
    if which["url"] or which["pid"]:
        msg = (
            "--url and --pid are for one task that is asked directly, and go with none of --cluster, --service, --task"
        )
        raise click.UsageError(msg)
    if not cluster or not (service or task):
        msg = "give --cluster with --service or --task"
        raise click.UsageError(msg)
    return ServiceTasks(cluster, service, task=task, token=os.environ.get(TOKEN), port=which["port"])


def _explain(seen: Seen) -> str:
    return "; ".join(filter(None, (seen.why_not, seen.remedy)))


def _look(source: Source) -> Sequence[Seen]:
    try:
        return source.look()
    except Unreachable as error:
        raise CannotRun(str(error)) from None


def ask(channel: Channel, method: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    """Ask a task; turn a missing answer or a refusal into the command's error."""
    try:
        return channel.ask(method, body)
    except Unreachable as error:
        raise CannotRun(str(error)) from None
    except Refused as error:
        raise (click.ClickException if error.status == CONFLICT else CannotRun)(str(error)) from None


def _tell(as_json: bool, shown: dict[str, Any], words: str) -> None:  # noqa: FBT001
    click.echo(json.dumps(shown) if as_json else words)
    if not as_json and (note := shown.get("note")):
        click.echo(f"note: {note}")


def _cancelled(name: str, shown: dict[str, Any]) -> str:
    still = shown["sessions"]["leaving"]
    rest = f"; {counted(still, 'session')} already asked to leave will leave" if still else ""
    return f"{name} serves again, with {counted(shown['sessions']['open'], 'session')}{rest}."


def _started(name: str, shown: dict[str, Any], *, is_new: bool) -> str:
    drain, open_ = shown.get("drain"), shown["sessions"]["open"]
    if not drain:
        already = "" if is_new else " already, so nothing was started"
        return f"{name} is {shown['state']}{already}. Open sessions: {open_:,}."
    how = "starts to drain" if is_new else "was draining already"
    if only_observes(shown):
        how += ", only observed"
    left = f"{drain['time_left']:.0f} s remain" if "time_left" in drain else "its workers begin"
    # With several workers the rate is that of those that have begun, while the sessions are those of all.
    rate = "" if len(shown.get("workers") or ()) > 1 else f"{drain['rate']:.1f}/s, "
    return f"{name} {how}: {counted(open_, 'session')}, {rate}{left}."
