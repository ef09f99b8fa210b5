# What DescribeTargetHealth can answer, and what follows from it.
#
# https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_TargetHealth.html lists seven states. Only
# `draining` says that the target is being deregistered. There is no state for "deregistered". A target that is not
# registered is missing in an answer about the whole group; requested by id it is `unused` with the reason
# Target.NotRegistered; and botocore's waiter TargetDeregistered also accepts the error InvalidTarget.
#
# All three also occur before ECS has registered the target, which it does some seconds after the container has started.
# So they mean "not yet" until the target has been seen registered, and "gone" after that, if two answers in a row say
# so (see TargetGroup).
#
# These look like a deregistration but are not:
#   unhealthy.draining     an NLB lets the flows of an unhealthy target continue; it is still registered
#   unused/Target.NotInUse no listener uses the group, or the zone is off; it is still registered
#   unused/Target.InvalidState, Target.IpUnusable; unavailable; zonal shift and anomaly mitigation: the same
#   any other error        says nothing about the target
"""The verdict on an answer of DescribeTargetHealth. Pure: no clock, no I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from starlette_drain.aws.identity.identity import canonical_id

__all__ = ["Reading", "Verdict", "read", "read_error"]


class Verdict(Enum):
    """What an answer says about this task's target."""

    SERVING = "serving"
    """It is healthy or about to be."""
    AILING = "ailing"
    """It is registered, but the balancer cannot or does not use it."""
    DRAINING = "draining"
    """It is being deregistered."""
    GONE = "gone"
    """It was registered, and no longer is."""
    NOT_YET = "not-yet"
    """It has not been seen registered yet."""
    UNKNOWN = "unknown"
    """The answer does not tell."""

    @property
    def leaving(self) -> bool:
        """Whether the target is being deregistered, or has been."""
        return self in (Verdict.DRAINING, Verdict.GONE)

    @property
    def registered(self) -> bool:
        """Whether the answer shows that the target is registered, or was until a moment ago."""
        return self in (Verdict.SERVING, Verdict.AILING, Verdict.DRAINING)


@dataclass(frozen=True, slots=True)
class Reading:
    """
    What an answer says about this task's target and the whole group.

    Attributes:
        verdict: The verdict on this task's target.
        healthy: The number of healthy targets in the group.
        draining: The number of targets that are being deregistered.
        targets: The number of targets in any state.
        own: How many of them are this task's.
        others: If none is this task's, some of those listed; the likeliest mix-ups come first.
    """

    verdict: Verdict
    healthy: int = 0
    draining: int = 0
    targets: int = 0
    own: int = 0
    others: tuple[str, ...] = ()


SOME = 5
"""The most targets listed in a warning."""

# If the target is listed more than once (with two ports in one group), the first of these verdicts wins.
PRECEDENCE = (Verdict.DRAINING, Verdict.SERVING, Verdict.AILING, Verdict.UNKNOWN)
REGISTERED_THOUGH_UNUSED = frozenset({"Target.NotInUse", "Target.InvalidState", "Target.IpUnusable"})


def read(
    descriptions: Iterable[Mapping[str, Any]], ids: frozenset[str], ports: frozenset[int], *, seen: bool
) -> Reading:
    """
    Judge the ``TargetHealthDescriptions`` of a whole group.

    Args:
        descriptions: The answer.
        ids: This task's target ids in canonical form (see `canonical_id`).
        ports: This task's ports; empty for any port.
        seen: Whether an earlier answer showed this task's target as registered.
    """
    listed = list(descriptions)
    states = [_part(each, "TargetHealth").get("State") for each in listed]
    absent = Verdict.GONE if seen else Verdict.NOT_YET
    ours = [_judge(each, absent) for each in listed if _is_ours(_part(each, "Target"), ids, ports)]
    verdict = next((each for each in PRECEDENCE if each in ours), absent)
    others = () if verdict.registered else _some_of(listed, ids)
    return Reading(verdict, states.count("healthy"), states.count("draining"), len(listed), len(ours), others)


def read_error(code: str, *, seen: bool) -> Verdict:
    """
    Judge an error *code*. Only ``InvalidTarget`` says something about the target.

    ``TargetGroupNotFound`` does not: it may be due to a wrong setting or deployment, and a wrong verdict would close
    all sessions at once.
    """
    if code in ("InvalidTarget", "InvalidTargetException"):
        return Verdict.GONE if seen else Verdict.NOT_YET
    return Verdict.UNKNOWN


def _some_of(listed: Iterable[object], ids: frozenset[str]) -> tuple[str, ...]:
    """Return the ids and ports of some targets; those with one of *ids*, but another port, come first."""
    targets = [part for each in listed if (part := _part(each, "Target"))]
    targets.sort(key=lambda each: canonical_id(str(each.get("Id", ""))) not in ids)
    return tuple(f"{each.get('Id', '?')} ({each.get('Port', '?')})" for each in targets[:SOME])


def _part(description: object, name: str) -> Mapping[str, Any]:
    """Return a part of a description; empty if it is not valid, so that one bad entry does not hide the others."""
    part = description.get(name) if isinstance(description, dict) else None
    return part if isinstance(part, dict) else {}


def _is_ours(target: Mapping[str, Any], ids: frozenset[str], ports: frozenset[int]) -> bool:
    return canonical_id(str(target.get("Id", ""))) in ids and (not ports or target.get("Port") in ports)


def _judge(description: Mapping[str, Any], absent: Verdict) -> Verdict:
    health = _part(description, "TargetHealth")
    match health.get("State"), health.get("Reason"):
        case (("healthy" | "initial"), _):
            return Verdict.SERVING
        case "draining", _:
            return Verdict.DRAINING
        case "unused", "Target.NotRegistered":
            return absent
        case "unused", reason:
            return Verdict.AILING if reason in REGISTERED_THOUGH_UNUSED else Verdict.UNKNOWN
        case (("unhealthy" | "unhealthy.draining" | "unavailable"), _):
            return Verdict.AILING
    return Verdict.UNKNOWN
