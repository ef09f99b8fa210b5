"""The base of all triggers that use AWS: the session, retried look-ups, watch reports, and standing down."""

import logging
from typing import Any, TypeVar

from starlette_drain._core.declared import environment_name
from starlette_drain._core.events import TriggerStoodDown, WatchReported
from starlette_drain.aws.api.errors import Incomplete
from starlette_drain.aws.api.once import Once
from starlette_drain.aws.identity.metadata import METADATA_VARIABLE
from starlette_drain.aws.options import AwsSettings
from starlette_drain.aws.session import AWSSession
from starlette_drain.aws.sources.impairment import Impairment
from starlette_drain.aws.sources.polls import Polls
from starlette_drain.triggers.base import Control

__all__ = ["AwsSource"]

logger = logging.getLogger("starlette_drain")

Found = TypeVar("Found")

PATIENCE = 20.0
"""Seconds for which look-ups must fail until the source counts as blind: about as long as without answers to polls."""


class AwsSource:
    """
    A trigger that asks AWS about its own task.

    Args:
        session: The session of this process; by default a new one. Share one session among all sources and actions of a
            drain, so that they share look-ups and clients.
        **own: The arguments of a new `AWSSession`.
    """

    name = "aws"
    once_per_task = True
    """It runs in only one worker of a task: calls are budgeted, and changes in AWS concern the whole task."""

    def __init__(self, session: AWSSession | None = None, **own: Any) -> None:
        self._session = session or AWSSession(**own)
        self._state = "not started"
        self._search_error: str | None = None
        self._failing_since: float | None = None
        """When the current look-up failed first."""
        self._sight: tuple[str, str, str] | None = None
        """The last report: the watch state, what is watched, and why it is not seen."""

    async def _until_found(
        self, question: Once[Found], impairment: Impairment, control: Control | None = None
    ) -> Found:
        """
        Retry *question* until it is answered, with one warning, and one log line when it works again.

        Args:
            question: What is looked up.
            impairment: Reports the failures.
            control: Gets the watch state while the look-up fails; ``None`` if this only acts and watches nothing.
        """
        self._search_error = self._failing_since = None
        while True:
            try:
                found = await question.get()
            except Incomplete as missing:
                self._search_error = missing.problem
                impairment.on_error("discovery", missing.problem, missing.remedy)
            except Exception as error:
                self._search_error = problem = f"discovery failed ({type(error).__name__})"
                logger.debug("Discovery failed unexpectedly", exc_info=True)
                impairment.on_error("discovery", problem, "please report it; it will be retried")
            else:
                self._search_error = self._failing_since = None
                impairment.worked("discovery")
                return found
            if control is not None:
                now = control.time()
                self._failing_since = now if self._failing_since is None else self._failing_since
                self._report_sight(control, self._watch_of(None, now), "")

    def _watch_of(self, polls: Polls | None, now: float) -> dict[str, Any]:
        """Return the watch state of the source, and why it is not watching."""
        since = polls.blind_since(now) if polls else None
        if polls is None or (since is None and polls.answered is None):
            failing = self._failing_since
            if failing is not None and now - failing > PATIENCE:
                return {"watch": "blind", "blind_for": round(now - failing, 3), "because": self._search_error}
            return {"watch": "not yet", "blind_for": None, "because": self._search_error or self._state}
        if since is None:
            return {"watch": "watching", "blind_for": None, "because": None}
        because = polls.last_error or "no answer has come"
        return {"watch": "blind", "blind_for": round(now - since, 3), "because": because}

    def _report_sight(self, control: Control, watch: dict[str, Any], what: str) -> None:
        """Emit the watch state if it, or what is watched, has changed."""
        sight = watch["watch"], what, watch["because"] or ""
        if self._sight is None or sight[:2] != self._sight[:2]:
            control.emit(WatchReported(control.time(), self.name, *sight))
        self._sight = sight

    def _stand_down(self, control: Control, why: str, *, is_alarm: bool = False) -> None:
        self._state = "stood down"
        control.emit(TriggerStoodDown(control.time(), self.name, why, is_alarm))

    def _stand_down_off_ecs(self, control: Control, *, works_with_group: bool = False) -> bool:
        """
        Stand down if this is not an ECS task; return whether it did.

        Args:
            control: The control of the drain.
            works_with_group: Whether it works anywhere if the target group is given.
        """
        settings = AwsSettings.of(control.settings)
        if self._session.is_on_ecs or (works_with_group and settings.target_group_arn):
            return False
        why = f"this is not an ECS task: {METADATA_VARIABLE} is not set"
        half = [name for name in ("target_id", "target_port") if works_with_group and getattr(settings, name)]
        if half:
            why += f"; with {' and '.join(map(environment_name, half))} set DRAIN_TARGET_GROUP_ARN too"
        self._stand_down(control, why, is_alarm=bool(half))
        return True
