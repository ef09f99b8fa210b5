"""The commands of ``starlette-drain``, with common help, version, errors and exit codes."""

import errno
import os
import sys
import textwrap
from collections.abc import Sequence

import click

from starlette_drain.tools.doctor.command import doctor
from starlette_drain.tools.option_help import all_options
from starlette_drain.tools.plan.command import plan
from starlette_drain.tools.recording import record
from starlette_drain.tools.rehearse.command import rehearse
from starlette_drain.tools.tasks.command import cancel, start, status, watch
from starlette_drain.tools.tasks.rotate import rotate

__all__ = ["run"]

EXIT_CODES = (
    "Exit codes: 0 if all is well; 1 if something is unsafe, will not finish or misses the goal; 2 for wrong usage, or "
    "if the command cannot run."
)
MORE = "starlette-drain --help also lists the options of the drain and their environment variables."

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""The errors of a file to which the output is redirected."""


class _Group(click.Group):
    """Prints the list of options below the help without rewrapping it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[__name__] = not args
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Without arguments the usage must stay on the screen, so the long list is left out.
        rest = textwrap.fill(MORE, formatter.width) if ctx.meta.get(__name__) else all_options(formatter.width)
        formatter.write(f"\n{textwrap.fill(EXIT_CODES, formatter.width)}\n\n{rest}\n")


@click.group(cls=_Group, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(sys.modules["starlette_drain"].__version__, prog_name="starlette-drain")
def group() -> None:
    """Inspect and drain running tasks, and check before you deploy."""


for each in (status, watch, start, cancel, rotate, rehearse, plan, doctor, record):
    group.add_command(each)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    try:
        code = group.main(
            None if arguments is None else list(arguments), prog_name="starlette-drain", standalone_mode=False
        )
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130  # as a shell reports Ctrl+C
    except BrokenPipeError:
        # The reader, such as `head`, has closed the pipe; Python must not flush into it at exit either.
        _discard_output()
        return 0
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        _discard_output()
        click.echo(f"Error: cannot write the output: {error.strerror}", err=True)
        return 2
    return int(code or 0)


def _discard_output() -> None:
    """Let Python write what it still holds to nowhere when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
