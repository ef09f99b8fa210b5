# A recording is what FakeAWS needs to replay a deployment, and what a test needs to compare the drain with. So it
# contains every AWS answer that differs from the previous one, and what the process did.
#
# It is written to the application's log, and must not contain the application's names, addresses and paths. So a line
# is composed from known fields only; it is never a copy with some fields left out. Every name is replaced by a
# pseudonym, made with a random key that is not stored. AWS keywords (states, reasons, codes) and numbers are written
# as they are.
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
"""The format version: raised when a field is removed or changes its meaning, not when one is added."""

WORD = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
"""A keyword of AWS or of ours; other text is not written."""

OPTIONS = ("window", "margin", "poll_interval", "poll_share", "sources", "target_port", "deregistration_delay")
"""The options that are written: numbers, and the names of sources."""

FIGURES = ("sessions_at_start", "arrived", "shed", "left", "forced", "refused", "still_open", "outcome")
"""The fields of a report that are written, besides the times."""


class Recorder:
    """
    Writes JSON lines to the logger ``starlette_drain.record``.

    Args:
        settings: The options of the drain.
        logger: The logger to write to instead.
        key: The key for the pseudonyms; random by default.
        time: Returns the time in seconds; by default the running event loop's.
        now: Returns the date and time.
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
        """What was last written about each thing, so that only changes are written."""
        self._targets: dict[str, dict[str, list[Any]]] = {}
        """The last targets of each target group, for the same purpose."""

    def interest(self, kind: type[Event]) -> Callable[[], bool]:  # noqa: ARG002
        """Return a function that says whether single sessions are written: only while a drain runs."""
        return lambda: self._is_draining

    def notify(self, event: Event) -> None:
        """Write a line for *event*."""
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
                    self._write_session(event)
            case SignalReceived():
                self._write("signal", event.at, signal=_word(event.signal))
            case TriggerImpaired() | TriggerRestored():
                word = "impaired" if isinstance(event, TriggerImpaired) else "restored"
                self._write(word, event.at, trigger=_word(event.trigger))

    def answer(self, operation: str, parameters: Mapping[str, Any], answer: object) -> None:
        """Write an answer of AWS or of the task metadata endpoint, if it differs from the last one. Never raises."""
        try:
            self._write_answer(operation, parameters, answer)
        except Exception as error:  # noqa: BLE001 - a recording must not break the drain
            self._write("unreadable", self._time(), of=_word(operation), why=type(error).__name__)

    def failure(self, operation: str, kind: str) -> None:
        """Write that a call failed."""
        self._write("failed", self._time(), of=_word(operation), why=_word(kind))

    def pseudonym(self, name: object) -> str:
        """Return a pseudonym for *name* of the same kind: an IP address, an instance id or a word."""
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

    def _write_answer(self, operation: str, parameters: Mapping[str, Any], answer: Any) -> None:
        match operation:
            case "metadata":
                self._write_change("metadata", "", self._metadata(answer))
            case "DescribeTasks":
                for task in answer["tasks"][:1]:
                    last, desired, code = (
                        _word(task.get(each)) for each in ("lastStatus", "desiredStatus", "stopCode")
                    )
                    self._write_change("task", "", {"last": last, "desired": desired, "stop_code": code})
            case "DescribeServices":
                for service in answer["services"][:1]:
                    self._write_change("service", "", self._service(service))
            case "DescribeTargetGroups":
                for group in answer["TargetGroups"]:
                    name = self.pseudonym(group["TargetGroupArn"])
                    kind, protocol = _word(group.get("TargetType")), _word(group.get("Protocol"))
                    self._write_change("group", name, {"group": name, "type": kind, "protocol": protocol})
            case "DescribeTargetGroupAttributes":
                name = self.pseudonym(parameters["TargetGroupArn"])
                attributes = {each["Key"]: each.get("Value") for each in answer["Attributes"]}
                delay = float(attributes["deregistration_delay.timeout_seconds"])
                self._write_change("delay", name, {"group": name, "delay": delay})
            case "DescribeTargetHealth":
                self._write_targets(self.pseudonym(parameters["TargetGroupArn"]), answer["TargetHealthDescriptions"])

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

    def _write_targets(self, group: str, listed: Iterable[Mapping[str, Any]]) -> None:
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

    def _write_session(self, event: SessionOpened | SessionShed | SessionClosed) -> None:
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
        """Return the options that matter when a drain is compared with another."""
        shown = {name: getattr(self._settings, name, None) for name in OPTIONS}
        target_id = getattr(self._settings, "target_id", None)
        shown["target_id"] = self.pseudonym(target_id) if target_id else None
        return {name: value for name, value in shown.items() if value is not None}

    def _write_change(self, what: str, key: str, shown: dict[str, Any]) -> None:
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
    """Return the version of the package, if it is installed."""
    try:
        return metadata.version("starlette-drain")
    except metadata.PackageNotFoundError:
        return None


def _word(text: object) -> str | None:
    """Return *text* if it is a keyword of AWS or of ours; ``None`` for other text, which may be a name."""
    return text if isinstance(text, str) and WORD.fullmatch(text) else None
