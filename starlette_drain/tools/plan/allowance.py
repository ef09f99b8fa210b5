"""What gives a task the time to leave, and how that is set."""

from dataclasses import dataclass

__all__ = ["BAKE_TIME", "DELAY", "LONGEST_DELAY", "LONGEST_STOP", "PAUSE", "Allowance"]

LONGEST_DELAY = 3600.0
"""Seconds: no deregistration delay is longer."""

LONGEST_BAKE = 86_400.0
"""Seconds: no bake time is longer."""

LONGEST_STOP = 120.0
"""Seconds: no ``stopTimeout`` is longer on Fargate."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """
    A time that AWS or an option gives.

    Attributes:
        name: In a word or two.
        setting: What sets it.
        longest: Seconds, at most.
        step: Seconds in one unit of the setting.
        unit: How the setting's unit is written; empty where its name says it.
    """

    name: str
    setting: str
    longest: float
    step: float = 1.0
    unit: str = ""

    def setting_to(self, seconds: float) -> str:
        """Return the words for setting it to so many seconds, a multiple of the step."""
        return f"{self.setting} to {seconds / self.step:,.0f}{self.unit}"


DELAY = Allowance("delay", "the deregistration delay", LONGEST_DELAY, unit=" s")
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentConfiguration.html
BAKE_TIME = Allowance("bake time", "bakeTimeInMinutes", LONGEST_BAKE, step=60.0)
PAUSE = Allowance("pause", "the PAUSE hook", LONGEST_DELAY, step=60.0, unit=" minutes")
"""The drains in it are started by hand, and such a drain takes an hour at most."""
