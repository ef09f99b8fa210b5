"""A stand-in for AWS that shows a target's whole life, for tests, rehearsals and the rollout lab."""

from starlette_drain.testing.fake_aws.app import FakeAWS
from starlette_drain.testing.fake_aws.cluster import (
    FakeGateway,
    FakeRegistration,
    FakeRevision,
    FakeService,
    FakeTask,
    FakeTaskSet,
)
from starlette_drain.testing.fake_aws.definition import FakeDefinition
from starlette_drain.testing.fake_aws.deployments import FakeDeployment, FakeHook
from starlette_drain.testing.fake_aws.rollout import FakeRollout, FakeShift
from starlette_drain.testing.fake_aws.server import FakeEndpoint
from starlette_drain.testing.fake_aws.target_group import FakeTargetGroup

__all__ = [
    "FakeAWS",
    "FakeDefinition",
    "FakeDeployment",
    "FakeEndpoint",
    "FakeGateway",
    "FakeHook",
    "FakeRegistration",
    "FakeRevision",
    "FakeRollout",
    "FakeService",
    "FakeShift",
    "FakeTargetGroup",
    "FakeTask",
    "FakeTaskSet",
]
