"""Faults of the API: refusals, errors, no answer, and answers that are late, stale or incomplete."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

__all__ = ["ApiError", "Fault", "FaultKind", "Faults", "Throttle", "TokenBucket", "as_error", "distorted"]

FaultKind = Literal["throttle", "deny", "error", "hang", "slow", "stale", "partial", "empty"]

APIS = ("elbv2", "ecs", "secretsmanager", "task")

DISTORTING = ("stale", "partial", "empty")
"""The faults that alter an answer."""


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
    A fault of the API.

    Attributes:
        kind: Its kind.
        action: The call that fails, such as ``"DescribeTargetHealth"``; ``None`` for every call.
        api: The API that fails; ``None`` for all.
        times: How many more calls fail; ``None`` for any number.
        until: When it ends; ``None`` for never.
        code: The error code, instead of the default.
        status: The HTTP status of an ``"error"``.
        message: The message, instead of the default.
        takes: Seconds that a ``"slow"`` answer takes.
    """

    kind: FaultKind
    action: str | None = None
    api: str | None = None
    times: int | None = None
    until: float | None = None
    code: str | None = None
    status: int = 503
    message: str | None = None
    takes: float = 0.0


@dataclass(slots=True)
class TokenBucket:
    """
    A budget of calls; by default that of the Describe calls of ELBv2.

    Attributes:
        clock: Returns the time in seconds.
        capacity: Its size, in calls.
        refill: Its refill, in calls per second.
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


class Throttle:
    """
    The buckets of an account in one Region, shared by all callers.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._buckets = {name: TokenBucket(clock, *size) for name, size in BUCKETS.items()}

    def take(self, action: str) -> bool:
        """Take a call from its bucket; return False if the bucket is empty."""
        name = _bucket_of(action)
        return name is None or self._buckets[name].take()


BUCKETS = {
    # https://docs.aws.amazon.com/elasticloadbalancing/latest/userguide/elb-api-throttling.html
    "balancers": (40.0, 10.0),
    "targets": (20.0, 4.0),
    # https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html
    "tasks": (100.0, 20.0),
    "deployments": (50.0, 20.0),
    "services": (100.0, 20.0),
    "clusters": (50.0, 20.0),
}
"""The size of each bucket in calls, and its refill in calls per second. The last two are assumed."""

OF_TASKS = ("DescribeTasks", "ListTasks", "DescribeContainerInstances", "ListContainerInstances", "ListAttributes")


def _bucket_of(action: str) -> str | None:
    """Return the bucket of a call; ``None`` if it is so large that no task empties it."""
    if action in OF_TASKS:
        return "tasks"
    if action in ("RegisterTargets", "DeregisterTargets"):
        return "targets"
    if "ServiceDeployment" in action or "ServiceRevision" in action:
        return "deployments"
    if action in ("DescribeServices", "ListServices", "DescribeTaskDefinition"):
        return "services"
    if action == "DescribeClusters":
        return "clusters"
    return "balancers" if action.startswith("Describe") else None


class Faults:
    """The active faults."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """
        Add a fault; of several that match a call, the oldest applies.

        Raises:
            ValueError: If its kind or its API is not known: a typo would leave a test without its fault.
        """
        for what, value, known in (("kind", fault.kind, get_args(FaultKind)), ("api", fault.api, (None, *APIS))):
            if value not in known:
                message = f"{what} {value!r} is not one of {', '.join(map(repr, known))}"
                raise ValueError(message)
        self._faults.append(fault)

    def clear(self) -> None:
        """Remove all faults."""
        self._faults.clear()

    def strike(self, action: str, api: str) -> Fault | None:
        """
        Return the fault that applies to this call, and count it; ``None`` if there is none.

        Faults that deny or throttle every call do not apply to the task's own endpoints, which have no permissions or
        budgets.
        """
        now = self._clock()
        self._faults = [each for each in self._faults if each.times != 0 and (each.until is None or now < each.until)]
        for fault in self._faults:
            if api == "task" and fault.kind in ("deny", "throttle") and (fault.action, fault.api) == (None, None):
                continue
            if fault.action in (None, action) and fault.api in (None, api):
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None


def as_error(fault: Fault, action: str, *, is_json: bool) -> ApiError:
    """Return the error of a fault; the two protocols have different codes for some."""
    match fault.kind:
        case "throttle":
            return ApiError(fault.code or "ThrottlingException", fault.message or "Rate exceeded")
        case "deny":
            code = fault.code or ("AccessDeniedException" if is_json else "AccessDenied")
            who = "arn:aws:sts::123456789012:assumed-role/task/0123456789abcdef"
            message = fault.message or f"User: {who} is not authorized to perform: {action}"
            return ApiError(code, message, 400 if is_json else 403)
        case _:
            message = fault.message or "Service is unable to handle request."
            return ApiError(fault.code or "ServiceUnavailable", message, fault.status)


def distorted(kind: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Return *answer* with its lists emptied, or without every other entry, beginning with the first."""
    step = slice(0) if kind == "empty" else slice(1, None, 2)
    return {key: each[step] if isinstance(each, list) else each for key, each in answer.items()}
