"""The settings that give a task time to leave."""

from dataclasses import dataclass

__all__ = ["BAKE_TIME", "DELAY", "LONGEST_DELAY", "LONGEST_STOP", "PAUSE", "SIGTERM", "Allowance"]

LONGEST_DELAY = 3600.0
"""The longest deregistration delay, in seconds."""

LONGEST_BAKE = 86_400.0
"""The longest bake time, in seconds."""

LONGEST_STOP = 120.0
"""The longest ``stopTimeout`` on Fargate, in seconds."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """
    A time that AWS or an option gives a task.

    Attributes:
        name: Its name in messages.
        setting: The name of its setting.
        longest: The most seconds.
        step: Seconds in one unit of the setting.
        unit: The unit of the setting in messages; empty if the name includes it.
    """

    name: str
    setting: str
    longest: float
    step: float = 1.0
    unit: str = ""

    def setting_to(self, seconds: float) -> str:
        """Return the text that sets it to *seconds*, a multiple of the step."""
        return f"{self.setting} to {seconds / self.step:,.0f}{self.unit}"


DELAY = Allowance("delay", "the deregistration delay", LONGEST_DELAY, unit=" s")
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentConfiguration.html
BAKE_TIME = Allowance("bake time", "bakeTimeInMinutes", LONGEST_BAKE, step=60.0)
PAUSE = Allowance("pause", "the PAUSE hook", LONGEST_DELAY, step=60.0, unit=" minutes")
"""Its drains are started by hand; such a drain takes at most an hour."""
SIGTERM = Allowance("SIGTERM window", "DRAIN_SIGTERM_WINDOW", LONGEST_STOP, unit=" s")
