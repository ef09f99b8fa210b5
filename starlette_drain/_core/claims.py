# Triggers are level-triggered, not edge-triggered.
#
# Each trigger holds at most one claim: a drain is wanted, for this reason, by this deadline. What the process does
# follows from the claims that stand now. So one rule covers an undone deregistration, a rollback, a failover of the
# worker that watches, and a flapping answer:
#
#   - The drain has the earliest deadline of the claims that stand.
#   - If a claim is withdrawn and no other stands, the drain ends, even one that is over: the process serves again.
#   - A manual command is a claim too. A later command can only bring its deadline forward.
#   - Cancel withdraws the commands. It mutes every other revocable claim until its trigger has withdrawn and renewed
#     it. A claim that is not revocable (the process has been told to stop) is neither muted nor withdrawn.
#   - A trigger that does not know says nothing, and its last claim stands.
"""The claims that triggers hold, and the drain that follows from them."""

import math
from dataclasses import replace

from starlette_drain._core.cause import DrainCause

__all__ = ["BY_HAND", "SAME_MOMENT", "Claims"]

BY_HAND = "manual"
"""The trigger name of manual commands."""

SAME_MOMENT = 1.0
"""Seconds within which two deadlines count as the same: one event sent twice differs by its time in transit."""


class Claims:
    """The claims of all triggers, at most one each, in the order in which they were made."""

    def __init__(self) -> None:
        self._held: dict[str, DrainCause] = {}
        self._muted: set[str] = set()

    @property
    def standing(self) -> tuple[DrainCause, ...]:
        """The claims that are not muted; none if all of those only follow others."""
        standing = tuple(each for name, each in self._held.items() if name not in self._muted)
        return () if all(each.follows for each in standing) else standing

    @property
    def muted(self) -> tuple[DrainCause, ...]:
        """The claims that were cancelled but that their triggers still hold."""
        return tuple(each for name, each in self._held.items() if name in self._muted)

    @property
    def is_revocable(self) -> bool:
        """Whether the drain can still be cancelled: no claim says that the process has been told to stop."""
        return all(each.revocable for each in self._held.values())

    @property
    def deadline(self) -> float:
        """The earliest deadline of the claims that stand; infinity if none does."""
        return min(map(_deadline_of, self.standing), default=math.inf)

    def of(self, trigger: str) -> DrainCause | None:
        """Return the claim of *trigger*, muted or not."""
        return self._held.get(trigger)

    def hold(self, claim: DrainCause) -> bool:
        """
        Replace the claim of the trigger with *claim*, which has a deadline; return whether that matters.

        It does not if the two agree within `SAME_MOMENT`, or if the trigger is muted.
        """
        trigger, held = claim.trigger, self._held.get(claim.trigger)
        if held is None:
            self._held[trigger] = claim
            return True
        if not held.revocable or trigger == BY_HAND:
            claim = replace(
                claim,
                deadline=min(_deadline_of(held), _deadline_of(claim)),
                revocable=held.revocable and claim.revocable,
                taken_out=held.taken_out or claim.taken_out,
            )
        is_alike = held.revocable == claim.revocable and held.taken_out == claim.taken_out
        if is_alike and abs(_deadline_of(held) - _deadline_of(claim)) < SAME_MOMENT:
            return False
        if not claim.revocable:
            self._muted.discard(trigger)
        self._held[trigger] = claim
        return trigger not in self._muted

    def mute(self, claim: DrainCause) -> None:
        """Hold *claim* as muted, unless its trigger already holds one."""
        if claim.trigger not in self._held:
            self._held[claim.trigger] = claim
            self._muted.add(claim.trigger)

    def withdraw(self, trigger: str) -> bool:
        """Drop the claim of *trigger* if it is revocable; return whether it stood."""
        claim = self._held.get(trigger)
        if claim is None or not claim.revocable:
            return False
        del self._held[trigger]
        was_muted = trigger in self._muted
        self._muted.discard(trigger)
        return not was_muted

    def cancel(self) -> None:
        """Withdraw the manual commands, and mute every other revocable claim that stands now."""
        for name in [name for name, each in self._held.items() if each.revocable and each.by_hand]:
            del self._held[name]
        self._held.pop(BY_HAND, None)
        self._muted.update(name for name, each in self._held.items() if each.revocable)


def _deadline_of(claim: DrainCause) -> float:
    return math.inf if claim.deadline is None else claim.deadline
