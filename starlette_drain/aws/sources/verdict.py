# What DescribeTargetHealth can say, and what we conclude.
#
# https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_TargetHealth.html lists seven states. Only
# one of them says that the balancer is taking us out: `draining`. "We are out" has no state of its own. A target that
# is not registered is absent from an answer about the whole group; asked for by name it is `unused` with the reason
# Target.NotRegistered; and botocore's waiter TargetDeregistered also takes the error InvalidTarget for it.
#
# All three look the same before ECS has registered the target, which it does some seconds after the container started.
# So they mean "not yet" until the target was seen registered once, and "gone" from then on: where two answers in a row
# say so (see GroupWatch).
#
# What looks like leaving and is not:
#   unhealthy.draining     an NLB lets the flows of an unhealthy target run on; it is still registered
#   unused/Target.NotInUse no listener uses the group, or the zone is off; it is still registered
#   unused/Target.InvalidState, Target.IpUnusable; unavailable; zonal shift and anomaly mitigation: likewise
#   any other error        says nothing at all about the target
"""The verdict on one answer of DescribeTargetHealth: pure, no clock, no I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from starlette_drain.aws.identity.identity import canonical_id

__all__ = ["Reading", "Verdict", "read", "read_error"]


class Verdict(Enum):
    """Where the balancer stands with our target."""

    SERVING = "serving"
    """It is healthy or on the way there."""
    AILING = "ailing"
    """It is registered, and the balancer cannot or will not use it; that is no deregistration."""
    DRAINING = "draining"
    """It is being deregistered."""
    GONE = "gone"
    """It was registered, and is no more."""
    NOT_YET = "not-yet"
    """It has not been seen registered so far."""
    UNKNOWN = "unknown"
    """The answer does not tell."""

    @property
    def leaving(self) -> bool:
        """Whether the balancer is taking us out, or has."""
        return self in (Verdict.DRAINING, Verdict.GONE)

    @property
    def registered(self) -> bool:
        """Whether the answer shows that the target is, or lately was, registered."""
        return self in (Verdict.SERVING, Verdict.AILING, Verdict.DRAINING)


@dataclass(frozen=True, slots=True)
class Reading:
    """
    What one answer says: of our target, and of the whole group.

    Attributes:
        verdict: Of our target.
        healthy: Targets of the group that are healthy.
        draining: Targets of the group that are being deregistered.
        targets: Targets of the group, in whatever state.
        own: How many of them are ours.
        others: Some of those that are there where none is ours, with the likeliest mistakes first.
    """

    verdict: Verdict
    healthy: int = 0
    draining: int = 0
    targets: int = 0
    own: int = 0
    others: tuple[str, ...] = ()


SOME = 5
"""Targets that a warning names."""

# Where one target is listed more than once (two of its ports in one group), the first of these rules.
PRECEDENCE = (Verdict.DRAINING, Verdict.SERVING, Verdict.AILING, Verdict.UNKNOWN)
REGISTERED_THOUGH_UNUSED = frozenset({"Target.NotInUse", "Target.InvalidState", "Target.IpUnusable"})


def read(
    descriptions: Iterable[Mapping[str, Any]], ids: frozenset[str], ports: frozenset[int], *, seen: bool
) -> Reading:
    """
    Conclude from the ``TargetHealthDescriptions`` of a group, asked for without naming targets.

    Args:
        descriptions: The answer.
        ids: Our target ids in their canonical form (see `canonical_id`).
        ports: Our ports; none stands for every port.
        seen: Whether an earlier answer showed our target registered.
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
    Conclude from an error *code*: of all of them only ``InvalidTarget`` says something about the target.

    ``TargetGroupNotFound`` does not. It may be a slip in a setting or in a deployment, and the price of a mistake is
    that every session is closed at once.
    """
    if code in ("InvalidTarget", "InvalidTargetException"):
        return Verdict.GONE if seen else Verdict.NOT_YET
    return Verdict.UNKNOWN


def _some_of(listed: Iterable[object], ids: frozenset[str]) -> tuple[str, ...]:
    """Return ids and ports of some targets: first those with an id of ours, which have another port."""
    targets = [part for each in listed if (part := _part(each, "Target"))]
    targets.sort(key=lambda each: canonical_id(str(each.get("Id", ""))) not in ids)
    return tuple(f"{each.get('Id', '?')} ({each.get('Port', '?')})" for each in targets[:SOME])


def _part(description: object, name: str) -> Mapping[str, Any]:
    """Return a part of a description; an empty one where that is garbage, which must not hide the other targets."""
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
