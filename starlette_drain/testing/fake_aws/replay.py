"""Replays a recording of a deployment: what AWS showed a task, at the times at which it was seen."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette_drain.testing.fake_aws.cluster import (
    FakeGateway,
    FakeRegistration,
    FakeRevision,
    FakeService,
    FakeTask,
    FakeTaskSet,
)
from starlette_drain.testing.fake_aws.deployments import FakeDeployment
from starlette_drain.testing.fake_aws.target_group import FakeTarget, FakeTargetGroup, Health

if TYPE_CHECKING:
    from starlette_drain.testing.fake_aws.app import FakeAWS

__all__ = ["Replay", "read_recording"]

Line = Mapping[str, Any]

FAULTS: Mapping[str, Mapping[str, Any]] = {
    "throttled": {"kind": "throttle"},
    "denied": {"kind": "deny"},
    "slow": {"kind": "hang"},
    "no-credentials": {"kind": "error", "status": 400, "code": "ExpiredToken"},
    "not-found": {"kind": "error", "status": 400, "code": "TargetGroupNotFound"},
}
"""How to make calls fail, by the recorded kind; all other kinds are errors of the service."""


def read_recording(file: str | PathLike[str]) -> list[Line]:
    """
    Return the lines of a recording, in order.

    Raises:
        ValueError: If the file is not a recording.
    """
    lines = [json.loads(each) for each in Path(file).read_text(encoding="utf-8").splitlines() if each.strip()]
    if not lines or not all(isinstance(each, dict) and each.get("drain_record") == 1 for each in lines):
        message = f"{file} is not a recording: make one with 'starlette-drain record'"
        raise ValueError(message)
    return sorted(lines, key=lambda each: float(each["at"]))


class Replay:
    """
    A recording that is replayed.

    Args:
        fake: The FakeAWS that replays it.
        lines: The lines of the recording.
    """

    def __init__(self, fake: "FakeAWS", lines: list[Line]) -> None:
        self._fake = fake
        self._lines = lines
        self._groups: dict[str, FakeTargetGroup] = {}
        self._numbers: dict[str, int] = {}
        self._deployments: dict[str, FakeDeployment] = {}
        self._began: float | None = None
        self._described = {line["revision"]: line for line in self._of("revision")}
        self._delay = next((float(line["delay"]) for line in self._of("delay")), 300.0)
        """The first delay, which all groups have at the beginning, also those whose delay was read later."""
        for line in lines:
            if line.get("group"):
                self._group(line["group"])
        for line in self._of("group"):
            group = self._group(line["group"])
            group.target_type, group.protocol = line.get("type") or "ip", line.get("protocol") or "HTTP"
        self._own: Line = next(self._of("task"), {})
        self._service = self._add_service()
        self._task = self._add_task()
        self._due = [(float(line["at"]), what) for line in lines if (what := self._happening(line))]

    @property
    def has_begun(self) -> bool:
        """Whether there was a request."""
        return self._began is not None

    def advance(self) -> None:
        """Apply what is due. The recording begins with the first call."""
        now = self._fake.clock()
        self._began = now if self._began is None else self._began
        while self._due and self._due[0][0] <= now - self._began:
            self._due.pop(0)[1]()

    def _of(self, what: str) -> Iterator[Line]:
        return (each for each in self._lines if each["what"] == what)

    def _group(self, name: str) -> FakeTargetGroup:
        if name not in self._groups:
            self._groups[name] = self._fake.add_target_group(name, delay=self._delay)
        return self._groups[name]

    def _number(self, name: str) -> int:
        """Return the number of a revision, deployment or task definition, for its pseudonym."""
        return self._numbers.setdefault(name, len(self._numbers) + 1)

    def _registrations(self, balancers: Iterable[Mapping[str, Any]]) -> list[FakeRegistration]:
        return [
            FakeRegistration(
                self._group(each["group"]),
                str(each.get("container")),
                int(each.get("port") or 0),
                self._group(each["alternate"]) if each.get("alternate") else None,
            )
            for each in balancers
            if each.get("group")
        ]

    def _add_service(self) -> FakeService | None:
        # A source that watches only the task does not ask for the service.
        line: Line = next(self._of("service"), {"service": self._own.get("service"), "balancers": []})
        if not line.get("service"):
            return None
        made = self._fake.add_service(str(line["service"]), registrations=self._registrations(line["balancers"]))
        made.desired = int(line.get("desired") or 1)
        made.controller = line.get("controller") or "ECS"
        for each in line.get("task_sets") or ():
            registrations = self._registrations(each["balancers"])
            made.task_sets.append(FakeTaskSet(f"{self._number(each['id']):019d}", registrations, str(each["status"])))
        # The newest is the last. That of the task may be so old that the service no longer shows it.
        newest, known = line.get("newest"), line.get("revisions") or []
        own = [each for each in [self._own.get("started_by")] if each in self._described]
        if known:
            made.revisions.clear()
            for name in sorted({*known, *own}, key=lambda each: (each == newest, each)):
                made.starts = self._revision(made, name)
        return made

    def _revision(self, service: FakeService, name: str) -> FakeRevision:
        """Return a revision of the service; one that was not described has the balancers of the service."""
        number = f"{self._number(name):019d}"
        for revision in service.revisions:
            if revision.number == number:
                return revision
        line = self._described.get(name, {})
        gateways = [
            FakeGateway(self._group(each["group"]), self._group(each["alternate"]) if each.get("alternate") else None)
            for each in line.get("gateways") or ()
            if each.get("group")
        ]
        made = service.add_revision(
            number,
            self._number(line.get("definition") or name),
            express=tuple(self._group(each) for each in line.get("express") or ()),
            gateways=tuple(gateways),
        )
        if line.get("balancers") is not None:
            made.registrations = tuple(self._registrations(line["balancers"]))
        return made

    def _add_task(self) -> FakeTask | None:
        metadata, instance = next(self._of("metadata"), None), next(self._of("instance"), None)
        if metadata is None:
            return None
        options: dict[str, Any] = {}
        if started_by := self._own.get("started_by"):
            options["started_by"] = f"ecs-svc/{self._number(started_by):019d}"
        if definition := self._own.get("definition"):
            options["definition"] = self._number(definition)
        containers = metadata["containers"]
        modes = [mode for each in containers for mode in each["modes"]]
        ports = [(*port, "tcp", False)[:4] if len(port) < 4 else port for each in containers for port in each["ports"]]
        return self._fake.add_task(
            self._service,
            register=False,
            network_mode=next(iter(modes), "awsvpc"),
            addresses=tuple(dict.fromkeys(at for each in containers for at in each["addresses"])),
            ipv6_addresses=tuple(dict.fromkeys(at for each in containers for at in each["ipv6_addresses"])),
            containers={each["name"]: tuple(dict.fromkeys(port[0] for port in each["ports"])) for each in containers},
            host_ports={port: host for port, host, kind, is_ipv6 in ports if host and kind != "udp" and not is_ipv6},
            udp_ports={port: host for port, host, kind, is_ipv6 in ports if host and kind == "udp" and not is_ipv6},
            ipv6_ports={port: host for port, host, kind, is_ipv6 in ports if host and kind != "udp" and is_ipv6},
            instance_id=instance["instance"] if instance else None,
            **options,
        )

    def _happening(self, line: Line) -> Callable[[], None] | None:
        match line["what"]:
            case "targets":
                return lambda: self._show(self._group(line["group"]), line)
            case "task":
                return lambda: self._move_task(line)
            case "delay":
                attributes = self._group(line["group"]).attributes
                return lambda: attributes.update({"deregistration_delay.timeout_seconds": f"{line['delay']:g}"})
            case "deployment":
                return lambda: self._deploy(line)
            case "failed":
                return lambda: self._fail(line)
        return None

    def _fail(self, line: Line) -> None:
        """Let a call fail until it did not, or failed in another way."""
        later = (each for each in self._lines if each["at"] > line["at"] and each.get("of") == line["of"])
        ends = next((float(each["at"]) for each in later if each["what"] in ("failed", "recovered")), None)
        seconds = None if ends is None or self._began is None else self._began + ends - self._fake.clock()
        self._fake.fail(**FAULTS.get(line["why"], {"kind": "error"}), action=line["of"], seconds=seconds)

    def _deploy(self, line: Line) -> None:
        if self._service is None or not line.get("target"):
            return
        name, own = line["deployment"], str(self._own.get("started_by"))
        if name not in self._deployments:
            sources = line.get("sources") or [line["target"]]
            self._deployments[name] = FakeDeployment(
                self._revision(self._service, own if own in sources else sources[0]),
                self._revision(self._service, line["target"]),
                str(self._number(name)),
                strategy=line.get("strategy") or "ROLLING",
                bake=line.get("bake"),
            )
            self._fake.deployments.append(self._deployments[name])
        shown = self._deployments[name]
        shown.stage, shown.status = line.get("stage"), line["status"]

    def _show(self, group: FakeTargetGroup, line: Line) -> None:
        for name, port, state, reason in line["changed"]:
            health = Health(str(state), reason)
            group._targets[name, port] = FakeTarget(name, port, self._fake.clock(), shown=health)
        for name, port in line["gone"]:
            group._targets.pop((name, port), None)

    def _move_task(self, line: Line) -> None:
        if self._task:
            self._task.last_status, self._task.desired_status = line["last"], line["desired"]
            self._task.stop_code = line.get("stop_code")
