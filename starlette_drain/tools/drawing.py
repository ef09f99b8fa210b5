"""A drawing in a file, by matplotlib where it is installed."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette_drain.exceptions import DrainError

__all__ = ["PlotNotPossible", "drawing"]


class PlotNotPossible(DrainError):
    """matplotlib is not installed, or the file cannot be written."""


@contextmanager
def drawing(path: str) -> Iterator[Any]:
    """
    Hand out the axes of a drawing, from zero upwards; write it to *path* at the end, whose suffix says the format.

    Raises:
        PlotNotPossible: If matplotlib is not installed, or the file cannot be written.
    """
    try:
        figure_class = importlib.import_module("matplotlib.figure").Figure
    except ImportError:
        msg = "--plot needs matplotlib: pip install matplotlib"
        raise PlotNotPossible(msg) from None
    figure = figure_class(figsize=(9, 4.5), layout="constrained")
    axes = figure.add_subplot()
    yield axes
    axes.set_ylim(bottom=0)
    axes.legend()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be drawn ({error}); name a file that ends in .svg, .png or .pdf"
        raise PlotNotPossible(msg) from None
