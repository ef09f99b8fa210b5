"""A trigger that the application fires itself. It is also the smallest example of a trigger."""

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.declared import is_number
from starlette_drain.exceptions import SettingsError
from starlette_drain.triggers.base import Control

__all__ = ["ManualTrigger"]


class ManualTrigger:
    """
    A trigger that fires when `fire` is called.

    Use it in code that has no access to the `Drain`, and in tests instead of another trigger.

    Args:
        name: The name in causes, logs and ``GET /drain``.
    """

    def __init__(self, name: str = "manual") -> None:
        self.name = name
        self._control: Control | None = None
        self._fired = 0

    async def watch(self, control: Control) -> None:
        """Keep *control* until cancelled."""
        self._control = control
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._control = None

    def fire(self, reason: str = "fired by hand", *, window: float | None = None, revocable: bool = True) -> None:
        """
        Ask for a drain. Call it on the event loop's thread.

        Args:
            reason: One sentence.
            window: Seconds until the last session must be gone; by default the drain's own window.
            revocable: Whether the drain may be cancelled afterwards.

        Raises:
            RuntimeError: If no drain watches this trigger.
            SettingsError: If *window* is invalid.
        """
        if self._control is None:
            msg = f"trigger {self.name!r} is not watched; give it to a Drain whose application is running"
            raise RuntimeError(msg)
        if window is not None and not (is_number(window) and window >= 0):
            raise SettingsError("window", window, "give seconds, 0 or more, or None for the drain's own window")
        now = self._control.time()
        deadline = None if window is None else now + window
        self._fired += 1
        self._control.claim(DrainCause(self.name, reason, now, deadline, revocable=revocable, by_hand=True))

    def withdraw(self) -> bool:
        """
        Withdraw the claim; return whether that changed anything. Call it on the event loop's thread.

        Raises:
            RuntimeError: If no drain watches this trigger.
        """
        if self._control is None:
            msg = f"trigger {self.name!r} is not watched; give it to a Drain whose application is running"
            raise RuntimeError(msg)
        return self._control.withdraw(self.name)

    def status(self, now: float) -> Mapping[str, Any]:  # noqa: ARG002
        """Return how often the trigger has fired."""
        return {"fired": self._fired}
