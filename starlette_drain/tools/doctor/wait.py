"""``doctor --wait``: is this task watched as it should be? Asked until it is, or the time is up."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Any

from starlette_drain.aws.api.client import AwsClients
from starlette_drain.aws.identity.metadata import METADATA_VARIABLE
from starlette_drain.aws.options import AwsSettings
from starlette_drain.exceptions import SettingsError
from starlette_drain.tools.doctor.checks import check_target
from starlette_drain.tools.doctor.inside import Answer, ask_own_process, ask_process
from starlette_drain.tools.doctor.look import Given, look, urls_of
from starlette_drain.tools.doctor.record import Finding, Group

__all__ = ["judge", "wait_watched"]

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
"""Seconds between two questions."""

REGISTERED = ("serving", "ailing", "draining")
"""What target health says of a target that is, or lately was, in its group."""

SOURCES = ("target-health", "task-state", "service-deployment")


async def wait_watched(given: Given, clients: AwsClients, environ: Mapping[str, str], limit: float) -> list[Finding]:
    """
    Return what there is to say once the task is watched as it should be, or when *limit* seconds are over.

    The process itself is asked, at ``/drain``; where there is no token to ask it with, what it will find is looked at.
    """
    ends, pause = time.monotonic() + limit, FIRST_PAUSE
    try:
        options = AwsSettings.load({}, environ)
    except SettingsError as error:
        return [Finding("unsafe", "options", str(error), "the application will not start like this: mend it")]
    if METADATA_VARIABLE not in environ:
        text = f"this is no ECS task: {METADATA_VARIABLE} is not set"
        return [Finding("unsafe", "identity", text, "use --wait inside a container of the task")]
    while True:
        left = ends - time.monotonic()
        try:
            async with asyncio.timeout(max(left, 1.0)):
                findings = await _look(given, clients, environ, options)
        except TimeoutError:
            findings = [_not_watching(f"there was no answer within {limit:g} s")]
        left = ends - time.monotonic()
        if left <= 0 or not any(each.level == "unsafe" for each in findings):
            return findings
        await asyncio.sleep(min(pause, left))
        pause = min(LONGEST_PAUSE, pause * 1.5)


async def _look(given: Given, clients: AwsClients, environ: Mapping[str, str], options: AwsSettings) -> list[Finding]:
    token = environ.get("DRAIN_ADMIN_TOKEN")
    answer = None if given.url else await ask_own_process(environ)
    if answer is None and token:
        answer = await ask_process(urls_of(given, environ, options), token)
    if answer is not None:
        return [*judge(answer, options)]
    found = await look(given, clients, environ)
    findings = [*check_target(found)]
    if found.stuck is not None:
        return [Finding("unsafe", "watching", found.stuck.problem, found.stuck.remedy)]
    if not findings and found.groups:
        findings = [_not_watching("its target could not be looked at")]
    text = "cannot tell whether the process watches: there is no DRAIN_ADMIN_TOKEN here to ask it with"
    return [*findings, Finding("note", "watching", text, "set DRAIN_ADMIN_TOKEN, for the process too")]


def judge(answer: Answer, options: AwsSettings) -> Iterator[Finding]:
    """Yield what the process watches, and what it does not although it should."""
    if answer.shown is None:
        yield _not_watching(f"the process does not tell: {answer.why_not}")
        return
    triggers = answer.shown.get("triggers") or {}
    watched = False
    for name in SOURCES:
        if name not in triggers:
            if name in options.sources:
                yield _not_watching(f"{name} is not in place", "see which triggers the application gives")
            continue
        if problem := _problem_of(name, triggers[name]):
            yield _not_watching(f"{name}: {problem}")
        else:
            watched = True
            yield Finding("fine", "watching", f"{name}: {_state_of(triggers[name])}")
    if not watched and not any(name in triggers for name in SOURCES):
        why = triggers.get("sigterm", {})
        if options.sources:
            return
        text = f"no source of AWS is wanted (SIGTERM: {why.get('state', 'not held')})"
        yield Finding("fine", "watching", text)


def _not_watching(
    text: str, remedy: str = "see the log of the task, and what the doctor says without --wait"
) -> Finding:
    return Finding("unsafe", "watching", text, remedy)


def _problem_of(name: str, status: Mapping[str, Any]) -> str:
    """Return why a source does not watch, or not yet; empty where it does."""
    for field in ("why", "failure", "error", "last_error"):
        if status.get(field):
            return str(status[field])
    if "watched_by" in status:
        return f"worker {status['watched_by']} watches, and another one answered"
    if name != "target-health":
        return "" if status.get("answer_age") is not None else "it has had no answer yet"
    groups = status.get("target_groups") or ()
    if not groups:
        return "it has not found its target group yet"
    if not any(each.get("verdict") in REGISTERED for each in groups):
        return "; ".join(f"{each.get('target')} in {_name(each)}: {each.get('verdict')}" for each in groups)
    return ""


def _name(group: Mapping[str, Any]) -> str:
    return Group(str(group.get("arn"))).name


def _state_of(status: Mapping[str, Any]) -> str:
    verdicts = [str(each.get("verdict")) for each in status.get("target_groups") or ()]
    return ", ".join(verdicts) or str(status.get("state") or "watching")
