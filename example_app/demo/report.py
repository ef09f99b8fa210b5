"""What came of a run, as the devices saw it and as the task saw it."""

import signal
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from example_app.demo.devices import CUT

__all__ = ["Course", "conclude"]

RESTART = 1012
"""The close code that says: this server restarts, come back (https://www.iana.org/assignments/websocket)."""

EXITS = (0, -signal.SIGTERM)
"""How a server ends that was told to: uvicorn raises the signal again at its end, except as PID 1."""


@dataclass(frozen=True, slots=True)
class Course:
    """
    What happened in a run; all moments are monotonic, in seconds.

    Attributes:
        clients: How many devices connected.
        closes: When and with which code each lost its connection.
        farewells: How many devices were told beforehand.
        commands: How many commands meanwhile were acknowledged, and how many were not.
        deregistered: When the target was.
        delay: The deregistration delay, in seconds.
        noticed: When the task was first seen draining; ``None`` if it never was.
        report: The task's own, as the admin route shows it.
        status: The exit status; ``None`` if it would not end.
        written: All lines that the task wrote.
    """

    clients: int
    closes: Sequence[tuple[float, int]]
    close_hooks: int
    commands: Counter[bool]
    deregistered: float
    delay: float
    noticed: float | None
    report: dict[str, Any] | None
    status: int | None
    written: Sequence[str]


def conclude(course: Course) -> bool:
    """Print the report; return whether every device was let go gently, and the task ended cleanly."""
    codes = Counter(code for _, code in course.closes)
    tracebacks = sum("Traceback" in line for line in course.written)
    is_gentle = codes == {RESTART: course.clients}
    is_clean = course.status in EXITS and not tracebacks and course.report is not None
    _tell_devices(course, codes, "all 1012" if is_gentle else "NOT all 1012")
    _tell_task(course, tracebacks)
    if is_gentle and is_clean:
        print(f"\nAll {course.clients} devices were asked to come back; none was cut.")
    else:
        cut = codes[CUT] + course.clients - len(course.closes)
        print(f"\nThat did not go as it should: {cut} devices were cut. The task wrote:", *course.written, sep="\n")
    return is_gentle and is_clean


def _tell_devices(course: Course, codes: Counter[int], verdict: str) -> None:
    counted = ", ".join(f"{count} x {code}" for code, count in codes.most_common()) or "none"
    print("\nReport, as the devices saw it")
    _line("closes by code", f"{counted} ({verdict})")
    _line("farewells before", str(course.close_hooks))
    if times := sorted(moment for moment, _ in course.closes):
        seconds = Counter(int(moment - times[0]) for moment in times)
        mean = len(times) / max(times[-1] - times[0], 1.0)
        _line("closes per second", f"{max(seconds.values())} at the peak, {mean:.1f} in the mean")
        _line("", _bars([seconds[each] for each in range(max(seconds) + 1)]))
        _line("last close", f"{course.deregistered + course.delay - times[-1]:.1f} s before the delay was over")
    _line("commands meanwhile", f"{course.commands.total()} published, {course.commands[True]} acknowledged")


def _tell_task(course: Course, tracebacks: int) -> None:
    print("As the task saw it")
    if course.noticed is not None:
        _line("noticed", f"{course.noticed - course.deregistered:.1f} s after the deregistration")
    if report := course.report:
        shown = ("shed", "left", "refused", "forced", "still_open", "peak_rate", "mean_rate", "slack")
        _line("its own report", ", ".join(f"{name} {report[name]:.4g}" for name in shown))
    else:
        _line("its own report", "none: it did not drain before SIGTERM")
    again = " (SIGTERM, which uvicorn raises again at its end)" if course.status == -signal.SIGTERM else ""
    _line("exit status", f"{course.status}{again}")
    _line("tracebacks logged", str(tracebacks))


def _bars(counts: Sequence[int]) -> str:
    """Draw closes per second, a character for each second."""
    steps = " ▁▂▃▄▅▆▇█"
    try:
        steps.encode(sys.stdout.encoding)
    except UnicodeError:
        steps = " .:-=+*#@"
    top = max(counts)
    return "".join(steps[-(-8 * count // top)] for count in counts[:100])


def _line(name: str, value: str) -> None:
    print(f"  {name:<18}  {value}")
