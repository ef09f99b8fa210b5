# Exactly the entries that were taken out are put back: with the address, its spelling and the port that were seen.
# Registering every target that this task could have would be wrong. It is in only one of a blue and a green group, it
# may have another port than the group's default, and ECS has chosen one of its IPv4 and IPv6 addresses.
#
# A call is recorded before it is sent, because AWS may act although its answer is lost: by a timeout, a lost
# connection, or a process that stops.
"""This task's own entries in one target group: find them, register, deregister and restore them."""

from collections.abc import Callable, Mapping
from typing import Any

from starlette_drain.aws.api import elbv2
from starlette_drain.aws.api.calls import AwsCalls
from starlette_drain.aws.api.errors import AwsCallFailed, TroubleKind
from starlette_drain.aws.identity.identity import OwnTarget, canonical_id

__all__ = ["TargetEntries", "find_own", "is_out"]

Entry = Mapping[str, Any]
"""A ``TargetDescription``: an id and a port."""

ANSWER_LOST = frozenset({TroubleKind.UNREACHABLE, TroubleKind.SLOW, TroubleKind.OTHER})
"""Failures after which the call may have taken effect, or still may. All others are refusals."""

IN_FORCE_WITHIN = 30.0
"""Seconds within which a call whose answer was lost takes effect, if ever."""


def find_own(descriptions: list[Mapping[str, Any]], target: OwnTarget) -> list[Mapping[str, Any]]:
    """Return those of the ``TargetHealthDescriptions`` that belong to *target*."""
    return [
        each
        for each in descriptions
        if canonical_id(str((each.get("Target") or {}).get("Id", ""))) in target.ids
        and (not target.ports or each["Target"].get("Port") in target.ports)
    ]


def is_out(description: Mapping[str, Any]) -> bool:
    """Return whether a target was deregistered, so that the balancer sends it nothing new."""
    health = description.get("TargetHealth") or {}
    match health.get("State"), health.get("Reason"):
        case ("draining", _) | ("unused", "Target.NotRegistered"):
            return True
    return False


class TargetEntries:
    """
    This task's own entries in one target group, and whether we have deregistered them.

    Args:
        calls: The AWS calls.
        target: This task's target in the group.
        registers: Whether the task registers itself. Only then are entries registered that were never seen.
        note: Called when the deregistered entries change.
    """

    def __init__(
        self, calls: AwsCalls, target: OwnTarget, *, registers: bool, note: Callable[[], object] = bool
    ) -> None:
        self._calls = calls
        self.target = target
        self._registers = registers
        self._note = note
        self.entries = _made_up(target) if registers else []
        """The entries to register, deregister and restore."""
        self._answer_lost = False
        self._unseen = False
        self.out_since: float | None = None
        """Since when the entries may be deregistered by us; ``None`` if they are not."""

    @property
    def arn(self) -> str:
        """The ARN of the group."""
        return self.target.target_group_arn

    async def put_in(self) -> bool:
        """
        Register the task; return False if it was registered already.

        Raises:
            AwsCallFailed: If a call fails.
        """
        if seen := await self._look():
            self.entries = seen
            return False
        await self._register()
        return True

    async def take_out(self, now: float, *, looks: bool = True) -> bool:
        """
        Deregister the task; return whether we have done that, now or before.

        Args:
            now: The time, in seconds.
            looks: Whether to deregister the entries that are found; otherwise those that are known.

        Raises:
            AwsCallFailed: If a call fails.
        """
        seen = await self._look() if looks else None
        if seen:
            self.entries = seen + [each for each in self.entries if self.out_since is not None and each not in seen]
            await self._deregister(now)
        elif seen is None:
            # "If the specified target does not exist, the action returns successfully", says the API reference.
            await self._deregister(now if self.out_since is None else self.out_since)
        return self.out_since is not None

    async def put_back(self, now: float) -> bool:
        """
        Register the deregistered entries again; return whether that is final.

        It is not if the answer to the deregistration was lost: that may still take effect after this call.

        Raises:
            AwsCallFailed: If a call fails.
        """
        await self._register()
        if self._answer_lost and self.out_since is not None and now < self.out_since + IN_FORCE_WITHIN:
            return False
        self.out_since = None
        self._note()
        return True

    def recall(self, since: float, entries: list[Entry]) -> None:
        """Take over entries that another worker deregistered; whether it got the answer is unknown."""
        self.out_since, self.entries, self._answer_lost = since, entries, True

    async def is_out(self) -> bool:
        """
        Return whether the balancer sends nothing new to the task.

        Raises:
            AwsCallFailed: If the call fails.
        """
        return not await self._find_registered()

    async def strangers(self) -> list[Entry]:
        """
        Return the registered entries of the group that have an address and are not this task's.

        Raises:
            AwsCallFailed: If the call fails.
        """
        if self.target.target_type == "instance":
            return []  # another task on the same instance may have the same port by now
        listed = await elbv2.describe_health(self._calls, self.arn)
        named = [_named(each["Target"]) for each in listed if each.get("Target") and not is_out(each)]
        return [each for each in named if canonical_id(str(each.get("Id", ""))) not in self.target.ids]

    async def _register(self) -> None:
        self._unseen = True
        await elbv2.register(self._calls, self.arn, self.entries)

    async def _deregister(self, since: float) -> None:
        before = self.out_since, self._answer_lost
        self.out_since, self._answer_lost = since, True
        self._note()
        try:
            await elbv2.deregister(self._calls, self.arn, self.entries)
        except AwsCallFailed as failed:
            if failed.trouble.kind not in ANSWER_LOST:
                self.out_since, self._answer_lost = before
                self._note()
            raise
        self._answer_lost = False

    async def _look(self) -> list[Entry] | None:
        """Return the registered entries; ``None`` if they cannot be found and the known ones have to do."""
        try:
            seen = await self._find_registered()
        except AwsCallFailed:
            if not self._registers:
                raise  # entries that were not seen could not be restored
            return None
        self._unseen = self._unseen and not seen
        return None if self._unseen else seen  # what was just registered may not be listed yet

    async def _find_registered(self) -> list[Entry]:
        own = find_own(await elbv2.describe_health(self._calls, self.arn), self.target)
        return [_named(each["Target"]) for each in own if not is_out(each)]


def _made_up(target: OwnTarget) -> list[Entry]:
    # A task with addresses of both families is registered with one of them; DRAIN_TARGET_ID chooses another.
    target_id = min(target.ids, key=lambda each: (":" in each, each))
    if not target.ports:
        return [{"Id": target_id}]  # with the port of the group
    return [{"Id": target_id, "Port": port} for port in sorted(target.ports)]


def _named(target: Mapping[str, Any]) -> Entry:
    return {key: target[key] for key in ("Id", "Port") if key in target}
