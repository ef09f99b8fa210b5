"""What the demo shows while it runs."""

import os
import sys
import time

__all__ = ["Screen"]


class Screen:
    """A terminal, where the last line is rewritten in place; or a file or pipe, which gets plain lines now and then."""

    def __init__(self) -> None:
        self._lively = sys.stdout.isatty()
        self._next = 0.0
        self.zero: float | None = None
        """When the target was deregistered: the time that is shown counts from there."""

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._clear()
        print(f"{self._time():>8}  {text}", flush=True)

    def show(self, text: str) -> None:
        """Show how far it is."""
        if self._lively:
            self._clear()
            print(f"{self._time():>8}  {text}"[: _width()], end="", flush=True)
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + 5
            self.say(text)

    def _clear(self) -> None:
        if self._lively:
            print("\r\x1b[2K", end="")

    def _time(self) -> str:
        return "" if self.zero is None else f"{time.monotonic() - self.zero:.1f} s"


def _width() -> int:
    try:
        return os.get_terminal_size().columns - 1
    except OSError:
        return 100
