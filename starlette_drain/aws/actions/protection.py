# Scale-in protection, and what keeps it from doing harm.
#
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection-endpoint.html: a task asks the
# agent to be protected for so many minutes; meanwhile neither scale-in nor a deployment ends it. A protection that is
# forgotten blocks deployments (DEPLOYMENT_BLOCKED) for as long as it was asked for, 48 hours at the most. So
#
#   - it is asked for in short leases (5 minutes) and renewed at half-time: a process that is killed blocks for minutes;
#   - no lease ends later than its limit after the need began, and the limit begins anew only when there was no
#     need for so long that a lease has ended: neither sessions that come and go around the threshold, nor workers that
#     do, nor a process that starts again add up to more;
#   - it is given back when the need is over, when ECS ends the task all the same, and when the application ends.
#
# Of several workers it is given back by the one that sees the need end, or by the last to leave, and by no other: one
# that hung, or leaves, may be followed by one that still needs it. So until when it is held stands in a file.
#
# Needed is it while a drain goes on that ECS did not ask for (by hand, or for a deployment's bake time), and while more
# than `protection_sessions` sessions are open in the task. Once ECS takes the task out, protection comes too late.
"""Task scale-in protection: held while the task is slow to leave, and never for longer than it said."""

import asyncio
import http.client
import json
import math
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.declared import is_number, is_whole
from starlette_drain._core.events import (
    DrainCancelled,
    DrainFinished,
    DrainReplanned,
    DrainStarted,
    Event,
    TriggerActed,
)
from starlette_drain.aws.actions.last_out import LastOut
from starlette_drain.aws.actions.need import Need
from starlette_drain.aws.api.backoff import Backoff
from starlette_drain.aws.api.calls import unobserved
from starlette_drain.aws.api.errors import Incomplete
from starlette_drain.aws.session import AWSSession
from starlette_drain.aws.sources.impairment import Impairment
from starlette_drain.aws.sources.source import AwsSource
from starlette_drain.exceptions import SettingsError
from starlette_drain.triggers.base import Control

__all__ = ["AGENT_VARIABLE", "NotProtectable", "TaskProtection", "lease", "put_json", "read_answer"]

AGENT_VARIABLE = "ECS_AGENT_URI"
TIME_LIMIT = 5.0
"""Seconds the agent may take to answer, and that releasing may hold up the end of the application."""

LEASE = 5
"""Minutes."""

SHORTEST_LIMIT, LONGEST_LIMIT = 60.0, 172_800.0
"""Seconds for which ECS can protect a task."""

LOOK = 10.0
"""Seconds between two looks at whether protection is needed."""

PAUSE = LEASE * 60.0 + LOOK
"""Seconds without a need after which the limit begins anew: a lease that was not given back has ended."""

ENDED_BY_ECS = frozenset({"target-health", "task-state"})

Put = Callable[[str, Mapping[str, Any]], Awaitable[tuple[int, object]]]
"""Something that puts a JSON object to a URL, and returns the status and the JSON value of the answer."""


class NotProtectable(Incomplete):
    """ECS protects tasks of services only, and none that is ending."""


def lease(limit: float, since: float, now: float) -> int:
    """
    Return for how many minutes protection may be asked for now; 0 when the limit is used up.

    Args:
        limit: Seconds for which the task may be protected.
        since: When the need for it began.
        now: When it is asked; it may take `TIME_LIMIT` to reach the agent.
    """
    return max(0, min(LEASE, math.floor((since + limit - now - TIME_LIMIT) / 60)))


def read_answer(status: int, answer: object, *, wanted: bool) -> None:
    """
    Read what the agent answered to the wish for protection, or for none.

    Raises:
        NotProtectable: If this task can never be protected.
        Incomplete: If it was not done.
    """
    failure, error, protection = (_part(answer, name) for name in ("failure", "error", "protection"))
    if failure.get("Reason") == "TASK_NOT_VALID":
        raise NotProtectable(
            problem="ECS protects no task that belongs to no service or is ending (TASK_NOT_VALID)",
            remedy="remove TaskProtection for such tasks",
        )
    if protection.get("ProtectionEnabled") is wanted:
        return
    code = str(failure.get("Reason") or error.get("Code") or f"HTTP status {status}")
    if code.startswith("AccessDenied"):
        remedy = "allow ecs:GetTaskProtection and ecs:UpdateTaskProtection in the task role"
    else:
        remedy = "it will be retried; protection held now ends within minutes"
    raise Incomplete(problem=f"the ECS agent did not change the task's protection ({code})", remedy=remedy)


def _part(answer: object, name: str) -> Mapping[str, Any]:
    part = answer.get(name) if isinstance(answer, dict) else None
    return part if isinstance(part, dict) else {}


class TaskProtection(AwsSource):
    """
    Protects the task from being scaled in while it is slow to leave; it asks for no drain.

    Hand it over like a trigger: it watches, and is told of every drain. Nothing that fails here breaks a drain.

    Args:
        limit: Seconds for which the task may be protected, 60 to 172800 (48 hours, the longest protection there is).
        sessions: It is protected while more sessions than this are open, too; ``None`` only while it drains.
        put: Who puts a JSON document to the ECS agent; a thread with urllib by default.
        session: The session of this process; one of its own by default.
        **own: See `AWSSession`, for a session of its own.
    """

    name = "task-protection"
    subscribes = (DrainStarted, DrainReplanned, DrainCancelled, DrainFinished)

    def __init__(
        self,
        session: AWSSession | None = None,
        *,
        limit: float,
        sessions: int | None = None,
        put: Put | None = None,
        **own: Any,
    ) -> None:
        super().__init__(session, **own)
        if not (is_number(limit) and SHORTEST_LIMIT <= limit <= LONGEST_LIMIT):
            raise SettingsError("limit", limit, f"give seconds from {SHORTEST_LIMIT:g} to {LONGEST_LIMIT:g}")
        if sessions is not None and not (is_whole(sessions) and sessions >= 0):
            raise SettingsError("sessions", sessions, "give a number of sessions, 0 or more, or None")
        self._limit = limit
        self._sessions = sessions
        self._put = put or put_json
        self._news = asyncio.Event()
        self._drains = False
        self._need: Need | None = None
        self._since: float | None = None
        self._until: float | None = None
        self._is_held = False
        self._renew_at = 0.0
        self._last_error: str | None = None
        self._last_out: LastOut | None = None

    @asynccontextmanager
    async def attend(self, control: Control) -> AsyncIterator[None]:
        """Be one of the workers of the task; the last one to leave gives protection back."""
        if not (agent := self._session.environ.get(AGENT_VARIABLE)):
            yield
            return
        self._last_out = last_out = LastOut(f"protected {agent}")
        await last_out.enter()
        try:
            yield
        finally:
            try:
                self._until = _moment(last_out.leave())
                if self._until is not None and self._until > control.time():
                    await self._give_back(control)
            finally:
                self._last_out = None
                last_out.close()

    async def watch(self, control: Control) -> None:
        """Hold protection while it is needed, until cancelled; then give it back."""
        if not self._session.environ.get(AGENT_VARIABLE):
            self._stand_down(control, f"there is no ECS agent: {AGENT_VARIABLE} is not set")
            return
        self._news = asyncio.Event()
        self._need = Need(f"protection {self._session.environ[AGENT_VARIABLE]}", PAUSE)
        self._take_over(control)
        self._state = "watching"
        impairment = Impairment(self.name, control)
        backoff = Backoff(LOOK, 60.0, self._session.rng)
        try:
            while True:
                self._news.clear()
                try:
                    await self._settle(self._need, control)
                except NotProtectable as never:
                    self._last_error = never.problem
                    self._stand_down(control, str(never))
                    return
                except Incomplete as failed:
                    self._last_error = failed.problem
                    impairment.on_error(self.name, failed.problem, failed.remedy, passing=True)
                    await self._sleep(backoff.grow())
                else:
                    self._last_error = None
                    impairment.worked(self.name)
                    backoff.reset()
                    await self._sleep(LOOK)
        finally:
            await self._release_at_stop(control)

    def status(self, now: float) -> Mapping[str, Any]:
        """Return for how much longer the task is protected, how long it has needed to be, and whose limit it is."""
        return {
            "state": self._state,
            "protected_for": None if self._until is None else round(max(0.0, self._until - now), 3),
            "needed_for": None if self._since is None else round(now - self._since, 3),
            "scope": "task" if self._need is None or self._need.is_lasting else "process",
            "last_error": self._last_error,
        }

    def notify(self, event: Event) -> None:
        """Follow drains that begin, go on for another cause, and end."""
        match event:
            case DrainStarted(cause=cause):
                self._drains = _is_ours(cause)
            case DrainReplanned(cause=cause) if not _is_ours(cause):
                self._drains = False
            case DrainCancelled() | DrainFinished():
                self._drains = False
        self._news.set()

    def _is_needed(self, control: Control) -> bool:
        return self._drains or (self._sessions is not None and control.open_sessions() > self._sessions)

    async def _settle(self, need: Need, control: Control) -> None:
        """Ask for protection, renew it or give it back, as things stand."""
        now = control.time()
        if not self._is_needed(control):
            self._since = None
            if self._until is not None:
                await self._ask(control, 0)
            return
        self._since = need.note(now)
        if self._until is not None and now >= self._until:
            self._until, self._is_held = None, False
        minutes = lease(self._limit, self._since, now)
        if minutes and (self._until is None or now >= self._renew_at):
            await self._ask(control, minutes)

    async def _ask(self, control: Control, minutes: int) -> None:
        """Ask for so many minutes of protection; 0 gives it back."""
        wanted = minutes > 0
        body: dict[str, Any] = {"ProtectionEnabled": wanted}
        now = control.time()
        if wanted:
            body["ExpiresInMinutes"] = minutes
            # Taken for granted before the answer: what may be held is given back at the end.
            self._hold_until(max(self._until or 0.0, now + minutes * 60.0))
        url = f"{self._session.environ[AGENT_VARIABLE].rstrip('/')}/task-protection/v1/state"
        try:
            with unobserved():
                status, answer = await self._put(url, body)
        except (OSError, ValueError, http.client.HTTPException) as error:
            problem = f"the ECS agent does not answer ({type(error).__name__})"
            raise Incomplete(problem=problem, remedy=f"see whether {AGENT_VARIABLE} is what ECS has set") from error
        read_answer(status, answer, wanted=wanted)
        self._renew_at = now + minutes * 30.0
        if not wanted:
            self._hold_until(None)
        if wanted is not self._is_held:
            self._is_held = wanted
            deed = f"protected the task for {minutes} min, renewed while needed" if wanted else "given protection back"
            control.emit(TriggerActed(control.time(), self.name, deed))

    def _take_over(self, control: Control) -> None:
        """Go on with what another worker holds: this one may renew it, and give it back."""
        until = _moment(self._last_out.read()) if self._last_out is not None else None
        if until is not None and until > control.time():
            self._until, self._is_held, self._renew_at = until, True, 0.0

    def _hold_until(self, until: float | None) -> None:
        self._until = until
        if self._last_out is not None:
            self._last_out.note(until)

    async def _release_at_stop(self, control: Control) -> None:
        self._drains = False
        if self._last_out is not None and control.workers > 1:
            self._until, self._is_held = None, False  # the next leader goes on, or the last to leave gives it back
        elif self._until is not None:
            await self._give_back(control)

    async def _give_back(self, control: Control) -> None:
        try:
            async with asyncio.timeout(TIME_LIMIT):
                await self._ask(control, 0)
        except (Incomplete, TimeoutError) as error:
            self._last_error = f"protection could not be given back ({type(error).__name__}); it ends by itself"

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass


async def put_json(url: str, body: Mapping[str, Any]) -> tuple[int, object]:
    """Put a JSON object to *url*, in a thread."""
    return await asyncio.to_thread(_put, url, body)


def _put(url: str, body: Mapping[str, Any]) -> tuple[int, object]:
    if not url.startswith(("http://", "https://")):
        raise ValueError(url)
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="PUT")  # noqa: S310 - http, see above
    # No proxy: the agent is on the link, and a proxy elsewhere could not reach it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=TIME_LIMIT) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, json.load(refusal)


def _moment(noted: object) -> float | None:
    return float(noted) if is_number(noted) and isinstance(noted, int | float) else None


def _is_ours(cause: DrainCause) -> bool:
    """Tell whether ECS may still think that the task goes on."""
    return cause.revocable and cause.trigger not in ENDED_BY_ECS
