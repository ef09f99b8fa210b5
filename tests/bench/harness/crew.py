"""Clients that come back when they are closed, in a process of their own, and the flow of connections they make."""

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from harness.load import Load

__all__ = ["Crew", "Flow"]


@dataclass(frozen=True, slots=True)
class Flow:
    """
    What clients saw while they moved.

    Attributes:
        asked: The moments (monotonic, in order) at which they began to connect.
        opened: The moments at which they had a WebSocket again.
        closed: The moments at which they lost one.
        codes: How many lost it with which code; 1006 without a close frame.
        failures: How many attempts came to nothing, and why.
    """

    asked: list[float]
    opened: list[float]
    closed: list[float]
    codes: Counter[int]
    failures: Counter[str]

    @classmethod
    def of(cls, answers: Sequence[dict]) -> Self:
        """Put together what some processes saw."""
        return cls(
            asked=sorted(moment for each in answers for moment in each["asked"]),
            opened=sorted(moment for each in answers for moment in each["opened"]),
            closed=sorted(moment for each in answers for moment, _ in each["closed"]),
            codes=Counter(code for each in answers for _, code in each["closed"]),
            failures=sum((Counter(each["failures"]) for each in answers), Counter()),
        )


class Crew(Load):
    """One process with clients that come back; see ``crew_process`` for its orders."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "harness.crew_process"],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self
