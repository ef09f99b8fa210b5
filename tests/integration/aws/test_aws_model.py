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
