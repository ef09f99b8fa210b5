"""Whole set-ups, each with one fault: the doctor names it and nothing else. On those without one it names nothing."""

import contextlib
from dataclasses import dataclass, field, replace

import pytest

from starlette_drain.aws.options import AwsSettings
from starlette_drain.testing import FakeAWS, FakeRegistration
from starlette_drain.testing.fake_aws import agent, deployments, ecs, elbv2
from starlette_drain.testing.fake_aws.target_group import Health
from starlette_drain.tools.doctor import look as looking
from starlette_drain.tools.doctor.checks import examine
from starlette_drain.tools.doctor.inside import Answer
from starlette_drain.tools.doctor.look import Given, look

pytestmark = pytest.mark.anyio

UVICORN = ("uvicorn", "app:app", "--timeout-graceful-shutdown", "5")
NGINX = ("nginx", "-g", "daemon off;")
GUNICORN = ("gunicorn", "-k", "uvicorn_worker.UvicornWorker", "app:app")
TOKEN = {"DRAIN_ADMIN_TOKEN": "a-token-of-the-tests"}
ELSEWHERE = "arn:aws:elasticloadbalancing:eu-west-1:999999999999:targetgroup/web/0123456789abcdef"
ILL = Health("unhealthy", "Target.Timeout")
SERVING = [{"arn": ":targetgroup/web/0", "target": "10.0.0.5 (8000)", "verdict": "serving"}]
SOUND = {"pid": 7, "parents": ["docker-init"], "server": "uvicorn", "problems": []}


class Clients:
    """What AWS tells, as the newest botocore would hand it over."""

    def __init__(self, fake, edits):
        self.fake, self.edits = fake, edits

    @contextlib.asynccontextmanager
    async def client(self, service, /, **_):
        """Lend the client of a service."""
        yield Client(self.fake, service, self.edits)


class Client:
    """One client, whose methods are the operations in snake case."""

    def __init__(self, fake, service, edits):
        self.fake, self.service, self.edits = fake, service, edits

    def __getattr__(self, name):
        operation = "".join(part.title() for part in name.split("_"))

        async def call(**given):
            found = answer(**given)
            if operation in self.edits:
                self.edits[operation](found)
            return found

        def answer(**given):
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
    edits: dict = field(default_factory=dict)
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
    findings = examine(await look(Given(**given), Clients(fake, made.edits), environ, fetch))
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


def edited(operation, *path, **changes):
    """Return what makes a set-up of which AWS shows something else, at that place in its answers."""

    def edit(answer):
        for step in path:
            answer = answer[step]
        answer.update(changes)

    return lambda: SetUp(edits={operation: edit})


def with_service(**changes):
    """Return what makes a set-up whose service AWS shows with other fields."""
    return edited("DescribeServices", "services", 0, **changes)


def with_definition(**changes):
    """Return what makes a set-up whose task definition AWS shows with other fields."""
    return edited("DescribeTaskDefinition", "taskDefinition", **changes)


def with_attribute(key, value, **environ):
    """Return what makes a set-up whose target group has another attribute."""
    return doing(lambda made: (made.group.attributes.update({key: value}), made.define(environment=environ)))


def telling(*problems, **process):
    """Return what makes a set-up whose process tells of problems."""
    told = [{"level": level, "problem": problem, "remedy": "mend it"} for level, problem in problems]
    return lambda: SetUp(process={**SOUND, "problems": told, **process})


def behind_a_proxy(made):
    """Let the target group lead to a proxy that is stopped last, and the application run under a shell."""
    made.service.registrations[0].container = "nginx"
    made.define(commands={"nginx": NGINX, "app": ("sh", "-c", " ".join(UVICORN))})
    made.edits["DescribeTaskDefinition"] = depending


def depending(answer):
    """Let the application depend on the proxy."""
    app = next(each for each in answer["taskDefinition"]["containerDefinitions"] if each["name"] == "app")
    app["dependsOn"] = [{"containerName": "nginx", "condition": "START"}]


def empty(made):
    """Take the task out of its group, where another is left."""
    made.tasks[0].addresses = ("10.0.0.99",)


def before_it(made):
    """Let the target group lead to a proxy that ends at once."""
    made.service.registrations[0].container = "nginx"
    made.define(commands={"nginx": NGINX, "app": UVICORN})


def twice(made):
    """Let a second container serve too, with a port of its own."""
    made.service.registrations.append(FakeRegistration(made.group, "feed", 8001))
    made.define(commands={"feed": ("uvicorn", "feed:app", "--port", "8001")}, environment={"DRAIN_GRACE": "5"})


def register(made, *express):
    """Let the service register its tasks with nothing, or with groups that ECS manages."""
    made.service.registrations = []
    for each in made.service.revisions:
        each.registrations, each.express = (), express


def managed(made):
    """Let ECS manage the target group, which the service does not show."""
    register(made, made.group)
    made.environ = {"DRAIN_LATE_ARRIVALS": "accept"}
    made.define(environment=made.environ)


def another(made):
    """Let the task watch a group of another service."""
    group = made.fake.add_target_group("other")
    made.define(environment={"DRAIN_TARGET_GROUP_ARN": group.arn})


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
    "a proxy in front of it": (doing(behind_a_proxy), "a shell runs the server"),
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
        "no AWS source is watched, and without DRAIN_ADMIN",
    ),
    "no source but events": (
        defined(environment={"DRAIN_SOURCES": "none"}, secrets=("DRAIN_ADMIN_TOKEN",)),
        "unless events by Lambda arrive",
    ),
    "a source that follows no deployment": (
        defined(environment={"DRAIN_SOURCES": "service-deployment"}),
        "deployments are 100/200, which this source does not follow",
    ),
    "no task role": (with_definition(taskRoleArn=None), "has no task role, so the task cannot call AWS"),
    "the role of the instance": (
        doing(
            lambda made: made.edits.update(
                DescribeTaskDefinition=lambda answer: answer["taskDefinition"].update(taskRoleArn=None),
                DescribeServices=lambda answer: answer["services"][0].update(
                    capacityProviderStrategy=[], launchType="EC2"
                ),
            )
        ),
        "the calls use the role of the instance",
    ),
    "a delay given by hand": (
        doing(lambda made: made.define(environment={"DRAIN_DEREGISTRATION_DELAY": "300"}), delay=120.0),
        "DRAIN_DEREGISTRATION_DELAY=300, and web has 120 s",
    ),
    "another group": (doing(another), "and ECS registers the tasks with arn:aws:elasticloadbalancing:eu-central-1"),
    "a group of another account": (
        defined(environment={"DRAIN_TARGET_GROUP_ARN": ELSEWHERE}),
        (*["TargetGroupNotFound"] * 3, f"DRAIN_TARGET_GROUP_ARN names {ELSEWHERE}"),
    ),
    "a port of no target": (defined(environment={"DRAIN_TARGET_PORT": "80"}), "no target has port 80"),
    "one id for all tasks": (defined(environment={"DRAIN_TARGET_ID": "10.0.0.5"}), "is the same for all 2 tasks"),
    "two containers that serve": (doing(twice), "cannot tell how feed stops"),
    "a proxy that ends first": (
        doing(before_it),
        "nginx passes requests on to app, and may close all connections at SIGTERM",
    ),
    "another port than the group's": (
        defined(command=(*UVICORN, "--port", "9000")),
        "listens on port 9000, and the target group sends to 8000",
    ),
    "exec in a pipeline": (
        defined(command=("sh", "-c", f"exec {' '.join(UVICORN)} | tee /log")),
        "a shell runs the server",
    ),
    "exec in the background": (
        defined(command=("sh", "-c", f"exec {' '.join(UVICORN)} & wait")),
        "a shell runs the server",
    ),
    "exec in parentheses": (
        defined(command=("bash", "-c", f"(exec {' '.join(UVICORN)}); true")),
        "a shell runs the server",
    ),
    "an argument to a shell": (defined(entry_point=("sh", "-c"), command=UVICORN), "a shell runs the server"),
    "a wrapper of secrets": (defined(command=("chamber", "exec", "prod", "--", *UVICORN)), "whether chamber, which"),
    "a manager of packages": (defined(command=("poetry", "run", *UVICORN)), "cannot tell whether poetry"),
    "a script in Python": (defined(command=("python", "main.py")), "cannot tell what python main.py starts"),
    "workers with a lifetime": (
        defined(command=("granian", "--interface", "asgi", "--workers-lifetime", "3600", "app:app")),
        ("granian stops in its own way", "a limit on requests"),
    ),
    "hypercorn": (defined(command=("hypercorn", "app:app")), "hypercorn stops in its own way"),
    "gunicorn without a worker class": (defined(command=("gunicorn", "app:app")), "run no ASGI application"),
    "gunicorn that reloads": (defined(command=(*GUNICORN, "--reload")), "--reload"),
    "a limit on time": (defined(command=("uvicorn", "app:app")), "add --timeout-graceful-shutdown 5"),
    "a limit on time that is too long": (
        defined(command=("uvicorn", "app:app", "--timeout-graceful-shutdown", "600")),
        "SIGKILL comes first -> set --timeout-graceful-shutdown to 11",
    ),
    "an end that no stopTimeout allows": (
        defined(environment={"DRAIN_SIGTERM_WINDOW": "300"}),
        "SIGKILL comes first -> set DRAIN_SIGTERM_WINDOW to 12",
    ),
    "no delay": (lambda: SetUp(delay=0.0), "0 s, which leaves 0 s to spread"),
    "an hour": (lambda: SetUp(delay=3600.0), "set earlySuccessCriteria"),
    "an NLB": (
        doing(lambda made: setattr(made.group, "protocol", "TCP")),
        "new connections may arrive for two minutes after the deregistration",
    ),
    "an NLB with a short delay": (
        doing(
            lambda made: (
                setattr(made.group, "protocol", "TCP"),
                made.define(environment={"DRAIN_LATE_ARRIVALS": "accept"}),
            ),
            delay=60.0,
        ),
        "a delay of 60 s",
    ),
    "a function": (doing(lambda made: setattr(made.group, "target_type", "lambda")), "targets of type lambda"),
    "a slow start": (with_attribute("slow_start.duration_seconds", "300"), "new tasks get few clients for 300 s"),
    "no way to other zones": (with_attribute("load_balancing.cross_zone.enabled", "false"), "the same zone only"),
    "sticky clients": (
        with_attribute("stickiness.enabled", "true", DRAIN_MAX_SESSION_AGE="3600"),
        "sends clients back to the task that asked them to leave",
    ),
    "a rebalance by round robin": (
        with_attribute("load_balancing.algorithm.type", "round_robin", DRAIN_REBALANCE="1", DRAIN_PACING="fleet:500"),
        "with round_robin clients come back",
    ),
    "a health check of the admin route": (
        edited("DescribeTargetGroups", "TargetGroups", 0, HealthCheckPath="/drain"),
        "answers 401 without the token",
    ),
    "unhealthy targets": (
        doing(lambda made: [each.__setattr__("shown", ILL) for each in made.group._targets.values()]),
        "2 targets, 0 healthy",
    ),
    "Service Connect alone": (
        doing(
            lambda made: (
                register(made),
                made.edits.update(
                    DescribeServices=lambda answer: answer["services"][0].update(
                        serviceConnectConfiguration={"enabled": True}
                    )
                ),
            )
        ),
        "registers with none (traffic reaches it through Service Connect)",
    ),
    "a Classic Load Balancer": (
        with_service(loadBalancers=[{"loadBalancerName": "old", "containerName": "app", "containerPort": 8000}]),
        "through a Classic Load Balancer",
    ),
    "a group that ECS manages": (
        doing(lambda made: (setattr(made.group, "in_use", False), managed(made))),
        "no load balancer uses it",
    ),
    "a daemon": (with_service(schedulingStrategy="DAEMON"), "cannot tell how many tasks of a daemon service"),
    "Windows": (
        with_definition(runtimePlatform={"operatingSystemFamily": "WINDOWS_SERVER_2022_CORE"}),
        "cannot tell how a task on Windows",
    ),
    "a container that is not essential": (
        doing(
            lambda made: (
                made.define(environment={"DRAIN_EXIT_WHEN_DRAINED": "1"}),
                made.edits.update(
                    DescribeTaskDefinition=lambda answer: answer["taskDefinition"]["containerDefinitions"][0].update(
                        essential=False
                    )
                ),
            )
        ),
        "the task goes on when DRAIN_EXIT_WHEN_DRAINED has ended app",
    ),
    "batches that do not fit": (
        defined(environment={"DRAIN_PACING": "batches:600"}),
        ("sigterm_window=6: the pacing's batches, 600 s apart", "of the 280 s to spread: the pacing's batches"),
    ),
    "a share that leaves nothing": (
        doing(
            lambda made: (
                setattr(made.service, "desired", 100),
                made.define(environment={"DRAIN_POLL_SHARE": "1"}),
            )
        ),
        "share the budget",
    ),
    "a bake time that is too short for the window": (
        doing(
            lambda made: (
                blue_green(made),
                setattr(made.service, "bake", 2),
                made.define(environment={**made.environ, "DRAIN_WINDOW": "240"}),
            )
        ),
        "does not fit into the bake time",
    ),
    "two that register": (
        defined(environment={"DRAIN_SELF_REGISTRATION": "1"}),
        "DRAIN_SELF_REGISTRATION=1 does so too",
    ),
    "a misspelt service": (lambda: SetUp(given={"service": "wbe"}), ("knows no service wbe",)),
    "a service that was deleted": (serving(status="INACTIVE"), "INACTIVE"),
    "delays that differ": (
        doing(
            lambda made: made.service.registrations.append(
                FakeRegistration(made.fake.add_target_group("twin", delay=120), "app", 8000)
            )
        ),
        "they differ: web 300 s, twin 120 s",
    ),
    "CodeDeploy": (
        doing(lambda made: setattr(made.service, "controller", "CODE_DEPLOY"), given={"sessions": 9000, "wish": 50.0}),
        "2 tasks drain together at code_deploy",
    ),
    "a file of variables": (
        edited(
            *("DescribeTaskDefinition", "taskDefinition", "containerDefinitions", 0),
            environmentFiles=[{"value": "arn:aws:s3:::bucket/web.env", "type": "s3"}],
        ),
        "cannot tell what arn:aws:s3:::bucket/web.env says",
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
    "a limit on connections in its code": (telling(options={"limit_concurrency": 100}), "while 100 connections"),
    "no source in its code": (lambda: SetUp(triggers=()), "no AWS source is watched: unless events by Lambda"),
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
    faults, words = await judge(make(), monkeypatch, is_inside=False), (words,) if isinstance(words, str) else words
    assert len(faults) == len(words)
    for each, fault in zip(words, faults, strict=True):
        assert each.lower() in fault.lower()


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
    "groups that ECS manages": doing(managed),
    "a proxy that is stopped last": doing(
        lambda made: (before_it(made), made.edits.update(DescribeTaskDefinition=depending))
    ),
    "IPv6 alone": doing(
        lambda made: setattr(made, "tasks", [made.fake.add_task(made.service, addresses=("2001:db8:0:0::5",))])
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
