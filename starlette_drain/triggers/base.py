"""The contract between a drain and those who may ask for one."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.declared import members
from starlette_drain._core.events import Event
from starlette_drain._core.settings import Settings

__all__ = ["Control", "Trigger", "check_triggers"]


class Control(Protocol):
    """What a trigger may do to the drain it watches for. All of it belongs to the event loop's thread."""

    @property
    def settings(self) -> Settings:
        """The checked options of the drain."""

    def time(self) -> float:
        """Return the event loop's monotonic clock, in seconds: the clock of every cause and fact."""

    def request(self, cause: DrainCause) -> None:
        """Ask for a drain. Never raises; a second cause is recorded and can only bring the deadline forward."""

    def retract(self, trigger: str) -> bool:
        """Take back the drain that *trigger* alone has asked for; return whether there was one to take back."""

    @property
    def workers(self) -> int:
        """How many worker processes of this task drain as one; 1 where there is no supervisor."""

    def open_sessions(self) -> int:
        """Return how many sessions are open in the whole task, as far as its workers have told."""

    def advise(self, window: float) -> None:
        """Make known how many seconds a drain may take here, for a drain that is started by hand."""

    def fleet(self, draining: int, healthy: int, *, counted: bool = True) -> None:
        """Make known how many targets drain and are healthy, and whether this task's is *counted* among the former."""

    def emit(self, event: Event) -> None:
        """Tell the observers."""

    async def wait_drained(self) -> bool:
        """Wait until the drain is over; return False if it was cancelled instead."""

    async def flush(self) -> None:
        """Let the observers send what they still hold, within a few seconds."""


@runtime_checkable
class Trigger(Protocol):
    """
    Somebody who may ask for a drain.

    Split it in two: a pure verdict on what the source answered, which has the many tests, and a small loop around it.
    A trigger that is an `Observer` too hears of every fact. One with the attribute ``once_per_task = True`` watches in
    one worker of a task only.
    """

    @property
    def name(self) -> str:
        """Short, lower case, with hyphens; it names the trigger in causes, logs, metrics and ``GET /drain``."""

    async def watch(self, control: Control) -> None:
        """
        Watch the source and call ``control.request`` when a drain is due.

        Started when the application has started, cancelled when it stops. Returning means there is nothing to watch
        (say why with ``TriggerStoodDown``); an exception is logged, and neither starts nor stops a drain.
        """

    def status(self, now: float) -> Mapping[str, Any]:
        """Return what ``GET /drain`` shows of this trigger at *now*: JSON values only, nothing secret."""


def check_triggers(given: Iterable[Trigger]) -> tuple[Trigger, ...]:
    """
    Return the triggers in *given*.

    Raises:
        SettingsError: If there is something else in it.
    """
    remedy = "give a list of triggers, such as [SigtermTrigger()]; the names of AWS's sources go into sources="
    return members("triggers", given, ("name", "watch", "status"), remedy)
