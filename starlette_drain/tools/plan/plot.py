"""Draws the curves with matplotlib."""

from starlette_drain.tools.drawing import drawing
from starlette_drain.tools.plan.rehearsal import Course
from starlette_drain.tools.plan.sums import Fleet

__all__ = ["draw"]


def draw(course: Course, fleet: Fleet, path: str) -> None:
    """
    Draw closes and arrivals over time into the file at *path*, in the format of its suffix.

    Raises:
        PlotNotPossible: If matplotlib is not installed, or the file cannot be written.
    """
    moments = [number * course.stretch for number in range(len(course.closes))]
    plan = fleet.deployment
    with drawing(path) as axes:
        axes.step(moments, course.closes, where="post", label="closes", linewidth=1)
        axes.step(moments, course.arrivals, where="post", label="arrivals", linewidth=1)
        axes.set_xlabel("seconds from the first deregistration")
        axes.set_ylabel("per second, over the fleet")
        axes.set_title(f"{plan.tasks} tasks with {fleet.sessions:,} sessions each, {fleet.draining} drain together")
