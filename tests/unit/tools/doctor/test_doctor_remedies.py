"""Each remedy of the doctor that names a number, read from its table and followed: the finding goes, the peak holds."""

import re

import pytest

from starlette_drain import Settings
from starlette_drain.tools.doctor.checks import examine
from starlette_drain.tools.doctor.outlook import deploying
from starlette_drain.tools.doctor.record import Group, SetUp
from starlette_drain.tools.plan.clients import CLIENTS
from starlette_drain.tools.plan.rehearsal import rehearse

ARN = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/web/0123456789abcdef"

OF_THE_SERVICE = {
    r"stopTimeout to (\d+)": "stop_timeout",
    r"maximumPercent to ([\d,]+)": "max_percent",
    r"minimumHealthyPercent to ([\d,]+)": "min_percent",
    r"bakeTimeInMinutes to ([\d,]+)": "bake_time",
}
OF_THE_GROUP = r"(?:deregistration delay|timeout_seconds|set it) to ([\d,]+)"
OPTIONS = {
    r"the window to ([\d,]+) s": "window",
    r"DRAIN_MARGIN to (\d+)": "margin",
    r"DRAIN_SIGTERM_WINDOW to ([\d,]+)": "sigterm_window",
}
GRACEFUL = r"--timeout-graceful-shutdown to (\d+)"

FAULTS = {
    "no time": {"delay": 20},
    "a delay of nothing": {"delay": 0},
    "a margin that is too small": {"options": {"grace": 20}, "stop_timeout": 120.0},
    "an NLB": {"protocol": "TCP", "delay": 60, "options": {"late_arrivals": "accept"}},
    "nothing can begin": {"max_percent": 112},
    "nothing serves": {"min_percent": 0, "max_percent": 100},
    "one task does not serve": {"desired": 1, "min_percent": 0, "max_percent": 100},
    "a short stopTimeout": {"stop_timeout": 22.0},
    "a server that takes long": {"command": ("uvicorn", "app:app", "--timeout-graceful-shutdown", "100")},
    "too fast": {"sessions": 1000, "wish": 10.0},
    "too fast, with a window": {"sessions": 1000, "wish": 10.0, "options": {"window": 60}},
    "too fast, in batches": {"sessions": 200, "wish": 8.0, "desired": 60, "start_up": 60.0},
    "too fast, however quickly tasks start": {"sessions": 400, "wish": 5.0, "desired": 20, "max_percent": 120},
    "too fast for one service": {"sessions": 5000, "wish": 5.0},
    "too fast, by blue/green": {"sessions": 1000, "wish": 5.0, "strategy": "BLUE_GREEN"},
    "too fast, by CodeDeploy": {"sessions": 1000, "wish": 10.0, "controller": "CODE_DEPLOY"},
    "a budget above the rate": {"sessions": 500, "wish": 20.0, "options": {"pacing": "fleet:100"}},
    "a budget above the rate, and too little time": {"sessions": 500, "wish": 10.0, "options": {"pacing": "fleet:100"}},
    "a rate above the rate": {"sessions": 500, "wish": 20.0, "options": {"pacing": "rate:30"}},
    "batches, by blue/green": {
        "sessions": 500,
        "wish": 10.0,
        "strategy": "BLUE_GREEN",
        "options": {"pacing": "batches:20"},
    },
    "two generations": {"sessions": 500, "wish": 14.0, "early_success": "DEFERRED"},
}


def set_up(given):
    """Return a record."""
    given = {"desired": 8, "delay": 300, "protocol": "HTTP", "options": {}, "stop_timeout": 30.0, **given}
    delay = float(given.pop("delay"))
    group = Group(ARN, protocol=given.pop("protocol"), target_type="ip", in_use=True, delay=delay, targets=8)
    settings = Settings(**given.pop("options"))
    usual = {"service": "web", "service_status": "ACTIVE", "is_tied": True, "groups": (group,), "settings": settings}
    return SetUp(**usual, **given)


def unsafe(given):
    """Return what the doctor calls unsafe, each with its remedies."""
    return {
        each.what: [part for part in each.remedy.split(", or ") if re.search(r"\d|even|add service-deployment", part)]
        for each in examine(set_up(given))
        if each.level == "unsafe"
    }


def number(match):
    """Return what was found."""
    return int(match[1].replace(",", ""))


def followed(given, remedy):
    """Return the set-up with a remedy."""
    now, options = dict(given), dict(given.get("options", {}))
    for pattern, name in OF_THE_SERVICE.items():
        if match := re.search(pattern, remedy):
            now[name] = number(match) * (60.0 if name == "bake_time" else 1)
    for pattern, name in OPTIONS.items():
        if match := re.search(pattern, remedy):
            options[name] = number(match)
    if match := re.search(r"(?:PACING to|^to) (even|fleet:[\d.]+)", remedy):
        options["pacing"] = match[1]
    if match := re.search(OF_THE_GROUP, remedy):
        now["delay"] = number(match)
    if match := re.search(GRACEFUL, remedy):
        now["command"] = (*given["command"][:-1], match[1])
    if "add service-deployment" in remedy:
        options["sources"] = "target-health,service-deployment"
        now.setdefault("bake_time", 3600.0)
    if match := re.search(r"split the service into ([\d,]+)", remedy):
        total, tasks = given.get("desired", 8) * given["sessions"], -(-given.get("desired", 8) // number(match))
        now |= {"desired": tasks, "sessions": -(-total // (number(match) * tasks))}
    return {**now, "options": options}


def busiest(course, seconds):
    """Return the closes per second of the busiest stretch."""
    width = max(1, round(seconds / course.stretch))
    return max(sum(course.closes[begin : begin + width]) / width for begin in range(len(course.closes)))


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_advised_works(name):
    """Each remedy by itself: the doctor is content with that, and a deployment that is played keeps the rate."""
    given = FAULTS[name]
    found = unsafe(given)
    assert found
    for what, remedies in found.items():
        assert remedies, found
        for remedy in remedies:
            now = followed(given, remedy)
            assert now != {**given, "options": given.get("options", {})}, remedy
            assert what not in unsafe(now), (remedy, unsafe(now)[what])
            if wish := given.get("wish"):
                found_now = set_up(now)
                played = rehearse(deploying(found_now).worst, CLIENTS["full-jitter"], pacing=found_now.options.pacing)
                assert busiest(played, max(10, 500 / wish)) <= 1.06 * wish, remedy
