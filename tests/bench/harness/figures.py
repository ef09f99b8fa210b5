"""Figures: with their spread, beside the bare server's, judged by a goal, printed and kept."""

import json
import math
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Self, TypeVar

__all__ = ["Figure", "Report", "Spread", "interleave"]

PACKAGES = ("starlette-drain", "starlette", "uvicorn", "uvloop", "websockets", "wsproto", "httptools", "aioboto3")

Measured = TypeVar("Measured")


@dataclass(frozen=True, slots=True)
class Spread:
    """
    The median of some repetitions, and the quartiles around it.

    Attributes:
        error: By how much the median itself may be off (95 %, for independent repetitions: the notch of a box plot).
    """

    median: float
    low: float
    high: float
    error: float = 0.0

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Sum up *values*, of which there is at least one."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, 1.57 * (high - low) / math.sqrt(len(values)))

    def __str__(self) -> str:
        if self.low == self.high:
            return _short(self.median)
        return f"{_short(self.median)} ± {_short(self.error)} ({_short(self.low)}-{_short(self.high)})"


@dataclass(frozen=True, slots=True)
class Figure:
    """
    One figure.

    Attributes:
        what: What was measured, and on what.
        unit: Of *ours*, *bare* and *added*.
        ours: With the middleware.
        bare: Without it, measured in the same run.
        ratio: Ours ÷ bare, taken repetition by repetition.
        added: Ours - bare, likewise.
        goal: What *judged* is to be at most; ``None`` where nothing was promised.
        judged: ``"ratio"``, ``"added"`` or ``"ours"``.
    """

    what: str
    unit: str
    ours: Spread
    bare: Spread | None = None
    ratio: Spread | None = None
    added: Spread | None = None
    goal: float | None = None
    judged: str = "ratio"

    @property
    def is_met(self) -> bool | None:
        """Whether the median reaches the goal; ``None`` where there is none."""
        if self.goal is None:
            return None
        judged: Spread = getattr(self, self.judged)
        return judged.median <= self.goal

    def __str__(self) -> str:
        parts = [f"{self.what}: {self.ours} {self.unit}"]
        if self.bare:
            parts.append(f"bare {self.bare}, added {self.added}, ratio {self.ratio}")
        if self.goal is not None:
            parts.append(f"goal {self.judged} <= {self.goal:g}: {'met' if self.is_met else 'MISSED'}")
        return "; ".join(parts)


@dataclass
class Report:
    """The figures of one benchmark: each is printed as it comes, and all are written as JSON at the end."""

    name: str
    figures: list[Figure] = field(default_factory=list)

    def add(
        self,
        what: str,
        unit: str,
        ours: Sequence[float],
        bare: Sequence[float] | None = None,
        *,
        goal: float | None = None,
        judged: str = "ratio",
    ) -> Figure:
        """Add a figure. Where *bare* is given, its values belong to those of *ours* one by one."""
        beside = {}
        if bare is not None:
            pairs = list(zip(ours, bare, strict=True))
            beside = {
                "bare": Spread.of(bare),
                "ratio": Spread.of([one / other for one, other in pairs]) if all(bare) else None,
                "added": Spread.of([one - other for one, other in pairs]),
            }
        figure = Figure(what, unit, Spread.of(ours), **beside, goal=goal, judged=judged)
        self.figures.append(figure)
        sys.stdout.write(f"\n{self.name}: {figure}\n")
        sys.stdout.flush()
        return figure

    def write(self, folder: Path) -> None:
        """Write all figures, and where they come from."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "benchmark": self.name,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "figures": [asdict(each) | {"met": each.is_met} for each in self.figures],
        }
        (folder / f"{self.name}.json").write_text(json.dumps(content, indent=1) + "\n")


def interleave(variants: Mapping[str, Callable[[], Measured]], rounds: int) -> dict[str, list[Measured]]:
    """
    Measure each variant once a round, forwards and backwards by turns, so that a machine growing slower favours none.

    One round before the first is not counted.
    """
    values: dict[str, list[Measured]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name in list(variants)[:: 1 if number % 2 else -1]:
            value = variants[name]()
            if number:
                values[name].append(value)
    return values


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def machine() -> dict[str, object]:
    """Describe this machine, as far as figures depend on it."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")), "")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }
