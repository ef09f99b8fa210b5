"""Draws into a file with matplotlib, if that is installed."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from starlette_drain.exceptions import DrainError

__all__ = ["PLOT", "PlotNotPossible", "drawing"]

FORMATS = (".svg", ".png", ".pdf")
NO_MATPLOTLIB = "--plot needs matplotlib: pip install matplotlib"


class PlotNotPossible(DrainError):
    """matplotlib is not installed, or the file cannot be written."""


class _Plot(click.ParamType):  # type: ignore[type-arg] # which is generic in newer ones only
    """The file of a drawing, checked before the work that it shows."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        path = Path(value)
        if path.suffix.lower() not in FORMATS:
            self.fail(f"{value!r} cannot work: name a file that ends in .svg, .png or .pdf", param, ctx)
        if path.is_dir() or not path.parent.is_dir():
            self.fail(f"{value!r} cannot work: name a file in a directory that exists", param, ctx)
        if find_spec("matplotlib") is None:
            raise click.UsageError(NO_MATPLOTLIB, ctx)
        return str(path)


PLOT = _Plot()


@contextmanager
def drawing(path: str) -> Iterator[Any]:
    """
    Yield the axes of a drawing, and write it to *path* at the end, in the format of its suffix.

    Raises:
        PlotNotPossible: If matplotlib is not installed, or the file cannot be written.
    """
    try:
        figure_class = importlib.import_module("matplotlib.figure").Figure
    except ImportError:
        raise PlotNotPossible(NO_MATPLOTLIB) from None
    figure = figure_class(figsize=(9, 4.5), layout="constrained")
    axes = figure.add_subplot()
    yield axes
    axes.set_ylim(bottom=0)
    axes.legend()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be drawn ({error})"
        raise PlotNotPossible(msg) from None
