"""``starlette-drain rotate``: start, show and cancel a rotation of one task, or of all tasks of a service."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import click

from starlette_drain._core.pacing import SHORTEST_WINDOW
from starlette_drain._core.turnover import LONGEST_ROTATION
from starlette_drain.tools.tasks.channel import ROTATION, Channel, Refused, Unreachable
from starlette_drain.tools.tasks.command import CannotRun, ask, channels_of, json_option, which_task
from starlette_drain.tools.tasks.seen import counted
from starlette_drain.tools.values import RATE, Number

__all__ = ["rotate"]

BEGINS = 2.5
"""Seconds within which all workers of a task begin a rotation, so that its answer counts the sessions of all."""

CANCELLED = "the rotation is cancelled; sessions not yet asked to leave stay"

Answers = dict[str, dict[str, Any]]
"""The answers of the tasks, by name; with ``error`` if a task failed."""


@click.command()
@which_task
@click.option(
    "--window",
    type=Number(least=SHORTEST_WINDOW, most=LONGEST_ROTATION),
    help="Start a rotation over this time.",
)
@click.option(
    "--fleet-rate",
    type=RATE,
    help="Start a rotation at most this fast, in sessions per second over all tasks; lengthens the window if needed.",
)
@click.option(
    "--share",
    type=Number("share", above=True, most=1.0, unit="a part"),
    help="Fraction of the sessions, at random; 1 is all.",
)
@click.option("--age", type=Number(most=LONGEST_ROTATION), help="Seconds since the order; later sessions stay.")
@click.option("--reason", help="For the log.")
@click.option("--cancel", "is_cancel", is_flag=True, help="Cancel the rotation; sessions not yet asked to leave stay.")
@json_option
def rotate(
    *,
    window: float | None,
    fleet_rate: float | None,
    share: float | None,
    age: float | None,
    reason: str | None,
    is_cancel: bool,
    as_json_: bool,
    **which: Any,
) -> int:
    """
    Ask open sessions to leave once, while the task serves.

    Without --window or --fleet-rate it shows the running rotation. With --service the tasks rotate together, over one
    window. Exit code 1 if a task refuses or does not answer, or if there is nothing to cancel.
    """
    starts = window is not None or fleet_rate is not None
    if is_cancel and (starts or any(each is not None for each in (share, age, reason))):
        msg = "--cancel goes with none of --window, --fleet-rate, --share, --age, --reason"
        raise click.UsageError(msg)
    if not starts and any(each is not None for each in (share, age, reason)):
        msg = "give --window or --fleet-rate to start a rotation"
        raise click.UsageError(msg)
    with channels_of(which) as channels:
        if not starts:
            method = "DELETE" if is_cancel else "GET"
            answers = _each(channels, lambda channel: channel.ask(method, None, ROTATION)[1])
        else:
            over = window or SHORTEST_WINDOW
            if fleet_rate is not None:
                over = max(over, (1.0 if share is None else share) * _open(channels) / fleet_rate)
            if over > LONGEST_ROTATION:
                msg = (
                    f"at {fleet_rate:g}/s that takes {over:,.0f} s; a rotation takes at most {LONGEST_ROTATION:,.0f} s"
                )
                raise click.UsageError(msg)
            answers = _start(channels, over, share=share, age=age or 0.0, reason=reason)
            _complete(channels, answers)
    none = "no session to rotate" if starts else "no rotation is running"
    return _tell(answers, none, as_json=as_json_, is_cancel=is_cancel, is_one=not which["service"])


def _open(channels: Mapping[str, Channel]) -> int:
    """Return the number of open sessions of all tasks; every task must answer, or the rate would be wrong."""
    return sum(int(ask(channel, "GET")[1]["sessions"]["open"]) for channel in channels.values())


def _start(
    channels: Mapping[str, Channel], window: float, *, share: float | None, age: float, reason: str | None
) -> Answers:
    began = time.monotonic()

    def start(channel: Channel) -> dict[str, Any]:
        # The age excludes clients that have moved to this task since the first task got the order.
        passed = round(min(age + time.monotonic() - began, 0.99 * window), 3) if age or len(channels) > 1 else 0.0
        order = {"window": round(window, 3), "share": share, "age": passed or None}
        body = {name: value for name, value in order.items() if value is not None}
        return channel.ask("POST", {**body, "reason": reason or "requested by the starlette-drain command"}, ROTATION)[
            1
        ]

    return _each(channels, start)


def _complete(channels: Mapping[str, Channel], answers: Answers) -> None:
    """Ask tasks with several workers again: the first answer counts only those that have begun."""
    begun = {name: channels[name] for name, each in answers.items() if each.get("state") == "rotating"}
    several = [name for name, shown in _each(begun, lambda each: each.ask("GET")[1]).items() if _workers(shown) > 1]
    if several:
        time.sleep(BEGINS)
        later = _each({name: begun[name] for name in several}, lambda each: each.ask("GET", None, ROTATION)[1])
        answers |= {name: each for name, each in later.items() if each.get("state") in ("rotating", "paused")}


def _workers(shown: Mapping[str, Any]) -> int:
    return len(shown.get("workers") or ())


def _each(channels: Mapping[str, Channel], do: Callable[[Channel], dict[str, Any]]) -> Answers:
    answers: Answers = {}
    for name, channel in channels.items():
        try:
            answers[name] = do(channel)
        except (Unreachable, Refused) as error:
            answers[name] = {"error": str(error), "is_refusal": isinstance(error, Refused)}
    return answers


def _tell(answers: Answers, none: str, *, as_json: bool, is_cancel: bool, is_one: bool) -> int:
    failed = [each for each in answers.values() if "error" in each]
    if is_one and failed:
        (failure,) = failed
        raise (click.ClickException if failure["is_refusal"] else CannotRun)(failure["error"])
    if as_json:
        click.echo(json.dumps(next(iter(answers.values())) if is_one else answers))
    else:
        for name, shown in answers.items():
            words = shown["error"] if "error" in shown else CANCELLED if is_cancel else _words(shown, none)
            click.echo(f"{name}: {words}")
        if not is_one and not is_cancel and (rate := sum(each.get("rate", 0.0) for each in answers.values())):
            click.echo(f"{counted(len(answers), 'task')}: {rate:.2f}/s")
    if is_cancel:  # a task that does not rotate is not a failure, unless none of them does
        return 0 if len(failed) < len(answers) and all(each["is_refusal"] for each in failed) else 1
    return 1 if failed else 0


def _words(shown: Mapping[str, Any], none: str) -> str:
    if shown["state"] == "none":
        return none
    return (
        f"{shown['state']} ({shown['reason'] or shown['trigger']}): {shown['asked']} asked, "
        f"{shown['remaining']} remain, {shown['rate']:.2f}/s, {shown['time_left']:.0f} s left"
    )
