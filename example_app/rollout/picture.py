"""The picture: new connections per second during the deployment, one graph for each scenario, under one another."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from example_app.rollout.clients.records import NO_CLOSE_FRAME
from example_app.rollout.events import Events, Kind
from example_app.rollout.rollout import Outcome, Plan

__all__ = ["draw"]

INK, GREY, PALE, WINDOW = "#1f2933", "#69757f", "#e4e7eb", "#eaf4f3"
GOOD, BAD = "#0b7a75", "#c0392b"

# Inches.
WIDTH, LEFT, RIGHT = 10.5, 0.72, 0.2
HEADER, PANEL_HEADER, GRAPH, FOOTER = 1.2, 0.78, 2.1, 0.62

MARKED: tuple[tuple[Kind, str, str], ...] = (
    ("deregistered", "targets\nderegistered", "right"),
    ("draining seen", "draining\nseen", "left"),
    ("SIGTERM", "SIGTERM", "right"),
    ("cut", "balancer cuts\nwhat is left", "left"),
)
"""Events that get a line, their names, and on which side of it."""

LEAD, TAIL = 0.1, 0.14
"""Shares of the deregistration delay that are shown before it begins and, at the least, after it ends."""

STEP = 0.1
"""Seconds between two points of the graph."""

ROOM = 1.5
"""How much higher than the highest peak the graph is: the names of the events stand there."""


def draw(outcomes: Sequence[Outcome], plan: Plan) -> list[Path]:
    """Draw the picture as PNG and SVG, and return the files."""
    mpl.rcParams.update({"font.family": "DejaVu Sans", "font.size": 10, "svg.fonttype": "path", "text.color": INK})
    height = HEADER + len(outcomes) * (PANEL_HEADER + GRAPH + FOOTER)
    figure = Figure(figsize=(WIDTH, height), dpi=150, facecolor="white")
    figure.text(LEFT / WIDTH, 1 - 0.28 / height, _headline(plan), fontsize=14.5, fontweight="bold", va="top")
    figure.text(LEFT / WIDTH, 1 - 0.64 / height, _subtitle(plan), fontsize=9.5, color=GREY, va="top", linespacing=1.35)
    series = [_rate(each) for each in outcomes]
    top = max((count for each in series for _, count in each), default=1)
    last = max([plan.times.delay * (1 + TAIL)] + [second for each in series for second, _ in each])
    for place, (outcome, counts) in enumerate(zip(outcomes, series, strict=True)):
        above = HEADER + place * (PANEL_HEADER + GRAPH + FOOTER) + PANEL_HEADER
        box = (LEFT / WIDTH, 1 - (above + GRAPH) / height, 1 - (LEFT + RIGHT) / WIDTH, GRAPH / height)
        axis = figure.add_axes(box)
        axis.set_xlim(-LEAD * plan.times.delay, last)
        axis.set_ylim(0, top * ROOM)
        _graph(axis, outcome, counts, plan, top)
    axis.set_xlabel(_time_axis(plan), color=GREY, labelpad=6)
    paths = [plan.results / f"rollout.{kind}" for kind in ("png", "svg")]
    for path in paths:
        figure.savefig(path)
    return paths


def _graph(axis: Axes, outcome: Outcome, counts: Sequence[tuple[float, int]], plan: Plan, top: int) -> None:
    colour = GOOD if outcome.scenario.drains else BAD
    _dress(axis, top)
    seconds = [second for second, _ in counts]
    axis.fill_between(seconds, [count for _, count in counts], color=colour, linewidth=1.0, zorder=2)
    above: dict[str, Any] = {"transform": axis.transAxes, "va": "baseline"}
    axis.text(0, 1 + 0.42 / GRAPH, outcome.scenario.title, fontsize=12.5, fontweight="bold", color=colour, **above)
    axis.text(0, 1 + 0.16 / GRAPH, _verdict(outcome), fontsize=10, **above)
    _mark_events(axis, outcome.events, top)
    if counts:
        _name_the_peak(axis, outcome, max(counts, key=lambda each: each[1]), plan, top)


def _dress(axis: Axes, top: int) -> None:
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color(GREY)
    axis.tick_params(colors=GREY, length=0)
    axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.grid(axis="y", color=PALE, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.set_yticks([tick for tick in MaxNLocator(4).tick_values(0, top) if tick <= top * 1.1])


def _mark_events(axis: Axes, events: Events, top: int) -> None:
    """Draw a line for each kind of event, at the median of the tasks, with its name beside it above the bars."""
    zero = events.times("deregistered")[0]
    for kind, name, side in MARKED:
        if times := events.times(kind):
            at = median(times) - zero
            axis.axvline(at, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.55, zorder=3)
            axis.annotate(
                name,
                (at, top * (ROOM - 0.02)),
                xytext=(-5 if side == "right" else 5, 0),
                textcoords="offset points",
                ha=side,
                va="top",
                fontsize=9,
                linespacing=1.1,
            )


def _name_the_peak(axis: Axes, outcome: Outcome, peak: tuple[float, int], plan: Plan, top: int) -> None:
    """Write the highest peak's number beside a spike, or above a plain."""
    second, count = peak
    figures = outcome.figures
    text = f"{figures.peak:,} new connections\nin the busiest second"
    colour = GOOD if outcome.scenario.drains else BAD
    style: dict[str, Any] = {"color": colour, "fontweight": "bold", "linespacing": 1.15, "fontsize": 10.5}
    if count > top / 2:
        # Left of the lines, where nothing else is.
        stopped = outcome.events.times("SIGTERM")
        beside = min(second, median(stopped) - outcome.events.times("deregistered")[0]) if stopped else second
        axis.annotate(
            text, (beside, count * 0.6), xytext=(-8, 0), textcoords="offset points", ha="right", va="center", **style
        )
    else:
        middle = second if second > plan.times.delay else plan.times.delay / 2
        axis.annotate(
            text.replace("\n", " "),
            (middle, count),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            va="bottom",
            **style,
        )


def _verdict(outcome: Outcome) -> str:
    """Say in one line what the deployment did to the clients."""
    figures = outcome.figures
    codes = {f"with {code}": count for code, count in figures.codes.items() if code != NO_CLOSE_FRAME}
    closed = codes | {"without a close frame": figures.cut}
    parts = [
        f"Peak {figures.ratio:,.1f} times an even pace",
        "closed " + ", ".join(f"{name}: {count:,}" for name, count in closed.items()),
        f"longest time without a connection: {figures.without_max:.1f} s",
    ]
    return "  ·  ".join(parts)


def _headline(plan: Plan) -> str:
    return f"Deploying {plan.tasks} tasks with {plan.fleet.clients:,} open WebSockets: new connections per second"


def _subtitle(plan: Plan) -> str:
    delay = f"{plan.times.ecs_delay:g} s"
    if plan.times.scale != 1:
        delay += f", lived through in {plan.times.delay:g} s"
    came = f"Clients that lose their connection come back as {plan.fleet.reconnect} does"
    return (
        f"ECS starts new tasks, deregisters the old ones, waits the deregistration delay ({delay}), sends SIGTERM; "
        f"{plan.times.ecs_cut:g} s later the\nbalancer cuts what is left. {came}. "
        "The graphs have the same scales."
    )


def _time_axis(plan: Plan) -> str:
    scaled = "" if plan.times.scale == 1 else f"; 1 s here stands for {1 / plan.times.scale:g} s on ECS"
    return f"seconds since the first target was deregistered{scaled}"


def _rate(outcome: Outcome) -> list[tuple[float, int]]:
    """Return how many connections the second before each moment of the deployment has brought."""
    zero = outcome.events.times("deregistered")[0]
    began = outcome.events.times("deployment began")[0]
    moments = sorted(moment - zero for moment in outcome.records.connected if moment >= began)
    if not moments:
        return []
    first, last = math.floor(moments[0] / STEP), math.ceil((moments[-1] + 1.0) / STEP)
    grid = [place * STEP for place in range(first, last + 1)]
    return [(at, bisect_right(moments, at) - bisect_right(moments, at - 1.0)) for at in grid]
