"""What goes on, in the terminal, all the time."""

import asyncio
import sys
import time
from collections import Counter, deque

from example_app.rollout.rollout import Situation

__all__ = ["Progress"]

BARS = " ▁▂▃▄▅▆▇█"
EVERY = 0.5
EVERY_WITHOUT_TERMINAL = 5.0
WIDTH = 24

TOLD = ("fault", "stage")
"""Kinds of events that are told each by itself."""


class Progress:
    """One line that is written over and over in a terminal; a line now and then in a file."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._began = time.monotonic()

    async def watch(self, situation: Situation) -> None:
        """Show what goes on, until cancelled."""
        rates: deque[float] = deque(maxlen=WIDTH)
        opened, at, said, shown = 0, time.monotonic(), 0, ""
        try:
            while True:
                await asyncio.sleep(EVERY if self._live else EVERY_WITHOUT_TERMINAL)
                now, total = time.monotonic(), situation.fleet.opened
                rates.append((total - opened) / (now - at))
                opened, at = total, now
                for text in _milestones(situation, said):
                    self.say(text)
                said = len(situation.events.all)
                shown = f"{now - self._began:5.0f} s  {_sentence(situation, rates)}"
                sys.stdout.write(f"\r\x1b[K{shown}" if self._live else f"{shown}\n")
                sys.stdout.flush()
        finally:
            if self._live:
                sys.stdout.write("\r\x1b[K")

    def say(self, text: str) -> None:
        """Write a line that stays."""
        sys.stdout.write(("\r\x1b[K" if self._live else "") + text + "\n")
        sys.stdout.flush()


def _sentence(situation: Situation, rates: deque[float]) -> str:
    fleet = situation.fleet
    bars = "".join(BARS[round(rate / (max(rates) or 1) * 8)] for rate in rates).ljust(WIDTH)
    connected = f"{fleet.open:,} of {fleet.options.clients:,} connected"
    return f"{situation.scenario.name:12}  {connected}  {rates[-1]:6,.0f} new/s {bars}  {situation.phase}"


def _milestones(situation: Situation, said: int) -> list[str]:
    """Say in a line each what has happened since the last time, the same events of several tasks together."""
    news = Counter(each.kind for each in situation.events.all[said:])
    told = [f"         {each.kind}: {each.what}" for each in situation.events.all[said:] if each.kind in TOLD]
    lines = [f"         {kind}: {count} task{'s' * (count > 1)}" for kind, count in news.items() if _is_told(kind)]
    return lines + told


def _is_told(kind: str) -> bool:
    return kind in ("healthy", "deregistered", "draining seen", "drained", "SIGTERM", "cut", "SIGKILL")
