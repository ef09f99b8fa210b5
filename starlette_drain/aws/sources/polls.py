# Every source is one straight loop:
#
#     async for look in polls:
#         with look:
#             ask        await an answer; a failure in here changes nothing but the interval
#             judge      a pure function; its verdict is the outcome of the look
#             report     `control.claim` at every look while a drain is wanted, `control.withdraw` at every look while
#                        none is wanted, and neither if the answer does not tell
"""When to poll AWS, and how failures are handled."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from random import Random
from types import TracebackType

from starlette_drain._core.events import TriggerPolled
from starlette_drain.aws.api.backoff import Backoff
from starlette_drain.aws.api.budget import Bucket
from starlette_drain.aws.api.errors import AwsCallFailed, Incomplete, TroubleKind, classify
from starlette_drain.aws.sources.impairment import Impairment
from starlette_drain.triggers.base import Control

__all__ = ["Look", "Polls"]

SLOW_DOWN = frozenset(
    {TroubleKind.THROTTLED, TroubleKind.DENIED, TroubleKind.NO_CREDENTIALS, TroubleKind.NOT_INSTALLED}
)
"""Failures after which to poll more slowly.

That helps against throttling, and does not hurt with the others, which somebody has to fix. Network failures do not
slow the polls down, so that a recovery is noticed soon.
"""

ANSWERING = 10.0
"""Seconds after which a poll without an answer has failed."""

GROWN = 1.1
"""The factor by which an interval must have grown for a new random phase."""


class Polls:
    """
    An endless series of polls: the first at once, the second after a random part of the interval, then regularly.

    Args:
        trigger: The name of the trigger, for events.
        control: The control of the drain.
        rng: The source of randomness.
        interval: Seconds between two polls.
        longest: The longest interval in seconds, however long AWS throttles.
        bucket: The budget of the calls.
        source: What is polled, if a trigger has several sources; by default the name of the trigger.
        impairment: Reports failures, if several sources share one report.
        after_look: Called after every poll, whether it was answered or not.
    """

    def __init__(
        self,
        trigger: str,
        control: Control,
        rng: Random,
        *,
        interval: float,
        longest: float = 60.0,
        bucket: Bucket | None = None,
        source: str | None = None,
        impairment: Impairment | None = None,
        after_look: Callable[[], None] = lambda: None,
    ) -> None:
        self.trigger = trigger
        self.control = control
        self.source = source or trigger
        self.impairment = impairment or Impairment(trigger, control)
        self.backoff = Backoff(interval, longest, rng)
        self.bucket = bucket or Bucket()
        self.answered: float | None = None
        """When the last poll that was answered began."""
        self.last_error: str | None = None
        self.began = control.time()
        """When the series was created."""
        self._after_look = after_look
        self._rng = rng
        self._pace = interval
        self._longest = longest
        self._looks = 0
        self._asked = 0.0
        self._last_pace = interval
        self._woken = asyncio.Event()

    @property
    def interval(self) -> float:
        """The current interval in seconds."""
        return self.backoff.wait

    def blind_since(self, now: float) -> float | None:
        """Return since when no poll was answered, if that is longer than two intervals; otherwise ``None``."""
        since = self.began if self.answered is None else self.answered
        return since if now - since > 2 * self._pace + ANSWERING else None

    def pace(self, interval: float, longest: float | None = None) -> None:
        """Change the interval, and the longest interval; a wait after a failure still applies."""
        self._pace, self._longest = interval, self._longest if longest is None else longest
        self.backoff.rebase(interval, self._longest)

    def wake(self) -> None:
        """Poll now, because something may have changed."""
        self._woken.set()

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()

    def __aiter__(self) -> "Polls":
        return self

    async def __anext__(self) -> "Look":
        """Wait until the next poll is due."""
        if self._looks == 1:
            # The tasks of a fleet are started together: without a random phase all would poll in the same second.
            await self._sleep(self._rng.uniform(0, self.interval))
            self._last_pace = self._pace
        elif self._looks:
            wait = self.interval
            if self._pace > self._last_pace * GROWN:
                # Phases drawn from a shorter interval are too close together in a longer one.
                wait *= self._rng.uniform(0.5, 1.0)
            self._last_pace = self._pace
            await self._sleep(max(wait / 2, self._asked + wait - self.control.time()))
        self._looks += 1
        self._asked = self.control.time()
        return Look(self, self._asked)

    def status(self, now: float) -> dict[str, object]:
        """Return the age of the last answer, the interval, and the last error."""
        return {
            "answer_age": None if self.answered is None else round(now - self.answered, 3),
            "interval": round(self.interval, 3),
            "last_error": self.last_error,
        }


class Look:
    """
    One poll. A failure in its ``with`` block is reported, and changes nothing but the interval.

    Attributes:
        asked: When it began.
        outcome: The verdict, in a word.
    """

    def __init__(self, polls: Polls, asked: float) -> None:
        self._polls = polls
        self.asked = asked
        self.outcome = "unknown"

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        polls = self._polls
        if error is None:
            self._tell(self.outcome)
            polls.impairment.worked(polls.source)
            polls.backoff.reset()
            polls.bucket.answered()
            polls.answered, polls.last_error = self.asked, None
            polls._after_look()
            return False
        if isinstance(error, Exception):  # including errors in reading the answer
            self._fail(error)
            polls._after_look()
            return True
        return False

    def _fail(self, error: Exception) -> None:
        polls = self._polls
        if isinstance(error, Incomplete) and not isinstance(error, AwsCallFailed):
            self._tell("incomplete")
            polls.last_error = error.problem
            polls.impairment.on_error(polls.source, error.problem, error.remedy, passing=True)
            return
        trouble = error.trouble if isinstance(error, AwsCallFailed) else classify(error, "aws", "answer")
        self._tell(trouble.kind.value)
        polls.last_error = trouble.problem
        polls.impairment.failed(polls.source, trouble)
        is_throttled = trouble.kind is TroubleKind.THROTTLED and trouble.service == polls.bucket.service
        if is_throttled and polls.answered is not None:  # before that the fleet is just starting: the backoff is enough
            polls.pace(polls._pace * polls.bucket.throttled())
        if trouble.kind in SLOW_DOWN:
            polls.backoff.grow()

    def _tell(self, outcome: str) -> None:
        control = self._polls.control
        now = control.time()
        control.emit(TriggerPolled(now, self._polls.trigger, outcome, now - self.asked))
