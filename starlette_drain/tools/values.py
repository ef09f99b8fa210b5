"""The types of command-line arguments: each is validated, and an error says what to give instead."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from starlette_drain._core.declared import options_of
from starlette_drain.aws.options import AwsSettings
from starlette_drain.exceptions import SettingsError
from starlette_drain.tools.option_help import argument_help

__all__ = ["ARN", "RATE", "Number", "WholeNumber", "option_of"]


class Number(click.ParamType):  # type: ignore[type-arg] # generic only in newer versions
    """
    A finite number.

    Args:
        name: The name of the value in the help.
        least: The smallest valid number.
        most: The largest valid number.
        above: Whether it must be more than *least*.
        unit: The unit in errors; by default *name*.
    """

    def __init__(
        self, name: str = "seconds", *, least: float = 0.0, most: float = math.inf, above: bool = False, unit: str = ""
    ) -> None:
        self.name = name
        self._least, self._most, self._above, self._unit = least, most, above, unit or name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        try:
            number = self._read(value)
        except ValueError:
            number = math.nan
        is_enough = number > self._least if self._above else number >= self._least
        if not (math.isfinite(number) and is_enough and number <= self._most):
            self.fail(f"{value!r} cannot work: give {self._wanted()}", param, ctx)
        return number

    def _read(self, value: Any) -> float:
        return float(value)

    def _wanted(self) -> str:
        least, most = f"{self._least:,.12g}", f"{self._most:,.12g}"
        if not math.isfinite(self._most):
            return f"{self._unit}, {'above' if self._above else 'at least'} {least}"
        return f"{self._unit} {f'above {least}, up to' if self._above else f'from {least} to'} {most}"


class WholeNumber(Number):
    """A whole number, which may contain commas or underscores."""

    def _read(self, value: Any) -> int:
        return value if isinstance(value, int) else int(str(value).replace(",", "").replace("_", ""))


class _Arn(click.ParamType):  # type: ignore[type-arg]
    name = "ARN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not (text.startswith("arn:") and ":targetgroup/" in text and text.count(":") >= 5):
            wanted = "arn:aws:elasticloadbalancing:<region>:<account>:targetgroup/<name>/<id>"
            self.fail(f"{text!r} is not the ARN of a target group: give {wanted}", param, ctx)
        return text


class _Option(click.ParamType):  # type: ignore[type-arg]
    """The value of an option of the drain, as in its environment variable."""

    def __init__(self, option: str) -> None:
        self.name = option.rpartition("_")[2]
        self._option = option

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        declared = options_of(AwsSettings)[self._option][1]
        try:
            return declared.take(self._option, declared.read(value))
        except SettingsError as error:
            self.fail(f"{value!r} cannot work: {error.remedy}", param, ctx)


Decorated = TypeVar("Decorated", bound=Callable[..., Any])

ARN = _Arn()
"""The ARN of a target group."""

RATE = Number("rate", above=True, unit="a number per second")
"""A rate per second."""


def option_of(name: str) -> Callable[[Decorated], Decorated]:
    """Return a decorator that declares an argument for the option *name*; its value is ``None`` if not given."""
    return click.option(
        f"--{name.replace('_', '-')}",
        type=_Option(name),
        help=argument_help(name),
    )
