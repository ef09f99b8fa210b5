"""Test support for applications that use starlette_drain, and for starlette_drain itself."""

from starlette_drain.testing.fake_aws import (
    FakeAWS,
    FakeDeployment,
    FakeEndpoint,
    FakeGateway,
    FakeHook,
    FakeRegistration,
    FakeRevision,
    FakeRollout,
    FakeService,
    FakeShift,
    FakeTargetGroup,
    FakeTask,
    FakeTaskSet,
)
from starlette_drain.testing.recording import RecordingObserver
from starlette_drain.testing.virtual_time import VirtualTimeLoop
from starlette_drain.triggers.manual import ManualTrigger

__all__ = [
    "FakeAWS",
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
    "ManualTrigger",
    "RecordingObserver",
    "VirtualTimeLoop",
]
