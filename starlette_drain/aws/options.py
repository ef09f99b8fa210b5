"""The options of AWS, in addition to those of every drain."""

from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from starlette_drain._core.declared import is_number, is_whole, names_in, option, or_yes_or_no, switch
from starlette_drain._core.settings import Settings
from starlette_drain.exceptions import SettingsError

__all__ = ["SOURCES", "AwsSettings"]

SOURCES = ("target-health", "task-state", "service-deployment")


def _is_target_group(arn: Any) -> bool:
    return isinstance(arn, str) and arn.startswith("arn:") and ":targetgroup/" in arn


def _sources_in(text: str) -> tuple[str, ...]:
    return () if text.strip() == "none" else names_in(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsSettings(Settings):
    """
    All options of an installation on AWS: those of `Settings` and these.

    Each option is documented where it is declared; `docs/settings.md` is generated from that.
    """

    sources: tuple[str, ...] = option(
        ("target-health",),
        "Which AWS sources can start a drain: `target-health`, `task-state`, `service-deployment`, separated by "
        'commas, or `"none"`.',
        parse=_sources_in,
        takes_text=True,
        is_valid=lambda value: isinstance(value, tuple) and all(each in SOURCES for each in value),
        remedy="use 'target-health', 'task-state' and 'service-deployment', separated by commas, or 'none'",
        accepts="str | tuple[str, ...]",
    )
    self_registration: Literal["deregister"] | bool = option(
        False,
        "Whether the task registers itself with its target groups and deregisters when it drains. "
        '`"deregister"` does only the latter, for tasks that ECS registers.',
        expert=True,
        parse=or_yes_or_no("deregister"),
        is_valid=lambda value: value == "deregister" or isinstance(value, bool),
        remedy="use True, False or 'deregister'",
    )
    target_group_arn: tuple[str, ...] = option(
        (),
        "The target groups to watch, separated by commas; found automatically on ECS.",
        expert=True,
        parse=names_in,
        takes_text=True,
        is_valid=lambda value: isinstance(value, tuple) and all(_is_target_group(arn) for arn in value),
        remedy="give target group ARNs: arn:aws:elasticloadbalancing:<region>:<account>:targetgroup/<name>/<id>",
        accepts="str | tuple[str, ...]",
    )
    target_id: str | None = option(
        None,
        "This task's target id (IP address or instance id); found automatically on ECS.",
        expert=True,
        is_valid=lambda value: value is None or (isinstance(value, str) and value != ""),
        remedy="give an IP address or an instance id",
    )
    target_port: int | None = option(
        None,
        "This task's target port; found automatically on ECS.",
        expert=True,
        parse=int,
        is_valid=lambda value: value is None or (is_whole(value) and 1 <= value <= 65535),
        remedy="give a port from 1 to 65535",
    )
    deregistration_delay: float | None = option(
        None,
        "The target groups' delay, 0 to 3600; read from AWS if unset.",
        unit="s",
        expert=True,
        parse=float,
        is_valid=lambda value: value is None or (is_number(value) and 0 <= value <= 3600),
        remedy="give seconds from 0 to 3600",
    )
    poll_interval: float = option(
        5.0,
        "Time between two polls of the target's health, at least 1; longer in a large fleet.",
        unit="s",
        expert=True,
        parse=float,
        is_valid=lambda value: is_number(value) and value >= 1,
        remedy="give a number of seconds, 1 or more: the Describe calls are budgeted for the whole account and Region",
    )
    poll_share: float = option(
        0.2,
        "Share of the account's Describe calls that the polls of all tasks may use, up to 1; a large fleet polls less "
        "often.",
        expert=True,
        parse=float,
        is_valid=lambda value: is_number(value) and 0 < value <= 1,
        remedy="give a share of the budget, more than 0 and at most 1, such as 0.2",
    )

    rebalance: bool = switch(
        False,
        "Whether tasks move sessions to new tasks after a scale-out; needs "
        '`pacing="fleet:…"` and the least outstanding requests algorithm on the target group.',
        expert=True,
    )

    def __post_init__(self) -> None:
        """Validate every option, and options that depend on one another."""
        Settings.__post_init__(self)
        if self.rebalance and self.fleet_rate is None:
            remedy = "also set pacing='fleet:500', the reconnects per second that the whole service can take"
            raise SettingsError("rebalance", self.rebalance, remedy)

    @property
    def has_stand_in(self) -> bool:
        """Whether ECS is asked in between where target health may be asked but seldom: task state would ask anyway."""
        return "target-health" in self.sources and "task-state" not in self.sources

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return *settings* with the options of AWS; those that it does not have get their defaults."""
        if isinstance(settings, cls):
            return settings
        return cls(**{each.name: getattr(settings, each.name) for each in fields(settings)})
