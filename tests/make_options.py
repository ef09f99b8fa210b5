"""
Make every list of the options from their declarations: the typed dictionary and the tables of the page.

The reference of the command is made from its help.

``python tests/make_options.py`` writes them; a test fails where one differs.
"""

from copy import copy
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import click

from starlette_drain import Settings
from starlette_drain._core.declared import environment_name, options_of
from starlette_drain._core.pacing import EvenPacing
from starlette_drain._core.settings import REMOVED
from starlette_drain._engine import options
from starlette_drain.tools.commands import group

__all__ = ["LISTS", "made"]

ROOT = Path(__file__).parents[1]

TYPED_DICTIONARY = '''"""The names and types of the options, for editors and type checkers: tests/make_options."""

from collections.abc import Mapping
from typing import Literal, TypedDict

from starlette_drain._core.pacing import Pacing
from starlette_drain._core.precedence import Precedence, ShedFirst

__all__ = ["DrainOptions"]


class DrainOptions(TypedDict, total=False):
    """The keyword arguments of `Drain`; docs/settings.md says what each means."""

{}
'''


def type_text(hint: Any) -> str:
    """Return a type as it is written."""
    if get_origin(hint) in (Union, UnionType):
        return " | ".join(map(type_text, get_args(hint)))
    if get_origin(hint) is Literal:
        return "Literal[{}]".format(", ".join(f'"{each}"' for each in get_args(hint)))
    return "None" if hint is NoneType else hint.__name__


def typed_dictionary() -> str:
    """Return the module with `DrainOptions`."""
    hints = get_type_hints(Settings)
    return TYPED_DICTIONARY.format(
        "\n".join(
            f"    {name}: {declared.accepts or type_text(hints[name])}"
            for name, (_, declared) in options_of(Settings).items()
        )
    )


def default_text(value: Any) -> str:
    """Return a default as the tables show it."""
    match value:
        case EvenPacing():
            return '`"even"`'
        case ():
            return "`()`"
        case tuple():
            return f'`"{",".join(value)}"`'
        case float():
            return f"`{value:g}`"
        case str():
            return f'`"{value}"`'
    return f"`{value!r}`"


def table(*, expert: bool) -> str:
    """Return the rows of the main options, or of the others; three columns fit a phone."""
    rows = [
        f"| `{name}`<br>`{environment_name(name)}` "
        f"| {default_text(field.default)}{f' {declared.unit}' if declared.unit else ''} | {declared.meaning} |"
        for name, (field, declared) in options_of(Settings).items()
        if declared.expert is expert
    ]
    return "\n".join(["| option | default | meaning |", "|---|---|---|", *rows])


def removed() -> str:
    """Return the rows of the options that were removed."""
    rows = [f"| `{name}` | {remedy} |" for name, remedy in REMOVED.items()]
    return "\n".join(["| removed | instead |", "|---|---|", *rows])


def commands() -> str:
    """Return the help of the commands that have no page of their own, with what several take shown once."""
    status = context_of("status", group.commands["status"])
    common = [record for each in status.command.get_params(status) if (record := each.get_help_record(status))]
    formatter = status.make_formatter()
    with formatter.section("Options"):
        formatter.write_dl(common)
    parts = [
        f"`status`, `watch`, `start`, `cancel` and `rotate` take:\n\n```text\n{formatter.getvalue().rstrip()}\n```"
    ]
    for name, command in group.commands.items():
        if name not in ("doctor", "plan"):
            own = copy(command)
            own.params = [each for each in command.params if each.get_help_record(status) not in common]
            own.add_help_option = False
            parts.append(f"### `{name}`\n\n```text\n{own.get_help(context_of(name, own))}\n```")
    return "\n\n".join(parts)


def context_of(name: str, command: click.Command) -> click.Context:
    """Return the context of a command on a page of 100 columns."""
    return click.Context(
        command,
        info_name=f"starlette-drain {name}",
        terminal_width=100,
        max_content_width=100,
        help_option_names=["-h", "--help"],  # as the command has them; click keeps what it made first
    )


PARTS = {
    "main options": partial(table, expert=False),
    "expert options": partial(table, expert=True),
    "removed options": removed,
    "commands": commands,
}

LISTS = (
    (Path(options.__file__), None),
    (ROOT / "docs" / "settings.md", "main options"),
    (ROOT / "docs" / "settings.md", "expert options"),
    (ROOT / "docs" / "settings.md", "removed options"),
    (ROOT / "docs" / "command.md", "commands"),
)
"""The files, and what stands there between two comments; ``None`` where the file is nothing else."""


def made(file: Path, part: str | None) -> str:
    """Return what would stand in *file* if the list in it were made now."""
    if part is None:
        return typed_dictionary()
    begin, end = f"<!-- {part}: made by tests/make_options.py -->", f"<!-- end of {part} -->"
    before, _, rest = file.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{PARTS[part]()}\n\n{end}{after}"


def main() -> None:
    """Write all lists."""
    for file, part in LISTS:
        file.write_text(made(file, part), encoding="utf-8")


if __name__ == "__main__":
    main()
