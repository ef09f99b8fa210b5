"""What every source that asks AWS has: a search that does not give up, and a question that is asked again and again."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from random import Random
from typing import TypeVar

from starlette_drain._core.events import TriggerPolled, TriggerStoodDown
from starlette_drain.aws.api.backoff import Backoff
from starlette_drain.aws.api.calls import AwsCalls, region_of, unobserved
from starlette_drain.aws.api.client import Aioboto3Clients, AwsClients
from starlette_drain.aws.api.errors import AwsCallFailed, Incomplete, TroubleKind, classify
from starlette_drain.aws.identity.metadata import METADATA_VARIABLE, Fetch, TaskMetadata, fetch_json, read_task
from starlette_drain.aws.sources.impairment import Impairment
from starlette_drain.triggers.base import Control

__all__ = ["AwsSource", "Question", "Retries", "Search"]

logger = logging.getLogger("starlette_drain")

Found = TypeVar("Found")

FIRST_RETRY, LAST_RETRY = 1.0, 60.0
"""Seconds between two attempts to find something out: at first, and at the most."""

FIRST_THROTTLED, LAST_THROTTLED = 10.0, 120.0
"""The same after AWS has throttled one: the tasks of a fleet that starts are throttled together, and must spread."""

SLOW_DOWN = frozenset(
    {TroubleKind.THROTTLED, TroubleKind.DENIED, TroubleKind.NO_CREDENTIALS, TroubleKind.NOT_INSTALLED}
)
"""Where to ask more slowly helps the first, and cannot hurt the others, which need somebody to do something.

A network that fails is asked at the usual pace: the sooner it is back the sooner we see again.
"""

GROWN = 1.1
"""By what factor an interval must have grown for a new phase to be drawn."""


class Retries:
    """
    How long to wait before something that failed is tried again.

    Args:
        rng: The source of luck.
    """

    def __init__(self, rng: Random) -> None:
        self._usual = Backoff(FIRST_RETRY, LAST_RETRY, rng)
        self._throttled = Backoff(FIRST_THROTTLED, LAST_THROTTLED, rng)

    async def wait(self, failure: Exception) -> None:
        """Wait, the longer the more often it failed."""
        throttled = isinstance(failure, AwsCallFailed) and failure.trouble.kind is TroubleKind.THROTTLED
        await asyncio.sleep((self._throttled if throttled else self._usual).grow())


class Search:
    """
    Tries until it works: one warning, one line when it has.

    Args:
        trigger: The name of the trigger, for facts.
        control: Who is told.
        rng: The source of luck.
    """

    def __init__(self, trigger: str, control: Control, rng: Random) -> None:
        self._impairment = Impairment(trigger, control, patience=1)
        self._rng = rng
        self.last_error: str | None = None

    async def until_found(self, attempt: Callable[[], Awaitable[Found]]) -> Found:
        """Return what *attempt* finds, however often it has to be made."""
        retries = Retries(self._rng)
        while True:
            failure: Exception
            try:
                found = await attempt()
            except Incomplete as missing:
                failure, self.last_error = missing, missing.problem
                self._impairment.on_error("discovery", missing.problem, missing.remedy)
            except Exception as error:
                failure, self.last_error = error, f"discovery failed ({type(error).__name__})"
                logger.debug("Discovery failed in a way that was not foreseen", exc_info=True)
                self._impairment.on_error("discovery", self.last_error, "please report it; it is tried again")
            else:
                self.last_error = None
                self._impairment.worked("discovery")
                return found
            await retries.wait(failure)


class Question:
    """
    Asks one question of AWS again and again. A failure changes nothing but the interval.

    Args:
        ask: Asks once, concludes, and returns the outcome in a word; raises `Incomplete` where there is no answer.
        trigger: The name of the trigger, for facts.
        control: The drain.
        rng: The source of luck.
        interval: Seconds between two questions.
        longest: Seconds between two questions at the most, however long AWS throttles.
        source: What is asked, where a trigger asks several.
        impairment: Who tells that it fails, where several share one voice.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[str]],
        *,
        trigger: str,
        control: Control,
        rng: Random,
        interval: float,
        longest: float = 60.0,
        source: str | None = None,
        impairment: Impairment | None = None,
    ) -> None:
        self._ask = ask
        self._trigger = trigger
        self._control = control
        self._rng = rng
        self._source = source or trigger
        self._impairment = impairment or Impairment(trigger, control)
        self._pace = interval
        self._longest = longest
        self._backoff = Backoff(interval, longest, rng)
        self.answered: float | None = None
        self.last_error: str | None = None

    @property
    def interval(self) -> float:
        """Seconds between two questions, as things stand."""
        return self._backoff.wait

    def pace(self, interval: float) -> None:
        """Ask once in so many seconds from now on; after a failure not before the wait for that is over."""
        self._pace = interval
        self._backoff.rebase(interval, self._longest)

    async def run(self) -> None:
        """Ask for ever: at once, after a random part of the interval, and then at that phase."""
        await self.ask()
        # The tasks of a fleet are started together; without a phase of its own each would ask in the same second.
        await asyncio.sleep(self._rng.uniform(0, self.interval))
        pace = self._pace
        while True:
            asked = self._control.time()
            await self.ask()
            wait = self.interval
            if self._pace > pace * GROWN:
                # Phases drawn from a shorter interval are crowded in this one: a fleet that has just been started.
                wait *= self._rng.uniform(0.5, 1.0)
            pace = self._pace
            await asyncio.sleep(max(wait / 2, asked + wait - self._control.time()))

    async def ask(self) -> None:
        """Ask once."""
        asked = self._control.time()
        try:
            outcome = await self._ask()
        except Exception as error:  # noqa: BLE001 - an answer that cannot be read is a failure like any other
            self._failed(error, asked)
            return
        self._tell(asked, outcome)
        self._impairment.worked(self._source)
        self._backoff.reset()
        self.answered, self.last_error = asked, None

    def status(self, now: float) -> dict[str, object]:
        """Return the age of the last answer, the interval, and what went wrong."""
        return {
            "answer_age": None if self.answered is None else round(now - self.answered, 3),
            "interval": round(self.interval, 3),
            "last_error": self.last_error,
        }

    def _failed(self, error: Exception, asked: float) -> None:
        if isinstance(error, Incomplete) and not isinstance(error, AwsCallFailed):
            self._tell(asked, "incomplete")
            self.last_error = error.problem
            self._impairment.on_error(self._source, error.problem, error.remedy, passing=True)
            return
        trouble = error.trouble if isinstance(error, AwsCallFailed) else classify(error, "aws", "answer")
        self._tell(asked, trouble.kind.value)
        self.last_error = trouble.problem
        self._impairment.failed(self._source, trouble)
        if trouble.kind in SLOW_DOWN:
            self._backoff.grow()

    def _tell(self, asked: float, outcome: str) -> None:
        now = self._control.time()
        self._control.emit(TriggerPolled(now, self._trigger, outcome, now - asked))


class AwsSource:
    """
    A trigger that asks AWS about its own task: who makes the clients, who tells the task, how to stand down.

    Args:
        clients: Who makes the AWS clients; aioboto3 by default.
        environ: The environment; the process's own by default.
        rng: The source of luck.
        fetch: Who gets a JSON document from the task metadata endpoint; a thread with urllib by default.
    """

    name = "aws"
    once_per_task = True
    """Runs in one worker of a task: calls to AWS are budgeted, and what they change is the whole task's."""

    def __init__(
        self,
        *,
        clients: AwsClients | None = None,
        environ: Mapping[str, str] | None = None,
        rng: Random | None = None,
        fetch: Fetch = fetch_json,
    ) -> None:
        self._clients = clients
        self._environ = os.environ if environ is None else environ
        self._rng = rng or Random()
        self._fetch = fetch
        self._state = "not started"

    async def _wait_spread(self, seconds: float, needed: asyncio.Event) -> None:
        """Wait for a random part of *seconds*, and no longer than until it is *needed*: a fleet starts together."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._rng.uniform(0, seconds)):
                await needed.wait()

    async def _read_task(self) -> TaskMetadata:
        with unobserved():
            return await read_task(self._environ[METADATA_VARIABLE], self._fetch)

    def _calls(self, arn: str) -> AwsCalls:
        return AwsCalls(self._clients or Aioboto3Clients(), region_of(arn))

    def _stand_down(self, control: Control, why: str) -> None:
        self._state = "stood down"
        control.emit(TriggerStoodDown(control.time(), self.name, why))

    @property
    def _is_on_ecs(self) -> bool:
        return bool(self._environ.get(METADATA_VARIABLE))
