"""``starlette-drain doctor``: a table of what was found, what will go wrong, and what to do about it."""

import argparse
import asyncio
import dataclasses
import json
import os
import shlex
import sys
import textwrap

from starlette_drain.aws.api.client import Aioboto3Clients
from starlette_drain.tools.doctor.checks import examine
from starlette_drain.tools.doctor.look import Given, look
from starlette_drain.tools.doctor.record import Finding

__all__ = ["add_command"]

MARKS = {"fine": "ok", "note": "note", "unsafe": "UNSAFE"}
WIDTH = 100


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    words = "look at a set-up on AWS and say what will go wrong: inside a task, or anywhere with credentials"
    parser = commands.add_parser("doctor", help=words, description=words)
    parser.add_argument("--target-group", action="append", default=[], metavar="ARN", help="may be given again")
    parser.add_argument("--service", help="name or ARN")
    parser.add_argument("--cluster", help="name or ARN; the ARN of a service names it")
    parser.add_argument("--container", help="the one that serves; by default the one behind the target group")
    parser.add_argument("--command", help="the server's command line, where it cannot be seen")
    parser.add_argument("--sessions", type=int, help="on each task")
    parser.add_argument("--rate", type=float, help="reconnects per second that the service can take")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Look, judge and tell; return 1 if anything is unsafe, else 0."""
    asked = Given(
        target_groups=tuple(given.target_group),
        cluster=given.cluster,
        service=given.service,
        container=given.container,
        command=tuple(shlex.split(given.command)) if given.command else None,
        sessions=given.sessions,
        wish=given.rate,
    )
    findings = examine(asyncio.run(look(asked, Aioboto3Clients(), os.environ)))
    if given.json:
        text = json.dumps([dataclasses.asdict(each) for each in findings])
    else:
        text = "\n".join(line for each in findings for line in _lines(each))
        unsafe = sum(each.level == "unsafe" for each in findings)
        text += f"\n\n{unsafe} unsafe" if unsafe else "\n\nNothing is unsafe."
    sys.stdout.write(f"{text}\n")
    return int(any(each.level == "unsafe" for each in findings))


def _lines(finding: Finding) -> list[str]:
    first = f"{MARKS[finding.level]:<7} {finding.what:<23} "
    lines = textwrap.wrap(finding.found, WIDTH, initial_indent=first, subsequent_indent=" " * len(first))
    if finding.remedy:
        arrow = " " * len(first) + "-> "
        indent = " " * len(arrow)
        lines += textwrap.wrap(finding.remedy, WIDTH, initial_indent=arrow, subsequent_indent=indent)
    return lines
