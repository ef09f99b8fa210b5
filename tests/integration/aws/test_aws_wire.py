"""FakeAWS over a socket, read by the real client, against botocore's models and against moto."""

import logging
from datetime import datetime

import aioboto3
import botocore.loaders
import botocore.model
import pytest

from starlette_drain.aws.api.as_sent import AS_SENT
from starlette_drain.testing import FakeRegistration

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

TYPES = {"string": str, "integer": int, "boolean": bool, "list": list, "structure": dict, "timestamp": datetime}


def check(answer, shape, path=""):
    """Assert that every member of *answer* is in the model, with the type and among the words that it names."""
    if shape.type_name == "structure":
        for key, value in answer.items():
            assert key in shape.members, f"{path}.{key} is not in the model"
            check(value, shape.members[key], f"{path}.{key}")
    elif shape.type_name == "list":
        for each in answer:
            check(each, shape.member, f"{path}[]")
    else:
        kind = TYPES.get(shape.type_name)
        assert kind is None or isinstance(answer, kind), f"{path} is {answer!r}"
        assert not shape.metadata.get("enum") or answer in shape.metadata["enum"], f"{path} is {answer!r}"


def model_of(service):
    """Return botocore's model of a service."""
    return botocore.model.ServiceModel(botocore.loaders.Loader().load_service_model(service, "service-2"))


def parsed(answer):
    """Return an answer without what botocore and our client add."""
    return {key: value for key, value in answer.items() if key not in ("ResponseMetadata", AS_SENT)}


async def test_answers_are_what_the_models_say(fake, endpoint, clients):
    """The real client parses every answer of FakeAWS into what botocore's model names, every type and every word."""
    blue, green = (fake.add_target_group(name, target_type="instance") for name in ("blue", "green"))
    service = fake.add_service(registrations=[FakeRegistration(blue, "app", 8000, alternate=green)])
    task = fake.add_task(service, network_mode="bridge", instance_id="i-0abc", host_ports={8000: 40000})
    fake.add_service("other", protocol="TCP", delay=60)
    group = {"TargetGroupArn": blue.arn}
    targets = group | {"Targets": [{"Id": "i-0def", "Port": 40001}]}
    calls = [
        ("elbv2", "RegisterTargets", "register_targets", targets),
        ("elbv2", "DescribeTargetHealth", "describe_target_health", group),
        ("elbv2", "DeregisterTargets", "deregister_targets", targets),
        ("elbv2", "DescribeTargetHealth", "describe_target_health", targets),
        ("elbv2", "DescribeTargetGroups", "describe_target_groups", {}),
        ("elbv2", "DescribeTargetGroupAttributes", "describe_target_group_attributes", group),
        ("ecs", "DescribeTasks", "describe_tasks", {"cluster": "main", "tasks": [task.arn, "unknown"]}),
        ("ecs", "DescribeServices", "describe_services", {"cluster": task.cluster_arn, "services": ["web", "none"]}),
        ("ecs", "DescribeTaskDefinition", "describe_task_definition", {"taskDefinition": "app:1"}),
        (
            "ecs",
            "DescribeContainerInstances",
            "describe_container_instances",
            {"cluster": "main", "containerInstances": [task.instance_arn]},
        ),
    ]
    async with clients.client("elbv2") as elbv2, clients.client("ecs") as ecs:
        for name, operation, method, parameters in calls:
            answer = parsed(await getattr({"elbv2": elbv2, "ecs": ecs}[name], method)(**parameters))
            shape = model_of(name).operation_model(operation).output_shape
            check(answer, shape, operation)
            assert set(answer) == set(shape.members) - {"NextMarker"} or not answer


async def test_the_life_of_a_target(fake, endpoint, clients):
    """A target is initial, healthy, draining for the whole delay, and then no longer listed."""
    now = 0.0
    fake.clock = lambda: now
    group = fake.add_target_group("web", delay=60, initial=10)
    target = {"TargetGroupArn": group.arn, "Targets": [{"Id": "10.0.0.5", "Port": 8000}]}

    async with clients.client("elbv2") as elbv2:

        async def health(**named):
            answer = await elbv2.describe_target_health(**{"TargetGroupArn": group.arn} | named)
            return [
                (each["TargetHealth"]["State"], each["TargetHealth"].get("Reason"))
                for each in answer["TargetHealthDescriptions"]
            ]

        assert await health() == []
        await elbv2.register_targets(**target)
        assert await health() == [("initial", "Elb.RegistrationInProgress")]
        now = 6.0
        assert await health() == [("initial", "Elb.InitialHealthChecking")]
        now = 10.0
        assert await health() == [("healthy", None)]
        await elbv2.deregister_targets(**target)
        now = 69.9
        assert await health() == [("draining", "Target.DeregistrationInProgress")]
        now = 70.0
        assert await health() == []
        assert await health(Targets=target["Targets"]) == [("unused", "Target.NotRegistered")]


@pytest.fixture(scope="module")
def moto_url():
    """Serve moto on a free port."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def shape_of(answer):
    """Return the keys and types of an answer, without its values."""
    if isinstance(answer, dict):
        return {key: shape_of(value) for key, value in answer.items()}
    if isinstance(answer, list):
        return [shape_of(answer[0])] if answer else []
    return type(answer).__name__


def common(one, other):
    """Return both shapes, reduced to the keys that both have, at every depth."""
    if isinstance(one, dict) and isinstance(other, dict):
        pairs = {key: common(one[key], other[key]) for key in one.keys() & other.keys()}
        return {key: each[0] for key, each in pairs.items()}, {key: each[1] for key, each in pairs.items()}
    if isinstance(one, list) and isinstance(other, list):
        if not one or not other:
            return [], []
        first, second = common(one[0], other[0])
        return [first], [second]
    return one, other


@pytest.mark.xdist_group("moto")
async def test_moto_agrees(fake, endpoint, clients, moto_url, monkeypatch):
    """The same calls against moto give the same keys and types, where moto implements them."""
    session_of_moto = aioboto3.Session()  # patient: moto imports much for its first answer
    fake_group = fake.add_service(delay=120).registrations[0].group
    target = {"Id": "10.0.0.5", "Port": 8000}

    async def ask(elbv2, arn):
        named = {"TargetGroupArn": arn, "Targets": [target]}
        answers = {"register": await elbv2.register_targets(**named)}
        answers["health"] = await elbv2.describe_target_health(TargetGroupArn=arn)
        answers["groups"] = await elbv2.describe_target_groups(TargetGroupArns=[arn])
        answers["attributes"] = await elbv2.describe_target_group_attributes(TargetGroupArn=arn)
        answers["deregister"] = await elbv2.deregister_targets(**named)
        with pytest.raises(Exception, match="TargetGroupNotFound") as unknown:
            await elbv2.describe_target_health(TargetGroupArn=arn + "0")
        answers["unknown"] = {"code": unknown.value.response["Error"]["Code"], "type": type(unknown.value).__name__}
        return {key: parsed(each) for key, each in answers.items()}

    async with clients.client("elbv2") as elbv2:
        ours = await ask(elbv2, fake_group.arn)

    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    async with session_of_moto.client("ec2") as ec2, session_of_moto.client("elbv2") as elbv2:
        vpc = (await ec2.create_vpc(CidrBlock="10.0.0.0/16"))["Vpc"]["VpcId"]
        made = await elbv2.create_target_group(Name="web", Protocol="HTTP", Port=8000, VpcId=vpc, TargetType="ip")
        theirs = await ask(elbv2, made["TargetGroups"][0]["TargetGroupArn"])

    assert ours["unknown"] == theirs["unknown"]
    one, other = common(shape_of(ours), shape_of(theirs))
    assert one == other
    record = shape_of(theirs["groups"]["TargetGroups"][0])
    assert set(record) <= set(ours["groups"]["TargetGroups"][0])
    health = shape_of(theirs["health"]["TargetHealthDescriptions"][0])
    assert set(health) <= set(ours["health"]["TargetHealthDescriptions"][0])
    keys = {each["Key"] for each in theirs["attributes"]["Attributes"]}
    assert "deregistration_delay.timeout_seconds" in keys & {each["Key"] for each in ours["attributes"]["Attributes"]}
