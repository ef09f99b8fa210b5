"""The names and types of the options, for editors and type checkers: tests/make_options."""

from collections.abc import Mapping
from typing import Literal, TypedDict

from starlette_drain._core.pacing import Pacing
from starlette_drain._core.precedence import Precedence, ShedFirst

__all__ = ["DrainOptions"]


class DrainOptions(TypedDict, total=False):
    """The keyword arguments of `Drain`; docs/settings.md says what each means."""

    mode: Literal["drain", "observe", "off"]
    window: float | None
    margin: float
    pacing: Pacing | str
    shed_first: ShedFirst | Precedence
    start_delay: float
    late_arrivals: Literal["auto", "refuse", "accept"]
    admission: str | None
    streams: Mapping[str, str] | str | None
    retry_after: float
    close_code: int
    grace: float
    max_session_age: float | None
    sigterm: Literal["auto"] | bool
    sigterm_window: float
    exit_when_drained: bool
    admin_token: str | None
    log: bool
    record: bool
    sources: str | tuple[str, ...]
    self_registration: Literal["deregister"] | bool
    target_group_arn: str | tuple[str, ...]
    target_id: str | None
    target_port: int | None
    deregistration_delay: float | None
    poll_interval: float
    poll_share: float
    rebalance: bool
