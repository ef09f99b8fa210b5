"""The names and types of the options, for editors and type checkers; `Settings` says what each means."""

from typing import Literal, TypedDict

from starlette_drain._core.pacing import Pacing
from starlette_drain._core.precedence import Precedence, ShedFirst

__all__ = ["DrainOptions"]


class DrainOptions(TypedDict, total=False):
    """The keyword arguments of `Drain`; `Settings` says what each means."""

    window: float | None
    margin: float
    pacing: Pacing | str
    shed_first: ShedFirst | Precedence
    late_arrivals: Literal["refuse", "accept"]
    retry_after: float
    reconnect_window: float | None
    max_session_age: float | None
    close_code: int
    close_reason: str
    farewell_timeout: float
    close_timeout: float
    grace: float
    sigterm: Literal["auto"] | bool
    sigterm_window: float
    cancel_transfers: bool
    exit_when_drained: bool
    freeze_gc: bool
    workers_dir: str | None
    admin_token: str | None
    admin_path: str
    admin_proxied: bool
    sources: str | tuple[str, ...]
    self_registration: Literal["deregister"] | bool
    protection_limit: float | None
    protection_sessions: int | None
    target_group_arn: str | tuple[str, ...]
    target_group_policy: Literal["any", "all"]
    target_id: str | None
    target_port: int | None
    deregistration_delay: float | None
    poll_interval: float
    poll_share: float
    fleet_rate: float | None
    start_delay: float
