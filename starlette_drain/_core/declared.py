"""Declares an option once: its default, meaning, unit and validation. All lists of options are generated from it."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import Field, dataclass, field, fields
from difflib import get_close_matches
from typing import Any

from starlette_drain.exceptions import SettingsError

__all__ = [
    "Option",
    "environment_name",
    "is_number",
    "is_whole",
    "members",
    "names_in",
    "nearest",
    "option",
    "options_of",
    "or_yes_or_no",
    "seconds",
    "some_seconds",
    "switch",
    "yes_or_no",
]

PREFIX = "DRAIN_"


@dataclass(frozen=True, slots=True)
class Option:
    """
    The declaration of an option, apart from its name, type and default.

    Attributes:
        meaning: One sentence, for every list of options.
        unit: The unit of a number; empty if it has none.
        expert: Whether most installations leave it alone.
        parse: Converts the text of the environment variable; raises ValueError if it cannot.
        takes_text: Whether the argument, too, may be such text.
        is_valid: Returns whether a value is valid.
        remedy: What to give instead of an invalid value.
        secret: Whether to hide the value in errors and ``repr``.
        accepts: The type of the argument, if it is wider than the type of the value.
    """

    meaning: str
    unit: str
    expert: bool
    parse: Callable[[str], Any]
    takes_text: bool
    is_valid: Callable[[Any], bool]
    remedy: str
    secret: bool
    accepts: str | None

    def read(self, text: str) -> Any:
        """Return the value that the *text* of a variable stands for; *text* unchanged if that is not clear."""
        if text.strip().lower() == "none" and self.is_valid(None):
            return None
        try:
            return self.parse(text)
        except ValueError:
            return text

    def take(self, name: str, given: Any) -> Any:
        """
        Return the value of the option *name*, parsed if it was given in its short form.

        Raises:
            SettingsError: If it is invalid; it shows the value as it was given.
        """
        value = given
        try:
            if self.takes_text and isinstance(given, str):
                value = self.parse(given)
            is_valid = self.is_valid(value)
        except ValueError:
            is_valid = False
        if not is_valid:
            raise SettingsError(name, self.shown(given), self.remedy)
        return value

    def shown(self, given: Any) -> Any:
        """Return what an error shows of a value."""
        return "…" if self.secret else given


def option(
    default: Any,
    meaning: str,
    *,
    is_valid: Callable[[Any], bool],
    remedy: str,
    unit: str = "",
    expert: bool = False,
    parse: Callable[[str], Any] = str,
    takes_text: bool = False,
    secret: bool = False,
    accepts: str | None = None,
) -> Any:
    """Declare an option; see `Option`."""
    declared = Option(meaning, unit, expert, parse, takes_text, is_valid, remedy, secret, accepts)
    return field(default=default, repr=not secret, metadata={"option": declared})


def seconds(default: float, meaning: str, *, expert: bool = False) -> Any:
    """Declare an option in seconds, 0 or more."""
    return option(
        default,
        meaning,
        unit="s",
        expert=expert,
        parse=float,
        is_valid=lambda value: is_number(value) and value >= 0,
        remedy=f"give a number of seconds, 0 or more, such as {default:g}",
    )


def some_seconds(example: float, meaning: str, *, expert: bool = False) -> Any:
    """Declare an option in seconds, more than 0, that may be left out."""
    return option(
        None,
        meaning,
        unit="s",
        expert=expert,
        parse=float,
        is_valid=lambda value: value is None or (is_number(value) and value > 0),
        remedy=f"give a number of seconds above 0, such as {example:g}, or None",
    )


def switch(default: bool, meaning: str, *, expert: bool = False) -> Any:  # noqa: FBT001
    """Declare an option that is on or off."""
    return option(
        default,
        meaning,
        expert=expert,
        parse=yes_or_no,
        is_valid=lambda value: isinstance(value, bool),
        remedy="use True or False",
    )


def options_of(declaring: Any) -> dict[str, tuple[Field[Any], Option]]:
    """Return the options that a dataclass declares, by name: the field and its `Option`."""
    return {each.name: (each, each.metadata["option"]) for each in fields(declaring)}


def environment_name(option: str) -> str:
    """Return the name of the environment variable of *option*."""
    return f"{PREFIX}{option.upper()}"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of *names* that *name* most resembles, or ``None`` if none is close."""
    return next(iter(get_close_matches(name, names, 1)), None)


def is_number(value: Any) -> bool:
    """Return whether *value* is a finite number that fits into a float."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_whole(value: Any) -> bool:
    """Return whether *value* is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def yes_or_no(text: str) -> bool:
    """
    Parse a boolean environment variable.

    Raises:
        ValueError: If *text* is none of ``1/true/yes/on`` and ``0/false/no/off``.
    """
    match text.strip().lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
    raise ValueError(text)


def or_yes_or_no(word: str) -> Callable[[str], str | bool]:
    """Return a parser that accepts *word* or a boolean."""
    return lambda text: word if text.strip().lower() == word else yes_or_no(text)


def names_in(text: str) -> tuple[str, ...]:
    """Split *text* at commas into names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def members(option: str, given: Any, needs: Iterable[str], remedy: str) -> tuple[Any, ...]:
    """
    Return the members of *given*, an iterable of objects that have the attributes *needs*.

    Raises:
        SettingsError: If *given* is not an iterable, or a member is a class or lacks one of the attributes.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise SettingsError(option, given, remedy)
    found = tuple(given)
    for each in found:
        if isinstance(each, type) or not all(hasattr(each, name) for name in needs):
            raise SettingsError(option, each, remedy)
    return found
