"""The options of a drain: checked once, from arguments and the environment."""

from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from typing import Any, Literal

from starlette_drain._core.declared import (
    bytes_of,
    is_number,
    is_target_group,
    is_whole,
    names_in,
    option,
    or_yes_or_no,
    seconds,
    some_seconds,
    switch,
)
from starlette_drain._core.pacing import EvenPacing, Pacing, parse_pacing
from starlette_drain._core.precedence import Precedence, ShedFirst
from starlette_drain.exceptions import SettingsError

__all__ = ["Settings", "environment_name"]

DEFAULT_WINDOW = 285.0
"""Seconds for a drain that nobody gave a deadline: ELBv2's default deregistration delay of 300 s less the margin."""

SOURCES = ("target-health", "task-state", "service-deployment")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    Every option of a drain, valid by construction. An argument beats the environment variable ``DRAIN_<OPTION>``.

    All times are in seconds.

    Attributes:
        window: How long the sheds may spread; ``None`` takes the deregistration delay less what must be kept free.
            A cause that brings an earlier deadline shortens it.
        margin: Kept free before the balancer cuts: the last close handshakes happen in it.
        pacing: How the sheds spread: a `Pacing`, or ``"even"``, ``"rate:50"``, ``"batches:2"``.
        shed_first: Whom to ask first: ``"random"``, ``"oldest"``, ``"newest"``, ``"idle"`` (no message for longest), or
            a callable that takes a session and returns something to compare by, the smallest first.
        late_arrivals: What happens to sessions that would open while draining: ``"refuse"`` (503) or ``"accept"``,
            which gives them a place in what remains.
        retry_after: How long clients are told to wait before they come back: ``Retry-After`` of a refusal (up to twice
            that, at random), ``reconnect_after_ms`` of a session, and what its protocol has for it.
        reconnect_window: Over how long, from the start of a drain, clients that obey ``reconnect_after_ms`` spread
            their return; ``None`` lets them return as they are shed.
        max_session_age: After how long a session is asked to leave although there is no drain, so that long-lived
            sessions move to new tasks; each up to a fifth earlier, as a limit of the pace allows. ``None`` lets them
            stay.
        close_code: Close code of sessions that have one (RFC 6455 section 7.4): 1001, 1012, 1013 or 3000 to 4999.
        close_reason: Close reason of sessions that have one, at most 123 bytes of UTF-8.
        farewell_timeout: How long a ``before_close`` hook may take for one session.
        close_timeout: How long sending the close may take for one session.
        grace: How long an application may go on after its disconnect before it is cancelled.
        sigterm: Whether to stand between SIGTERM and the server; ``"auto"`` does on ECS, where the server can be told.
        sigterm_window: How long the sheds may spread after SIGTERM. With the farewell, the grace and 11 s more it must
            fit into the container's ``stopTimeout`` (30 s by default).
        cancel_transfers: Whether responses that are no sessions (downloads, answers) are cancelled at the deadline.
        exit_when_drained: Whether the process (with several workers: their supervisor) is told to stop, by SIGTERM, as
            soon as the last session has gone, so that a deployment need not wait out the delay.
        freeze_gc: Whether garbage collections pass over all that was there when a drain began (``gc.freeze``), until it
            is over: a full one stops a server with many sessions for longer than anything else does.
        workers_dir: The directory in which the workers of one task agree, private to the user; by default one in the
            temporary directory.
        admin_token: Bearer token of the admin route; without one there is no such route.
        admin_path: Where the admin route is.
        admin_proxied: Whether the admin route answers requests that came through a proxy or balancer, which would
            reach a task of the balancer's choice.
        sources: Which sources of AWS may ask for a drain: ``"target-health"``, ``"task-state"`` and
            ``"service-deployment"``; several are separated by commas. ``"none"``: none of them.
        self_registration: Whether the task registers itself with its target groups and takes itself out when it drains;
            ``"deregister"`` does only the latter, for tasks that ECS registers.
        protection_limit: How long the task may be protected from being scaled in while it drains; ``None`` never
            protects it.
        protection_sessions: With `protection_limit`: it is protected while more sessions than this are open, too.
        target_group_arn: The target groups to watch, where discovery shall not find them; several are separated by
            commas.
        target_group_policy: Whether the first target group that takes the target out starts a drain (``"any"``), or the
            last (``"all"``). The shortest delay rules in both cases.
        target_id: This task's target id (IP address or instance id), where discovery shall not find it.
        target_port: This task's target port, where discovery shall not find it.
        deregistration_delay: The target groups' delay, where it shall not be looked up.
        poll_interval: Time between two looks at the target's health, at least.
        poll_share: Which part of the account's budget of Describe calls the polls of the whole fleet may use: a large
            fleet looks less often.
        fleet_rate: Reconnects per second that the whole service can take: each draining task sheds at its part of it.
            ``None`` leaves the pace to `pacing`.
        start_delay: How long to wait at most before the first session is asked to leave, while other targets may be
            about to drain too: whoever is shed early would land on one of those.
    """

    window: float | None = some_seconds(240)
    margin: float = seconds(15.0)
    pacing: Pacing = option(
        EvenPacing(),
        parse=parse_pacing,
        sound=lambda value: isinstance(value, Pacing) and not isinstance(value, type),
        remedy="give a Pacing, or 'even', 'rate:50' (sessions/s) or 'batches:2' (seconds between batches)",
    )
    shed_first: ShedFirst | Precedence = option(
        "random",
        sound=lambda value: callable(value) or value in ("random", "oldest", "newest", "idle"),
        remedy="use 'random', 'oldest', 'newest', 'idle' or a callable that takes a session",
    )
    late_arrivals: Literal["refuse", "accept"] = option(
        "refuse", sound=lambda value: value in ("refuse", "accept"), remedy="use 'refuse' or 'accept'"
    )
    retry_after: float = seconds(5.0)
    reconnect_window: float | None = some_seconds(120)
    max_session_age: float | None = some_seconds(14400)
    close_code: int = option(
        1012,
        parse=int,
        # RFC 6455 section 7.4.1: the others are reserved, or mean something else than "come back".
        sound=lambda value: is_whole(value) and (value in (1001, 1012, 1013) or 3000 <= value <= 4999),
        remedy="use 1012, 1001, 1013 or a code from 3000 to 4999",
    )
    close_reason: str = option(
        "server draining",
        sound=lambda value: isinstance(value, str) and bytes_of(value) <= 123,
        remedy="use at most 123 bytes of UTF-8",
    )
    farewell_timeout: float = seconds(2.0)
    close_timeout: float = seconds(5.0)
    grace: float = seconds(5.0)
    sigterm: Literal["auto"] | bool = option(
        "auto",
        parse=or_yes_or_no("auto"),
        sound=lambda value: value == "auto" or isinstance(value, bool),
        remedy="use 'auto', True or False",
    )
    sigterm_window: float = seconds(6.0)  # an ALB cuts about 8 s after SIGTERM
    cancel_transfers: bool = switch()
    exit_when_drained: bool = switch()
    freeze_gc: bool = switch()
    workers_dir: str | None = option(
        None,
        sound=lambda value: value is None or (isinstance(value, str) and value.startswith("/")),
        remedy="give the absolute path of a directory that only this user can enter (mode 0700)",
    )
    admin_token: str | None = option(
        None,
        sound=lambda value: (
            value is None or (isinstance(value, str) and len(value) >= 16 and all("!" <= char <= "~" for char in value))
        ),
        remedy="give at least 16 visible ASCII characters, or none to have no admin route",
        secret=True,
    )
    admin_path: str = option(
        "/drain",
        sound=lambda value: isinstance(value, str) and len(value) > 1 and value[0] == "/" and value[-1] != "/",
        remedy="start it with '/' and do not end it with one, such as '/drain'",
    )
    admin_proxied: bool = switch()
    sources: tuple[str, ...] = option(
        ("target-health",),
        sound=lambda value: isinstance(value, tuple) and all(each in SOURCES for each in value),
        remedy="use 'target-health', 'task-state' and 'service-deployment', separated by commas, or 'none'",
    )
    self_registration: Literal["deregister"] | bool = option(
        False,
        parse=or_yes_or_no("deregister"),
        sound=lambda value: value == "deregister" or isinstance(value, bool),
        remedy="use True, False or 'deregister'",
    )
    protection_limit: float | None = option(
        None,
        parse=float,
        sound=lambda value: value is None or (is_number(value) and 60 <= value <= 172_800),
        remedy="give seconds from 60 to 172800 (48 hours, the longest protection there is), or None",
    )
    protection_sessions: int | None = option(
        None,
        parse=int,
        sound=lambda value: value is None or (is_whole(value) and value >= 0),
        remedy="give a number of sessions, 0 or more, or None",
    )
    target_group_arn: tuple[str, ...] = option(
        (),
        sound=lambda value: isinstance(value, tuple) and all(is_target_group(arn) for arn in value),
        remedy="give target group ARNs: arn:aws:elasticloadbalancing:<region>:<account>:targetgroup/<name>/<id>",
    )
    target_group_policy: Literal["any", "all"] = option(
        "any", sound=lambda value: value in ("any", "all"), remedy="use 'any' or 'all'"
    )
    target_id: str | None = option(
        None,
        sound=lambda value: value is None or (isinstance(value, str) and value != ""),
        remedy="give an IP address or an instance id",
    )
    target_port: int | None = option(
        None,
        parse=int,
        sound=lambda value: value is None or (is_whole(value) and 1 <= value <= 65535),
        remedy="give a port from 1 to 65535",
    )
    deregistration_delay: float | None = option(
        None,
        parse=float,
        sound=lambda value: value is None or (is_number(value) and 0 <= value <= 3600),
        remedy="give seconds from 0 to 3600",
    )
    poll_interval: float = option(
        5.0,
        parse=float,
        sound=lambda value: is_number(value) and value >= 1,
        remedy="give seconds, at least 1: the Describe calls are budgeted for the whole account and Region",
    )
    poll_share: float = option(
        0.2,
        parse=float,
        sound=lambda value: is_number(value) and 0 < value <= 1,
        remedy="give a part of the budget, more than 0 and at most 1, such as 0.2",
    )
    fleet_rate: float | None = option(
        None,
        parse=float,
        sound=lambda value: value is None or (is_number(value) and value > 0),
        remedy="give reconnects per second that the whole service can take, such as 500, or None",
    )
    start_delay: float = seconds(10.0)

    @classmethod
    def load(cls, options: Mapping[str, Any], environ: Mapping[str, str]) -> "Settings":
        """
        Make settings from keyword arguments and environment variables.

        Raises:
            SettingsError: Naming the option (or the variable), its value and the remedy.
        """
        known = {each.name: each for each in fields(cls)}
        for name in options:
            if name not in known:
                # The value is not shown: it may be the token, under a name mistyped.
                raise SettingsError(name, "…", f"there is no such option; there are: {', '.join(known)}")
        values = dict(options)
        for name, each in known.items():
            text = environ.get(environment_name(name))
            if name not in values and text:
                try:
                    values[name] = each.metadata["parse"](text)
                except ValueError:
                    raise _complaint(each, environment_name(name), text) from None
        try:
            return cls(**values)
        except SettingsError as error:
            if error.option in options or error.option not in known:
                raise
            raise SettingsError(environment_name(error.option), error.value, error.remedy) from None

    def __post_init__(self) -> None:
        """Bring the short forms to their types and check every option."""
        if isinstance(self.pacing, str):
            object.__setattr__(self, "pacing", parse_pacing(self.pacing))
        if isinstance(self.target_group_arn, str):
            object.__setattr__(self, "target_group_arn", names_in(self.target_group_arn))
        if isinstance(self.sources, str):
            object.__setattr__(self, "sources", () if self.sources == "none" else names_in(self.sources))
        for each in fields(self):
            value = getattr(self, each.name)
            if not each.metadata["sound"](value):
                raise _complaint(each, each.name, value)
        if self.fleet_rate is not None and self.pacing != EvenPacing():
            raise SettingsError("fleet_rate", self.fleet_rate, "it decides the pace, so leave pacing at 'even'")

    @property
    def tail(self) -> float:
        """Seconds that the last session asked to leave may take to be gone: farewell, close and grace."""
        return self.farewell_timeout + max(self.close_timeout, self.grace)

    def usual_window(self, advised: float | None) -> float:
        """Return the seconds of a drain that nobody gives a deadline: what was set, but not more than is *advised*."""
        return min((each for each in (self.window, advised) if each is not None), default=DEFAULT_WINDOW)


def environment_name(option: str) -> str:
    """Return the name of the environment variable of *option*."""
    return f"DRAIN_{option.upper()}"


def _complaint(option: Field[Any], name: str, value: Any) -> SettingsError:
    return SettingsError(name, "…" if option.metadata["secret"] else value, option.metadata["remedy"])
