"""Which calls the package makes with given options, and which of them it needs. Pure."""

from collections.abc import Iterator
from enum import Enum

from starlette_drain.aws.options import AwsSettings

__all__ = ["DEPLOYMENT_READS", "Use", "finds_targets", "untried", "use_of"]

DEPLOYMENT_READS = ("ListServiceDeployments", "DescribeServiceDeployments", "DescribeServiceRevisions")


class Use(Enum):
    """How the package uses a call."""

    NEEDED = "it does not work without it"
    SPARED = "it makes the call, and works without the answer"
    NONE = "it does not make the call"


def finds_targets(options: AwsSettings) -> bool:
    """Return whether the package has to find its own targets."""
    return "target-health" in options.sources or bool(options.self_registration)


def use_of(operation: str, options: AwsSettings) -> Use:
    """Return how the package uses *operation* with *options*: see aws/identity and the sources."""
    finds, sources = finds_targets(options), options.sources
    by_hand = bool(options.target_group_arn)
    # Task state looks for a delay, and uses the drain's own window if it finds none.
    tries = "task-state" in sources and options.deregistration_delay is None
    match operation:
        case "DescribeTaskDefinition":
            needed, asked = False, False
        case "DescribeTasks":
            needed = "task-state" in sources or "service-deployment" in sources or (finds and not by_hand)
            asked = finds
        case "DescribeServices":
            needed, asked = finds and not by_hand, tries and not by_hand
        case "DescribeClusters":
            needed, asked = False, finds and not by_hand
        case "DescribeTargetGroups":
            needed, asked = False, (finds or tries) and not (options.target_id and options.target_port)
        case "DescribeTargetGroupAttributes":
            needed, asked = finds and options.deregistration_delay is None, tries
        case "DescribeTargetHealth":
            needed, asked = "target-health" in sources, bool(options.self_registration)
        case _:  # tried only if the options need it
            needed, asked = True, True
    return Use.NEEDED if needed else Use.SPARED if asked else Use.NONE


def untried(options: AwsSettings, tried: frozenset[str]) -> Iterator[str]:
    """Yield the calls that were not tried: they change something, or there is no deployment yet."""
    if options.self_registration:
        yield from ("RegisterTargets", "DeregisterTargets")
    if "service-deployment" in options.sources:
        yield from (each for each in DEPLOYMENT_READS if each not in tried)
