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
        """The checked options of the drain."""

    def time(self) -> float:
        """Return the event loop's monotonic clock, in seconds: the clock of every cause and event."""

    def claim(self, cause: DrainCause) -> None:
        """
        Hold a claim: a drain is wanted. Never raises.

        It replaces the former claim of ``cause.trigger``: call it at every poll while the drain is wanted. The earliest
        deadline of all claims is the deadline of the drain.
        """

    def withdraw(self, trigger: str) -> bool:
        """
        Drop the claim of *trigger*: it wants no drain. Return whether that changed anything. Never raises.

        If no other claim stands, the drain ends, even if it was over. A trigger that does not know calls neither: its
        last claim stands. A claim that is not revocable stays.
        """

    @property
    def workers(self) -> int:
        """How many worker processes of this task drain as one; 1 without a supervisor."""

    def open_sessions(self) -> int:
        """Return how many sessions are open in the whole task, as far as its workers have published."""

    def note_window(self, window: float) -> None:
        """Set how many seconds a drain without a deadline of its own takes here, such as one by hand."""

    def note_fleet(self, draining: int, healthy: int, *, counted: bool = True) -> None:
        """Report how many targets drain and are healthy, and whether this task is *counted* among the draining."""

    def rotate(self, rotation: Rotation) -> bool:
        """Ask the open sessions to leave once; return whether that began. It does not during a drain."""

    def emit(self, event: Event) -> None:
        """Send *event* to the observers."""

    async def wait_drained(self) -> bool:
        """Wait until the drain is over; return False if it was cancelled instead, or the application has ended."""

    async def flush(self) -> None:
        """Run every ``before_exit``, then flush the observers, within a few seconds."""


@runtime_checkable
class Trigger(Protocol):
    """
    What may start a drain.

    Split it into a pure verdict on the source's answer, which is easy to test, and a small loop around it. A trigger
    that is also an `Observer` gets events. With ``once_per_task = True`` it watches in one worker of a task only. A
    coroutine function ``before_exit`` is called before SIGTERM is passed on and at the end of the application; it may
    take 5 s.
    """

    @property
    def name(self) -> str:
        """Short, lower case, with hyphens; it names the trigger in causes, logs, metrics and ``GET /drain``."""

    async def watch(self, control: Control) -> None:
        """
        Watch the source, call ``control.claim`` while a drain is wanted and ``control.withdraw`` while none is.

        Started when the application has started, cancelled when it stops. Return if there is nothing to watch (say why
        with ``TriggerStoodDown``). After an exception it is called again, after 1 s at first and 60 s at most; its
        claim stands.
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
