"""The curves as a picture, where matplotlib is installed."""

import importlib

from starlette_drain.exceptions import DrainError
from starlette_drain.tools.plan.rehearsal import Course
from starlette_drain.tools.plan.sums import Fleet

__all__ = ["PlotNotPossible", "draw"]


class PlotNotPossible(DrainError):
    """The picture cannot be drawn; the message names the remedy."""


def draw(course: Course, fleet: Fleet, path: str) -> None:
    """
    Draw closes and arrivals over time into the file at *path*; its suffix says in which format.

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
    moments = [number * course.stretch for number in range(len(course.closes))]
    axes.step(moments, course.closes, where="post", label="closes", linewidth=1)
    axes.step(moments, course.arrivals, where="post", label="arrivals", linewidth=1)
    axes.set_xlabel("seconds from the first deregistration")
    axes.set_ylabel("per second, over the fleet")
    plan = fleet.deployment
    axes.set_title(f"{plan.tasks} tasks with {fleet.sessions:,} sessions each, {fleet.draining} drain together")
    axes.set_ylim(bottom=0)
    axes.legend()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be drawn ({error}); name a file that ends in .svg, .png or .pdf"
        raise PlotNotPossible(msg) from None
