"""``starlette-drain doctor``: a table of findings with remedies."""

import asyncio
import dataclasses
import json
import os
import shlex
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from starlette_drain.aws.api.client import Aioboto3Clients
from starlette_drain.tools.doctor.checks import examine
from starlette_drain.tools.doctor.look import Given, look
from starlette_drain.tools.doctor.record import Finding
from starlette_drain.tools.doctor.wait import wait_watched
from starlette_drain.tools.values import ARN, RATE, Number, WholeNumber

__all__ = ["doctor"]

MARKS = {"fine": ("ok", "green"), "note": ("note", "yellow"), "unsafe": ("UNSAFE", "bold red")}
WIDTH = 100
LONGEST_WAIT = 3600.0


@click.command()
@click.option("--target-group", multiple=True, type=ARN, help="ARN of a target group; repeatable.")
@click.option("--service", metavar="NAME", help="Name or ARN.")
@click.option("--cluster", metavar="NAME", help="Name or ARN; the ARN of a service names it.")
@click.option("--container", metavar="NAME", help="The container that serves. Default: detected.")
@click.option("--command", metavar="WORDS", help="The server's command line, if it cannot be seen.")
@click.option("--stop-signal", metavar="SIGNAL", help="The image's STOPSIGNAL, which AWS does not show.")
@click.option("--sessions", type=WholeNumber("count", least=1, unit="a whole number"), help="Sessions per task.")
@click.option("--rate", type=RATE, help="Reconnects per second that the service can take.")
@click.option(
    "--start-up",
    type=Number(above=True, most=86_400),
    help="Time until a new task is healthy. Default: the worst of 5 s to 5 minutes.",
)
@click.option("--url", metavar="URL", help="Address of the process in this container. Default: detected.")
@click.option(
    "--wait",
    type=Number(most=LONGEST_WAIT),
    help="Only wait until this task is watched, at most this long.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(*, wait: float | None, as_json: bool, **given: Any) -> int:
    """
    Check a set-up on AWS and say what will go wrong.

    Run it inside a task, or anywhere with credentials. Exit code 1 if something is unsafe.
    """
    asked = _asked(given)
    if wait is None:
        findings = examine(asyncio.run(look(asked, Aioboto3Clients.patient(), os.environ)))
    else:
        findings = asyncio.run(wait_watched(asked, Aioboto3Clients.patient(), os.environ, wait))
    unsafe = sum(each.level == "unsafe" for each in findings)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(each) for each in findings]))
    else:
        _show(findings)
        click.echo(f"\n{unsafe} unsafe" if unsafe else "\nNothing is unsafe.")
    return 1 if unsafe else 0


def _asked(given: dict[str, Any]) -> Given:
    try:
        command = tuple(shlex.split(given["command"])) if given["command"] else None
    except ValueError as error:
        msg = f"{given['command']!r} is not a command line: {error}"
        raise click.BadParameter(msg, param_hint="--command") from None
    return Given(
        target_groups=given["target_group"],
        cluster=given["cluster"],
        service=given["service"],
        container=given["container"],
        command=command,
        stop_signal=given["stop_signal"],
        sessions=given["sessions"],
        wish=given["rate"],
        start_up=given["start_up"],
        url=given["url"],
    )


def _show(findings: list[Finding]) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, min_width=6)
    table.add_column(no_wrap=True, min_width=22)
    table.add_column(overflow="fold")
    for each in findings:
        mark, style = MARKS[each.level]
        table.add_row(Text(mark, style), each.what, Text(each.found))
        if each.remedy:
            arrow = Table.grid()
            arrow.add_row("-> ", Text(each.remedy))
            table.add_row("", "", arrow)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal or console.width > WIDTH:
        console.width = WIDTH
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))
