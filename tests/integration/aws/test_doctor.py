"""The doctor over a real socket: on a set-up full of faults it names every one, on a right one none."""

import json
import os
import shlex
import socket
import subprocess
import sys

import boto3
import pytest
from moto.server import ThreadedMotoServer

from starlette_drain.aws.api import calls, client
from starlette_drain.aws.identity import metadata
from starlette_drain.testing import FakeRegistration
from starlette_drain.testing.fake_aws import FakeDefinition
from starlette_drain.tools.cli import main

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Let a call take its time: on a busy machine one that takes longer than two seconds would be a finding."""
    for name in ("connect_timeout", "read_timeout"):
        monkeypatch.setitem(client.TIME_LIMITS, name, 30)
    for module in (calls, metadata):
        monkeypatch.setattr(module, "TIME_LIMIT", 60)
    monkeypatch.setattr(metadata, "OVERALL_LIMIT", 60)


@pytest.fixture
def ask(endpoint, capsys, monkeypatch):
    """Return what runs the doctor from outside a task, and gives its exit code and findings."""

    def told(*given):
        code = main(["doctor", "--json", *given])
        return code, json.loads(capsys.readouterr().out)

    def ask(*given):
        monkeypatch.delenv("ECS_CONTAINER_METADATA_URI_V4", raising=False)
        return told("--cluster", "main", "--service", "web", *given)

    ask.told = told
    return ask


def inside(endpoint, task, environ, monkeypatch, told, *given):
    """Run the doctor inside *task*, with *environ*; return its exit code and findings."""
    for variable, value in {**endpoint.environment(task), **environ}.items():
        monkeypatch.setenv(variable, value)
    return told("--command", "uvicorn app:app --timeout-graceful-shutdown 5", *given)


def unsafe(findings):
    """Return what is unsafe, as pairs of what and found."""
    return [(each["what"], each["found"]) for each in findings if each["level"] == "unsafe"]


def test_a_right_set_up_has_no_fault(fake, ask):
    """Nothing is unsafe and nothing noted, and everything that was looked at is in the table."""
    service = fake.add_service(delay=300)
    service.desired = 2
    for number in range(2):
        fake.add_task(service, addresses=(f"10.0.0.{number + 5}",))
    code, findings = ask("--sessions", "1000", "--rate", "50")
    assert (code, {each["level"] for each in findings}) == (0, {"fine"})
    seen = [each["what"] for each in findings]
    assert seen == [
        *("identity", "permissions", "target groups", "delay", "deployment", "poll budget", "stopTimeout", "server")
    ]


def blue_green(fake):
    """Set up a service whose old tasks leave over the bake time: judged by the delay it would be far too fast."""
    blue, green = fake.add_target_group("blue"), fake.add_target_group("green")
    service = fake.add_service(registrations=[FakeRegistration(blue, "app", 8000, green)])
    service.desired, service.strategy, service.bake = 50, "BLUE_GREEN", 60
    fake.deploy(service)
    return service, {"DRAIN_SOURCES": "target-health,service-deployment", "DRAIN_LATE_ARRIVALS": "accept"}


def by_lambda(fake):
    """Set up a large service whose tasks ask nobody anything."""
    service = fake.add_service()
    service.desired = 400
    return service, {"DRAIN_SOURCES": "none", "DRAIN_ADMIN_TOKEN": "a-token-of-sixteen"}


def self_registered(fake):
    """Set up a service that ECS registers with nothing."""
    group = fake.add_target_group("web")
    return fake.add_service(registrations=[]), {"DRAIN_SELF_REGISTRATION": "1", "DRAIN_TARGET_GROUP_ARN": group.arn}


def without_balancer(fake):
    """Set up a service behind no balancer."""
    return fake.add_service(registrations=[]), {"DRAIN_SOURCES": "task-state"}


RATES = {blue_green: ("10000", "200"), by_lambda: ("10", "50")}


@pytest.mark.parametrize("is_inside", [False, True])
@pytest.mark.parametrize("make", [blue_green, by_lambda, self_registered, without_balancer])
def test_another_right_set_up_has_no_fault(fake, endpoint, ask, monkeypatch, make, is_inside):  # noqa: PLR0917
    """What the pages about the sources describe is all fine, from inside a task and from outside."""
    service, environ = make(fake)
    service.definition.environment = environ
    task = fake.add_task(service)
    sessions, rate = RATES.get(make, ("1000", "1000"))
    given = ["--sessions", sessions, "--rate", rate]
    code, findings = inside(endpoint, task, environ, monkeypatch, ask.told, *given) if is_inside else ask(*given)
    # No process answers inside, and from outside events by Lambda cannot be seen.
    assert [each for each in findings if each["level"] != "fine" and each["what"] != "watching"] == []
    assert code == 0


def test_tasks_that_may_ask_nobody(fake, endpoint, ask, monkeypatch):
    """With events alone a task needs no permission: what the doctor could not see is noted, and nothing is unsafe."""
    service, environ = by_lambda(fake)
    task = fake.add_task(service)
    for action in ("DescribeTasks", "DescribeServices", "DescribeTargetHealth"):
        fake.fail("deny", action=action)
    code, findings = inside(endpoint, task, environ, monkeypatch, ask.told)
    assert code == 0
    assert [(each["what"], each["level"]) for each in findings if each["level"] != "fine"] == [
        *[("watching", "note")] * 2,
        ("permissions", "note"),
    ]


@pytest.mark.parametrize(
    ("environ", "action", "is_found"),
    [
        ({}, "DescribeContainerInstances", True),
        ({"DRAIN_TARGET_ID": "i-1"}, "DescribeContainerInstances", False),
        ({}, "DescribeTasks", True),
        ({"DRAIN_SOURCES": "task-state"}, "DescribeContainerInstances", False),
        ({"DRAIN_SOURCES": "target-health,service-deployment"}, "ListServiceDeployments", True),
        ({"DRAIN_SOURCES": "target-health,service-deployment"}, "DescribeServiceDeployments", True),
        ({"DRAIN_SOURCES": "target-health,service-deployment"}, "DescribeServiceRevisions", True),
        ({}, "ListServiceDeployments", False),
    ],
)
def test_every_read_is_tried(fake, endpoint, ask, monkeypatch, environ, action, is_found):  # noqa: PLR0917
    """On an instance in bridge mode too: a refusal is unsafe where the options make the package ask, else nothing."""
    service = fake.add_service(target_type="instance")
    task = fake.add_task(service, network_mode="bridge", instance_id="i-1", host_ports={8000: 32768})
    fake.deploy(service)
    fake.fail("deny", action=action)
    code, findings = inside(endpoint, task, environ, monkeypatch, ask.told)
    assert (code, len(unsafe(findings))) == (int(is_found), int(is_found))
    assert any(action in found for _, found in unsafe(findings)) is is_found


def test_a_task_that_cannot_find_itself(fake, endpoint, ask, monkeypatch):
    """Everything is allowed, and still the search does not end: the fault is the one that the package would log."""
    service = fake.add_service(target_type="instance")
    task = fake.add_task(service, network_mode="bridge", instance_id="i-1", host_ports={8000: 32768})
    task.containers = {"app": (9000,)}
    code, findings = inside(endpoint, task, {}, monkeypatch, ask.told)
    assert code == 1
    assert [(what, found.partition(" port")[0]) for what, found in unsafe(findings)] == [("identity", "no host")]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--cluster", "main", "--service", "wbe"], "ECS knows no service wbe in main"),
        (["--cluster", "nowhere", "--service", "web"], "ecs:DescribeServices does not know"),
    ],
)
def test_a_mistyped_name(fake, ask, given, words):
    """It is said that there is no such service, and not that it has no target group."""
    fake.add_service()
    code, findings = ask.told(*given)
    assert code == 1
    assert words in unsafe(findings)[0][1]
    assert not [each for each in findings if each["what"] == "target groups"]


def test_a_service_that_was_deleted(fake, ask):
    """It can still be described for a while, and is not taken for alive."""
    fake.add_service().status = "INACTIVE"
    code, findings = ask()
    assert code == 1
    assert "is INACTIVE" in unsafe(findings)[0][1]


def test_an_arn_is_enough(fake, ask, monkeypatch):
    """The ARN of a service names its cluster and Region."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.delenv("AWS_REGION")
    service = fake.add_service()
    fake.add_task(service)
    code, findings = ask.told("--service", service.arn)
    assert (code, findings[0]["found"]) == (0, "web in main")


def test_code_deploy_takes_the_whole_fleet(fake, ask):
    """CodeDeploy ends the old task set in one go, whatever the percentages say."""
    service = fake.add_service()
    service.desired, service.max_percent, service.controller = 8, 113, "CODE_DEPLOY"
    _, findings = ask("--sessions", "1000", "--rate", "10")
    assert "8 tasks drain together at code_deploy" in dict(unsafe(findings))["deployment"]


def test_every_fault_is_named(fake, ask):
    """One planted in each place: all are named, each with a remedy, and nothing else is called unsafe."""
    group = fake.add_target_group("web", delay=60, protocol="TCP", in_use=False)
    twin = fake.add_target_group("twin", delay=20)
    service = fake.add_service(
        registrations=[FakeRegistration(group, "app", 8000), FakeRegistration(twin, "app", 8001)]
    )
    service.desired, service.max_percent, service.spot = 8, 112, True
    service.definition = FakeDefinition(
        stop_timeout=10,
        entry_point=("sh", "-c"),
        command=("cd /app; uvicorn app:app --lifespan off --reload --limit-max-requests 1000",),
        environment={"DRAIN_WINDOW": "400", "DRAIN_GRACE": "30"},
    )
    code, findings = ask()
    assert code == 1
    assert [what for what, _ in unsafe(findings)] == [
        *("target groups", "delay", "window", "margin", "NLB", "deployment", "stopTimeout"),
        *("server", "server", "server"),
    ]
    noted = [each["what"] for each in findings if each["level"] == "note"]
    assert noted == ["delay", "NLB", "server", "server"]
    remedies = {each["found"]: each["remedy"] for each in findings if each["level"] != "fine"}
    assert all(remedies.values())
    told = " ".join([*remedies, *remedies.values()])
    for words in (
        "web: no load balancer uses it",
        "maximumPercent to 113",
        "web 60 s, twin 20 s",
        "SIGKILL comes first",
        "set stopTimeout to 49",
        "a delay of 60 s",
        "a shell runs the server",
        "--lifespan off",
        "--reload",
        "a limit on requests",
        "DRAIN_MARGIN to 32",
        "DRAIN_LATE_ARRIVALS=accept",
        "add --timeout-graceful-shutdown 5",
    ):
        assert words in told, words


def test_every_fault_inside_a_task_is_named(fake, endpoint, ask, monkeypatch):
    """The same for what only a task can try: two refusals, a bake time that is too short, a shell, a server."""
    blue, green = (fake.add_target_group(name, target_type="instance") for name in ("blue", "green"))
    service = fake.add_service(registrations=[FakeRegistration(blue, "app", 8000, green)])
    service.desired, service.strategy, service.bake = 8, "BLUE_GREEN", 1
    task = fake.add_task(service, network_mode="bridge", instance_id="i-1", host_ports={8000: 32768})
    for action in ("DescribeContainerInstances", "ListServiceDeployments"):
        fake.fail("deny", action=action)
    environ = {"DRAIN_SOURCES": "target-health,service-deployment"}
    command = shlex.join(["docker-init", "--", "bash", "-lc", "gunicorn app:app --graceful-timeout 9"])
    given = ("--sessions", "10000", "--rate", "100", "--command", command)
    code, findings = inside(endpoint, task, environ, monkeypatch, ask.told, *given)
    assert code == 1
    faults = unsafe(findings)
    assert [what for what, _ in faults] == [*("permissions", "permissions", "deployment", "server", "server", "server")]
    told = " ".join(found for _, found in faults)
    for words in (
        *("ecs:DescribeContainerInstances", "ecs:ListServiceDeployments", "bake time 60 s"),
        *("a shell runs the server", "kills its workers 9 s after", "run no ASGI application"),
    ):
        assert words in told, words
    assert any("set bakeTimeInMinutes to 14" in each["remedy"] for each in findings)


def test_the_example_of_the_documentation(fake, ask):
    """A fleet that drains all at once: the sum, and the exact remedy."""
    service = fake.add_service(delay=300)
    service.desired = 8
    code, findings = ask("--sessions", "100000", "--rate", "500")
    assert code == 1
    (fault,) = [each for each in findings if each["level"] == "unsafe"]
    assert fault["found"] == (
        "delay 300 s, 100,000 sessions a task, 8 tasks drain together at 100/200: 2,888 reconnects/s over the fleet"
    )
    assert fault["remedy"] == "for 500/s set the deregistration delay to 1,623 s"
    service.definition.environment = {"DRAIN_PACING": "fleet:100"}
    code, findings = ask("--sessions", "100000")
    assert "for 100/s" in next(each["remedy"] for each in findings if each["level"] == "unsafe")


@pytest.mark.parametrize(
    ("action", "level"),
    [
        ("DescribeServices", "unsafe"),
        ("DescribeTargetHealth", "unsafe"),
        ("DescribeTargetGroupAttributes", "unsafe"),
        ("DescribeTargetGroups", "note"),
        ("DescribeTaskDefinition", "note"),
    ],
)
def test_a_read_that_is_refused(fake, ask, action, level):
    """Each permission that is missing is named with the action to allow; the rest is still looked at."""
    fake.add_task(fake.add_service())
    fake.fail("deny", action=action)
    _, findings = ask()
    (refused,) = [each for each in findings if each["what"] == "permissions" and each["level"] != "fine"]
    assert refused["level"] == level
    assert f":{action}" in refused["found"]


def test_inside_a_task(fake, endpoint, capsys, monkeypatch):
    """There it finds out who it is by itself, and reads the options and the command line of the process."""
    task = fake.add_task(fake.add_service())
    for variable, value in endpoint.environment(task).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("DRAIN_CLOSE_CODE", "1000")
    assert main(["doctor", "--json", "--command", "uvicorn app:app"]) == 1
    findings = json.loads(capsys.readouterr().out)
    assert findings[0]["found"].startswith(task.arn)
    assert any("DescribeTasks" in each["found"] for each in findings if each["what"] == "permissions")
    assert [what for what, _ in unsafe(findings)] == ["options"]


def test_a_target_group_alone(fake, endpoint, capsys, monkeypatch):
    """With nothing but a target group it tells what that says."""
    fake.add_task(fake.add_service())
    monkeypatch.delenv("ECS_CONTAINER_METADATA_URI_V4", raising=False)
    (arn,) = fake.groups
    assert main(["doctor", "--target-group", arn]) == 0
    out = capsys.readouterr().out
    assert "1 targets, 1 healthy" in out
    assert "Nothing is unsafe." in out


def test_nothing_to_look_at(endpoint, capsys, monkeypatch):
    """Off ECS and with nothing given the one fault is that."""
    monkeypatch.delenv("ECS_CONTAINER_METADATA_URI_V4", raising=False)
    assert main(["doctor", "--command", shlex.join(["uvicorn", "app:app"])]) == 1
    assert "give --service or --target-group" in capsys.readouterr().out


APP = """
from starlette.applications import Starlette
from starlette_drain import DrainMiddleware
app = Starlette()
app.add_middleware(DrainMiddleware, poll_interval=1)
"""


@pytest.fixture
def server(fake, endpoint, tmp_path, monkeypatch):
    """Run a server with a limit on requests in a task that is registered with nothing yet; return where it answers."""
    (tmp_path / "waited_for.py").write_text(APP, encoding="utf-8")
    task = fake.add_task(fake.add_service(), register=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for variable, value in {**endpoint.environment(task), "DRAIN_ADMIN_TOKEN": "a-token-of-sixteen"}.items():
        monkeypatch.setenv(variable, value)
    words = [sys.executable, "-m", "uvicorn", "waited_for:app", "--port", str(port), "--limit-max-requests", "1000"]
    process = subprocess.Popen(words, cwd=tmp_path, env=os.environ, start_new_session=True)
    yield f"http://127.0.0.1:{port}/drain"
    process.kill()
    process.wait()


def test_waiting_until_the_task_is_watched(fake, server, ask):
    """Not while no group has its target; from then on the process says that it watches, and what it knows of itself."""
    code, findings = ask.told("--wait", "3", "--url", server)
    assert code == 1
    assert [what for what, _ in unsafe(findings)] == ["watching", "target"]
    fake.register(fake.tasks[0])
    code, findings = ask.told("--wait", "60", "--url", server)
    assert (code, [each["found"] for each in findings]) == (0, ["target-health: serving"])
    code, findings = ask.told("--url", server)
    assert code == 1
    assert "limit_max_requests=1000" in dict(unsafe(findings))["server"]


@pytest.fixture
def moto(monkeypatch):
    """Return clients of moto, a stand-in for AWS that is not ours."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    environ = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "not-a-secret",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("ECS_CONTAINER_METADATA_URI_V4", raising=False)
    yield lambda name: boto3.client(name, region_name="eu-central-1")
    server.stop()


def test_a_second_opinion(moto, capsys):
    """What moto shows of a service is read as what FakeAWS shows: the faults planted are named."""
    ecs, elbv2 = moto("ecs"), moto("elbv2")
    vpc = moto("ec2").describe_vpcs()["Vpcs"][0]["VpcId"]
    made = elbv2.create_target_group(Name="doctor", Protocol="HTTP", Port=8000, VpcId=vpc, TargetType="ip")
    arn = made["TargetGroups"][0]["TargetGroupArn"]
    delay = {"Key": "deregistration_delay.timeout_seconds", "Value": "300"}
    elbv2.modify_target_group_attributes(TargetGroupArn=arn, Attributes=[delay])
    ecs.create_cluster(clusterName="doctor")
    container = {
        "name": "app",
        "image": "app:1",
        "memory": 512,
        "stopTimeout": 15,
        "command": ["uvicorn", "app:app", "--lifespan", "off"],
        "environment": [{"name": "DRAIN_WINDOW", "value": "299"}],
    }
    ecs.register_task_definition(family="app", containerDefinitions=[container])
    ecs.create_service(
        cluster="doctor",
        serviceName="web",
        taskDefinition="app",
        desiredCount=8,
        loadBalancers=[{"targetGroupArn": arn, "containerName": "app", "containerPort": 8000}],
        deploymentConfiguration={"maximumPercent": 200, "minimumHealthyPercent": 100},
    )
    given = ["--cluster", "doctor", "--service", "web", "--sessions", "100000", "--rate", "500"]
    assert main(["doctor", "--json", *given]) == 1
    findings = json.loads(capsys.readouterr().out)
    named = [what for what, _ in unsafe(findings)]
    assert named == ["target groups", "window", "deployment", "stopTimeout"]
    assert any("--lifespan off" in each["found"] for each in findings if each["level"] == "note")
    assert any("stopTimeout to 24" in each["remedy"] for each in findings)
