"""
What AWS says of itself has not grown where we stand on it.

The shapes in `model.json` are those that the package reads, with all their members and words when they were last
reviewed. A member that is not among them may be another way to put a balancer before a service, or another state of a
target. When this fails, read what AWS has added, adapt what depends on it, then run this file to add it to the list:

    python tests/integration/aws/test_aws_model.py

`make clients` runs it with the newest botocore, which `make lock` pins.
"""

import json
import re
from pathlib import Path

import pytest

from starlette_drain.testing import FakeAWS, FakeGateway, FakeRegistration, FakeTaskSet
from starlette_drain.testing.fake_aws import deployments, ecs

KNOWN = Path(__file__).with_name("model.json")

SHAPES = {
    "ecs": (
        *("Service", "TaskSet", "Deployment", "ServiceDeployment", "DeploymentConfiguration", "DeploymentController"),
        *("ServiceRevision", "ServiceCurrentRevisionSummary", "ServiceRevisionSummary", "ResolvedConfiguration"),
        *("LoadBalancer", "AdvancedConfiguration", "ServiceRevisionLoadBalancer", "VpcLatticeConfiguration"),
        *("ECSManagedResources", "ManagedIngressPath", "ManagedTargetGroup", "ManagedResourceStatus"),
        *("GatewayConnection", "GatewayConnectionResources", "GatewayConnectionAlbResources", "GatewayConnector"),
        *("GatewayConnectorDeregistrationDelay", "GatewayRouteStatus", "ResourceManagementType"),
        *("Task", "Container", "NetworkBinding", "NetworkInterface", "NetworkMode", "TransportProtocol"),
        *("TaskStopCode", "LaunchType", "DesiredStatus", "DeploymentControllerType", "DeploymentStrategy"),
        *("ServiceDeploymentStatus", "ServiceDeploymentLifecycleStage", "ContainerInstance", "ProtectedTask"),
    ),
    "elbv2": (
        *("TargetHealthDescription", "TargetHealth", "TargetDescription", "TargetHealthStateEnum"),
        *("TargetHealthReasonEnum", "TargetGroup", "TargetTypeEnum", "ProtocolEnum", "TargetGroupAttribute"),
        "TargetGroupIpAddressTypeEnum",
    ),
}


def model_of(service):
    """Return botocore's model of a service."""
    loaders, model = pytest.importorskip("botocore.loaders"), pytest.importorskip("botocore.model")
    return model.ServiceModel(loaders.Loader().load_service_model(service, "service-2"))


def siblings(shape):
    """Return the members of a structure, or the words of an enumeration."""
    return sorted(shape.enum if shape.type_name == "string" else shape.members)


def keys_of(shape):
    """Return the keys that the text about a member named ``Key`` lists."""
    return sorted(set(re.findall(r"<code>([a-z0-9_]+\.[a-z0-9_.]+)</code>", shape.members["Key"].documentation)))


def read_model():
    """Return all that botocore knows of the shapes; what it does not know yet is left out."""
    found = {}
    for service, names in SHAPES.items():
        model = model_of(service)
        known = set(model.shape_names)
        for name in known.intersection(names):
            found[f"{service}.{name}"] = siblings(model.shape_for(name))
            if name == "TargetGroupAttribute":
                found[f"{service}.{name}.Key"] = keys_of(model.shape_for(name))
    return found


def check(answer, shape, path):
    """Assert that every member of *answer*, as it is on the wire, is in the model, and every word too."""
    if shape.type_name == "structure":
        for key, value in answer.items():
            assert key in shape.members, f"{path}.{key} is not in the model"
            check(value, shape.members[key], f"{path}.{key}")
    elif shape.type_name == "list":
        for each in answer:
            check(each, shape.member, f"{path}[]")
    else:
        kind = {"string": str, "integer": int, "boolean": bool, "timestamp": (int, float)}.get(shape.type_name)
        assert kind is None or isinstance(answer, kind), f"{path} is {answer!r}"
        assert not shape.metadata.get("enum") or answer in shape.metadata["enum"], f"{path} is {answer!r}"


def test_fake_aws_is_what_the_model_says():
    """Each way to put a balancer before a service, as FakeAWS records it, has the shape that ECS says it has."""
    model = model_of("ecs")
    if "GatewayConnection" not in model.shape_names:
        pytest.skip("this botocore is older than Gateway connectors; `make clients` has the newest")
    fake = FakeAWS()
    groups = [fake.add_target_group(str(number)) for number in range(4)]
    managed = fake.add_service("managed", express=groups[:1], gateways=[FakeGateway(groups[1], groups[2])])
    managed.service_connect, managed.lattice = True, ("arn:aws:vpc-lattice:r:1:targetgroup/tg-1",)
    fake.update_service(managed, registrations=[FakeRegistration(groups[3], "app", 8000, alternate=groups[2])])
    other = fake.add_service("sets", registrations=[])
    other.controller, other.task_sets = "EXTERNAL", [FakeTaskSet("7", [FakeRegistration(groups[3], "app", 8000)])]
    bridge = {"network_mode": "bridge", "instance_id": "i-0abc", "udp_ports": {8000: 2}, "ipv6_ports": {8000: 3}}
    tasks = [fake.add_task(managed, **bridge), fake.add_task(other, started_by="ecs-svc/7")]
    arns = [each.arn for each in managed.revisions]
    for operation, parameters in [
        ("DescribeServices", {"cluster": "main", "services": ["managed", "sets"]}),
        ("DescribeTasks", {"cluster": "main", "tasks": [each.arn for each in tasks]}),
        ("ListTasks", {"cluster": "main", "serviceName": "sets"}),
        ("DescribeServiceRevisions", {"serviceRevisionArns": arns}),
    ]:
        if operation == "DescribeServiceRevisions":
            answer = deployments.answer(operation, parameters, [], fake.services)
        else:
            answer = ecs.answer(operation, parameters, fake.services, fake.tasks)
        assert next(iter(answer.values()))
        check(answer, model.operation_model(operation).output_shape, operation)


def test_nothing_was_added_to_what_we_stand_on():
    """A member or word that nobody has looked at fails here, before a user meets it."""
    known = json.loads(KNOWN.read_text())
    added = {name: sorted(set(found) - set(known.get(name, ()))) for name, found in read_model().items()}
    assert {name: each for name, each in added.items() if each} == {}


def test_the_shapes_are_all_there():
    """Each name above is that of a shape; only an old botocore lacks some."""
    assert {f"{service}.{name}" for service, names in SHAPES.items() for name in names} < set(
        json.loads(KNOWN.read_text())
    )


if __name__ == "__main__":
    KNOWN.write_text(json.dumps(read_model(), indent=2, sort_keys=True) + "\n")
