"""The promise of aws/api/remedies.py: AWS's own words in every warning, nothing secret, and a remedy that fits."""

import socket
import ssl

import pytest
from aws_fakes import ClientError

from starlette_drain.aws.api.errors import TroubleKind, classify
from starlette_drain.aws.api.remedies import LONGEST, presentable
from starlette_drain.aws.api.size_limit import AnswerTooLarge

ROLE = "arn:aws:sts::123456789012:assumed-role/streams-task/0123456789abcdef0123456789abcdef"
MAY_NOT = f"User: {ROLE} is not authorized to perform: elasticloadbalancing:DescribeTargetHealth"
DENIED, UNKNOWN, CUT_OFF = TroubleKind.DENIED, TroubleKind.NO_CREDENTIALS, TroubleKind.UNREACHABLE


def named(name, *parents, message="", error=None):
    """Make an exception as botocore's, told by its name."""
    made = type(name, (*parents, Exception) if parents else (Exception,), {})(message)
    made.kwargs = {"error": error}
    return made


def tls():
    """Make the error of a certificate that nobody trusts."""
    return ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")


RAISED = {
    "service control policy": (
        ClientError("AccessDenied", f"{MAY_NOT} with an explicit deny in a service control policy"),
        DENIED,
        "organization's policies",
    ),
    "boundary": (
        ClientError("AccessDenied", f"{MAY_NOT} because no permissions boundary allows the action"),
        DENIED,
        "permissions boundary of the role streams-task",
    ),
    "endpoint policy": (
        ClientError("AccessDenied", f"{MAY_NOT} because no VPC endpoint policy allows the action"),
        DENIED,
        "policy of the VPC endpoint",
    ),
    "session policy": (ClientError("AccessDenied", f"{MAY_NOT} because no session policy allows"), DENIED, "session"),
    "own deny": (
        ClientError("AccessDenied", f"{MAY_NOT} with an explicit deny in an identity-based policy"),
        DENIED,
        "remove the Deny statement",
    ),
    "not allowed": (
        ClientError("AccessDenied", MAY_NOT),
        DENIED,
        "in the role streams-task (check that it is the task role)",
    ),
    "instance role": (
        ClientError("AccessDenied", MAY_NOT.replace("0123456789abcdef0123456789abcdef", "i-0abc1234")),
        DENIED,
        "elsewhere allow it in that role",
    ),
    "user": (
        ClientError("AccessDenied", "User: arn:aws:iam::123456789012:user/dev is not authorized"),
        DENIED,
        "remove AWS_ACCESS_KEY_ID",
    ),
    "opt in": (ClientError("OptInRequired", "You are not subscribed"), DENIED, "enable the Region"),
    "clock": (
        ClientError("InvalidSignatureException", "Signature expired: 20261128T2200 is now earlier than 20261128T2210"),
        UNKNOWN,
        "correct the clock",
    ),
    "clock ahead": (ClientError("RequestTimeTooSkewed", "The difference is too large"), UNKNOWN, "correct the clock"),
    "wrong secret": (ClientError("SignatureDoesNotMatch", "It does not match"), UNKNOWN, "AWS_SECRET_ACCESS_KEY"),
    "expired": (ClientError("ExpiredToken", "The security token is expired"), UNKNOWN, "AWS_SESSION_TOKEN"),
    "deactivated": (ClientError("InvalidClientTokenId", "The token is invalid"), UNKNOWN, "the access key is active"),
    "profile": (
        named("ProfileNotFound", message="The config profile (prod) could not be found"),
        UNKNOWN,
        "unset AWS_PROFILE",
    ),
    "single sign-on": (named("SSOTokenLoadError", type("SSOError", (Exception,), {})), UNKNOWN, "aws sso login"),
    "credentials endpoint": (named("CredentialRetrievalError"), UNKNOWN, "169.254.170.2"),
    "nothing": (named("NoCredentialsError", message="Unable to locate credentials"), UNKNOWN, "off ECS, give"),
    "TLS": (named("SSLError", ConnectionError, error=tls()), CUT_OFF, "AWS_CA_BUNDLE"),
    "TLS, bare": (tls(), CUT_OFF, "AWS_CA_BUNDLE"),
    "proxy": (named("ProxyConnectionError", ConnectionError, message="http://u:pw@proxy"), CUT_OFF, "HTTPS_PROXY"),
    "name": (named("EndpointConnectionError", error=socket.gaierror(-2, "Name or service not known")), CUT_OFF, "DNS"),
    "IPv6 only": (
        named("EndpointConnectionError", error=OSError(101, "Network is unreachable")),
        CUT_OFF,
        "AWS_USE_DUALSTACK_ENDPOINT",
    ),
    "refused": (named("EndpointConnectionError", error=ConnectionRefusedError(111, "")), CUT_OFF, "AWS_ENDPOINT_URL"),
    "no route": (named("ConnectTimeoutError", ConnectionError), CUT_OFF, "NAT gateway"),
    "closed": (named("ConnectionClosedError", type("HTTPClientError", (Exception,), {})), CUT_OFF, "sidecar"),
    "slow": (named("ReadTimeoutError", TimeoutError), TroubleKind.SLOW, "longer time limits are tried by themselves"),
    "too large": (AnswerTooLarge(), TroubleKind.OTHER, "DRAIN_TARGET_GROUP_ARN"),
    "no XML": (named("ResponseParserError"), TroubleKind.OTHER, "what answers there is something else"),
}


@pytest.mark.parametrize(("error", "kind", "remedy"), RAISED.values(), ids=RAISED)
def test_the_remedy_follows_from_what_was_raised(error, kind, remedy):
    """The kind, AWS's words in the problem, and a remedy that leads to what is really wrong."""
    trouble = classify(error, "elbv2", "DescribeTargetHealth")
    assert trouble.kind is kind
    told = remedy if remedy != "DNS" else "resolves names"
    assert told in trouble.remedy
    if isinstance(error, ClientError):
        assert error.response["Error"]["Message"] in trouble.problem
        assert error.response["Error"]["Code"] in trouble.problem
    assert "{" not in trouble.problem + trouble.remedy
    assert "pw" not in trouble.problem


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (f"User: {ROLE} may not", f"User: {ROLE} may not"),
        ("It does not match.\nThe Canonical String for this request should have been\n'GET\n/'", "It does not match"),
        ("The key AKIAIOSFODNN7EXAMPLE is unknown", "The key AKIA… is unknown"),
        ("Credential=ASIAIOSFODNN7EXAMPLE/2026, Signature=abc", "Credential=… Signature=…"),
        ("'x-amz-security-token:IQoJb3JpZ2luX2VjE' is bad", "'x-amz-security-token:… is bad"),
        (f"blob {'Zm9v' * 12} end", "blob … end"),
        ("Could not connect to http://me:secret@proxy:3128/ now", "Could not connect to http://…@proxy:3128/ now"),
        ("one\n  two\tthree.", "one two three"),
        ("", ""),
    ],
)
def test_messages_are_shown_without_secrets(message, shown):
    """ARNs stay; keys, tokens, signatures, quoted requests and passwords do not."""
    assert presentable(message) == shown


def test_a_long_message_is_cut():
    """No line of the log is as long as AWS wants it to be."""
    assert len(presentable("word " * 1000)) == LONGEST
