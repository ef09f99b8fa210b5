"""Task definitions as ECS records them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette_drain.testing.fake_aws.faults import ApiError

__all__ = ["FakeDefinition", "describe"]


@dataclass(slots=True)
class FakeDefinition:
    """
    A task definition of the family ``app``. All containers that a service registers are alike.

    Attributes:
        revision: Its revision.
        stop_timeout: ``stopTimeout`` in seconds; ``None`` if it is not set.
        entry_point: ``entryPoint``.
        command: ``command``.
        environment: ``environment``, by name.
        secrets: The names of variables that come from secrets.
        restarts: Whether a restart policy restarts a container when it ends.
        commands: The commands of containers that differ, including further containers, by name.
    """

    revision: int = 1
    stop_timeout: int | None = None
    entry_point: tuple[str, ...] = ()
    command: tuple[str, ...] = ("uvicorn", "app:app", "--timeout-graceful-shutdown", "5")
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    restarts: bool = False
    commands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def record(self, prefix: str, containers: Iterable[str]) -> dict[str, Any]:
        """Return the definition as DescribeTaskDefinition shows it."""
        return {
            "taskDefinitionArn": f"{prefix}:task-definition/app:{self.revision}",
            "family": "app",
            "revision": self.revision,
            "status": "ACTIVE",
            "taskRoleArn": f"arn:aws:iam::{prefix.rpartition(':')[2]}:role/app",
            "networkMode": "awsvpc",
            "compatibilities": ["EC2", "FARGATE"],
            "requiresCompatibilities": ["FARGATE"],
            "cpu": "256",
            "memory": "512",
            "volumes": [],
            "placementConstraints": [],
            "containerDefinitions": [self._container(name) for name in dict.fromkeys((*containers, *self.commands))],
        }

    def _container(self, name: str) -> dict[str, Any]:
        container: dict[str, Any] = {
            "name": name,
            "image": "app:1",
            "cpu": 0,
            "essential": True,
            "portMappings": [{"containerPort": 8000, "hostPort": 8000, "protocol": "tcp"}],
            "entryPoint": list(self.entry_point),
            "command": list(self.commands.get(name, self.command)),
            "environment": [] if name in self.commands else self._variables(),
            "secrets": [{"name": each, "valueFrom": "arn:aws:secretsmanager:secret"} for each in self.secrets],
            "mountPoints": [],
            "volumesFrom": [],
        }
        if self.stop_timeout is not None:
            container["stopTimeout"] = self.stop_timeout
        if self.restarts:
            container["restartPolicy"] = {"enabled": True, "restartAttemptPeriod": 300}
        return container

    def _variables(self) -> list[dict[str, str]]:
        return [{"name": name, "value": value} for name, value in self.environment.items()]


def describe(wanted: str, records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """
    Answer DescribeTaskDefinition for an ARN, ``family:revision``, or a family, which means its latest revision.

    Raises:
        ApiError: If there is no such definition.
    """
    family, _, revision = wanted.rpartition("/")[2].partition(":")
    found = [each for each in records if each["family"] == family and revision in ("", str(each["revision"]))]
    if not found:
        raise ApiError("ClientException", "Unable to describe task definition.")
    return {"taskDefinition": max(found, key=lambda each: int(each["revision"])), "tags": []}
