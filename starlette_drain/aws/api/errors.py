"""Classifies failures of calls to AWS, each with a remedy."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from starlette_drain.aws.api.remedies import advise, presentable
from starlette_drain.exceptions import DiscoveryError

__all__ = ["AwsCallFailed", "Incomplete", "Trouble", "TroubleKind", "classify"]

IAM_PREFIX = {"elbv2": "elasticloadbalancing"}
"""The IAM prefixes of services that differ from the service's name."""

REPLACED_BY = {
    "DescribeTasks": "DRAIN_TARGET_GROUP_ARN",
    "DescribeServices": "DRAIN_TARGET_GROUP_ARN",
    "DescribeContainerInstances": "DRAIN_TARGET_ID",
    "DescribeTargetGroupAttributes": "DRAIN_DEREGISTRATION_DELAY",
}
"""The environment variable that makes a call unnecessary."""


class TroubleKind(Enum):
    """Why a call to AWS gave no usable answer."""

    THROTTLED = "throttled"
    DENIED = "denied"
    NO_CREDENTIALS = "no-credentials"
    NO_REGION = "no-region"
    UNREACHABLE = "unreachable"
    SLOW = "slow"
    NOT_INSTALLED = "not-installed"
    NOT_FOUND = "not-found"
    OTHER = "other"


PROBLEMS = {
    TroubleKind.THROTTLED: "AWS throttles {action} ({code})",
    TroubleKind.DENIED: "this task may not call {action} ({code})",
    TroubleKind.NO_CREDENTIALS: "{action} has no credentials that AWS accepts ({code})",
    TroubleKind.NO_REGION: "{action} has no Region",
    TroubleKind.UNREACHABLE: "the endpoint of {action} cannot be reached ({code})",
    TroubleKind.SLOW: "{action} was not answered in time ({code})",
    TroubleKind.NOT_INSTALLED: "{action} needs an AWS client, and none is installed",
    TroubleKind.NOT_FOUND: "{action} does not know what it was asked for ({code})",
    TroubleKind.OTHER: "{action} failed ({code})",
}

REMEDIES = {
    TroubleKind.THROTTLED: "raise DRAIN_POLL_INTERVAL: Describe calls share one budget in the account and Region",
    TroubleKind.DENIED: "allow {action} in the task role",
    TroubleKind.NO_CREDENTIALS: "give the task definition a taskRoleArn; off ECS, give the instance a role",
    TroubleKind.NO_REGION: "set AWS_DEFAULT_REGION",
    TroubleKind.UNREACHABLE: (
        "give the subnet a NAT gateway or a VPC endpoint for the service, and check that the security group allows it"
    ),
    TroubleKind.SLOW: (
        "longer time limits are tried by themselves; if it lasts, look for a slow proxy or firewall in between, and at "
        "the AWS Health Dashboard"
    ),
    TroubleKind.NOT_INSTALLED: "pip install 'aioboto3>=15.1' (the extra [aws])",
    TroubleKind.NOT_FOUND: "check that DRAIN_TARGET_GROUP_ARN and the Region are right",
    TroubleKind.OTHER: "it is tried again; if it lasts, look at the AWS Health Dashboard",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """
    The failure of a call.

    Attributes:
        kind: Its kind.
        service: The service, as botocore names it, such as ``"elbv2"``.
        operation: The operation, as the API names it, such as ``"DescribeTargetHealth"``.
        code: AWS's error code, or the name of the exception.
        message: AWS's message, or that of the exception, without secrets; empty if there is none.
        advice: A remedy that fits better than that of its kind, or empty.
        sentence: A description that fits better than that of its kind, or empty; ``{code}`` is filled in.
    """

    kind: TroubleKind
    service: str
    operation: str
    code: str
    message: str = ""
    advice: str = ""
    sentence: str = ""

    @property
    def action(self) -> str:
        """The IAM action that allows the call."""
        return action_of(self.service, self.operation)

    @property
    def problem(self) -> str:
        """What is wrong, in one sentence, with AWS's message if there is one."""
        code = f"{self.code}: {self.message}" if self.message else self.code
        return (self.sentence or PROBLEMS[self.kind].replace("{action}", self.action)).replace("{code}", code)

    @property
    def remedy(self) -> str:
        """What to do about it, in one sentence."""
        remedy = self.advice or REMEDIES[self.kind].replace("{action}", self.action)
        setting = REPLACED_BY.get(self.operation)
        if self.kind is TroubleKind.DENIED and setting:
            return f"{remedy}, or set {setting}, so that the call is not needed"
        return remedy


def action_of(service: str, operation: str) -> str:
    """Return the IAM action that allows a call."""
    return f"{IAM_PREFIX.get(service, service)}:{operation}"


class Incomplete(DiscoveryError):
    """Something is missing that is needed; ``problem`` says what, and ``remedy`` what to do about it."""

    def __init__(self, *, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}: {self.remedy}"


class AwsCallFailed(Incomplete):
    """A call to AWS gave no usable answer; ``trouble`` says why."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(problem=trouble.problem, remedy=trouble.remedy)
        self.trouble = trouble


# https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/CommonErrors.html and the same page of ECS. The
# codes for throttling are those of botocore (botocore/retries/standard.py).
CODES = {
    TroubleKind.THROTTLED: {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    },
    TroubleKind.DENIED: {
        "AccessDenied",
        "AccessDeniedException",
        "NotAuthorized",
        "OptInRequired",
        "UnauthorizedOperation",
    },
    TroubleKind.NO_CREDENTIALS: {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "RequestExpired",
        "RequestInTheFuture",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    },
    TroubleKind.NOT_FOUND: {"ClusterNotFoundException", "ServiceNotFoundException", "TargetGroupNotFound"},
}

# By name, because importing botocore.exceptions would block the event loop for a quarter of a second.
EXCEPTIONS = {
    TroubleKind.NO_CREDENTIALS: {
        "ConfigNotFound",
        "ConfigParseError",
        "CredentialRetrievalError",
        "LoginError",
        "MetadataRetrievalError",
        "NoAuthTokenError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "SSOError",
        "TokenRetrievalError",
    },
    TroubleKind.NO_REGION: {"NoRegionError"},
    TroubleKind.OTHER: {"AnswerTooLarge"},
    TroubleKind.UNREACHABLE: {
        "ClientConnectorError",
        "ConnectTimeoutError",
        "ConnectionError",
        "EndpointConnectionError",
        "ProxyConnectionError",
        "SSLError",
    },
    TroubleKind.SLOW: {"ReadTimeoutError", "TimeoutError"},
    TroubleKind.NOT_INSTALLED: {"ImportError"},
}
LAST_GUESS = {TroubleKind.UNREACHABLE: {"HTTPClientError", "OSError"}}


def classify(error: BaseException, service: str, operation: str) -> Trouble:
    """Classify *error*, which a call to *operation* raised."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict) and "Error" in response:
        code = str(response["Error"].get("Code") or "no code")
        message = str(response["Error"].get("Message") or "")
        kind, evidence = _find(CODES, {code}), f"{code} {message}"
    else:
        code, message = type(error).__name__, str(error)
        names = {each.__name__ for each in type(error).__mro__}
        kind = _find(EXCEPTIONS, names)
        if kind is TroubleKind.OTHER and not names & EXCEPTIONS[kind]:
            kind = _find(LAST_GUESS, names)
        evidence = " ".join(_chain(error))
    advice, sentence = advise(kind.value, evidence, action_of(service, operation))
    return Trouble(kind, service, operation, code, presentable(message), advice, sentence)


def _find(table: dict[TroubleKind, set[str]], names: set[str]) -> TroubleKind:
    return next((kind for kind, known in table.items() if known & names), TroubleKind.OTHER)


def _chain(error: BaseException | None) -> Iterator[str]:
    """Yield the class names and messages of *error* and of its causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield from (each.__name__ for each in type(error).__mro__[:-2])
        yield str(error)
        kwargs = getattr(error, "kwargs", None)  # where botocore keeps the error that it wraps
        inner = kwargs.get("error") if isinstance(kwargs, dict) else None
        error = inner if isinstance(inner, BaseException) else error.__cause__ or error.__context__
