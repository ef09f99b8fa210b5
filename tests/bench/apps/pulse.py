"""The pulse of an event loop: how late its timers are, and how much of that is Python's garbage collector."""

import asyncio
import gc
import time
from contextlib import suppress
from typing import Any

BEAT = 0.001


class Pulse:
    """Beats every millisecond between `start` and `stop`."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._reset()

    def _reset(self) -> None:
        self._began = 0.0
        self._collecting = 0.0
        self._longest_collection = 0.0
        self._collections = [0, 0, 0]
        self._stall = 0.0
        self._stall_without = 0.0

    def start(self) -> None:
        """Begin to beat."""
        self._reset()
        gc.callbacks.append(self._note_collection)
        self._task = asyncio.get_running_loop().create_task(self._beat())

    async def stop(self) -> dict[str, Any]:
        """
        Stop.

        Returns:
            Milliseconds: ``stall``, by how much the latest beat was late; ``stall_without_gc``, the same less what the
            collector took of each; ``gc_longest`` and ``gc_total``. And ``collections``, how many of each generation.
        """
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            gc.callbacks.remove(self._note_collection)
        return {
            "stall": self._stall * 1e3,
            "stall_without_gc": self._stall_without * 1e3,
            "gc_longest": self._longest_collection * 1e3,
            "gc_total": self._collecting * 1e3,
            "collections": self._collections,
        }

    async def _beat(self) -> None:
        while True:
            collected = self._collecting
            due = time.monotonic() + BEAT
            await asyncio.sleep(BEAT)
            late = time.monotonic() - due
            self._stall = max(self._stall, late)
            self._stall_without = max(self._stall_without, late - (self._collecting - collected))

    def _note_collection(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.monotonic()
        elif self._began:
            took = time.monotonic() - self._began
            self._collecting += took
            self._longest_collection = max(self._longest_collection, took)
            self._collections[info["generation"]] += 1
