"""Checks that a source watches the task, by its options and the answer of the process."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from starlette_drain._asgi.announcement import OTHERS
from starlette_drain.aws.options import SOURCES, AwsSettings
from starlette_drain.tools.doctor.inside import Answer
from starlette_drain.tools.doctor.record import Finding, Group, SetUp

__all__ = ["as_running", "check_watching", "find_blindness", "judge", "not_watching"]

REGISTERED = ("serving", "ailing", "draining")
"""The verdicts of target health for a target that is, or recently was, in its group."""

NO_EVENTS = "leave DRAIN_SOURCES out, so that target health is watched"


def as_running(options: AwsSettings, shown: Mapping[str, Any] | None, environ: Mapping[str, str]) -> AwsSettings:
    """Return the *options* with those that the process shows: the application may set them in its code."""
    if not shown:
        return options
    mode, triggers = shown.get("mode", options.mode), shown.get("triggers")
    sources = options.sources
    if triggers is not None and not environ.get("DRAIN_SOURCES"):
        sources = tuple(each for each in SOURCES if each in triggers)
    return replace(options, mode=mode, sources=sources)


def check_watching(found: SetUp) -> Iterator[Finding]:
    """Check that a source notices a deregistration before SIGTERM, and that sessions are then asked to leave."""
    if found.settings_error or not (found.service or found.task_arn):
        return
    shown = found.answer.shown if found.answer is not None else None
    yield from find_blindness(found)
    if shown is not None:
        yield from judge(Answer(shown), found.options)
    elif found.task_arn and found.options.mode != "off":
        why_not = found.answer.why_not if found.answer is not None else "it was not asked"
        text = f"cannot tell whether the process watches: {why_not}"
        remedy = "check that DrainMiddleware is installed; run the doctor as the server's user, or set "
        yield Finding("note", "watching", text, f"{remedy}DRAIN_ADMIN_TOKEN for both")


def find_blindness(found: SetUp) -> Iterator[Finding]:
    """Yield findings if the options watch nothing, or ask no session to leave."""
    options = found.options
    if options.mode != "drain":
        what = "switches everything off" if options.mode == "off" else "asks no session to leave"
        text = f"mode={options.mode} {what}, so all clients are cut at once"
        yield Finding("unsafe", "watching", text, "set DRAIN_MODE=drain, or leave it out")
        return
    if options.sources:
        if options.sigterm is False:
            text = "SIGTERM does not start a drain, and nothing else announces a stop without a deregistration"
            yield Finding("note", "watching", text, "leave DRAIN_SIGTERM out")
        return
    signal = f"a drain begins only at SIGTERM, and has {options.sigterm_window:g} s"
    shown = (found.answer.shown if found.answer is not None else None) or {}
    own = sorted(set(shown.get("triggers") or ()) - {"sigterm", *OTHERS})
    if own:
        text = f"no AWS source is watched; cannot tell what {', '.join(own)} does"
        yield Finding("note", "watching", text, f"check that it starts a drain before SIGTERM, or {NO_EVENTS}")
    elif options.sigterm is False:
        yield Finding("unsafe", "watching", "neither an AWS source nor SIGTERM starts a drain", NO_EVENTS)
    elif found.is_tied is False:
        yield Finding("fine", "watching", f"without a balancer {signal}")
    elif found.has_token:
        text = f"no AWS source is watched: unless events by Lambda arrive, {signal}"
        yield Finding("note", "watching", text, f"check that the function is deployed; or {NO_EVENTS}")
    else:
        text = f"no AWS source is watched, and without DRAIN_ADMIN_TOKEN no event by Lambda is taken: {signal}"
        yield Finding("unsafe", "watching", text, f"{NO_EVENTS}; or set the token and deploy the function")


def judge(answer: Answer, options: AwsSettings) -> Iterator[Finding]:
    """Yield which sources of the process watch, and which do not."""
    if answer.shown is None:
        yield not_watching(f"no answer from the process: {answer.why_not}")
        return
    triggers = answer.shown.get("triggers") or {}
    for name in SOURCES:
        if name not in triggers:
            if name in options.sources:
                yield not_watching(f"{name} is not in place", "check the triggers that the application passes")
        elif problem := _problem_of(name, triggers[name], answer.shown.get("watch")):
            yield not_watching(f"{name}: {problem}")
        else:
            yield Finding("fine", "watching", f"{name}: {_state_of(triggers[name])}")


def not_watching(text: str, remedy: str = "see the log of the task") -> Finding:
    """Return the finding that something does not watch."""
    return Finding("unsafe", "watching", text, remedy)


def _problem_of(name: str, status: Mapping[str, Any], of_task: str | None) -> str:
    """Return why a source does not watch, or not yet; empty if it does."""
    for field in ("why", "failed", "error", "last_error"):
        if status.get(field) and not (field == "last_error" and status.get("watch") == "watching"):
            return str(status[field])
    if "watched_by" in status:  # the worker that answers knows only the reports of the other one
        return "" if of_task == "watching" else f"worker {status['watched_by']} watches, and tells: {of_task}"
    if status.get("watch") == "blind":
        return f"blind for {status.get('blind_for'):g} s: {status.get('because')}"
    if name != "target-health":
        return "" if status.get("answer_age") is not None else "it has had no answer yet"
    return _problem_of_targets(status.get("target_groups") or ())


def _problem_of_targets(groups: Sequence[Mapping[str, Any]]) -> str:
    if not groups:
        return "it has not found its target group yet"
    if not any(each.get("verdict") in REGISTERED for each in groups):
        return "; ".join(f"{each.get('target')} in {_name(each)}: {each.get('verdict')}" for each in groups)
    return ""


def _name(group: Mapping[str, Any]) -> str:
    return Group(str(group.get("arn"))).name


def _state_of(status: Mapping[str, Any]) -> str:
    if "watched_by" in status:
        return f"worker {status['watched_by']} watches"
    verdicts = [str(each.get("verdict")) for each in status.get("target_groups") or ()]
    return ", ".join(verdicts) or str(status.get("state") or "watching")
