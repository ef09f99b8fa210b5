"""Reports failures of AWS: one warning, and one line when it works again."""

from starlette_drain._core.events import TriggerImpaired, TriggerRestored
from starlette_drain.aws.api.errors import Trouble, TroubleKind
from starlette_drain.triggers.base import Control

__all__ = ["Impairment"]

TRANSIENT = frozenset({TroubleKind.THROTTLED, TroubleKind.UNREACHABLE, TroubleKind.SLOW, TroubleKind.OTHER})
"""Failures that may be over at the next attempt, and then are not worth a warning."""


class Impairment:
    """
    Whether a trigger can work. Reported once each way, however many of its sources fail.

    Args:
        trigger: The name of the trigger.
        control: The control of the drain, which emits the events.
        patience: How many times in a row a source must fail, if the failure may pass, before that is reported.
    """

    def __init__(self, trigger: str, control: Control, *, patience: int = 2) -> None:
        self._trigger = trigger
        self._control = control
        self._patience = patience
        self._failures: dict[str, int] = {}
        self._since: float | None = None
        self._told: set[str] = set()
        """The remedies reported since then: a failure that needs another remedy is reported too."""

    def failed(self, source: str, trouble: Trouble) -> None:
        """Record that *source* failed."""
        self.on_error(source, trouble.problem, trouble.remedy, passing=trouble.kind in TRANSIENT)

    def on_error(self, source: str, problem: str, remedy: str, *, passing: bool = False) -> None:
        """Record that *source* failed, with a problem and a remedy that are not those of a `Trouble`."""
        self._failures[source] = count = self._failures.get(source, 0) + 1
        if (passing and count < self._patience) or remedy in self._told:
            return
        now = self._control.time()
        self._since = now if self._since is None else self._since
        self._told.add(remedy)
        self._control.emit(TriggerImpaired(now, self._trigger, problem, remedy))

    def worked(self, source: str) -> None:
        """Record that *source* answered."""
        self._failures.pop(source, None)
        if self._since is not None and not self._failures:
            now = self._control.time()
            self._control.emit(TriggerRestored(now, self._trigger, now - self._since))
            self._since = None
            self._told.clear()
