"""The options of a drain, from arguments and the environment, validated once. `aws/options.py` adds those of AWS."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from starlette_drain._core.admission import ADMISSION_REMEDY, AdmissionPolicy, parse_admission
from starlette_drain._core.declared import (
    PREFIX,
    environment_name,
    is_whole,
    nearest,
    option,
    options_of,
    or_yes_or_no,
    seconds,
    some_seconds,
    switch,
)
from starlette_drain._core.fleet_pacing import FleetPacing
from starlette_drain._core.pacing import PACING_REMEDY, EvenPacing, Pacing, burst_warning, parse_pacing
from starlette_drain._core.precedence import Precedence, ShedFirst
from starlette_drain._core.session import HOOK_TIMEOUT
from starlette_drain._core.streams import STREAMS_REMEDY, are_streams, parse_streams
from starlette_drain.exceptions import SettingsError

__all__ = ["REMOVED", "Settings"]

REMOVED = {
    "fleet_rate": 'use pacing="fleet:500"',
    "close_timeout": "use grace",
    "farewell_timeout": "close hooks have 2 s",
    "close_reason": 'the reason is always "server draining"',
    "reconnect_window": "clients return over the drain's own window",
    "cancel_transfers": "answers are left to finish; the server's own timeout cuts them",
    "admin_path": "use DrainMiddleware(admin_path=...)",
    "admin_proxied": "requests through a proxy are refused; use the task's own address",
    "target_group_policy": "use TargetHealthTrigger(policy=...)",
    "protection_limit": "use TaskProtection(limit=...)",
    "protection_sessions": "use TaskProtection(sessions=...)",
    "workers_dir": "use TMPDIR",
    "freeze_gc": "docs/performance.md has a recipe",
}
"""Options of earlier checkouts, and what to do instead."""

DEFAULT_WINDOW = 285.0
"""Seconds for a drain without a deadline: ELBv2's default delay (300 s) minus the default margin (15 s)."""


def _is_token(value: Any) -> bool:
    return isinstance(value, str) and len(value) >= 16 and all("!" <= char <= "~" for char in value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    All options, valid by construction. An argument overrides the environment variable ``DRAIN_<OPTION>``.

    Each option is documented where it is declared; `docs/settings.md` is generated from that.
    """

    mode: Literal["drain", "observe", "off"] = option(
        "drain",
        'Whether to drain. `"observe"` only logs what it would close; `"off"` passes everything through.',
        is_valid=lambda value: value in ("drain", "observe", "off"),
        remedy="use 'drain', 'observe' or 'off'",
    )
    window: float | None = some_seconds(
        240,
        "Time for the sessions to leave. `None` takes the deregistration delay less a poll interval and the margin. "
        "A longer window is shortened, with a warning.",
    )
    margin: float = seconds(15.0, "Time kept free before the balancer cuts; at most half of the delay.", expert=True)
    pacing: Pacing = option(
        EvenPacing(),
        'How the sessions spread: `"even"`, `"rate:50"` (at most 50/s), `"batches:2"` (a batch every 2 s), '
        '`"fleet:500"` (500/s for all draining tasks of the service together) or a `Pacing`.',
        parse=parse_pacing,
        takes_text=True,
        is_valid=lambda value: isinstance(value, Pacing) and not isinstance(value, type),
        remedy=PACING_REMEDY,
        accepts="Pacing | str",
    )
    shed_first: ShedFirst | Precedence = option(
        "random",
        'Which sessions leave first: `"random"`, `"oldest"`, `"newest"`, `"idle"` (longest without a message), or a '
        "callable that returns a sort key for a session.",
        expert=True,
        is_valid=lambda value: callable(value) or value in ("random", "oldest", "newest", "idle"),
        remedy="use 'random', 'oldest', 'newest', 'idle' or a callable that takes a session",
        accepts="ShedFirst | Precedence",
    )
    start_delay: float = seconds(
        10.0,
        "Longest wait before the first session leaves, in case other targets drain too; at most a quarter of the "
        "window.",
        expert=True,
    )
    late_arrivals: Literal["auto", "refuse", "accept"] = option(
        "auto",
        'New sessions during a drain: `"refuse"` answers 503 with `Retry-After`; `"accept"` lets them in and closes '
        'them in the time left; `"auto"` refuses once the balancer has taken the target out or SIGTERM has come.',
        is_valid=lambda value: value in ("auto", "refuse", "accept"),
        remedy="use 'auto', 'refuse' or 'accept'",
    )
    admission: AdmissionPolicy | None = option(
        None,
        "Most handshakes in progress at once in the task; others wait, and are refused after 6 to 9 s. A number such "
        'as `"32"`, or `"auto"` for a limit that follows their duration. `:observe` only counts; `:close` refuses '
        "with an accept and 1013, where there is a close code, instead of 503.",
        expert=True,
        parse=parse_admission,
        takes_text=True,
        is_valid=lambda value: value is None or isinstance(value, AdmissionPolicy),
        remedy=ADMISSION_REMEDY,
        accepts="str | None",
    )
    streams: Mapping[str, str] | None = option(
        None,
        "Which responses are sessions and which are answers, by path: a mapping, or text such as "
        '`"/watch/*=session, /jobs/*=answer, /feed=session:cut"`. The first matching pattern counts; without one the '
        "request decides.",
        parse=parse_streams,
        takes_text=True,
        is_valid=are_streams,
        remedy=STREAMS_REMEDY,
        accepts="Mapping[str, str] | str | None",
    )
    retry_after: float = seconds(
        5.0,
        "How long clients are asked to wait before they reconnect: `reconnect_after_ms` of a session, and "
        "`Retry-After` of a refusal (up to twice that).",
        expert=True,
    )
    close_code: int = option(
        1012,
        "Close code of a session: 1012 (Service Restart), 1001, 1013 or 3000 to 4999.",
        parse=int,
        # RFC 6455 section 7.4.1: the others are reserved, or mean something else than "come back".
        is_valid=lambda value: is_whole(value) and (value in (1001, 1012, 1013) or 3000 <= value <= 4999),
        remedy="use 1012, 1001, 1013 or a code from 3000 to 4999",
    )
    grace: float = seconds(
        5.0,
        "Time for the application to notice the disconnect before it is cancelled, and for the client to take the "
        "close before it is given up.",
    )
    max_session_age: float | None = some_seconds(
        14400,
        "Age at which a session is asked to leave without a drain (up to a fifth earlier), so that old sessions move "
        "to new tasks. `None` sets no limit.",
    )
    sigterm: Literal["auto"] | bool = option(
        "auto",
        'Whether to hold SIGTERM until the sessions have left; `"auto"` does so on ECS, on servers that allow it.',
        expert=True,
        parse=or_yes_or_no("auto"),
        is_valid=lambda value: value == "auto" or isinstance(value, bool),
        remedy="use 'auto', True or False",
    )
    # An ALB cuts about 8 s after SIGTERM. That was observed once; AWS does not document it.
    sigterm_window: float = seconds(
        6.0, "Time for the sessions to leave after SIGTERM; it must fit into the container's `stopTimeout`."
    )
    exit_when_drained: bool = switch(
        False,
        "Whether to stop the process, or its supervisor, when the last session has gone. A deployment then does not "
        "wait for the delay.",
    )
    admin_token: str | None = option(
        None,
        "Bearer token of the admin route `/drain`, at least 16 visible ASCII characters; no token, no route.",
        is_valid=lambda value: value is None or _is_token(value),
        remedy="give at least 16 visible ASCII characters without a space or line break, also at the end; or none, "
        "and there is no admin route",
        secret=True,
    )
    log: bool = switch(
        True,
        "Whether to show the log in the server's format if the application has configured no logging.",
    )
    record: bool = switch(
        False,
        "Whether to log the course of a deployment as JSON lines, with pseudonyms for all names, for "
        "`starlette-drain record`.",
        expert=True,
    )

    @classmethod
    def load(cls, options: Mapping[str, Any], environ: Mapping[str, str]) -> Self:
        """
        Make settings from keyword arguments and environment variables.

        Raises:
            SettingsError: If options are unknown or invalid; it states each option or variable, value and remedy.
        """
        known = options_of(cls)
        errors = [_unknown(name, known) for name in options if name not in known]
        values = {name: value for name, value in options.items() if name in known}
        texts = {name: environ.get(environment_name(name)) for name in known if name not in options}
        values |= {name: known[name][1].read(text) for name, text in texts.items() if text}
        try:
            settings = cls(**values)
        except SettingsError as error:
            errors += [error, *error.others]
        else:
            if not errors:
                return settings
        for number, each in enumerate(errors):
            name, shown = each.option, each.value
            if text := texts.get(name):
                name, shown = environment_name(name), known[name][1].shown(text)
            errors[number] = SettingsError(name, shown, each.remedy)
        raise _together(errors)

    def __post_init__(self) -> None:
        """Parse the short forms, and validate every option."""
        errors = []
        for name, (_, declared) in options_of(self).items():
            try:
                object.__setattr__(self, name, declared.take(name, getattr(self, name)))
            except SettingsError as error:
                errors.append(error)
        if errors:
            raise _together(errors)

    def warnings(self, environ: Mapping[str, str]) -> Iterator[str]:
        """Yield warnings about what works but was probably not intended: unknown variables, too short windows."""
        known = [environment_name(name) for name in options_of(self)]
        for name in environ:
            if name.upper().startswith(PREFIX) and name not in known:
                # Compare without the common prefix, which would make any two names look alike.
                bare = {each.removeprefix(PREFIX): each for each in known}
                own = name.upper().removeprefix(PREFIX)
                if remedy := REMOVED.get(own.lower()):
                    yield f"{name} is not read: this option was removed; {remedy}"
                    continue
                meant = nearest(own, bare)
                hint = f"did you mean {bare[meant]}?" if meant else "starlette-drain --help lists the variables"
                yield f"{name} is not read: there is no such option; {hint}"
        windows = {"window": self.window, "sigterm_window": self.sigterm_window if self.sigterm else None}
        for name, window in windows.items():
            if window is not None and (warning := burst_warning(self.pacing, window)):
                yield f"{name}={window:g}: {warning}"

    @property
    def fleet_rate(self) -> float | None:
        """Reconnects per second that all draining tasks share; ``None`` unless the pacing is ``fleet:…``."""
        return self.pacing.limit if isinstance(self.pacing, FleetPacing) else None

    @property
    def tail(self) -> float:
        """The most seconds from asking the last session to leave until it is gone: close hooks and grace."""
        return HOOK_TIMEOUT + self.grace

    def usual_window(self, advised: float | None) -> float:
        """Return the seconds for a drain without a deadline: the option ``window``, but at most *advised* seconds."""
        return min((each for each in (self.window, advised) if each is not None), default=DEFAULT_WINDOW)


def _unknown(name: str, known: Iterable[str]) -> SettingsError:
    if name in REMOVED:
        remedy = f"this option was removed; {REMOVED[name]}"
    else:
        meant = nearest(name, known)
        hint = f"did you mean {meant}?" if meant else f"the options are {', '.join(known)}"
        remedy = f"there is no such option; {hint}"
    # The value is not shown: it may be the token under a mistyped name.
    return SettingsError(name, "…", remedy)


def _together(errors: Sequence[SettingsError]) -> SettingsError:
    first, *others = errors
    return SettingsError(first.option, first.value, first.remedy, *others)
