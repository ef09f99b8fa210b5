"""The options in the command's help, generated from their declarations."""

import textwrap
from typing import Any

from starlette_drain._core.declared import environment_name, options_of
from starlette_drain._core.pacing import EvenPacing
from starlette_drain.aws.options import AwsSettings

__all__ = ["all_options", "argument_help"]


def all_options(width: int) -> str:
    """Return all environment variables with their defaults and meanings, the main ones first."""
    about = "Each option is an argument of Drain and an environment variable. The main ones, with their defaults:"
    parts = [textwrap.fill(about, width)]
    for expert in (False, True):
        if expert:
            parts.append("For experts:")
        for name, (field, declared) in options_of(AwsSettings).items():
            if declared.expert is expert:
                unit = " (seconds)" if declared.unit == "s" else ""
                meaning = textwrap.fill(
                    _plain(declared.meaning), width, initial_indent=" " * 6, subsequent_indent=" " * 6
                )
                parts.append(f"  {environment_name(name)}={_text(field.default)}{unit}\n{meaning}")
    return "\n".join(parts)


def argument_help(name: str) -> str:
    """Return the help of the argument for the option *name*."""
    field, declared = options_of(AwsSettings)[name]
    default = _text(field.default)
    return _plain(declared.meaning) + (f" ({default})" if default else "")


def _plain(meaning: str) -> str:
    return meaning.replace("`", "").replace('"', "")


def _text(value: Any) -> str:
    """Return a default as in an environment variable; empty if there is none."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case EvenPacing():
            return "even"
        case tuple():
            return ",".join(value)
        case float():
            return f"{value:g}"
    return str(value)
