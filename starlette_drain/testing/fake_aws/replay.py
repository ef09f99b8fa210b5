"""Replays a recording of a deployment: what AWS showed a task, at the times at which it was seen."""

import json
from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette_drain.testing.fake_aws.cluster import FakeRegistration, FakeTask
from starlette_drain.testing.fake_aws.target_group import FakeTarget, FakeTargetGroup, Health

if TYPE_CHECKING:
    from starlette_drain.testing.fake_aws.app import FakeAWS

__all__ = ["Replay", "read_recording"]

Line = Mapping[str, Any]


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
        self._groups: dict[str, FakeTargetGroup] = {}
        self._began: float | None = None
        for line in lines:
            if line.get("group"):
                self._group(line["group"])
        for line in _of(lines, "group"):
            group = self._group(line["group"])
            group.target_type, group.protocol = line.get("type") or "ip", line.get("protocol") or "HTTP"
        self._set_delays(next(_of(lines, "delay"), None))
        self._task = self._add_task(lines)
        self._due = [(float(line["at"]), what) for line in lines if (what := self._happening(line))]

    def advance(self) -> None:
        """Apply what is due. The recording begins with the first call."""
        now = self._fake.clock()
        self._began = now if self._began is None else self._began
        while self._due and self._due[0][0] <= now - self._began:
            self._due.pop(0)[1]()

    def _group(self, name: str) -> FakeTargetGroup:
        if name not in self._groups:
            self._groups[name] = self._fake.add_target_group(name)
        return self._groups[name]

    def _set_delays(self, line: Line | None) -> None:
        """Give all groups the first delay of the recording, also those whose delay was read later."""
        for group in self._groups.values() if line else ():
            group.attributes["deregistration_delay.timeout_seconds"] = f"{line['delay']:g}" if line else ""

    def _add_task(self, lines: list[Line]) -> FakeTask | None:
        metadata, service = next(_of(lines, "metadata"), None), next(_of(lines, "service"), None)
        if metadata is None:
            return None
        made = None
        if service:
            registrations = [
                FakeRegistration(
                    self._group(each["group"]),
                    str(each.get("container")),
                    int(each.get("port") or 0),
                    self._group(each["alternate"]) if each.get("alternate") else None,
                )
                for each in service["balancers"]
                if each.get("group")
            ]
            made = self._fake.add_service(str(service["service"]), registrations=registrations)
            made.desired = int(service.get("desired") or 1)
        containers = metadata["containers"]
        modes = [mode for each in containers for mode in each["modes"]]
        return self._fake.add_task(
            made,
            register=False,
            network_mode=next(iter(modes), "awsvpc"),
            addresses=tuple(dict.fromkeys(at for each in containers for at in each["addresses"])),
            ipv6_addresses=tuple(dict.fromkeys(at for each in containers for at in each["ipv6_addresses"])),
            containers={each["name"]: tuple(port for port, _ in each["ports"]) for each in containers},
            host_ports={port: of_host for each in containers for port, of_host in each["ports"] if of_host},
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
        return None

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


def _of(lines: list[Line], what: str) -> Iterator[Line]:
    return (each for each in lines if each["what"] == what)
