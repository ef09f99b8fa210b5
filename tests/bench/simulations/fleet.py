"""A fleet that drains with one budget: what its sheds add up to."""

import asyncio
import math
from collections import Counter
from dataclasses import dataclass
from random import Random

from starlette_drain import Drain, DrainCause, Session
from starlette_drain._asgi.closer import close_due
from starlette_drain._core.events import Event, PaceChanged, SessionShed
from starlette_drain._core.session import ClosePolicy
from starlette_drain.aws.api.budget import fleet_interval

__all__ = ["FleetFigures", "simulate_fleet"]


@dataclass(frozen=True, slots=True)
class FleetFigures:
    """
    What a fleet's sheds added up to.

    Attributes:
        tasks: How many drained.
        budget: Reconnects per second that the service can take.
        interval: Seconds between two polls of one task.
        sessions: How many there were.
        seconds: From the first shed to the last.
        mean: Sheds per second in that time.
        busiest_10s: Sheds per second in the busiest ten seconds.
        busiest_1s: Sheds in the busiest second.
        after_deadline: Sheds later than the deadline of their task.
        words: What the tasks said when their pace changed, the numbers left out.
    """

    tasks: int
    budget: float
    interval: float
    sessions: int
    seconds: float
    mean: float
    busiest_10s: float
    busiest_1s: int
    after_deadline: int
    words: tuple[str, ...]


class _Guest(Session):
    """A session that leaves as soon as it is asked."""

    __slots__ = ("_drain",)

    def __init__(self, drain: Drain) -> None:
        super().__init__("/", 0.0)
        self._drain = drain

    def begin_close(self, policy: ClosePolicy) -> None:  # noqa: ARG002
        asyncio.get_running_loop().call_soon(lambda: self._drain.host.engine.closed(self, forced=False))


class _Ledger:
    """Writes down when somebody is shed."""

    def __init__(self) -> None:
        self.sheds: list[float] = []
        self.words: list[str] = []

    def notify(self, event: Event) -> None:
        match event:
            case SessionShed():
                self.sheds.append(event.at)
            case PaceChanged():
                self.words.append(event.pacing.partition(",")[0].partition(" sessions/s")[2] or event.pacing)

    def flush(self, timeout: float) -> None: ...


class _Group:
    """The target group: who is taken out when, and when somebody new is healthy."""

    def __init__(self, taken_out: list[float], healthy_from: float, *, takes_out: bool) -> None:
        self.taken_out = taken_out
        self._healthy_from = healthy_from
        self._takes_out = takes_out

    def seen(self, now: float) -> tuple[int, int]:
        if not self._takes_out:  # two halves of a pair, and in the fuller one as many are healthy as there are tasks
            return 0, len(self.taken_out)
        draining = sum(at <= now for at in self.taken_out)
        new = len(self.taken_out) if now >= self._healthy_from else 0
        return draining, new + len(self.taken_out) - draining


async def simulate_fleet(
    tasks: int,
    *,
    budget: float = 200.0,
    sessions: int = 20_000,
    delay: float = 600.0,
    spread: float = 0.0,
    healthy_from: float = -math.inf,
    start_delay: float = 10.0,
    cause: str = "target-health",
    seed: int = 7,
) -> FleetFigures:
    """
    Let a deployment at 100/200 take *tasks* tasks out, with the package's own `Drain` in each.

    Args:
        tasks: How many drain.
        budget: Reconnects per second for all of them.
        sessions: Of the whole fleet.
        delay: Deregistration delay, in seconds.
        spread: Seconds from the first deregistration to the last.
        healthy_from: When the new tasks are healthy; before, nobody is besides those not yet taken out.
        start_delay: As the option.
        cause: Who asks for the drains: ``"target-health"``; ``"events"``, which come at once, while polls see what
            became of the target at their own time; or ``"bake"``, during which no target is taken out.
        seed: Of the luck.
    """
    rng, loop = Random(seed), asyncio.get_running_loop()
    interval = fleet_interval(5.0, 2 * tasks, 1, 0.2)
    group = _Group(sorted(rng.uniform(0, spread) for _ in range(tasks)), healthy_from, takes_out=cause != "bake")
    words: list[str] = []
    sheds: list[float] = []
    late = 0

    async def live(at: float, seats: int) -> None:
        nonlocal late
        ledger = _Ledger()
        drain = Drain(
            triggers=[], observers=[ledger], rng=Random(rng.random()), pacing=f"fleet:{budget}", start_delay=start_delay
        )
        drain.host.close_with(close_due)
        async with drain.run():
            for _ in range(seats):
                drain.host.engine.track(_Guest(drain))
            polls = at + rng.uniform(0, interval)
            drain.host.engine.note_fleet(*group.seen(polls - interval), counted=False)
            await asyncio.sleep(polls if cause == "target-health" else at)
            deadline = at - (interval if cause == "target-health" else 0.0) + delay - 15.0
            if cause == "target-health":
                drain.host.engine.note_fleet(*group.seen(loop.time()))
            drain.host.engine.claim(DrainCause(cause, "the task is taken out", loop.time(), deadline))
            drained = asyncio.create_task(drain.wait_drained())
            while not drained.done():
                if loop.time() >= polls:
                    drain.host.engine.note_fleet(*group.seen(loop.time()), counted=cause != "bake")
                    polls += interval
                await asyncio.wait([drained], timeout=polls - loop.time())
        words.extend(ledger.words)
        sheds.extend(ledger.sheds)
        late += sum(shed > deadline + 1e-6 for shed in ledger.sheds)

    seats = [sessions // tasks + (number < sessions % tasks) for number in range(tasks)]
    await asyncio.gather(*(live(at, some) for at, some in zip(group.taken_out, seats, strict=True)))
    sheds.sort()
    whole = Counter(int(at) for at in sheds)
    first, last = sheds[0], sheds[-1]
    tens = [sum(whole[second + each] for each in range(10)) / 10 for second in range(int(first), int(last) + 1)]
    return FleetFigures(
        tasks=tasks,
        budget=budget,
        interval=interval,
        sessions=len(sheds),
        seconds=last - first,
        mean=len(sheds) / (last - first),
        busiest_10s=max(tens),
        busiest_1s=max(whole.values()),
        after_deadline=late,
        words=tuple(dict.fromkeys(_without_numbers(each) for each in words)),
    )


def _without_numbers(words: str) -> str:
    return words.lstrip(": ").partition(",")[0]
