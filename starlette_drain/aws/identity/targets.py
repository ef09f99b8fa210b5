# What is put back is what was taken out, entry by entry: with the address, its spelling and the port that were seen.
# "All targets that this task could be" is another thing. Of a blue and a green group it is in one; where no port is
# given it may have another than the group's; and of its IPv4 and IPv6 addresses ECS has chosen one.
#
# That a call has been sent is noted before it is, since AWS may act although its answer is lost: a time limit, a
# lost connection, a process that stops meanwhile.
"""This task's own entries in one target group: look, put in, take out, put back."""

from collections.abc import Callable, Mapping
from typing import Any

from starlette_drain.aws.api import elbv2
from starlette_drain.aws.api.calls import AwsCalls
from starlette_drain.aws.api.errors import AwsCallFailed, TroubleKind
from starlette_drain.aws.identity.identity import OwnTarget, canonical_id

__all__ = ["TargetEntries", "find_own", "is_out"]

Entry = Mapping[str, Any]
"""A ``TargetDescription``: an id, and a port."""

ANSWER_LOST = frozenset({TroubleKind.UNREACHABLE, TroubleKind.SLOW, TroubleKind.OTHER})
"""Failures after which the call may have come into force, or may yet; all others are refusals."""

IN_FORCE_WITHIN = 30.0
"""Seconds after which a call whose answer was lost has come into force, or never will."""


def find_own(descriptions: list[Mapping[str, Any]], target: OwnTarget) -> list[Mapping[str, Any]]:
    """Return the ``TargetHealthDescriptions`` that are *target*'s."""
    return [
        each
        for each in descriptions
        if canonical_id(str((each.get("Target") or {}).get("Id", ""))) in target.ids
        and (not target.ports or each["Target"].get("Port") in target.ports)
    ]


def is_out(description: Mapping[str, Any]) -> bool:
    """Tell whether the balancer sends nothing new to a target, because it was deregistered."""
    health = description.get("TargetHealth") or {}
    match health.get("State"), health.get("Reason"):
        case ("draining", _) | ("unused", "Target.NotRegistered"):
            return True
    return False


class TargetEntries:
    """
    This task's own entries in one target group, and whether they were taken out from here.

    Args:
        calls: The way to AWS.
        target: What this task is in the group.
        registers: Whether the task registers itself. Only then are entries made up that were never seen.
        note: Called when what was taken out is about to be something else.
    """

    def __init__(
        self, calls: AwsCalls, target: OwnTarget, *, registers: bool, note: Callable[[], object] = bool
    ) -> None:
        self._calls = calls
        self.target = target
        self._registers = registers
        self._note = note
        self.entries = _made_up(target) if registers else []
        """What is put in, taken out and put back."""
        self._answer_lost = False
        self._unseen = False
        self.out_since: float | None = None
        """Since when the entries may be out, because they were taken out from here."""

    @property
    def arn(self) -> str:
        """ARN of the group."""
        return self.target.target_group_arn

    async def put_in(self) -> bool:
        """
        Put the task in; return whether it was out.

        Raises:
            AwsCallFailed: If that does not work.
        """
        if seen := await self._look():
            self.entries = seen
            return False
        await self._register()
        return True

    async def take_out(self, now: float, *, looks: bool = True) -> bool:
        """
        Take the task out; return whether that was done from here, now or before.

        Args:
            now: When it is asked.
            looks: Whether to take out what is seen; otherwise what is known, listed or not.

        Raises:
            AwsCallFailed: If that does not work.
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
        Put in again what was taken out; return whether that is the last word.

        It is not where the answer to the call that took it out was lost: that may come into force after this.

        Raises:
            AwsCallFailed: If that does not work.
        """
        await self._register()
        if self._answer_lost and self.out_since is not None and now < self.out_since + IN_FORCE_WITHIN:
            return False
        self.out_since = None
        self._note()
        return True

    def recall(self, since: float, entries: list[Entry]) -> None:
        """Know what another worker took out; whether it got the answer, it cannot say any more."""
        self.out_since, self.entries, self._answer_lost = since, entries, True

    async def is_out(self) -> bool:
        """
        Tell whether the balancer sends nothing new to the task.

        Raises:
            AwsCallFailed: If it cannot be found out.
        """
        return not await self._find_registered()

    async def strangers(self) -> list[Entry]:
        """
        Return what of the group gets traffic, has an address, and is not this task's.

        Raises:
            AwsCallFailed: If it cannot be found out.
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
        """Return what is seen registered; ``None`` where that cannot be told, and what is known will do."""
        try:
            seen = await self._find_registered()
        except AwsCallFailed:
            if not self._registers:
                raise  # what was not seen could not be put back
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
