"""What can go wrong: throttling, refusals, server errors and silence, for some calls or for some time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["ApiError", "Fault", "FaultKind", "Faults", "TokenBucket"]

FaultKind = Literal["throttle", "deny", "error", "hang"]


class ApiError(Exception):
    """An error that the API answers with."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(code, message, status)
        self.code = code
        self.message = message
        self.status = status


@dataclass(slots=True)
class Fault:
    """
    Something that goes wrong.

    Attributes:
        kind: What.
        action: With which call, such as ``"DescribeTargetHealth"``; ``None`` for every call.
        times: With how many more calls; ``None`` for any number.
        until: Until when; ``None`` for ever.
        code: Error code, for another than the usual.
        status: HTTP status of an ``"error"``.
    """

    kind: FaultKind
    action: str | None = None
    times: int | None = None
    until: float | None = None
    code: str | None = None
    status: int = 503


@dataclass(slots=True)
class TokenBucket:
    """
    The budget of Describe calls: one bucket for the account and Region.

    https://docs.aws.amazon.com/elasticloadbalancing/latest/userguide/elb-api-throttling.html names 40 tokens, and 10
    more per second.
    """

    clock: Callable[[], float]
    capacity: float = 40.0
    refill: float = 10.0
    _tokens: float = field(init=False)
    _filled_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._tokens = self.capacity
        self._filled_at = self.clock()

    def take(self) -> bool:
        """Take a token; return whether there was one."""
        now = self.clock()
        self._tokens = min(self.capacity, self._tokens + (now - self._filled_at) * self.refill)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Faults:
    """The faults that are switched on."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Switch on one more; the oldest that fits a call strikes."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Switch off all."""
        self._faults.clear()

    def strike(self, action: str) -> Fault | None:
        """Return what goes wrong with this call, and count it."""
        now = self._clock()
        self._faults = [each for each in self._faults if each.times != 0 and (each.until is None or now < each.until)]
        for fault in self._faults:
            if fault.action in (None, action):
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None


def as_error(fault: Fault, action: str, *, is_json: bool) -> ApiError:
    """Return the error that a fault answers with; the two protocols word some of them differently."""
    match fault.kind:
        case "throttle":
            return ApiError(fault.code or "ThrottlingException", "Rate exceeded")
        case "deny":
            code = fault.code or ("AccessDeniedException" if is_json else "AccessDenied")
            who = "arn:aws:sts::123456789012:assumed-role/task/0123456789abcdef"
            return ApiError(code, f"User: {who} is not authorized to perform: {action}", 400 if is_json else 403)
        case _:
            return ApiError(fault.code or "ServiceUnavailable", "Service is unable to handle request.", fault.status)
