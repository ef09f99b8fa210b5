"""Whole set-ups, each with one fault: the doctor names it and nothing else. On those without one it names nothing."""

import contextlib
from dataclasses import dataclass, field, replace

import pytest

from starlette_drain.aws.options import AwsSettings
from starlette_drain.testing import FakeAWS, FakeRegistration
from starlette_drain.testing.fake_aws import agent, deployments, ecs, elbv2
from starlette_drain.tools.doctor import look as looking
from starlette_drain.tools.doctor.checks import examine
from starlette_drain.tools.doctor.inside import Answer
from starlette_drain.tools.doctor.look import Given, look

pytestmark = pytest.mark.anyio

UVICORN = ("uvicorn", "app:app", "--timeout-graceful-shutdown", "5")
GUNICORN = ("gunicorn", "-k", "uvicorn_worker.UvicornWorker", "app:app")
TOKEN = {"DRAIN_ADMIN_TOKEN": "a-token-of-the-tests"}
SERVING = [{"arn": ":targetgroup/web/0", "target": "10.0.0.5 (8000)", "verdict": "serving"}]
SOUND = {"pid": 7, "parents": ["docker-init"], "server": "uvicorn", "problems": []}


class Clients:
    """What AWS tells, as the newest botocore would hand it over."""

    def __init__(self, fake):
        self.fake = fake

    @contextlib.asynccontextmanager
    async def client(self, service, /, **_):
        """Lend the client of a service."""
        yield Client(self.fake, service)


class Client:
    """One client, whose methods are the operations in snake case."""

    def __init__(self, fake, service):
        self.fake, self.service = fake, service

    def __getattr__(self, name):
        operation = "".join(part.title() for part in name.split("_"))

        async def call(**given):
            fake = self.fake
            if self.service == "elbv2":
                arns = given.get("TargetGroupArns", ())
                form = {f"TargetGroupArns.member.{number}": arn for number, arn in enumerate(arns, 1)}
                return elbv2.CALLS[operation]({"TargetGroupArn": given.get("TargetGroupArn", ""), **form}, fake.groups)
            if "ServiceDeployments" in operation or "ServiceRevisions" in operation:
                return deployments.answer(operation, given, fake.deployments, fake.services)
            return ecs.answer(operation, given, fake.services, fake.tasks)

        return call


@dataclass
class SetUp:
    """A service, which is sound until something is done to it."""

    fake: FakeAWS = field(default_factory=FakeAWS)
    given: dict = field(default_factory=dict)
    environ: dict = field(default_factory=dict)
    process: dict | None = None
    triggers: tuple | None = None
    mode: str = "drain"
    why_not: str = ""
    delay: float = 300.0

    def __post_init__(self):
        self.service = self.fake.add_service("web", delay=self.delay)
        self.service.desired = 2
        self.service.definition = replace(self.service.definition, command=UVICORN)
        self.tasks = [self.fake.add_task(self.service, addresses=(f"10.0.0.{number}",)) for number in (5, 6)]

    @property
    def group(self):
        """Its target group."""
        return self.service.registrations[0].group

    def define(self, **changes):
        """Change the task definition."""
        self.service.definition = replace(self.service.definition, **changes)


async def judge(made, monkeypatch, *, is_inside):
    """Return what the doctor says that is not fine, each as what, found and remedy."""
    fake, environ, given = made.fake, {**TOKEN, **made.environ}, made.given
    if is_inside:
        environ["ECS_CONTAINER_METADATA_URI_V4"] = "http://metadata"
        given = {"command": UVICORN, **given}
    else:
        given = {"cluster": "main", "service": "web", **given}

    async def fetch(url):
        return agent.metadata(made.tasks[0], url.removeprefix("http://metadata"))

    async def answer(urls, token):
        if made.why_not:
            return Answer(why_not=made.why_not)
        given = AwsSettings.load({}, made.environ).sources if made.triggers is None else made.triggers
        status = {"state": "watching", "answer_age": 1.0, "target_groups": SERVING}
        process = SOUND if made.process is None else made.process
        return Answer({"triggers": dict.fromkeys(("sigterm", *given), status), "process": process, "mode": made.mode})

    monkeypatch.setattr(looking, "ask_process", answer)
    findings = examine(await look(Given(**given), Clients(fake), environ, fetch))
    return [f"{each.what}: {each.found} -> {each.remedy}" for each in findings if each.level != "fine"]


def doing(what, **given):
    """Return what makes a set-up and does something to it."""

    def make():
        made = SetUp(**given)
        what(made)
        return made

    return make


def defined(**changes):
    """Return what makes a set-up with another task definition."""
    return doing(lambda made: made.define(**changes))


def serving(**changes):
    """Return what makes a set-up with another service."""
    return doing(lambda made: [setattr(made.service, name, value) for name, value in changes.items()])


def telling(*problems, **process):
    """Return what makes a set-up whose process tells of problems."""
    told = [{"level": level, "problem": problem, "remedy": "mend it"} for level, problem in problems]
    return lambda: SetUp(process={**SOUND, "problems": told, **process})


def behind_a_proxy(made):
    """Let the target group lead to a proxy, and the application run under a shell."""
    made.service.registrations[0].container = "nginx"
    made.define(commands={"nginx": ("nginx", "-g", "daemon off;"), "app": ("sh", "-c", " ".join(UVICORN))})


def empty(made):
    """Take the task out of its group, where another is left."""
    made.tasks[0].addresses = ("10.0.0.99",)


OUTSIDE = {
    "a delay that is too short": (lambda: SetUp(delay=20.0), "which leaves"),
    "a stopTimeout that is too short": (defined(stop_timeout=10), "SIGKILL comes first"),
    "a shell": (
        defined(entry_point=("sh", "-c"), command=("uvicorn app:app --timeout-graceful-shutdown 5",)),
        "a shell",
    ),
    "--reload": (defined(command=(*UVICORN, "--reload")), "--reload"),
    "fastapi dev": (defined(command=("fastapi", "dev", "app.py")), "fastapi dev runs the application in a child"),
    "a limit on connections": (defined(command=(*UVICORN, "--limit-concurrency", "100")), "while 100 connections"),
    "a limit of uvicorn's in a variable": (defined(environment={"UVICORN_LIMIT_MAX_REQUESTS": "9"}), "a limit on"),
    "a limit of gunicorn's in a variable": (
        defined(
            command=(*GUNICORN, "--graceful-timeout", "60"), environment={"GUNICORN_CMD_ARGS": "--max-requests 500"}
        ),
        "a limit on requests",
    ),
    "gunicorn's patience": (defined(command=(*GUNICORN, "--graceful-timeout", "9")), "kills its workers 9 s after"),
    "a command in the image": (defined(command=()), "cannot tell how app is started"),
    "a supervisor": (defined(command=("supervisord", "-n")), "cannot tell what supervisord -n starts"),
    "a script of npm": (defined(command=("npm", "start")), "cannot tell what npm start starts"),
    "a wrapper": (defined(command=("honcho", "run", *UVICORN)), "cannot tell whether honcho, which starts uvicorn,"),
    "a proxy in front of it": (doing(behind_a_proxy), "a shell stands before the server"),
    "a container that is not there": (lambda: SetUp(given={"container": "ngnix"}), "has no container ngnix"),
    "Express mode": (
        serving(strategy="CANARY", canary=(5.0, 3), bake=3),
        "Express mode rolls back when more than 1 % of the requests fail",
    ),
    "alarms": (serving(alarms=("5xx",)), "alarms may roll a deployment back"),
    "a restart policy": (
        defined(restarts=True, environment={"DRAIN_EXIT_WHEN_DRAINED": "1"}),
        "a restart policy starts the container again",
    ),
    "a target optimizer": (doing(lambda made: setattr(made.group, "control_port", 3000)), "optimizer's agent"),
    "a long delay": (lambda: SetUp(delay=900.0), "set earlySuccessCriteria"),
    "early success that waits for the old tasks": (
        doing(lambda made: setattr(made.service, "early_success", "BLOCKING"), delay=900.0),
        "a deployment is complete 900 s after",
    ),
    "two generations": (
        doing(
            lambda made: setattr(made.service, "early_success", "DEFERRED"),
            delay=900.0,
            given={"sessions": 10_000, "wish": 23.0},
        ),
        "4 tasks drain together, 46 reconnects/s",
    ),
    "nothing that serves": (serving(min_percent=0, max_percent=100), "no task serves until the new ones are healthy"),
    "no room": (serving(max_percent=100), "deployments cannot begin"),
    "a secret": (defined(secrets=("DRAIN_WINDOW",)), "cannot tell what DRAIN_WINDOW says"),
    "no listener": (doing(lambda made: setattr(made.group, "in_use", False)), "no load balancer uses it"),
    "a stop signal": (lambda: SetUp(given={"stop_signal": "SIGQUIT"}), "STOPSIGNAL SIGQUIT"),
    "a window that does not fit": (defined(environment={"DRAIN_WINDOW": "299"}), "does not fit under the delay"),
    "a misspelt option": (defined(environment={"DRAIN_WINDWO": "240"}), "DRAIN_WINDWO is not read"),
    "an option that cannot work": (defined(environment={"DRAIN_CLOSE_CODE": "1000"}), "CLOSE_CODE"),
    "Spot": (serving(spot=True), "an interruption gives 120 s"),
    "switched off": (defined(environment={"DRAIN_MODE": "off"}), "mode=off switches everything off"),
    "a trial that was left on": (defined(environment={"DRAIN_MODE": "observe"}), "mode=observe asks no session"),
    "no source": (
        defined(environment={"DRAIN_SOURCES": "none"}),
        "no source of AWS is watched, and without DRAIN_ADMIN",
    ),
    "no source but events": (
        defined(environment={"DRAIN_SOURCES": "none"}, secrets=("DRAIN_ADMIN_TOKEN",)),
        "unless events by Lambda arrive",
    ),
    "a source that follows no deployment": (
        defined(environment={"DRAIN_SOURCES": "service-deployment"}),
        "deployments are 100/200, which this source does not follow",
    ),
    "a large fleet": (serving(desired=200), "too late for a delay of 300 s"),
}

INSIDE = {
    "the wrong port": (lambda: SetUp(environ={"DRAIN_TARGET_PORT": "9999"}), "the group has it with port 8000"),
    "the wrong id": (lambda: SetUp(environ={"DRAIN_TARGET_ID": "10.9.9.9"}), "leave DRAIN_TARGET_ID out"),
    "not in the group": (doing(empty), "is not among the 2 targets of web"),
    "a shell above it": (telling(("unsafe", "a shell (sh) stands before it")), "a shell (sh) stands before it -> mend"),
    "a limit in its code": (telling(("unsafe", "limit_max_requests=9")), "limit_max_requests=9"),
    "a supervisor above it": (telling(("note", "supervisord stands before it")), "supervisord stands before it"),
    "another server": (telling(server=""), "not under uvicorn"),
    "no source in its code": (lambda: SetUp(triggers=()), "no source of AWS is watched: unless events by Lambda"),
    "a trigger of its own alone": (lambda: SetUp(triggers=("pager",)), "cannot tell what pager does"),
    "a source that its code leaves out": (
        lambda: SetUp(triggers=("target-health",), environ={"DRAIN_SOURCES": "target-health,task-state"}),
        "task-state is not in place",
    ),
    "a trial in its code": (lambda: SetUp(mode="observe"), "mode=observe asks no session to leave"),
    "no middleware": (lambda: SetUp(why_not="http://127.0.0.1:8000/drain answers 404"), "whether the process watches"),
    "a misspelt option": (lambda: SetUp(environ={"DRAIN_WINDWO": "240"}), "DRAIN_WINDWO is not read"),
}


@pytest.mark.parametrize("which", OUTSIDE)
async def test_a_fault_is_named_from_outside(which, monkeypatch):
    """The one fault that was planted, and no other."""
    make, words = OUTSIDE[which]
    (fault,) = await judge(make(), monkeypatch, is_inside=False)
    assert words.lower() in fault.lower()


@pytest.mark.parametrize("which", INSIDE)
async def test_a_fault_is_named_from_inside(which, monkeypatch):
    """The one fault that was planted, and no other."""
    make, words = INSIDE[which]
    (fault,) = await judge(make(), monkeypatch, is_inside=True)
    assert words in fault


def blue_green(made):
    """Let the service have a pair of groups, of which the task is in the second."""
    green = made.fake.add_target_group("green")
    entry = made.service.registrations[0]
    made.service.strategy, made.service.bake = "BLUE_GREEN", 60
    made.service.registrations = [FakeRegistration(green, "app", 8000, entry.group)]
    made.define(environment={"DRAIN_SOURCES": "target-health,service-deployment", "DRAIN_LATE_ARRIVALS": "accept"})
    made.environ = dict(made.service.definition.environment)


RIGHT = {
    "the defaults": SetUp,
    "blue/green": doing(blue_green),
    "gunicorn by variables": defined(
        command=("gunicorn", "app:app"),
        environment={"GUNICORN_CMD_ARGS": "-k uvicorn_worker.UvicornWorker --graceful-timeout 60"},
    ),
    "an init and an exec": defined(command=("tini", "--", "sh", "-c", f"exec {' '.join(UVICORN)}")),
    "early success, and a budget": doing(
        lambda made: (
            setattr(made.service, "early_success", "DEFERRED"),
            made.define(environment={"DRAIN_PACING": "fleet:500"}),
            made.environ.update(DRAIN_PACING="fleet:500"),
        ),
        delay=900.0,
    ),
    "a proxy beside it": doing(lambda made: made.define(commands={"envoy": ("envoy", "-c", "envoy.yaml")})),
    "late arrivals that are accepted": doing(
        lambda made: (
            setattr(made.service, "alarms", ("5xx",)),
            made.define(environment={"DRAIN_LATE_ARRIVALS": "accept"}),
            made.environ.update(DRAIN_LATE_ARRIVALS="accept"),
        )
    ),
}


@pytest.mark.parametrize("is_inside", [False, True])
@pytest.mark.parametrize("which", RIGHT)
async def test_a_right_set_up_has_no_fault(which, is_inside, monkeypatch):
    """Neither from outside nor from inside."""
    assert await judge(RIGHT[which](), monkeypatch, is_inside=is_inside) == []


async def test_what_was_not_looked_at_is_not_called_right(monkeypatch):
    """Where ECS does not answer, who the service is cannot be told."""
    made = SetUp(given={"cluster": "elsewhere"})
    faults = await judge(made, monkeypatch, is_inside=False)
    assert any("cannot tell what web in elsewhere is" in each for each in faults)
    assert any("ecs:DescribeServices" in each for each in faults)
