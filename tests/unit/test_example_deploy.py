"""The files for deploying the example, against the code and against AWS's own model."""

import ast
import json
import os
import re
from pathlib import Path

import pytest

import starlette_drain
from starlette_drain import Settings
from starlette_drain._engine.flush import FLUSH_TIMEOUT

DEPLOY = Path(__file__).parents[2] / "example_app" / "deploy"
SOURCES = Path(os.environ.get("STARLETTE_DRAIN_SOURCES", DEPLOY.parents[1]))

if not DEPLOY.exists():
    pytest.skip("the example is not here: these are the tests of an installed wheel", allow_module_level=True)

BY_THE_AGENT = {"ecs:GetTaskProtection", "ecs:UpdateTaskProtection"}
"""What the ECS agent calls with the role of the task, when the task asks it to."""

ALB_CUTS_AFTER = 8.0
"""Seconds after SIGTERM, in a deployment: the deregistration delay is over by then."""

PATIENCE = 1.0
"""Seconds that a drain waits for the last session beyond what it may take."""

IAM_PREFIX = {"ecs": "ecs", "elbv2": "elasticloadbalancing"}


@pytest.fixture
def policy():
    """The policy of the task role."""
    return json.loads((DEPLOY / "iam-policy.json").read_text())


@pytest.fixture
def optional_policy():
    """What the optional sources and actions need besides."""
    return json.loads((DEPLOY / "iam-policy-optional.json").read_text())


@pytest.fixture
def task_definition():
    """The task definition."""
    return json.loads((DEPLOY / "task-definition.json").read_text())


@pytest.fixture
def command():
    """What the image runs."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    (command,) = (line.removeprefix("CMD ") for line in lines if line.startswith("CMD "))
    return json.loads(command)


def actions(statement):
    """Return the actions of a statement of a policy."""
    listed = statement["Action"]
    return {listed} if isinstance(listed, str) else set(listed)


def environment_of(container):
    """Return the environment variables that a container is given."""
    return {each["name"]: each["value"] for each in container.get("environment", [])}


def calls_of_the_code():
    """Yield the IAM action of every AWS call in the sources of the package."""
    for source in Path(starlette_drain.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="call"), args=[ast.Constant(str(service)), ast.Constant(str(operation))]
                ):
                    yield f"{IAM_PREFIX[service]}:{operation}"


def test_the_policies_allow_exactly_what_the_code_calls(policy, optional_policy):
    """No call is missing in the two policies, nothing is allowed that is not called, and nothing twice."""
    allowed, optional = (set().union(*map(actions, each["Statement"])) for each in (policy, optional_policy))
    assert allowed | optional == set(calls_of_the_code()) | BY_THE_AGENT
    assert not allowed & optional
    assert {each["Effect"] for each in policy["Statement"] + optional_policy["Statement"]} == {"Allow"}


def test_only_reading_is_not_optional(policy, optional_policy):
    """A task that is given the first policy alone can change nothing, and the other is bound to ARNs or the cluster."""
    assert all(":Describe" in each for statement in policy["Statement"] for each in actions(statement))
    for statement in optional_policy["Statement"]:
        listed = (
            [statement["Condition"]["ArnEquals"]["ecs:cluster"]] if "Condition" in statement else statement["Resource"]
        )
        assert all(each.startswith("arn:aws:") for each in ([listed] if isinstance(listed, str) else listed))


def test_only_what_takes_no_resource_is_allowed_on_all(policy):
    """The actions of ECS are bound to ARNs; the Describe actions of Elastic Load Balancing cannot be."""
    for statement in policy["Statement"]:
        if statement["Resource"] == "*":
            assert all(each.startswith("elasticloadbalancing:Describe") for each in actions(statement))
        else:
            listed = statement["Resource"]
            assert all(each.startswith("arn:aws:ecs:") for each in ([listed] if isinstance(listed, str) else listed))


def test_the_command_of_the_image_is_in_exec_form(command):
    """SIGTERM reaches uvicorn, which serves an application that exists, and does not wait for ever at its end."""
    assert command[0] == "uvicorn"
    module, name = command[1].split(":")
    assert hasattr(pytest.importorskip(module), name)
    assert command[command.index("--timeout-graceful-shutdown") + 1] == "5"


def test_the_image_holds_what_it_copies():
    """Every file that the Dockerfile copies exists."""
    for line in (DEPLOY / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY "):
            for name in line.split()[1:-1]:
                assert (SOURCES / name).exists(), name


def test_aws_knows_every_field_of_the_task_definition(task_definition):
    """The model of RegisterTaskDefinition in botocore takes it."""
    loader = pytest.importorskip("botocore.loaders").Loader()
    model = pytest.importorskip("botocore.model").ServiceModel(loader.load_service_model("ecs", "service-2"))
    shape = model.operation_model("RegisterTaskDefinition").input_shape
    report = pytest.importorskip("botocore.validate").ParamValidator().validate(task_definition, shape)
    assert not report.has_errors(), report.generate_report()
    assert task_definition.keys() <= shape.members.keys()


def test_the_stop_timeout_holds_what_follows_sigterm(task_definition, command):
    """The window, the last session's tail, the telemetry and uvicorn's own limit end before SIGKILL."""
    (container,) = task_definition["containerDefinitions"]
    settings = Settings.load({}, environment_of(container))
    graceful = float(command[command.index("--timeout-graceful-shutdown") + 1])
    at_worst = settings.sigterm_window + settings.tail + PATIENCE + FLUSH_TIMEOUT + graceful
    assert at_worst < container["stopTimeout"] <= 120


def test_after_sigterm_everybody_is_asked_before_the_balancer_cuts(task_definition):
    """A task that could not see that it was being deregistered sheds within what an ALB leaves."""
    (container,) = task_definition["containerDefinitions"]
    assert Settings.load({}, environment_of(container)).sigterm_window < ALB_CUTS_AFTER


def test_every_variable_in_the_files_is_an_option():
    """A slip in the name of a variable would go unnoticed in production. The Lambda function has some of its own."""
    known = {f"DRAIN_{name.upper()}" for name in Settings.__dataclass_fields__}
    found = {}
    for path in DEPLOY.rglob("*"):
        if path.suffix in {".yaml", ".json", ".tf", ".service", ".conf", ".py", ".md", ""} and path.is_file():
            found[path.name] = set(re.findall(r"DRAIN_[A-Z_]+", path.read_text(encoding="utf-8")))
    of_the_function = set(re.findall(r"DRAIN_[A-Z_]+", (DEPLOY.parent / "lambda_forwarder.py").read_text()))
    assert found.pop("lambda-forwarder.yaml") <= known | of_the_function
    assert set().union(*found.values()) <= known
    assert {"task-definition.json", "balancer.conf", "with-target-id", "compose.yaml"} <= {
        name for name, variables in found.items() if variables
    }
