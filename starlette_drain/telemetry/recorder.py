# A recording is what FakeAWS needs to play a deployment again, and what a test needs to compare the drain with. So it
# holds what AWS answered, where that differs from what it answered before, and what the process did.
#
# It is written to the log of an application whose names, addresses and paths are no business of ours. What is written
# is therefore built up from fields that are known here, and never by leaving some out: each name in it stands as a
# pseudonym, made with a key that is drawn at the start and kept nowhere. Words of AWS (states, reasons, codes) and
# numbers stand as they are.
"""Writes what a process sees of a deployment to its log, as JSON lines: ``DRAIN_RECORD=1``."""

import asyncio
import hashlib
import hmac
import ipaddress
import json
import logging
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from starlette_drain._core.events import (
    DrainCancelled,
    DrainFinished,
    DrainReplanned,
    DrainStarted,
    Event,
    SessionClosed,
    SessionOpened,
    SessionShed,
    SignalReceived,
    TriggerImpaired,
    TriggerRestored,
)
from starlette_drain._core.report import DrainReport
from starlette_drain._core.settings import Settings

__all__ = ["Recorder"]

VERSION = 1
"""Of the lines: raised when a field goes or changes its meaning, not when one is added."""

WORD = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
"""What a word of AWS or of ours looks like; anything else is not written."""

OPTIONS = ("window", "margin", "poll_interval", "poll_share", "sources", "target_port", "deregistration_delay")
"""The options that are written: numbers, and the names of sources."""

FIGURES = ("sessions_at_start", "arrived", "shed", "left", "forced", "refused", "still_open", "outcome")
"""What of a report is written, besides the times."""


class Recorder:
    """
    Writes one JSON object a line to the logger ``starlette_drain.record``.

    Args:
        settings: The options of the drain.
        logger: Where to write.
        key: For the pseudonyms; drawn anew by default.
        time: Seconds; the running event loop's by default.
        now: The date and time.
    """

    subscribes = (
        DrainStarted,
        DrainReplanned,
        DrainCancelled,
        DrainFinished,
        SessionOpened,
        SessionShed,
        SessionClosed,
        SignalReceived,
        TriggerImpaired,
        TriggerRestored,
    )

    def __init__(
        self,
        settings: Settings | None = None,
        logger: logging.Logger | None = None,
        *,
        key: bytes | None = None,
        time: Callable[[], float] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._logger = logger or logging.getLogger("starlette_drain.record")
        self._key = key or secrets.token_bytes(16)
        self._time = time or (lambda: asyncio.get_running_loop().time())
        self._now = now
        self._run = secrets.token_hex(4)
        self._began: float | None = None
        self._is_draining = False
        self._last: dict[str, Any] = {}
        """What was last written of each thing, so that only what is news is written."""
        self._targets: dict[str, dict[str, list[Any]]] = {}
        """Likewise of each target group."""

    def interest(self, kind: type[Event]) -> Callable[[], bool]:  # noqa: ARG002
        """Return what says whether single sessions are written: while a drain runs."""
        return lambda: self._is_draining

    def notify(self, event: Event) -> None:
        """Write what happened."""
        match event:
            case DrainStarted() | DrainReplanned():
                self._is_draining = True
                count = event.sessions if isinstance(event, DrainStarted) else event.remaining
                self._write(
                    "drain" if isinstance(event, DrainStarted) else "drain again",
                    event.at,
                    trigger=_word(event.cause.trigger),
                    lag=round(event.cause.lag, 3),
                    window=round(event.deadline - event.at, 3),
                    sessions=count,
                )
            case DrainFinished(report=report) | DrainCancelled(report=report):
                self._is_draining = not isinstance(event, DrainCancelled)
                self._finish("cancelled" if isinstance(event, DrainCancelled) else "drained", event.at, report)
            case SessionOpened() | SessionShed() | SessionClosed():
                if self._is_draining:
                    self._tell_of_session(event)
            case SignalReceived():
                self._write("signal", event.at, signal=_word(event.signal))
            case TriggerImpaired() | TriggerRestored():
                word = "impaired" if isinstance(event, TriggerImpaired) else "restored"
                self._write(word, event.at, trigger=_word(event.trigger))

    def answer(self, operation: str, parameters: Mapping[str, Any], answer: object) -> None:
        """Write what AWS, or the task's metadata endpoint, answered, where that is news; never raise."""
        try:
            self._take(operation, parameters, answer)
        except Exception as error:  # noqa: BLE001 - a recording must not be what breaks the drain
            self._write("unreadable", self._time(), of=_word(operation), why=type(error).__name__)

    def failure(self, operation: str, kind: str) -> None:
        """Write that a call failed."""
        self._write("failed", self._time(), of=_word(operation), why=_word(kind))

    def pseudonym(self, name: object) -> str:
        """Return what stands for *name*: an address for an address, an instance id for one, else a word."""
        text = str(name)
        code = hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()
        if text.startswith("i-"):
            return f"i-{code[:17]}"
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return f"n{code[:10]}"
        if address.version == 6:
            return f"fd00::{code[:4]}:{code[4:8]}"
        return f"10.{int(code[:2], 16)}.{int(code[2:4], 16)}.{int(code[4:6], 16)}"

    # What AWS answers

    def _take(self, operation: str, parameters: Mapping[str, Any], answer: Any) -> None:
        match operation:
            case "metadata":
                self._news("metadata", "", self._metadata(answer))
            case "DescribeTasks":
                for task in answer["tasks"][:1]:
                    last, desired, code = (
                        _word(task.get(each)) for each in ("lastStatus", "desiredStatus", "stopCode")
                    )
                    self._news("task", "", {"last": last, "desired": desired, "stop_code": code})
            case "DescribeServices":
                for service in answer["services"][:1]:
                    self._news("service", "", self._service(service))
            case "DescribeTargetGroups":
                for group in answer["TargetGroups"]:
                    name = self.pseudonym(group["TargetGroupArn"])
                    kind, protocol = _word(group.get("TargetType")), _word(group.get("Protocol"))
                    self._news("group", name, {"group": name, "type": kind, "protocol": protocol})
            case "DescribeTargetGroupAttributes":
                name = self.pseudonym(parameters["TargetGroupArn"])
                attributes = {each["Key"]: each.get("Value") for each in answer["Attributes"]}
                delay = float(attributes["deregistration_delay.timeout_seconds"])
                self._news("delay", name, {"group": name, "delay": delay})
            case "DescribeTargetHealth":
                self._take_targets(self.pseudonym(parameters["TargetGroupArn"]), answer["TargetHealthDescriptions"])

    def _metadata(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        containers = []
        for each in answer.get("Containers") or ():
            networks = each.get("Networks") or ()
            shown: dict[str, Any] = {
                "name": self.pseudonym(each.get("Name")),
                "modes": [_word(one.get("NetworkMode")) for one in networks],
                "addresses": [self.pseudonym(at) for one in networks for at in one.get("IPv4Addresses") or ()],
                "ipv6_addresses": [self.pseudonym(at) for one in networks for at in one.get("IPv6Addresses") or ()],
                "ports": [[one.get("ContainerPort"), one.get("HostPort")] for one in each.get("Ports") or ()],
            }
            containers.append(shown)
        return {
            "task": self.pseudonym(answer.get("TaskARN")),
            "cluster": self.pseudonym(answer.get("Cluster")),
            "launch_type": _word(answer.get("LaunchType")),
            "known": _word(answer.get("KnownStatus")),
            "desired": _word(answer.get("DesiredStatus")),
            "containers": containers,
        }

    def _service(self, service: Mapping[str, Any]) -> dict[str, Any]:
        balancers = []
        for each in service.get("loadBalancers") or ():
            arn, other = each.get("targetGroupArn"), each.get("advancedConfiguration") or {}
            alternate = other.get("alternateTargetGroupArn")
            balancers.append(
                {
                    "group": self.pseudonym(arn) if arn else None,
                    "alternate": self.pseudonym(alternate) if alternate else None,
                    "container": self.pseudonym(each.get("containerName")),
                    "port": each.get("containerPort"),
                }
            )
        counts = {name: service.get(f"{name}Count") for name in ("desired", "running", "pending")}
        return {"service": self.pseudonym(service.get("serviceName")), "balancers": balancers, **counts}

    def _take_targets(self, group: str, listed: Iterable[Mapping[str, Any]]) -> None:
        now: dict[str, list[Any]] = {}
        for each in listed:
            target, health = each["Target"], each["TargetHealth"]
            name, port = self.pseudonym(target["Id"]), target.get("Port")
            now[f"{name} {port}"] = [name, port, _word(health.get("State")), _word(health.get("Reason"))]
        before = self._targets.get(group)
        changed = [each for key, each in now.items() if before is None or before.get(key) != each]
        gone = [each[:2] for key, each in (before or {}).items() if key not in now]
        self._targets[group] = now
        if before is None or changed or gone:
            self._write("targets", self._time(), group=group, changed=changed, gone=gone)

    # What the process does

    def _tell_of_session(self, event: SessionOpened | SessionShed | SessionClosed) -> None:
        how = event.outcome.value if isinstance(event, SessionClosed) else None
        what = {SessionOpened: "opened", SessionShed: "asked", SessionClosed: "closed"}[type(event)]
        seconds = round(event.at - event.session.opened_at, 3) if how else None
        code = event.code if isinstance(event, SessionClosed) else None
        self._write(what, event.at, session=_word(event.session.kind), how=how, code=code, seconds=seconds)

    def _finish(self, what: str, at: float, report: DrainReport) -> None:
        figures = {name: getattr(report, name) for name in FIGURES}
        self._write(what, at, duration=round(report.duration, 3), slack=round(report.slack, 3), **figures)

    # Lines

    def _options(self) -> dict[str, Any]:
        """Return the options that a drain is compared by."""
        shown = {name: getattr(self._settings, name, None) for name in OPTIONS}
        target_id = getattr(self._settings, "target_id", None)
        shown["target_id"] = self.pseudonym(target_id) if target_id else None
        return {name: value for name, value in shown.items() if value is not None}

    def _news(self, what: str, key: str, shown: dict[str, Any]) -> None:
        if self._last.get(f"{what} {key}") != shown:
            self._last[f"{what} {key}"] = shown
            self._write(what, self._time(), **shown)

    def _write(self, what: str, at: float, **fields: Any) -> None:
        if self._began is None:
            self._began = at
            time = self._now().isoformat(timespec="milliseconds")
            self._write("start", at, time=time, version=_version(), options=self._options())
        line = {"drain_record": VERSION, "run": self._run, "at": round(at - self._began, 3), "what": what}
        line |= {name: value for name, value in fields.items() if value is not None}
        self._logger.info("%s", json.dumps(line, separators=(",", ":")))


def _version() -> str | None:
    """Return the version of the package, where it is installed."""
    try:
        return metadata.version("starlette-drain")
    except metadata.PackageNotFoundError:
        return None


def _word(text: object) -> str | None:
    """Return a word of AWS or of ours; ``None`` where it is not one, and may be somebody's name."""
    return text if isinstance(text, str) and WORD.fullmatch(text) else None
