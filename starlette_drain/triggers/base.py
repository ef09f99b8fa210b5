"""The contract between a drain and its triggers."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.declared import members
from starlette_drain._core.events import Event
from starlette_drain._core.settings import Settings
from starlette_drain._core.turnover import Rotation

__all__ = ["Control", "Trigger", "check_triggers"]


class Control(Protocol):
    """What a trigger can do. Call it on the event loop's thread."""

    @property
    def settings(self) -> Settings:
        """The validated options of the drain."""

    def time(self) -> float:
        """Return the time of the event loop's monotonic clock, in seconds. All causes and events use it."""

    def claim(self, cause: DrainCause) -> None:
        """
        Claim that a drain is wanted. Never raises.

        The claim replaces the previous one of ``cause.trigger``. Call this at every poll while the drain is wanted. The
        drain has the earliest deadline of all claims.
        """

    def withdraw(self, trigger: str) -> bool:
        """
        Drop the claim of *trigger*; return whether that changed anything. Never raises.

        If no other claim stands, the drain ends, even one that is over: the process serves again. A trigger that does
        not know calls neither `claim` nor this: its last claim stands. A claim that is not revocable stays.
        """

    @property
    def workers(self) -> int:
        """The number of worker processes of this task that drain as one; 1 without a supervisor."""

    def open_sessions(self) -> int:
        """Return the number of open sessions in the whole task, as last published by its workers."""

    def note_window(self, window: float) -> None:
        """Set the longest window, in seconds, of a drain without its own deadline, such as a manual one."""

    def note_fleet(self, draining: int, healthy: int, *, counted: bool = True) -> None:
        """Report how many targets are draining and healthy, and whether this task is *counted* among the draining."""

    def rotate(self, rotation: Rotation) -> bool:
        """Begin *rotation*; return whether it began, which it does not during a drain."""

    def emit(self, event: Event) -> None:
        """Send *event* to the observers."""

    async def wait_drained(self) -> bool:
        """Wait until the running or the next drain is over; return False if it was cancelled or never began."""

    async def flush(self) -> None:
        """Run every ``before_exit``, then flush the observers, within a few seconds."""


@runtime_checkable
class Trigger(Protocol):
    """
    What may start a drain.

    Split it into a pure verdict on the source's answer, which is easy to test, and a small loop around it. A trigger
    that is also an `Observer` receives events. With ``once_per_task = True`` it watches in only one worker of a task.
    An async method ``before_exit`` is called once, before SIGTERM is passed on or at the end of the application; it may
    take 5 s.
    """

    @property
    def name(self) -> str:
        """The name in causes, logs, metrics and ``GET /drain``: short, lower case, with hyphens."""

    async def watch(self, control: Control) -> None:
        """
        Watch the source, call ``control.claim`` while a drain is wanted and ``control.withdraw`` while none is.

        It is started after the application has started, and cancelled when the application stops. Return if there is
        nothing to watch, after emitting ``TriggerStoodDown`` with the reason. After an exception the claim stands, and
        ``watch`` is called again: after 1 s at first, doubled each time up to 60 s.
        """

    def status(self, now: float) -> Mapping[str, Any]:
        """Return what ``GET /drain`` shows about this trigger at *now*: JSON values only, nothing secret."""


def check_triggers(given: Iterable[Trigger]) -> tuple[Trigger, ...]:
    """
    Return the triggers in *given*.

    Raises:
        SettingsError: If *given* is not an iterable of triggers.
    """
    remedy = "give a list of triggers, such as [SigtermTrigger()]; the names of AWS's sources go into sources="
    return members("triggers", given, ("name", "watch", "status"), remedy)
