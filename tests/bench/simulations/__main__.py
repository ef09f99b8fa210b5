"""Prints the figures of docs/fleet.md and others: ``python -m simulations [polling|budget|services|events]``."""

import argparse
from typing import Any

from simulations.clock import in_virtual_time
from simulations.fleet import simulate_fleet
from simulations.forwarder import simulate_forwarder
from simulations.polling import simulate_polling
from simulations.services import simulate_services

BUDGETS: list[tuple[str, dict[str, Any]]] = [
    ("one task", {"tasks": 1}),
    ("8 at once", {"tasks": 8}),
    ("100 at once", {"tasks": 100, "sessions": 60_000, "delay": 900.0}),
    ("8 within 30 s", {"tasks": 8, "spread": 30.0}),
    ("100 within 60 s", {"tasks": 100, "sessions": 60_000, "delay": 900.0, "spread": 60.0}),
    ("100 at once, told by events", {"tasks": 100, "sessions": 60_000, "delay": 900.0, "cause": "events"}),
    ("100 at once, over a bake", {"tasks": 100, "sessions": 60_000, "delay": 900.0, "cause": "bake"}),
    ("8, the new ones healthy after 120 s", {"tasks": 8, "healthy_from": 120.0}),
    ("8, eight times the sessions", {"tasks": 8, "sessions": 160_000}),
]


FLEETS: list[tuple[str, dict[str, Any]]] = [
    ("10", {"tasks": 10}),
    ("200", {"tasks": 200}),
    ("300", {"tasks": 300}),
    ("1000", {"tasks": 1000, "intervals": 2}),
    ("4000", {"tasks": 4000, "intervals": 2}),
    ("200, in one half of a blue/green pair", {"tasks": 200, "layout": "pair"}),
    ("200, half in each half of a pair", {"tasks": 200, "layout": "shifting pair"}),
    ("200, in both of two groups", {"tasks": 200, "layout": "both"}),
    ("200, the group given by hand", {"tasks": 200, "by_hand": True}),
]


EVENTS: list[tuple[str, dict[str, Any]]] = [
    ("100", {"tasks": 100}),
    ("1000", {"tasks": 1000}),
    ("4000", {"tasks": 4000}),
    ("4000, ECS asked about each", {"tasks": 4000, "looks": True}),
    ("4000, likewise, its records 3 s late", {"tasks": 4000, "looks": True, "lag": 3.0}),
    ("4000, of which 40 do not answer", {"tasks": 4000, "dark": 40}),
]


SERVICES = [(1, 5), (20, 5), (40, 5), (40, 10), (10, 20), (40, 20), (1, 200), (10, 200), (40, 200)]


def show_services() -> None:
    """Print what several services in one account do to each other, and to somebody else."""
    print(
        "| services | tasks each | calls/s | of the budget | throttled | the outsider's calls that go through ", end=""
    )
    print("| of those of the first 15 min | of DescribeTasks | first look, p99 ", end="")
    print("| interval, median | lag, median | lag, p99 |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for services, tasks in SERVICES:
        each = in_virtual_time(simulate_services(services, tasks))
        print(
            f"| {services} | {tasks} | {each.calls:.1f} | {each.share:.0%} | {each.throttled:.1%} "
            f"| {each.outsider:.1%} | {each.outsider_at_first:.1%} "
            f"| {each.outsider_of_ecs:.1%} | {each.first_look:.0f} s "
            f"| {each.interval:.0f} s | {each.median_lag:.0f} s | {each.p99_lag:.0f} s |",
            flush=True,
        )


def show_events() -> None:
    """Print what the Lambda function makes of a deployment."""
    print("| tasks | calls | throttled | told after, median | at last | the other tool's calls that go through |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, given in EVENTS:
        each = simulate_forwarder(**given)
        print(
            f"| {name} | {each.calls} | {each.throttled} | {each.median:.1f} s | {each.last:.1f} s "
            f"| {each.outsider:.0%} |"
        )


def show_polling() -> None:
    """Print what fleets take of the Describe budget."""
    print("| tasks | interval | calls/s | of the budget | throttled | lag, mean | lag, worst ", end="")
    print("| at the start: of the budget | throttled | first look after |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name, given in FLEETS:
        each = in_virtual_time(simulate_polling(**given, delay=300.0))
        print(
            f"| {name} | {each.interval:.0f} s | {each.calls:.2f} | {each.share:.1%} | {each.throttled:.1%} "
            f"| {each.mean_lag:.1f} s | {each.worst_lag:.1f} s "
            f"| {each.share_at_start:.0%} | {each.throttled_at_start:.0%} | {each.first_look:.0f} s |"
        )


def show_budget() -> None:
    """Print what the sheds of fleets with a budget of 200/s add up to."""
    print("| drain | sessions | interval | busiest second | busiest 10 s | mean | seconds | late |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, given in BUDGETS:
        each = in_virtual_time(simulate_fleet(**given))
        print(
            f"| {name} | {each.sessions} | {each.interval:.0f} s | {each.busiest_1s} | {each.busiest_10s:.0f}/s "
            f"| {each.mean:.0f}/s | {each.seconds:.0f} | {each.after_deadline} |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m simulations", description=__doc__)
    tables = {"polling": show_polling, "budget": show_budget, "services": show_services, "events": show_events}
    parser.add_argument("what", nargs="?", choices=tables, help="only this table")
    what = parser.parse_args().what
    for name, show in tables.items():
        if what in (None, name):
            show()
