"""``doctor --wait``: waits until the sources of this task watch."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

from starlette_drain.aws.api.client import AwsClients
from starlette_drain.aws.api.errors import AwsCallFailed
from starlette_drain.aws.identity.metadata import METADATA_VARIABLE
from starlette_drain.aws.options import AwsSettings
from starlette_drain.exceptions import SettingsError
from starlette_drain.tools.doctor.checks import check_reads, check_target
from starlette_drain.tools.doctor.inside import Answer, ask_own_process, ask_process, is_alone
from starlette_drain.tools.doctor.look import Given, look, urls_of
from starlette_drain.tools.doctor.record import Finding, SetUp
from starlette_drain.tools.doctor.watching import as_running, find_blindness, judge, not_watching
from starlette_drain.tools.tasks.channel import PATIENCE

__all__ = ["wait_watched"]

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
"""Seconds between two checks."""

LEAST = 1.0
"""The shortest timeout of a check, in seconds."""


async def wait_watched(given: Given, clients: AwsClients, environ: Mapping[str, str], limit: float) -> list[Finding]:
    """
    Return the findings once all sources of the task watch, or after *limit* seconds.

    The process is asked. If it runs in another container and there is no token, its target is checked instead.
    """
    ends, pause = time.monotonic() + limit, FIRST_PAUSE
    try:
        options = AwsSettings.load({}, environ)
    except SettingsError as error:
        return [Finding("unsafe", "options", str(error), "fix it: the application does not start with it")]
    if METADATA_VARIABLE not in environ:
        text = f"this is not an ECS task: {METADATA_VARIABLE} is not set"
        return [Finding("unsafe", "identity", text, "use --wait inside a container of the task")]
    if options.mode == "off":
        return [*find_blindness(SetUp(settings=options))]
    while True:
        left = ends - time.monotonic()
        try:
            async with asyncio.timeout(max(left, LEAST)):
                findings = await _look(given, clients, environ, options, min(PATIENCE, max(left, LEAST)))
        except TimeoutError:
            findings = [not_watching(f"there was no answer within {limit:g} s")]
        left = ends - time.monotonic()
        if not any(each.level == "unsafe" for each in findings):
            return findings
        if left <= 0:
            return await _explained(findings, given, clients, environ)
        await asyncio.sleep(min(pause, left))
        pause = min(LONGEST_PAUSE, pause * 1.5)


async def _look(
    given: Given, clients: AwsClients, environ: Mapping[str, str], options: AwsSettings, within: float
) -> list[Finding]:
    token = environ.get("DRAIN_ADMIN_TOKEN")
    answer = None if given.url else await ask_own_process(environ)
    if answer is None and token:
        answer = await ask_process(urls_of(given, environ, options), token, within)
    if answer is not None:
        return [*_judge(answer, as_running(options, answer.shown, environ), token)]
    if not given.url and not is_alone():
        text = "no process of this container answers on its socket, and there is no DRAIN_ADMIN_TOKEN here to ask with"
        remedy = "check that the server runs, as this user, with DrainMiddleware; or set DRAIN_ADMIN_TOKEN for both"
        return [not_watching(text, remedy)]
    found = await look(given, clients, environ)
    findings = [*check_target(found)]
    if found.stuck is not None:
        return [Finding("unsafe", "watching", found.stuck.problem, found.stuck.remedy)]
    if not findings and found.groups:
        findings = [not_watching("its target could not be looked at")]
    text = "cannot tell whether the process watches: there is no DRAIN_ADMIN_TOKEN here to ask it with"
    return [*findings, Finding("note", "watching", text, "set DRAIN_ADMIN_TOKEN, for the process too")]


async def _explained(
    findings: list[Finding], given: Given, clients: AwsClients, environ: Mapping[str, str]
) -> list[Finding]:
    """Return *findings* with the causes that AWS shows."""
    try:
        async with asyncio.timeout(PATIENCE):
            found = await look(given, clients, environ)
    except TimeoutError:
        return findings
    causes = [each for each in (*check_target(found), *check_reads(found)) if each.level == "unsafe"]
    if found.stuck is not None and not isinstance(found.stuck, AwsCallFailed):
        causes.append(not_watching(found.stuck.problem, found.stuck.remedy))
    for cause in causes:
        # The process may tell the same, without a remedy.
        findings = [each for each in findings if not each.found.endswith(cause.found)]
    return [*findings, *causes]


def _judge(answer: Answer, options: AwsSettings, token: str | None) -> Iterator[Finding]:
    """Yield what is watched; a set-up that watches nothing is only noted, since waiting does not change it."""
    for each in find_blindness(SetUp(settings=options, answer=answer, has_token=bool(token))):
        yield replace(each, level="note")
    yield from judge(answer, options)
