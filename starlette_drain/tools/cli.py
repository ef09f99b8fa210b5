"""The ``starlette-drain`` command."""

import argparse
from collections.abc import Sequence

from starlette_drain.tools.doctor import command as doctor
from starlette_drain.tools.option_help import all_options
from starlette_drain.tools.plan import command as planning

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="starlette-drain",
        description="Look before you deploy.",
        epilog=all_options(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    doctor.add_command(commands)
    planning.add_command(commands)
    given = parser.parse_args(arguments)
    code: int = given.run(given)
    return code
