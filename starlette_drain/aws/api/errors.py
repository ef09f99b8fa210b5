"""What went wrong with a call to AWS, in one vocabulary, each with its remedy."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from starlette_drain.exceptions import DiscoveryError

__all__ = ["AwsCallFailed", "Incomplete", "Trouble", "TroubleKind", "classify"]

IAM_PREFIX = {"elbv2": "elasticloadbalancing"}
"""The services whose IAM actions begin with something else than their name."""

REPLACED_BY = {
    "DescribeTasks": "DRAIN_TARGET_GROUP_ARN",
    "DescribeServices": "DRAIN_TARGET_GROUP_ARN",
    "DescribeContainerInstances": "DRAIN_TARGET_ID",
    "DescribeTargetGroupAttributes": "DRAIN_DEREGISTRATION_DELAY",
}
"""The setting that makes a call needless."""


class TroubleKind(Enum):
    """Why a call to AWS gave no answer that can be used."""

    THROTTLED = "throttled"
    DENIED = "denied"
    NO_CREDENTIALS = "no-credentials"
    NO_REGION = "no-region"
    UNREACHABLE = "unreachable"
    NOT_INSTALLED = "not-installed"
    NOT_FOUND = "not-found"
    OTHER = "other"


PROBLEMS = {
    TroubleKind.THROTTLED: "AWS throttles {action} ({code})",
    TroubleKind.DENIED: "this task may not call {action} ({code})",
    TroubleKind.NO_CREDENTIALS: "{action} has no credentials that AWS accepts ({code})",
    TroubleKind.NO_REGION: "{action} was given no region",
    TroubleKind.UNREACHABLE: "the endpoint of {action} cannot be reached in time ({code})",
    TroubleKind.NOT_INSTALLED: "{action} needs an AWS client, and none is installed",
    TroubleKind.NOT_FOUND: "{action} does not know what it was asked for ({code})",
    TroubleKind.OTHER: "{action} failed ({code})",
}

REMEDIES = {
    TroubleKind.THROTTLED: "raise DRAIN_POLL_INTERVAL: Describe calls share one budget in the account and Region",
    TroubleKind.DENIED: "allow {action} in the task role",
    TroubleKind.NO_CREDENTIALS: "give the task definition a taskRoleArn",
    TroubleKind.NO_REGION: "set AWS_DEFAULT_REGION",
    TroubleKind.UNREACHABLE: (
        "give the subnet a NAT gateway or a VPC endpoint for the service, and see whether the security group allows it"
    ),
    TroubleKind.NOT_INSTALLED: 'pip install "starlette-drain[aws]"',
    TroubleKind.NOT_FOUND: "see whether DRAIN_TARGET_GROUP_ARN and the Region are right",
    TroubleKind.OTHER: "it is tried again; if it lasts, look at the AWS Health Dashboard",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """
    What went wrong with one call. It never carries AWS's own message: some quote the request that was signed.

    Attributes:
        kind: In our vocabulary.
        service: As botocore names it, such as ``"elbv2"``.
        operation: As the API names it, such as ``"DescribeTargetHealth"``.
        code: AWS's error code, or the name of the exception.
    """

    kind: TroubleKind
    service: str
    operation: str
    code: str

    @property
    def action(self) -> str:
        """The IAM action that allows the call."""
        return f"{IAM_PREFIX.get(self.service, self.service)}:{self.operation}"

    @property
    def problem(self) -> str:
        """One sentence that says what is the matter."""
        return PROBLEMS[self.kind].format(action=self.action, code=self.code)

    @property
    def remedy(self) -> str:
        """One sentence that says what to do about it."""
        remedy = REMEDIES[self.kind].format(action=self.action)
        setting = REPLACED_BY.get(self.operation)
        if self.kind is TroubleKind.DENIED and setting:
            return f"{remedy}, or set {setting} so that it need not be called"
        return remedy


class Incomplete(DiscoveryError):
    """What was found does not suffice; ``problem`` says what is missing, ``remedy`` what to do about it."""

    def __init__(self, *, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}: {self.remedy}"


class AwsCallFailed(Incomplete):
    """A call to AWS gave no answer that can be used; ``trouble`` says why."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(problem=trouble.problem, remedy=trouble.remedy)
        self.trouble = trouble


# https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/CommonErrors.html and the same page of ECS;
# the many words for throttling are botocore's (botocore/retries/standard.py).
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
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    },
    TroubleKind.NOT_FOUND: {"ClusterNotFoundException", "ServiceNotFoundException", "TargetGroupNotFound"},
}

# By name, because importing botocore.exceptions to name its classes costs a quarter of a second on the event loop.
EXCEPTIONS = {
    TroubleKind.NO_CREDENTIALS: {
        "CredentialRetrievalError",
        "MetadataRetrievalError",
        "NoCredentialsError",
        "PartialCredentialsError",
    },
    TroubleKind.NO_REGION: {"NoRegionError"},
    TroubleKind.UNREACHABLE: {"ClientConnectorError", "ConnectionError", "HTTPClientError", "OSError", "TimeoutError"},
    TroubleKind.NOT_INSTALLED: {"ImportError"},
}


def classify(error: BaseException, service: str, operation: str) -> Trouble:
    """Find what *error*, raised by a call to *operation*, means in our vocabulary."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict) and "Error" in response:
        code = str(response["Error"].get("Code") or "no code")
        kind = _find(CODES, {code})
    else:
        code = type(error).__name__
        kind = _find(EXCEPTIONS, {each.__name__ for each in type(error).__mro__})
    return Trouble(kind, service, operation, code)


def _find(table: dict[TroubleKind, set[str]], names: set[str]) -> TroubleKind:
    return next((kind for kind, known in table.items() if known & names), TroubleKind.OTHER)
