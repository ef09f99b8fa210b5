"""The checks of the doctor, each on a record of its own."""

import pytest

from starlette_drain._core.settings import Settings
from starlette_drain.doctor.checks import examine
from starlette_drain.doctor.record import Group, SetUp

ARN = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/web/0123456789abcdef"


def group(**given):
    """Return a target group of an ALB."""
    return Group(
        ARN, **({"protocol": "HTTP", "target_type": "ip", "in_use": True, "delay": 300.0, "targets": 2} | given)
    )


def told(level="unsafe", **given):
    """Return what the doctor tells of a set-up, on that level, each as what, found and remedy."""
    given = {"service": "web", "groups": (group(),), "desired": 2, "stop_timeout": 30.0} | given
    return [f"{each.what}: {each.found} -> {each.remedy}" for each in examine(SetUp(**given)) if each.level == level]


def test_a_right_record_has_no_fault():
    """The defaults of the package under the defaults of AWS are safe."""
    assert told() == told("note") == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"groups": ()}, "registers with none -> without a load balancer set DRAIN_SOURCES=task-state"),
        ({"groups": (group(target_type="lambda"),)}, "targets of type lambda"),
        ({"groups": (group(in_use=False),)}, "no load balancer uses it"),
        ({"groups": (group(delay=0.0),)}, "delay: 0 s, which leaves 0 s to spread"),
        ({"groups": (group(delay=20.0),)}, "seconds to 35 or more"),
        ({"settings": Settings(window=290)}, "DRAIN_WINDOW=290 does not fit under the delay, of which 280 s"),
        ({"settings": Settings(grace=20), "stop_timeout": 120.0}, "set DRAIN_MARGIN to 22 or more"),
        ({"settings_error": "close_code=1000 cannot work"}, "will not start"),
        ({"groups": (group(protocol="TCP", delay=60.0),)}, "NLB: web: a delay of 60 s -> set it to 120 s"),
        ({"desired": 8, "max_percent": 100}, "none of 8 tasks may be replaced"),
        ({"desired": 8, "max_percent": 112}, "set maximumPercent to 113"),
        ({"desired": 200}, "poll budget: 400 targets in a deployment: each asks every 200 s, 20% of the account's"),
        ({"stop_timeout": 22.0}, "stopTimeout to 24 (Fargate allows 120), or DRAIN_SIGTERM_WINDOW to 4"),
        ({"command": ("sh", "-c", "uvicorn app:app")}, "put 'exec' before the server"),
        ({"command": ("uvicorn", "app:app", "--lifespan=off")}, "--lifespan off"),
        ({"command": ("uvicorn", "app:app", "--reload")}, "leave --reload out"),
        ({"command": ("uvicorn", "app:app", "--limit-max-requests", "5")}, "max_session_age"),
        (
            {"command": ("gunicorn", "-k", "uvicorn_worker.UvicornWorker", "--graceful-timeout", "9")},
            "kills its workers",
        ),
        ({"command": ("gunicorn", "app:app")}, "add --worker-class"),
    ],
)
def test_one_fault(given, words):
    """Each fault is named once, with its remedy."""
    (fault,) = told(**given)
    assert words in fault


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"is_spot": True}, "FARGATE, or add events by Lambda"),
        ({"groups": (group(protocol="TCP"),)}, "DRAIN_LATE_ARRIVALS=accept"),
        ({"command": ("hypercorn", "app:app")}, "hypercorn stops in its own way"),
    ],
)
def test_one_note(given, words):
    """What is worth knowing is not called unsafe."""
    (note,) = told("note", **given)
    assert words in note
    assert told(**given) == []


@pytest.mark.parametrize(
    "command",
    [
        ("uvicorn", "app:app", "--host", "0.0.0.0"),
        ("sh", "-c", "exec uvicorn app:app"),
        ("/usr/local/bin/python", "-m", "uvicorn", "app:app", "--workers", "4"),
        ("gunicorn", "--worker-class=uvicorn_worker.UvicornWorker", "--graceful-timeout=40", "app:app"),
    ],
)
def test_a_command_line_without_fault(command):
    """Ordinary ways to start a server are fine."""
    assert told(command=command) == []


def test_a_deployment_of_blue_and_green_is_the_whole_fleet():
    """Whatever the percentages say, all old tasks go together, and only the delay helps."""
    (fault,) = told(desired=8, max_percent=113, strategy="BLUE_GREEN", sessions=10_000, wish=100.0)
    assert "8 tasks drain at once at blue_green" in fault
    assert "maximumPercent" not in fault
