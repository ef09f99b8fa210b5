"""How an option is declared: read from the environment, checked, and complained of with a remedy."""

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import field
from typing import Any

from starlette_drain.exceptions import SettingsError

__all__ = [
    "bytes_of",
    "is_number",
    "is_target_group",
    "is_whole",
    "members",
    "names_in",
    "option",
    "or_yes_or_no",
    "seconds",
    "some_seconds",
    "switch",
    "yes_or_no",
]


def is_number(value: Any) -> bool:
    """Tell whether *value* is a finite number that a float can be."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_whole(value: Any) -> bool:
    """Tell whether *value* is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def bytes_of(text: str) -> float:
    """Return how many bytes of UTF-8 *text* takes; infinitely many where it cannot be encoded."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:  # what os.environ makes of bytes that are no UTF-8
        return math.inf


def is_target_group(arn: Any) -> bool:
    """Tell whether *arn* is that of a target group."""
    return isinstance(arn, str) and arn.startswith("arn:") and ":targetgroup/" in arn


def yes_or_no(text: str) -> bool:
    """Return what a word in the environment means."""
    match text.strip().lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
    raise ValueError(text)


def or_yes_or_no(word: str) -> Callable[[str], str | bool]:
    """Return what reads *word*, or yes or no."""
    return lambda text: word if text.strip().lower() == word else yes_or_no(text)


def names_in(text: str) -> tuple[str, ...]:
    """Return the names in *text*, which are separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def members(option: str, given: Any, needs: Iterable[str], remedy: str) -> tuple[Any, ...]:
    """
    Return what is in *given*, an iterable of objects that have the attributes *needs*.

    Raises:
        SettingsError: If it is something else, or one of them is.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise SettingsError(option, given, remedy)
    found = tuple(given)
    for each in found:
        if isinstance(each, type) or not all(hasattr(each, name) for name in needs):
            raise SettingsError(option, each, remedy)
    return found


def option(
    default: Any, *, parse: Callable[[str], Any] = str, sound: Callable[[Any], bool], remedy: str, secret: bool = False
) -> Any:
    """Declare an option: how it is read from the environment, what is sound, what to give where it is not."""
    metadata = {"parse": parse, "sound": sound, "remedy": remedy, "secret": secret}
    return field(default=default, repr=not secret, metadata=metadata)


def seconds(default: float) -> Any:
    """Declare an option in seconds, 0 or more."""
    return option(
        default,
        parse=float,
        sound=lambda value: is_number(value) and value >= 0,
        remedy=f"give seconds, 0 or more, such as {default:g}",
    )


def some_seconds(example: float) -> Any:
    """Declare an option in seconds, more than 0, that may be left out."""
    return option(
        None,
        parse=float,
        sound=lambda value: value is None or (is_number(value) and value > 0),
        remedy=f"give seconds, more than 0, such as {example:g}, or None",
    )


def switch() -> Any:
    """Declare an option that is on or off."""
    return option(False, parse=yes_or_no, sound=lambda value: isinstance(value, bool), remedy="use True or False")
