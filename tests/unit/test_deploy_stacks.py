"""The stack in CloudFormation and in Terraform: each against its tool, both against each other and against the code."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import hcl2
import pytest
import yaml

from starlette_drain import Settings
from starlette_drain._engine.flush import FLUSH_TIMEOUT

DEPLOY = Path(__file__).parents[2] / "example_app" / "deploy"
STACK = DEPLOY / "cloudformation" / "stack.yaml"
TERRAFORM = DEPLOY / "terraform"

UVICORN = 5.0
"""Seconds of ``--timeout-graceful-shutdown`` in the image."""

PATIENCE = 1.0
"""Seconds that a drain waits for the last session beyond what it may take."""

IN_CLOUDFORMATION = {
    "AWS::Partition": "partition",
    "AWS::Region": "region",
    "AWS::AccountId": "account",
    "AWS::URLSuffix": "suffix",
    "Name": "name",
    "Repository": "repository",
    "Tag": "tag",
    "TokenSecretArn": "token",
    "AlarmTopicArn": "topic",
    "Logs.Arn": "logs",
    "Cluster.Arn": "cluster",
}
IN_TERRAFORM = {
    "local.ecs": "arn:${data.aws_partition.this.partition}:ecs:${local.place}",
    "local.place": "${data.aws_region.this.region}:${data.aws_caller_identity.this.account_id}",
    "data.aws_partition.this.partition": "<partition>",
    "data.aws_partition.this.dns_suffix": "<suffix>",
    "data.aws_region.this.region": "<region>",
    "data.aws_caller_identity.this.account_id": "<account>",
    "var.name": "<name>",
    "var.repository": "<repository>",
    "var.tag": "<tag>",
    "var.token_secret_arn": "<token>",
    "var.alarm_topic_arn": "<topic>",
    "${aws_cloudwatch_log_group.this.arn}:*": "<logs>",
    "aws_ecs_cluster.this.arn": "<cluster>",
}
"""What both call by names of their own, and the test by one."""


class Template(yaml.SafeLoader):
    """Reads CloudFormation's short forms: ``!Ref x`` becomes ``{"Ref": "x"}``."""


def function(loader, name, node):
    """Return a function of CloudFormation as a mapping with its argument."""
    if isinstance(node, yaml.ScalarNode):
        return {name: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    return {name: loader.construct_mapping(node, deep=True)}


Template.add_multi_constructor("!", function)


def templates():
    """Return all CloudFormation templates."""
    found = [
        each
        for each in DEPLOY.rglob("*")
        if each.suffix in {".yaml", ".json"} and "AWSTemplateFormatVersion" in each.read_text()
    ]
    assert STACK in found
    return sorted(found)


@pytest.fixture(scope="module")
def cloudformation():
    """The stack in CloudFormation: type and properties of each resource, by its name, and the parameters."""
    template = yaml.load(STACK.read_text(), Template)
    named = {name: each.get("Properties", {}) for name, each in template["Resources"].items()}
    return named | {"parameters": template["Parameters"]}


@pytest.fixture(scope="module")
def terraform():
    """The stack in Terraform: the resources, by type and name, and the variables."""
    found = {"variables": {}}
    for path in sorted(TERRAFORM.glob("*.tf")):
        read = parsed(path.read_text())
        for each in read.get("resource", []):
            ((kind, named),) = each.items()
            for name, body in named.items():
                found[f"{kind}.{name}"] = body
        for each in read.get("variable", []):
            found["variables"] |= each
    return found


def parsed(text):
    """Return HCL as data."""
    options = hcl2.SerializationOptions(with_comments=False, strip_string_quotes=True, explicit_blocks=False)
    return hcl2.loads(text, serialization_options=options)


def encoded(expression):
    """Return what Terraform encodes as JSON."""
    inner = re.fullmatch(r"\$\{jsonencode\((.*)\)\}", expression, re.DOTALL)[1]
    return parsed(f"x = {inner}\n")["x"]


def of_cloudformation(value):
    """Return a value of CloudFormation with the names of the test."""
    match value:
        case {"Ref": name} | {"GetAtt": name}:
            return f"<{IN_CLOUDFORMATION.get(name, name)}>"
        case {"Sub": text}:
            return re.sub(r"\$\{([^}]+)\}", lambda found: f"<{IN_CLOUDFORMATION[found[1]]}>", text)
    return value


def of_terraform(value):
    """Return a value of Terraform with the names of the test."""
    if not isinstance(value, str):
        return value
    for name, meant in IN_TERRAFORM.items():
        value = value.replace(name if name.startswith("${") else f"${{{name}}}", meant)
    return value


def allowed(policy, translated):
    """Return what a policy allows: the actions and resources by the name of the statement."""
    found = {}
    for each in policy["Statement"]:
        assert each["Effect"] == "Allow"
        actions, resources = (
            [value] if isinstance(value, str | Mapping) else value for value in (each["Action"], each["Resource"])
        )
        found[each["Sid"]] = sorted(actions), sorted(map(translated, resources))
    return found


def attributes(listed):
    """Return attributes of Elastic Load Balancing by their keys."""
    return {each["Key"]: each["Value"] for each in listed}


def figures_of_cloudformation(stack):
    """Return the figures that matter."""
    group, service = stack["TargetGroup"], stack["Service"]
    container, collector = stack["TaskDefinition"]["ContainerDefinitions"]
    of_group, of_balancer = (
        attributes(group["TargetGroupAttributes"]),
        attributes(stack["Balancer"]["LoadBalancerAttributes"]),
    )
    deployment = service["DeploymentConfiguration"]
    assert of_group["deregistration_delay.timeout_seconds"] == {"Ref": "DeregistrationDelay"}
    return {
        "delay": stack["parameters"]["DeregistrationDelay"]["Default"],
        "algorithm": of_group["load_balancing.algorithm.type"],
        "health check": [
            group[f"{name}"]
            for name in (
                *("HealthCheckPath", "HealthCheckIntervalSeconds", "HealthCheckTimeoutSeconds"),
                *("HealthyThresholdCount", "UnhealthyThresholdCount"),
            )
        ],
        "target": (group["TargetType"], group["Protocol"], group["Port"]),
        "idle timeout": int(of_balancer["idle_timeout.timeout_seconds"]),
        "TLS": stack["Listener"]["SslPolicy"],
        "image": of_cloudformation(container["Image"]),
        "stopTimeout": container["StopTimeout"],
        "init": container["LinuxParameters"]["InitProcessEnabled"],
        "secrets": {each["Name"]: of_cloudformation(each["ValueFrom"]) for each in container["Secrets"]},
        "command": container["Command"],
        "starts after": [(each["ContainerName"], each["Condition"]) for each in container["DependsOn"]],
        "environment": {each["Name"]: of_cloudformation(each["Value"]) for each in container["Environment"]},
        "collector": {
            **{each["Name"]: of_cloudformation(each["Value"]) for each in collector["Environment"]},
            "AOT_CONFIG_CONTENT": yaml.safe_load(collector["Environment"][-1]["Value"]),
            "container": [collector[name] for name in ("Name", "Image", "Essential", "Cpu", "Memory")],
        },
        "size": (int(stack["TaskDefinition"]["Cpu"]), int(stack["TaskDefinition"]["Memory"]), container["Cpu"]),
        "Exec": service["EnableExecuteCommand"],
        "tasks": stack["parameters"]["Tasks"]["Default"],
        "grace": service["HealthCheckGracePeriodSeconds"],
        "percent": (deployment["MinimumHealthyPercent"], deployment["MaximumPercent"]),
        "rollback": deployment["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True},
        "retention": stack["Logs"]["RetentionInDays"],
        "task role": allowed(stack["TaskPolicy"]["PolicyDocument"], of_cloudformation),
        "execution role": allowed(stack["ExecutionPolicy"]["PolicyDocument"], of_cloudformation),
        "forwarder": set(stack["Forwarder"]["Parameters"]),
        "dashboard": {name: of_cloudformation(value) for name, value in stack["Dashboard"]["Parameters"].items()},
        "alarms": {name: of_cloudformation(value) for name, value in stack["Alarms"]["Parameters"].items()},
    }


def figures_of_terraform(stack):
    """Return the same from Terraform."""
    group, service = stack["aws_lb_target_group.this"], stack["aws_ecs_service.this"]
    definition = stack["aws_ecs_task_definition.this"]
    container, collector = encoded(definition["container_definitions"])
    (check,) = group["health_check"]
    (breaker,) = service["deployment_circuit_breaker"]
    assert group["deregistration_delay"] == "${var.deregistration_delay}"
    assert container["image"] == "${local.image}"
    image = re.search(r'^  image = "(.*)"$', (TERRAFORM / "main.tf").read_text(), re.MULTILINE)[1]
    return {
        "delay": stack["variables"]["deregistration_delay"]["default"],
        "algorithm": group["load_balancing_algorithm_type"],
        "health check": [
            check[name] for name in ("path", "interval", "timeout", "healthy_threshold", "unhealthy_threshold")
        ],
        "target": (group["target_type"], group["protocol"], group["port"]),
        "idle timeout": stack["aws_lb.this"]["idle_timeout"],
        "TLS": stack["aws_lb_listener.https"]["ssl_policy"],
        "image": of_terraform(image),
        "stopTimeout": container["stopTimeout"],
        "init": container["linuxParameters"]["initProcessEnabled"],
        "secrets": {each["name"]: of_terraform(each["valueFrom"]) for each in container["secrets"]},
        "command": container["command"],
        "starts after": [(each["containerName"], each["condition"]) for each in container["dependsOn"]],
        "environment": {each["name"]: of_terraform(each["value"]) for each in container["environment"]},
        "collector": {
            **{each["name"]: of_terraform(each["value"]) for each in collector["environment"]},
            "AOT_CONFIG_CONTENT": yaml.safe_load((TERRAFORM / "collector.yaml").read_text()),
            "container": [collector[name] for name in ("name", "image", "essential", "cpu", "memory")],
        },
        "size": (definition["cpu"], definition["memory"], container["cpu"]),
        "Exec": service["enable_execute_command"],
        "tasks": stack["variables"]["tasks"]["default"],
        "grace": service["health_check_grace_period_seconds"],
        "percent": (service["deployment_minimum_healthy_percent"], service["deployment_maximum_percent"]),
        "rollback": breaker == {"enable": True, "rollback": True},
        "retention": stack["aws_cloudwatch_log_group.this"]["retention_in_days"],
        "task role": allowed(encoded(stack["aws_iam_role_policy.task"]["policy"]), of_terraform),
        "execution role": allowed(encoded(stack["aws_iam_role_policy.execution"]["policy"]), of_terraform),
        "forwarder": set(stack["aws_cloudformation_stack.forwarder"]["parameters"]),
        "dashboard": {
            name: of_terraform(value)
            for name, value in stack["aws_cloudformation_stack.dashboard"]["parameters"].items()
        },
        "alarms": {
            name: of_terraform(value) for name, value in stack["aws_cloudformation_stack.alarms"]["parameters"].items()
        },
    }


@pytest.mark.slow
def test_cfn_lint_has_nothing_to_say():
    """Every CloudFormation template passes cfn-lint without a warning."""
    command = [sys.executable, "-W", "ignore", "-c", "from cfnlint.runner import main; main()", *map(str, templates())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_both_stacks_are_the_same(cloudformation, terraform):
    """Whatever decides how a task leaves, and what its roles allow, does not depend on the tool."""
    assert figures_of_cloudformation(cloudformation) == figures_of_terraform(terraform)


def test_the_roles_allow_what_the_policy_does(cloudformation):
    """The task role is the documented policy less what bridge mode needs, and what Exec and the collector need."""
    wanted = allowed(json.loads((DEPLOY / "iam-policy.json").read_text()), str)
    del wanted["WhichPortOfTheInstanceIsMine"]
    found = {sid: actions for sid, (actions, _) in figures_of_cloudformation(cloudformation)["task role"].items()}
    assert all(each.startswith("ssmmessages:") for each in found.pop("Exec"))
    assert found.pop("Metrics") == ["cloudwatch:PutMetricData"]
    assert found == {sid: actions for sid, (actions, _) in wanted.items()}


def test_the_execution_role_is_bound(cloudformation):
    """Only what takes no resource is allowed on all."""
    for sid, (actions, resources) in figures_of_cloudformation(cloudformation)["execution role"].items():
        assert "*" not in resources or (sid, actions) == ("Login", ["ecr:GetAuthorizationToken"])


def test_the_stop_timeout_holds_what_follows_sigterm(cloudformation):
    """The window, the last session's tail, the telemetry and uvicorn's own limit end before SIGKILL."""
    settings = Settings.load({}, {})
    at_worst = settings.sigterm_window + settings.tail + PATIENCE + FLUSH_TIMEOUT + UVICORN
    assert at_worst < figures_of_cloudformation(cloudformation)["stopTimeout"] <= 120


def test_the_image_can_run_its_command(cloudformation):
    """It is the image's own command, behind what exports the metrics, which the image installs."""
    image = (DEPLOY / "Dockerfile").read_text()
    own = json.loads(re.search(r"^CMD (.+)$", image, re.MULTILINE)[1])
    first, *command = figures_of_cloudformation(cloudformation)["command"]
    assert first == "opentelemetry-instrument"
    assert " ".join(command).replace("=", " ") == " ".join(own)
    assert {"opentelemetry-distro", "opentelemetry-exporter-otlp-proto-http"} <= set(image.split())


def test_what_is_measured_gets_to_the_dashboard(cloudformation):
    """The application sends to its collector, that to CloudWatch, and the dashboard shows this service."""
    figures = figures_of_cloudformation(cloudformation)
    environment, collector = figures["environment"], figures["collector"]
    config = collector["AOT_CONFIG_CONTENT"]
    assert (
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"]
        == f"http://{config['receivers']['otlp']['protocols']['http']['endpoint']}"
    )
    (pipeline,) = config["service"]["pipelines"].values()
    for part, names in pipeline.items():
        assert set(names) == set(config[part])
    assert config["service"]["extensions"] == list(config["extensions"])
    (exporter,) = config["exporters"].values()
    assert exporter["auth"]["authenticator"] in config["extensions"]
    used = set(re.findall(r"\$\{env:(\w+)\}", json.dumps(config))) | {"AOT_CONFIG_CONTENT", "container"}
    assert used == set(collector)
    assert collector["METRICS"] == "https://monitoring.<region>.<suffix>/v1/metrics"
    assert figures["dashboard"] == {"Service": environment["OTEL_SERVICE_NAME"]}
    assert float(environment["OTEL_EXPORTER_OTLP_TIMEOUT"]) < FLUSH_TIMEOUT


def test_a_deployment_can_begin(cloudformation):
    """ECS rounds the maximum down; where that is no more than the tasks that serve, no new one may start."""
    figures = figures_of_cloudformation(cloudformation)
    least, (minimum, maximum) = cloudformation["parameters"]["Tasks"]["MinValue"], figures["percent"]
    assert minimum == 100
    assert least * maximum // 100 > least
    assert f"var.tasks >= {least}" in (TERRAFORM / "variables.tf").read_text()


@pytest.mark.parametrize("name", ["Forwarder", "Dashboard", "Alarms"])
def test_the_nested_stacks_take_what_they_are_given(cloudformation, name):
    """Each parameter of a nested stack exists, and each that has no default is given."""
    nested = cloudformation[name]
    template = yaml.load((STACK.parent / nested["TemplateURL"]).read_text(), Template)
    required = {name for name, each in template["Parameters"].items() if "Default" not in each}
    assert required <= set(nested["Parameters"]) <= set(template["Parameters"])


@pytest.mark.skipif(shutil.which("terraform") is None, reason="there is no Terraform")
def test_terraform_formats_it_the_same():
    """``terraform fmt`` has nothing to change, and so the syntax is sound."""
    command = ["terraform", "fmt", "-check", "-diff", "-no-color", str(TERRAFORM)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
