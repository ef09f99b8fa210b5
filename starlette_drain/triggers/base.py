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
    """What a trigger may do to the drain it watches for. All of it belongs to the event loop's thread."""

    @property
    def settings(self) -> Settings:
        """The checked options of the drain."""

    def time(self) -> float:
        """Return the event loop's monotonic clock, in seconds: the clock of every cause and event."""

    def claim(self, cause: DrainCause) -> None:
        """
        Hold a claim: a drain is wanted. Never raises.

        It takes the place of the claim that ``cause.trigger`` held, so call it at every look for as long as the drain
        is wanted. The earliest deadline of all claims is the deadline of the drain.
        """

    def withdraw(self, trigger: str) -> bool:
        """
        Drop the claim of *trigger*: it wants no drain. Return whether that changed anything. Never raises.

        The drain ends, also one that is over, if no other claim stands. Where a trigger does not know, it calls
        neither: its last claim stands. A claim that is not revocable stays.
        """

    @property
    def workers(self) -> int:
        """How many worker processes of this task drain as one; 1 where there is no supervisor."""

    def open_sessions(self) -> int:
        """Return how many sessions are open in the whole task, as far as its workers have published."""

    def note_window(self, window: float) -> None:
        """Make known how many seconds a drain may take here, for a drain that is started by hand."""

    def note_fleet(self, draining: int, healthy: int, *, counted: bool = True) -> None:
        """Make known how many targets drain and are healthy, and whether this task's is *counted* among the former."""

    def rotate(self, rotation: Rotation) -> bool:
        """Ask sessions that are open now to leave once; return whether that began, which it does not in a drain."""

    def emit(self, event: Event) -> None:
        """Send *event* to the observers."""

    async def wait_drained(self) -> bool:
        """Wait until the drain is over; return False if it was cancelled instead, or the application has ended."""

    async def flush(self) -> None:
        """Do what must happen before the exit, and let the observers send what they hold, within a few seconds."""


@runtime_checkable
class Trigger(Protocol):
    """
    What may start a drain.

    Split it in two: a pure verdict on what the source answered, which has the many tests, and a small loop around it.
    A trigger that is an `Observer` too gets events. One with the attribute ``once_per_task = True`` watches
    in one worker of a task only. One with a coroutine function ``before_exit`` has it called before SIGTERM is passed
    on, and at the end of the application: it may take 5 s.
    """

    @property
    def name(self) -> str:
        """Short, lower case, with hyphens; it names the trigger in causes, logs, metrics and ``GET /drain``."""

    async def watch(self, control: Control) -> None:
        """
        Watch the source, call ``control.claim`` while a drain is wanted and ``control.withdraw`` while none is.

        Started when the application has started, cancelled when it stops. Returning means there is nothing to watch
        (say why with ``TriggerStoodDown``). After an exception it is called again, 1 s later at first and 60 s at most,
        and its claim stands.
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
