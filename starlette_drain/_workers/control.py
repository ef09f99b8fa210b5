"""What triggers and commands by hand may do in a worker: the same as in a single process, published to the others."""

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
    The `Control` of a worker: what changes the drain of the whole task is published.

    Being told to stop (SIGTERM) is not: a supervisor that wants all workers to stop tells all of them, and one that
    restarts them in turn (uvicorn's SIGHUP) must not find the others drained.

    Args:
        lifetime: The lifetime on the present event loop.
        triggers: Returns all triggers.
        member: This worker as part of the group.
    """

    def __init__(self, lifetime: Lifetime, triggers: Callable[[], Iterable[Trigger]], member: Member) -> None:
        super().__init__(lifetime, triggers)
        self._member = member

    def claim(self, cause: DrainCause) -> None:
        """Hold a claim."""
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
        """Drop the claim of *trigger*, also that of a dead worker; return whether that changed anything."""
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
        """Read first what the other workers have published."""
        await self._member.refresh()

    async def publish(self) -> None:
        """Wait until the other workers can read what was done here."""
        await self._member.wait_published()

    async def wait_all_drained(self) -> bool:
        """Wait until all workers have drained; return False if the drain was cancelled, or never came."""
        return await self.engine.wait_drained() and await self._member.wait_others_drained()
