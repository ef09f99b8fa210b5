# Triggers hold levels, they do not fire edges.
#
# Each trigger holds at most one claim: a drain is wanted, for this reason, by this moment. What the process does
# follows from the claims that stand now, so an undone deregistration, a rollback, a fail-over of the worker that
# watches and a flickering answer are one rule and not four special cases:
#
#   - The earliest deadline of the claims that stand is the deadline of the drain.
#   - A claim that is withdrawn ends the drain if no other stands, also one that is over: the process serves again.
#   - A command by hand is a claim too, and a later one only brings its deadline forward.
#   - Cancel withdraws the commands and mutes every other revocable claim, until its trigger has withdrawn it and made
#     it anew. A claim that is not revocable (the process has been told to stop) is neither muted nor withdrawn.
#   - A trigger that does not know says nothing, and its last claim stands.
"""The claims that triggers hold, and the drain that follows from them."""

import math
from dataclasses import replace

from starlette_drain._core.cause import DrainCause

__all__ = ["BY_HAND", "SAME_MOMENT", "Claims"]

BY_HAND = "manual"
"""The trigger that a command by hand stands for."""

SAME_MOMENT = 1.0
"""Seconds by which two deadlines differ that come from one event sent twice: ages are measured, and travel."""


class Claims:
    """At most one claim for each trigger, in the order in which they were made."""

    def __init__(self) -> None:
        self._held: dict[str, DrainCause] = {}
        self._muted: set[str] = set()

    @property
    def standing(self) -> tuple[DrainCause, ...]:
        """The claims that are neither withdrawn nor muted; none where those that are left only follow others."""
        standing = tuple(each for name, each in self._held.items() if name not in self._muted)
        return () if all(each.follows for each in standing) else standing

    @property
    def muted(self) -> tuple[DrainCause, ...]:
        """The claims that were cancelled, and that their triggers still hold."""
        return tuple(each for name, each in self._held.items() if name in self._muted)

    @property
    def is_revocable(self) -> bool:
        """Whether the process has not been told to stop."""
        return all(each.revocable for each in self._held.values())

    @property
    def deadline(self) -> float:
        """The earliest deadline of the claims that stand; infinity where none does."""
        return min(map(_moment, self.standing), default=math.inf)

    def of(self, trigger: str) -> DrainCause | None:
        """Return the claim of *trigger*, muted or not."""
        return self._held.get(trigger)

    def hold(self, claim: DrainCause) -> bool:
        """
        Let *claim*, which has a deadline, take the place of its trigger's former one; return whether that was news.

        It is none where both are the same but for a moment, or the trigger is muted.
        """
        trigger, former = claim.trigger, self._held.get(claim.trigger)
        if former is None:
            self._held[trigger] = claim
            return True
        if not former.revocable or trigger == BY_HAND:
            claim = replace(
                claim,
                deadline=min(_moment(former), _moment(claim)),
                revocable=former.revocable and claim.revocable,
                taken_out=former.taken_out or claim.taken_out,
            )
        is_alike = former.revocable == claim.revocable and former.taken_out == claim.taken_out
        if is_alike and abs(_moment(former) - _moment(claim)) < SAME_MOMENT:
            return False
        if not claim.revocable:
            self._muted.discard(trigger)
        self._held[trigger] = claim
        return trigger not in self._muted

    def mute(self, claim: DrainCause) -> None:
        """Hold *claim* as one that was cancelled, unless its trigger holds one already."""
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
        """Withdraw the commands by hand, and mute every other revocable claim that stands now."""
        for name in [name for name, each in self._held.items() if each.revocable and each.by_hand]:
            del self._held[name]
        self._held.pop(BY_HAND, None)
        self._muted.update(name for name, each in self._held.items() if each.revocable)


def _moment(claim: DrainCause) -> float:
    return math.inf if claim.deadline is None else claim.deadline
