"""The picture: new connections per second during the deployment, one graph for each scenario, under one another."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from example_app.rollout.clients.backoff import BEHAVIOURS
from example_app.rollout.clients.records import NO_CLOSE_FRAME
from example_app.rollout.events import Events, Kind
from example_app.rollout.rollout import Outcome, Plan

__all__ = ["draw"]

INK, GREY, SHADE, PALE = "#1f2933", "#69757f", "#b3bcc4", "#e4e7eb"
GOOD, BAD = "#0b7a75", "#c0392b"

# Inches.
WIDTH, LEFT, RIGHT = 10.5, 0.72, 0.2
HEADER, PANEL_HEADER, GRAPH, FOOTER = 1.2, 0.78, 2.1, 0.62

MARKED: tuple[tuple[Kind, str, str], ...] = (
    ("shifted", "traffic\nshifted", "right"),
    ("deregistered", "targets\nderegistered", "right"),
    ("draining seen", "draining\nseen", "left"),
    ("SIGTERM", "SIGTERM", "right"),
    ("cut", "balancer cuts\nwhat is left", "left"),
)
"""Events that get a line, their names, and on which side of it; the cut only where it met somebody."""

LEAD, TAIL = 0.1, 0.14
"""Shares of the deregistration delay that are shown before it begins and, at the least, after it ends."""

WIDE = 1.6
"""How much longer than what happens the graph is where there is no delay to show: for the words on its right."""

STEP = 0.1
"""Seconds between two points of the graph."""

ROOM, ARROW = 1.55, 1.14
"""How much higher than the highest peak the graph is, for the names of the events; and where the delay's arrow is."""

Rate = Sequence[tuple[float, int]]
"""Moments, and how many there were of something in the second before each."""


def draw(outcomes: Sequence[Outcome], plan: Plan) -> list[Path]:
    """Draw the picture as PNG and SVG, and return the files."""
    mpl.rcParams.update({"font.family": "DejaVu Sans", "font.size": 10, "svg.fonttype": "path", "text.color": INK})
    height = HEADER + len(outcomes) * (PANEL_HEADER + GRAPH + FOOTER)
    figure = Figure(figsize=(WIDTH, height), dpi=150, facecolor="white")
    figure.text(LEFT / WIDTH, 1 - 0.28 / height, _headline(outcomes, plan), fontsize=14.5, fontweight="bold", va="top")
    figure.text(
        LEFT / WIDTH,
        1 - 0.64 / height,
        _subtitle(plan, deploys=_deploys(outcomes)),
        fontsize=9.5,
        color=GREY,
        va="top",
        linespacing=1.35,
    )
    opened = [_rate(each, each.records.connected) for each in outcomes]
    closed = [_rate(each, [loss.lost for loss in each.records.losses]) for each in outcomes]
    top = max((count for rate in opened + closed for _, count in rate), default=1)
    shown = 0.0 if _is_struck(outcomes) else plan.times.leaving
    last = max([shown * (1 + TAIL)] + [second for rate in opened + closed for second, _ in rate])
    for place, outcome in enumerate(outcomes):
        above = HEADER + place * (PANEL_HEADER + GRAPH + FOOTER) + PANEL_HEADER
        box = (LEFT / WIDTH, 1 - (above + GRAPH) / height, 1 - (LEFT + RIGHT) / WIDTH, GRAPH / height)
        axis = figure.add_axes(box)
        axis.set_xlim(-LEAD * (shown or last), last if shown else WIDE * last)
        axis.set_ylim(0, top * ROOM)
        _graph(axis, outcome, opened[place], closed[place], plan=plan, top=top)
    axis.set_xlabel(_time_axis(plan, outcomes), color=GREY, labelpad=6)
    paths = [plan.results / f"rollout.{kind}" for kind in ("png", "svg")]
    for path in paths:
        figure.savefig(path)
    return paths


def _graph(axis: Axes, outcome: Outcome, opened: Rate, closed: Rate, *, plan: Plan, top: int) -> None:
    colour = GOOD if outcome.scenario.drains else BAD
    _dress(axis, top)
    for rate, shade, order in ((closed, SHADE, 1.5), (opened, colour, 2)):
        seconds = [second for second, _ in rate]
        axis.fill_between(seconds, [count for _, count in rate], color=shade, linewidth=1.0, zorder=order)
    above: dict[str, Any] = {"transform": axis.transAxes, "va": "baseline"}
    axis.text(0, 1 + 0.42 / GRAPH, outcome.scenario.title, fontsize=12.5, fontweight="bold", color=colour, **above)
    axis.text(0, 1 + 0.16 / GRAPH, _verdict(outcome), fontsize=10, **above)
    _mark_events(axis, outcome, top)
    _mark_the_delay(axis, outcome.events, plan, top)
    if opened:
        _name_the_peak(axis, outcome, opened, plan, top)


def _dress(axis: Axes, top: int) -> None:
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color(GREY)
    axis.tick_params(colors=GREY, length=0)
    axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.grid(axis="y", color=PALE, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.set_yticks([tick for tick in MaxNLocator(4).tick_values(0, top) if tick <= top * 1.1])


def _mark_events(axis: Axes, outcome: Outcome, top: int) -> None:
    """Draw a line for each kind of event, at the median of the tasks, with its name beside it above the bars."""
    for kind, name, side in MARKED:
        at = _moment(outcome.events, kind)
        if at is not None and (kind != "cut" or outcome.figures.cut):
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


def _mark_the_delay(axis: Axes, events: Events, plan: Plan, top: int) -> None:
    """Draw an arrow from the deregistration to SIGTERM, with the delay's name on it."""
    start, end = _moment(events, "deregistered"), _moment(events, "SIGTERM")
    if start is not None and end is not None and not plan.times.ecs_rest:
        ends = {"arrowstyle": "<->", "color": GREY, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", (start, top * ARROW), (end, top * ARROW), arrowprops=ends)
        name = f"deregistration delay, {plan.times.ecs_delay:g} s on ECS"
        box = {"facecolor": "white", "edgecolor": "none", "pad": 2}
        axis.text(
            (start + end) / 2, top * ARROW, name, fontsize=9, color=GREY, ha="center", va="center", bbox=box, zorder=4
        )


def _name_the_peak(axis: Axes, outcome: Outcome, opened: Rate, plan: Plan, top: int) -> None:
    """Write what happened where nothing else is: left of a spike, right of a crash; a plain has its number above it."""
    second, count = max(opened, key=lambda each: each[1])
    colour = GOOD if outcome.scenario.drains else BAD
    style: dict[str, Any] = {"textcoords": "offset points", "fontweight": "bold", "linespacing": 1.15, "fontsize": 10.5}
    text = f"{outcome.figures.peak:,} new connections\nin the busiest second"
    if outcome.survivors is not None:
        style |= {"xytext": (8, 0), "ha": "left", "va": "center"}
        axis.annotate(text, (opened[-1][0], top * 0.75), color=colour, **style)
        axis.annotate(_closes(outcome), (opened[-1][0], top * 0.3), color=GREY, **style)
    elif count > top / 4:
        beside = min(second, _moment(outcome.events, "SIGTERM") or second)
        style |= {"xytext": (-8, 0), "ha": "right", "va": "center"}
        axis.annotate(text, (beside, top * 0.75), color=colour, **style)
        axis.annotate(_closes(outcome), (beside, top * 0.3), color=GREY, **style)
    else:
        middle = second if second > plan.times.leaving else plan.times.leaving / 2
        style |= {"xytext": (0, 6), "ha": "center", "va": "bottom"}
        axis.annotate(text.replace("\n", " "), (middle, count), color=colour, **style)


def _closes(outcome: Outcome) -> str:
    """Say how many lost their connection, and within how many seconds."""
    moments = [each.lost for each in outcome.records.losses]
    return f"{len(moments):,} connections closed\nwithin {max(moments) - min(moments):.1f} s" if moments else ""


def _verdict(outcome: Outcome) -> str:
    """Say in one line what the deployment did to the clients."""
    figures = outcome.figures
    if (survivors := outcome.survivors) is not None:
        return (
            f"Longest stall of an event loop: {survivors.stall:.2f} s  ·  a handshake in the application: "
            f"{survivors.set_up_p99:.2f} s (p99)  ·  last client back: {survivors.seconds:.1f} s"
        )
    codes = {f"with {code}": count for code, count in figures.codes.items() if code != NO_CLOSE_FRAME}
    closed = codes | {"without a close frame": figures.cut}
    parts = [
        f"Peak {figures.ratio:,.1f} times an even pace",
        "closed " + ", ".join(f"{name}: {count:,}" for name, count in closed.items()),
        f"longest time without a connection: {figures.without_max:.1f} s",
    ]
    return "  ·  ".join(parts)


def _is_struck(outcomes: Sequence[Outcome]) -> bool:
    return all(each.scenario.strike for each in outcomes)


def _deploys(outcomes: Sequence[Outcome]) -> bool:
    return not all(each.scenario.strike or each.scenario.course for each in outcomes)


def _headline(outcomes: Sequence[Outcome], plan: Plan) -> str:
    what = f"{plan.tasks} tasks with {plan.fleet.clients:,} open WebSockets: new connections per second"
    return f"Deploying {what}" if _deploys(outcomes) else what


def _subtitle(plan: Plan, *, deploys: bool = True) -> str:
    times = plan.times
    words = f"Clients reconnect {BEHAVIOURS[plan.fleet.reconnect].words}. "
    if not deploys:
        return f"{words}\nColour: new connections. Grey: connections closed."
    seconds = times.ecs_rest or times.ecs_delay
    replayed = "" if times.scale == 1 else f" ({seconds:g} s, replayed in {times.leaving:g} s)"
    course = (
        f"shifts the traffic to them, waits{replayed}, deregisters the old ones"
        if times.ecs_rest
        else f"deregisters the old ones, waits the deregistration delay{replayed}, sends SIGTERM"
    )
    return f"ECS starts new tasks, {course}.\n{words}Colour: new connections. Grey: connections closed."


def _time_axis(plan: Plan, outcomes: Sequence[Outcome]) -> str:
    scaled = (
        ""
        if plan.times.scale == 1 or _is_struck(outcomes)
        else f"; 1 s here stands for {1 / plan.times.scale:g} s on ECS"
    )
    shift = "the traffic was shifted" if plan.times.ecs_rest else "the first target was deregistered"
    began = shift if _deploys(outcomes) else "it began"
    return f"seconds since {began}{scaled}"


def _moment(events: Events, kind: Kind) -> float | None:
    """Return when it happened, at the median of the tasks, in seconds since the first deregistration."""
    times = events.times(kind)
    return median(times) - events.zero if times else None


def _rate(outcome: Outcome, moments: Iterable[float]) -> Rate:
    """Return how many of the *moments* are in the second before each tenth of a second of the deployment."""
    zero = outcome.events.zero
    began = outcome.events.times("deployment began")[0]
    moments = sorted(moment - zero for moment in moments if moment >= began)
    if not moments:
        return []
    first, last = math.floor(moments[0] / STEP), math.ceil((moments[-1] + 1.0) / STEP)
    grid = [place * STEP for place in range(first, last + 1)]
    return [(at, bisect_right(moments, at) - bisect_right(moments, at - 1.0)) for at in grid]
