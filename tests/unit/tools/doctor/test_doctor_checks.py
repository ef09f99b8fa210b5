"""The checks of the doctor, each on a record of its own."""

import pytest

from starlette_drain import Settings
from starlette_drain.aws.api.errors import AwsCallFailed, Incomplete, Trouble, TroubleKind
from starlette_drain.tools.doctor.checks import examine
from starlette_drain.tools.doctor.record import Group, SetUp

ARN = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/web/0123456789abcdef"
BAKED = {"strategy": "BLUE_GREEN", "bake_time": 3600.0}
BOTH = Settings(sources="target-health,service-deployment", late_arrivals="accept")


def group(**given):
    """Return a target group of an ALB."""
    return Group(
        ARN, **({"protocol": "HTTP", "target_type": "ip", "in_use": True, "delay": 300.0, "targets": 2} | given)
    )


def denied(operation, service="elbv2"):
    """Return a read that is refused."""
    return Trouble(TroubleKind.DENIED, service, operation, "AccessDenied")


def told(level="unsafe", **given):
    """Return what the doctor tells of a set-up, on that level, each as what, found and remedy."""
    usual = {"service": "web", "service_status": "ACTIVE", "groups": (group(),), "desired": 2, "stop_timeout": 30.0}
    given = {**usual, "is_tied": bool(given.get("groups", True)), **given}
    return [f"{each.what}: {each.found} -> {each.remedy}" for each in examine(SetUp(**given)) if each.level == level]


def test_a_right_record_has_no_fault():
    """The defaults of the package under the defaults of AWS are safe."""
    assert told() == told("note") == []


@pytest.mark.parametrize(
    "command",
    [
        "CMD-SHELL curl -f localhost:8000/drained",
        'CMD-SHELL curl -H "Authorization: Bearer $DRAIN_ADMIN_TOKEN" :8000/drain',
    ],
)
def test_a_health_check_of_a_container_may_ask_other_routes(command):
    """Or the admin route, with the token."""
    assert told(health_command=command) == []


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
        ({"settings_error": "close_code=1000 cannot work"}, "does not start"),
        ({"groups": (group(protocol="TCP", delay=60.0),)}, "NLB: web: a delay of 60 s -> set it to 120 s"),
        ({"desired": 8, "max_percent": 100}, "none of 8 tasks may be replaced"),
        (
            {"container": "app", "health_command": "CMD-SHELL curl -f http://localhost:8000/drain || exit 1"},
            "health check: the health check of app asks /drain",
        ),
        (
            {"stop_timeout": 22.0, "settings": Settings(sigterm_window=110)},
            "comes first -> set DRAIN_SIGTERM_WINDOW to",
        ),
        ({"desired": 8, "max_percent": 112}, "set maximumPercent to 113"),
        ({"desired": 200}, "poll budget: 400 tasks in a deployment: each asks every 200 s, 20% of the account's"),
        (
            {"desired": 200, "settings": Settings(sources="task-state")},
            "every 100 s, 20% of ECS's budget; too late",
        ),
        ({"stop_timeout": 22.0}, "stopTimeout to 24 (Fargate allows 120), or set DRAIN_SIGTERM_WINDOW to 4"),
        ({"command": ("sh", "-c", "uvicorn app:app")}, "put 'exec' before the server"),
        ({"command": ("uvicorn", "app:app", "--reload")}, "remove --reload"),
        ({"command": ("uvicorn", "app:app", "--limit-max-requests", "5")}, "max_session_age"),
        (
            {"command": ("gunicorn", "-k", "uvicorn_worker.UvicornWorker", "--graceful-timeout", "9")},
            "kills its workers",
        ),
        ({"command": ("gunicorn", "app:app")}, "default workers run no ASGI application -> add --worker-class"),
        ({"command": ("gunicorn", "-k", "gevent", "-c", "x.py", "app:app")}, "gevent workers run no ASGI application"),
        (
            {"command": ("uvicorn", "app:app", "--timeout-graceful-shutdown", "100")},
            "119 s: SIGKILL comes first -> set stopTimeout to 119 (Fargate allows 120), or set --timeout-grace",
        ),
        ({"service_status": "MISSING", "groups": (), "is_tied": None}, "ECS knows no service web in the default"),
        ({"service_status": "INACTIVE"}, "web in the default cluster is INACTIVE: it has been deleted"),
        ({"groups": (), "settings": Settings(self_registration=True)}, "set DRAIN_TARGET_GROUP_ARN"),
        ({"stuck": Incomplete(problem="no host port", remedy="publish it")}, "identity: no host port -> publish it"),
        ({"desired": 8, "controller": "CODE_DEPLOY", "max_percent": 113, "sessions": 9000, "wish": 100.0}, "8 tasks"),
        ({"groups": (), "settings": Settings(sources="task-state"), "sessions": 900, "wish": 90.0}, "WINDOW to 20, or"),
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
        ({"command": ("uvicorn", "app:app")}, "add --timeout-graceful-shutdown 5"),
        (
            {"command": ("uvicorn", "app:app", "--timeout-graceful-shutdown=5", "--lifespan=off")},
            "--lifespan off: the drain begins to watch with the first connection",
        ),
        ({"command": ("gunicorn", "app:app", "-c", "gunicorn.conf.py")}, "cannot tell what gunicorn.conf.py says"),
        (
            {"command": ("/bin/sh", "/entrypoint.sh")},
            "cannot tell whether /entrypoint.sh, which a shell runs, ends in an exec",
        ),
        ({"settings": BOTH}, "service deployment: deployments are 100/200, which this source does not follow"),
        ({"settings": BOTH, "strategy": "CANARY"}, "service deployment: there is no bake time"),
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
        ("gunicorn", "-k", "asgi", "app:app"),
        ("gunicorn", "-kasgi", "app:app"),
    ],
)
def test_a_command_line_without_fault(command):
    """Ordinary ways to start a server are fine."""
    assert told(command=command) == []


@pytest.mark.parametrize(
    "given",
    [
        {"groups": (), "settings": Settings(sources="task-state")},
        {"groups": (), "settings": Settings(sources="none")},
        {"is_tied": False, "settings": Settings(self_registration=True, target_group_arn=ARN)},
        {"settings": BOTH, **BAKED, "desired": 50, "groups": (group(), group()), "sessions": 10_000, "wish": 200.0},
        {"settings": Settings(sources="target-health,task-state"), "desired": 100},
        {"settings": Settings(sources="task-state", deregistration_delay=300), "desired": 400},
        {"controller": "CODE_DEPLOY", "groups": (group(), group(in_use=False))},
    ],
)
def test_other_right_records_have_no_fault(given):
    """What the pages about the sources describe is neither unsafe nor noted."""
    assert told(**given) == told("note", **given) == []


@pytest.mark.parametrize(
    ("given", "level", "words"),
    [
        ({"settings": Settings(mode="off")}, "unsafe", "mode=off switches everything off"),
        ({"settings": Settings(mode="observe")}, "unsafe", "mode=observe asks no session to leave"),
        ({"settings": Settings(sources="none")}, "unsafe", "without DRAIN_ADMIN_TOKEN no event by Lambda is taken"),
        ({"settings": Settings(sources="none"), "has_token": True}, "note", "unless events by Lambda arrive"),
        ({"settings": Settings(sources="none", sigterm=False)}, "unsafe", "neither an AWS source nor SIGTERM"),
        ({"settings": Settings(sigterm=False)}, "note", "SIGTERM does not start a drain"),
        ({"settings": Settings(sources="service-deployment")}, "unsafe", "which this source does not follow"),
        ({"settings": Settings(sources="service-deployment"), **BAKED}, "note", "a scale-in or a replaced task"),
    ],
)
def test_a_task_that_would_see_nothing(given, level, words):
    """However it was made blind, that is said, with the remedy."""
    (fault,) = told(level, **given)
    assert words in fault
    assert fault.partition(" -> ")[2]


@pytest.mark.parametrize(
    ("operation", "options", "level"),
    [
        ("DescribeTargetGroupAttributes", {}, "unsafe"),
        ("DescribeTargetGroupAttributes", {"deregistration_delay": 300}, "note"),
        ("DescribeTargetGroupAttributes", {"sources": "task-state"}, "note"),
        ("DescribeTargetHealth", {}, "unsafe"),
        ("DescribeTargetHealth", {"sources": "none"}, "note"),
        ("DescribeTargetHealth", {"sources": "none", "self_registration": True}, "note"),
        ("DescribeServices", {}, "unsafe"),
        ("DescribeServices", {"target_group_arn": ARN}, "note"),
        ("DescribeServices", {"sources": "service-deployment"}, "note"),
        ("DescribeTasks", {"target_group_arn": ARN}, "note"),
        ("DescribeTasks", {"sources": "task-state"}, "unsafe"),
        ("DescribeTargetGroups", {}, "note"),
        ("DescribeTaskDefinition", {}, "note"),
        ("ListServiceDeployments", {"sources": "service-deployment"}, "unsafe"),
    ],
)
def test_a_read_is_needed_only_where_the_options_need_it(operation, options, level):
    """What the package does not ask, or does without, is a note."""
    trouble = denied(operation)
    assert [each for each in told(level, troubles=(trouble,), settings=Settings(**options)) if operation in each]
    assert not [each for each in told("fine", troubles=(trouble,)) if operation in each]


def test_a_read_that_stops_the_search_is_unsafe():
    """Whatever the options say, a refusal at which the package's own search ends is no note."""
    trouble = denied("DescribeTasks", "ecs")
    (fault,) = told(
        troubles=(trouble,), stuck=AwsCallFailed(trouble), settings=Settings(target_group_arn=ARN, target_port=8000)
    )
    assert "ecs:DescribeTasks" in fault


def test_ecs_stands_in_unless_it_may_not_be_asked():
    """200 targets are polled every 100 s. With ECS asked in between that is in time, and without it too late."""
    assert told(desired=100) == told("note", desired=100) == []
    (line,) = [each for each in told("fine", desired=100) if "poll budget" in each]
    assert "and ECS every 75 s if it may call ecs:DescribeTasks" in line
    refused = {"troubles": (denied("DescribeTasks", "ecs"),), "settings": Settings(target_group_arn=ARN)}
    (fault,) = told(desired=100, **refused)
    assert "too late for a delay of 300 s" in fault
    assert "allowing ecs:DescribeTasks helps too" in fault


def test_what_it_costs_not_to_ask_of_the_cluster():
    """The note says how a new task begins then."""
    (note,) = told("note", desired=5, troubles=(denied("DescribeClusters", "ecs"),))
    assert "without it a new task polls every 25 s at first" in note


def test_what_was_probably_not_meant_is_noted():
    """A variable that is not read is found before the deployment, not after it."""
    warnings = tuple(Settings().warnings({"DRAIN_WINDWO": "240"}))
    (note,) = told("note", warnings=warnings)
    assert note.startswith("options: DRAIN_WINDWO is not read")
    assert told(warnings=warnings) == []


def test_what_cannot_be_tried_is_told():
    """Calls that change something are not tried, and the table says so."""
    options = Settings(self_registration=True, target_group_arn=ARN)
    (line,) = [each for each in told("fine", settings=options, reads=("DescribeTasks",)) if "permissions" in each]
    assert "not tried: RegisterTargets, DeregisterTargets" in line


def test_a_deployment_of_blue_and_green_is_the_whole_fleet():
    """Whatever the percentages say, all old tasks go together, and only more time helps."""
    given = {"desired": 8, "max_percent": 113, "strategy": "BLUE_GREEN", "sessions": 10_000, "wish": 100.0}
    (fault,) = told(**given)
    assert "8 tasks drain together at blue_green" in fault
    assert "maximumPercent" not in fault
    assert "or add service-deployment to DRAIN_SOURCES, and set bakeTimeInMinutes to 14" in fault
    assert told(**given, settings=BOTH, bake_time=840.0) == []
    (fault,) = told(**given, settings=BOTH, bake_time=780.0)
    assert "bake time 780 s" in fault
    assert "for 100/s set bakeTimeInMinutes to 14" in fault


def test_the_polls_of_a_pair_of_groups():
    """Each of twice as many tasks asks both; where the bake time tells, only those at rest have to notice in time."""
    given = {"strategy": "BLUE_GREEN", "desired": 200, "groups": (group(), group())}
    (fault,) = told(**given)
    assert "400 tasks in a deployment: each asks every 400 s, 20% of the account's budget, and ECS every 100 s" in fault
    (line,) = [each for each in told("fine", **given, settings=BOTH, bake_time=3600.0) if "poll budget" in each]
    assert "200 tasks: each asks every 200 s, 20%" in line


def test_a_window_that_is_too_short_for_the_wish():
    """The window is named where it is what holds the sheds too tight."""
    (fault,) = told(groups=(group(delay=3600.0),), settings=Settings(window=60), sessions=10_000, wish=50.0)
    assert "for 50/s set the window to 400 s" in fault
