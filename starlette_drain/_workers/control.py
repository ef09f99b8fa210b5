"""What triggers and manual commands may do in a worker: as in a single process, but published to the others."""

from collections.abc import Callable, Iterable

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.claims import BY_HAND
from starlette_drain._engine.control import LocalControl
from starlette_drain._engine.lifetime import Lifetime
from starlette_drain._workers.command import Cancel, Claim, Withdraw
from starlette_drain._workers.member import Member
from starlette_drain.triggers.base import Trigger

__all__ = ["TaskControl"]


class TaskControl(LocalControl):
    """
    The `Control` of a worker: changes to the drain of the whole task are published.

    A stop signal (SIGTERM) is not: a supervisor that stops all workers signals each of them, and one that restarts them
    one after the other (uvicorn's SIGHUP) must not find the others drained.

    Args:
        lifetime: The lifetime on the current event loop.
        triggers: Returns all triggers.
        member: This worker as a member of the group.
    """

    def __init__(self, lifetime: Lifetime, triggers: Callable[[], Iterable[Trigger]], member: Member) -> None:
        super().__init__(lifetime, triggers)
        self._member = member

    def claim(self, cause: DrainCause) -> None:
        """Make *cause* the claim of its trigger, for the whole task."""
        place = self._member.place
        changed = self.engine.claim(cause)
        claim = self.engine.claim_of(cause.trigger)
        if claim is not None and claim.revocable and not claim.by_hand and claim.trigger != BY_HAND:
            self._member.hold(claim)
        if not changed:
            return
        if claim is not None and (claim.revocable or claim.trigger in self._member.leads):
            self._member.publish(Claim(claim), place)
        elif claim is not None:
            self._member.share_window(claim)

    def withdraw(self, trigger: str) -> bool:
        """Drop the claim of *trigger*, even one made by a dead worker; return whether that changed anything."""
        place = self._member.place
        if not self._member.drop(trigger) or self.engine.claim_of(trigger) is None:
            return False
        changed = self.engine.withdraw(trigger)
        if self.engine.claim_of(trigger) is None:
            self._member.publish(Withdraw(trigger), place)
        return changed

    def cancel(self) -> None:
        """
        Serve again, and mute the claims that stand.

        Raises:
            IllegalTransition: If there is no drain.
            TooLateToCancel: If the process has been told to stop.
        """
        place = self._member.place
        self.engine.cancel()
        self._member.publish(Cancel(), place)

    async def refresh(self) -> None:
        """Read what the other workers have published."""
        await self._member.refresh()

    async def publish(self) -> None:
        """Wait until the other workers can read what was done here."""
        await self._member.wait_published()

    async def wait_all_drained(self) -> bool:
        """Wait until all workers have drained; return False if the drain was cancelled or never began."""
        return await self.engine.wait_drained() and await self._member.wait_others_drained()
