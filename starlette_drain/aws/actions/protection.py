# Scale-in protection, and how it is kept from doing harm.
#
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection-endpoint.html: a task asks the
# agent to protect it for some minutes; in that time neither scale-in nor a deployment stops it. A forgotten protection
# blocks deployments (DEPLOYMENT_BLOCKED) until it expires, for up to 48 hours. So
#
#   - it is requested in short leases (5 minutes) and renewed at half-time: after a process is killed it blocks only for
#     minutes;
#   - no lease ends later than the limit after the need began, and the limit restarts only after a time without need in
#     which a lease would have expired: sessions or workers that come and go, or a restart, cannot extend it;
#   - it is released when the need is over, when ECS stops the task anyway, and when the application ends.
#
# Of several workers only the one that sees the need end, or the last to leave, releases it: after one that hangs or
# leaves, another may still need it. So its expiry is kept in a file.
#
# It is needed during a drain that ECS did not start (by hand, or in a deployment's bake time), and while more than
# `sessions` sessions are open in the task. Once ECS deregisters the task, protection is too late.
"""Task scale-in protection: held while the task is slow to leave, and never longer than its limit."""

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
"""Seconds that the agent may take to answer, and for which the release may delay the end of the application."""

LEASE = 5
"""The length of a lease, in minutes."""

SHORTEST_LIMIT, LONGEST_LIMIT = 60.0, 172_800.0
"""The bounds of the time for which ECS can protect a task, in seconds."""

CHECK_INTERVAL = 10.0
"""Seconds between two checks whether protection is needed."""

PAUSE = LEASE * 60.0 + CHECK_INTERVAL
"""Seconds without a need after which the limit restarts: a lease that was not released has expired."""

ENDED_BY_ECS = frozenset({"target-health", "task-state"})

Put = Callable[[str, Mapping[str, Any]], Awaitable[tuple[int, object]]]
"""Puts a JSON object to a URL, and returns the status and the JSON value of the answer."""


class NotProtectable(Incomplete):
    """This task cannot be protected: it belongs to no service, or is stopping."""


def lease(limit: float, since: float, now: float) -> int:
    """
    Return for how many minutes protection may be requested now; 0 if the limit is used up.

    Args:
        limit: Seconds for which the task may be protected.
        since: When the need for protection began.
        now: The time; the request may take `TIME_LIMIT` to reach the agent.
    """
    return max(0, min(LEASE, math.floor((since + limit - now - TIME_LIMIT) / 60)))


def read_answer(status: int, answer: object, *, wanted: bool) -> None:
    """
    Check the agent's answer to a request for protection, or to release it.

    Raises:
        NotProtectable: If this task can never be protected.
        Incomplete: If the protection was not changed.
    """
    failure, error, protection = (_part(answer, name) for name in ("failure", "error", "protection"))
    if failure.get("Reason") == "TASK_NOT_VALID":
        raise NotProtectable(
            problem="ECS does not protect a task that belongs to no service or is stopping (TASK_NOT_VALID)",
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
    Protects the task from scale-in while it is slow to leave. It starts no drain.

    Pass it like a trigger. Its failures never affect a drain.

    Args:
        session: The session of this process; by default a new one.
        limit: Seconds for which the task may be protected, from 60 to 172800 (48 hours, the longest that ECS allows).
        sessions: Protect the task also while more sessions than this are open; ``None`` protects it only in a drain.
        put: Puts a JSON document to the ECS agent; by default with urllib in a thread.
        **own: The arguments of a new `AWSSession`.

    Raises:
        SettingsError: If *limit* or *sessions* is invalid.
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
        """Count this process among the workers of the task; the last one to leave releases the protection."""
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
        """Hold protection while it is needed, until cancelled; then release it."""
        if not self._session.environ.get(AGENT_VARIABLE):
            self._stand_down(control, f"there is no ECS agent: {AGENT_VARIABLE} is not set")
            return
        self._news = asyncio.Event()
        self._need = Need(f"protection {self._session.environ[AGENT_VARIABLE]}", PAUSE)
        self._take_over(control)
        self._state = "watching"
        impairment = Impairment(self.name, control)
        backoff = Backoff(CHECK_INTERVAL, 60.0, self._session.rng)
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
                    await self._sleep(CHECK_INTERVAL)
        finally:
            await self._release_at_stop(control)

    def status(self, now: float) -> Mapping[str, Any]:
        """Return for how long the task is still protected, how long it has needed it, and whether the limit lasts."""
        return {
            "state": self._state,
            "protected_for": None if self._until is None else round(max(0.0, self._until - now), 3),
            "needed_for": None if self._since is None else round(now - self._since, 3),
            "scope": "task" if self._need is None or self._need.is_lasting else "process",
            "last_error": self._last_error,
        }

    def notify(self, event: Event) -> None:
        """Check again when a drain begins, gets another cause, or ends."""
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
        """Request, renew or release protection, as needed now."""
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
        """Request protection for *minutes*; 0 releases it."""
        wanted = minutes > 0
        body: dict[str, Any] = {"ProtectionEnabled": wanted}
        now = control.time()
        if wanted:
            body["ExpiresInMinutes"] = minutes
            # Recorded before the answer, so that what may be held is released at the end.
            self._hold_until(max(self._until or 0.0, now + minutes * 60.0))
        url = f"{self._session.environ[AGENT_VARIABLE].rstrip('/')}/task-protection/v1/state"
        try:
            with unobserved():
                status, answer = await self._put(url, body)
        except (OSError, ValueError, http.client.HTTPException) as error:
            problem = f"the ECS agent does not answer ({type(error).__name__})"
            raise Incomplete(problem=problem, remedy=f"check whether {AGENT_VARIABLE} is what ECS has set") from error
        read_answer(status, answer, wanted=wanted)
        self._renew_at = now + minutes * 30.0
        if not wanted:
            self._hold_until(None)
        if wanted is not self._is_held:
            self._is_held = wanted
            deed = f"protected the task for {minutes} min, renewed while needed" if wanted else "released protection"
            control.emit(TriggerActed(control.time(), self.name, deed))

    def _take_over(self, control: Control) -> None:
        """Take over the protection that another worker holds: this one may renew or release it."""
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
            self._until, self._is_held = None, False  # the next leader or the last worker releases it
        elif self._until is not None:
            await self._give_back(control)

    async def _give_back(self, control: Control) -> None:
        try:
            async with asyncio.timeout(TIME_LIMIT):
                await self._ask(control, 0)
        except (Incomplete, TimeoutError) as error:
            self._last_error = f"protection could not be released ({type(error).__name__}); it expires by itself"

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
    # No proxy: the agent is link-local, and a proxy could not reach it.
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
    """Return whether ECS may not know yet that the task is leaving."""
    return cause.revocable and cause.trigger not in ENDED_BY_ECS
