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
from starlette_drain.telemetry import aws_fields
from starlette_drain.telemetry.aws_fields import word

__all__ = ["Recorder"]

VERSION = 1
"""The format version: raised when a field is removed or changes its meaning, not when one is added."""

OPTIONS = ("window", "margin", "poll_interval", "poll_share", "sources", "target_port", "deregistration_delay")
"""The options that are written: numbers, and the names of sources."""

FIGURES = ("sessions_at_start", "arrived", "shed", "left", "forced", "refused", "still_open", "outcome")
"""The fields of a report that are written, besides the times."""

RECORDS: Mapping[str, tuple[str, str, aws_fields.Fields]] = {
    "DescribeServices": ("service", "services", aws_fields.service),
    "DescribeServiceRevisions": ("revision", "serviceRevisions", aws_fields.revision),
    "DescribeServiceDeployments": ("deployment", "serviceDeployments", aws_fields.deployment),
    "DescribeContainerInstances": ("instance", "containerInstances", aws_fields.instance),
}
"""The line, the key in the answer, and the fields of each record."""


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
        self._failing: dict[str, dict[str, str]] = {}
        """The calls whose last attempt failed: of each, its parameters, and why."""
        self._own: str | None = None
        """The ARN of this task."""

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
                    trigger=word(event.cause.trigger),
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
                self._write("signal", event.at, signal=word(event.signal))
            case TriggerImpaired() | TriggerRestored():
                what = "impaired" if isinstance(event, TriggerImpaired) else "restored"
                self._write(what, event.at, trigger=word(event.trigger))

    def answer(self, operation: str, parameters: Mapping[str, Any], answer: object) -> None:
        """Write an answer of AWS or of the task metadata endpoint, if it differs from the last one. Never raises."""
        failing = self._failing.get(operation, {})
        if failing.pop(repr(parameters), None) and not failing:
            self._write("recovered", self._time(), of=word(operation))
        try:
            self._write_answer(operation, parameters, answer)
        except Exception as error:  # noqa: BLE001 - a recording must not break the drain
            self._write("unreadable", self._time(), of=word(operation), why=type(error).__name__)

    def failure(self, operation: str, parameters: Mapping[str, Any], kind: str) -> None:
        """Write that a call fails, unless that is known."""
        failing = self._failing.setdefault(operation, {})
        if kind not in failing.values():
            self._write("failed", self._time(), of=word(operation), why=word(kind))
        failing[repr(parameters)] = kind

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
                self._own = answer.get("TaskARN")
                self._write_change("metadata", "", aws_fields.metadata(answer, self.pseudonym))
            case "DescribeTasks":  # of other tasks too
                own = [each for each in answer["tasks"] if self._own in (None, each.get("taskArn"))]
                self._write_each("task", aws_fields.task, own[:1])
            case _ if operation in RECORDS:
                what, key, fields = RECORDS[operation]
                self._write_each(what, fields, answer[key])
            case _:
                self._write_balancing(operation, parameters, answer)

    def _write_balancing(self, operation: str, parameters: Mapping[str, Any], answer: Any) -> None:
        match operation:
            case "DescribeTargetGroups":
                for group in answer["TargetGroups"]:
                    name = self.pseudonym(group["TargetGroupArn"])
                    kind, protocol = word(group.get("TargetType")), word(group.get("Protocol"))
                    self._write_change("group", name, {"group": name, "type": kind, "protocol": protocol})
            case "DescribeTargetGroupAttributes":
                name = self.pseudonym(parameters["TargetGroupArn"])
                attributes = {each["Key"]: each.get("Value") for each in answer["Attributes"]}
                delay = float(attributes["deregistration_delay.timeout_seconds"])
                self._write_change("delay", name, {"group": name, "delay": delay})
            case "DescribeTargetHealth":
                self._write_targets(self.pseudonym(parameters["TargetGroupArn"]), answer["TargetHealthDescriptions"])

    def _write_targets(self, group: str, listed: Iterable[Mapping[str, Any]]) -> None:
        now: dict[str, list[Any]] = {}
        for each in listed:
            target, health = each["Target"], each["TargetHealth"]
            name, port = self.pseudonym(target["Id"]), target.get("Port")
            now[f"{name} {port}"] = [name, port, word(health.get("State")), word(health.get("Reason"))]
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
        self._write(what, event.at, session=word(event.session.kind), how=how, code=code, seconds=seconds)

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

    def _write_each(self, what: str, fields: aws_fields.Fields, records: Iterable[Mapping[str, Any]]) -> None:
        for each in records:
            shown = fields(each, self.pseudonym)
            self._write_change(what, str(shown.get(what)), shown)

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
