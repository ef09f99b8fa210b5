# AWS's message says why a call was refused, and botocore's exception why none was made. Both are shown, and the remedy
# depends on them: "allow it in the task role" is wrong advice if an organization's policy denies the call.
#
# https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html has the sentences about policies.
"""The remedy for a failed call, chosen by what was raised, and AWS's message without secrets."""

import re
from typing import NamedTuple

__all__ = ["Advice", "advise", "presentable"]

LONGEST = 400
"""The most characters of a message that are shown."""


class Advice(NamedTuple):
    """
    Advice that fits a failure better than the usual one for its kind.

    Attributes:
        pattern: What to search for in the names of the exceptions, the code and the message.
        remedy: What to do; ``{action}`` and ``{role}`` are filled in.
        problem: What is wrong, if the usual sentence does not fit.
    """

    pattern: re.Pattern[str]
    remedy: str
    problem: str = ""


def _when(pattern: str, remedy: str, problem: str = "") -> Advice:
    return Advice(re.compile(pattern, re.IGNORECASE), remedy, problem)


ADVICE = {
    "denied": (
        _when(
            r"(service|resource) control policy",
            "allow {action} for this account in the organization's policies: the task role cannot",
        ),
        _when(r"permissions boundary", "allow {action} in the permissions boundary of {role}"),
        _when(r"VPC endpoint policy", "allow {action} in the policy of the VPC endpoint"),
        _when(r"session policy", "allow {action} in the session policy with which {role} is assumed"),
        _when(r"explicit deny", "remove the Deny statement that covers {action} from the policies of {role}"),
        _when(r"OptInRequired", "enable the Region for the account, and sign up for the service"),
        _when(
            r"assumed-role/[^/\s]+/i-[0-9a-f]+",
            "the call was made with the role of the instance, {role}: on ECS give the task definition a taskRoleArn "
            "that allows {action}; elsewhere allow it in that role",
        ),
        _when(
            r":user/",
            "remove AWS_ACCESS_KEY_ID from the environment, so that the task role is used: the call was made as an IAM "
            "user; or allow {action} to it",
        ),
    ),
    "no-credentials": (
        _when(
            r"ProfileNotFound|ConfigNotFound|ConfigParseError|UnknownSignatureVersion",
            "correct or unset AWS_PROFILE and AWS_CONFIG_FILE; with a task role none is needed",
            "{action} was not made, because of the configuration of the AWS client ({code})",
        ),
        _when(
            r"\bSSO|UnauthorizedSSO|TokenRetrieval|LoginRefresh|LoginToken",
            "run `aws sso login` again, or use a task role",
        ),
        _when(
            r"Skewed|Signature expired|not yet current|RequestExpired|RequestInTheFuture",
            "correct the clock of the host: it differs from AWS's by more than five minutes",
        ),
        _when(
            r"ExpiredToken|token.{0,40}expired",
            "remove AWS_ACCESS_KEY_ID and AWS_SESSION_TOKEN from the environment: those credentials have expired, and "
            "those of a task role are renewed",
        ),
        _when(
            r"SignatureDoesNotMatch|IncompleteSignature|InvalidSignature",
            "check that AWS_SECRET_ACCESS_KEY belongs to AWS_ACCESS_KEY_ID, and that no proxy alters requests",
        ),
        _when(
            r"InvalidClientTokenId|UnrecognizedClient|AuthFailure",
            "check that the access key is active, and that it belongs to the partition and Region that are called; a "
            "task role needs no key",
        ),
        _when(
            r"CredentialRetrievalError|MetadataRetrievalError",
            "check that the container reaches the credentials endpoint, 169.254.170.2: a proxy needs it in NO_PROXY",
        ),
    ),
    "unreachable": (
        _when(
            r"SSLError|CERTIFICATE_VERIFY_FAILED|certificate verify failed|SSLCertVerification",
            "set AWS_CA_BUNDLE to the certificates of the proxy or firewall that opens TLS in between; or give the "
            "image CA certificates",
            "TLS to the endpoint of {action} fails ({code})",
        ),
        _when(
            r"Proxy",
            "correct or unset HTTPS_PROXY, or name the endpoint in NO_PROXY",
            "the proxy through which {action} is called does not work ({code})",
        ),
        _when(
            r"gaierror|getaddrinfo|Name or service not known|Temporary failure in name resolution|ClientConnectorDNS",
            "check that the VPC resolves names (enableDnsSupport), and that the Region is right; without internet "
            "access, a VPC endpoint for the service needs private DNS",
            "the name of the endpoint of {action} is not resolved ({code})",
        ),
        _when(
            r"Network is unreachable|No route to host|Errno 101\b|Errno 113\b|Address family not supported",
            "set AWS_USE_DUALSTACK_ENDPOINT=true in a subnet with IPv6 only; or give the subnet a route: a NAT "
            "gateway, or a VPC endpoint for the service",
        ),
        _when(
            r"refused|Errno 111\b",
            "check that AWS_ENDPOINT_URL is right; otherwise give the subnet a NAT gateway or a VPC endpoint for the "
            "service",
        ),
        _when(
            r"ConnectionClosed|Disconnected|reset by peer|IncompleteRead|ClientPayloadError",
            "it is tried again; if it lasts, look for a proxy, a firewall or a sidecar that ends the connection",
            "the connection was closed before {action} was answered ({code})",
        ),
    ),
    "other": (
        _when(
            r"AnswerTooLarge",
            "check that DRAIN_TARGET_GROUP_ARN names a group of this service, and what AWS_ENDPOINT_URL leads to",
            "the answer to {action} is too large to be read ({code})",
        ),
        _when(
            r"ParserError|ParseError|JSONDecodeError|ResponseParser",
            "check that AWS_ENDPOINT_URL and HTTPS_PROXY lead to AWS: what answers there is something else",
            "the answer to {action} cannot be read ({code})",
        ),
        _when(
            r"InvalidRegionError|InvalidEndpoint|UnknownService|UnknownEndpoint|EndpointProvider|EndpointVariant",
            "check that the Region, AWS_ENDPOINT_URL and AWS_USE_DUALSTACK_ENDPOINT are right",
            "{action} has no endpoint with this configuration ({code})",
        ),
        _when(r"InvalidAction|UnknownOperation|ValidationError", "check that AWS_ENDPOINT_URL leads to AWS"),
    ),
}
"""The advice for each kind of trouble; the first pattern that matches wins."""

ROLE = re.compile(r":assumed-role/([^/\s]+)/")


def advise(kind: str, evidence: str, action: str) -> tuple[str, str]:
    """Return a fitting remedy and problem (still with ``{code}``); each is empty if the usual one fits."""
    found = ROLE.search(evidence)
    role = f"the role {found[1]}" if found else "the task role"
    for each in ADVICE.get(kind, ()):
        if each.pattern.search(evidence):
            problem = each.problem.replace("{action}", action)
            return each.remedy.format(action=action, role=role), problem
    if kind == "denied" and found:
        return f"allow {action} in {role} (check that it is the task role)", ""
    return "", ""


QUOTED_REQUEST = re.compile(r"\s*(The )?(Canonical String|String-to-Sign).*", re.IGNORECASE | re.DOTALL)
SECRETS = (
    (re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{8,}"), r"\1…"),
    (
        re.compile(r"(?i)\b([\w-]*(?:token|signature|credential|secret|password|authorization)[=:]\s*)(?!arn:)\S+"),
        r"\1…",
    ),
    (re.compile(r"//[^/@\s]+@"), "//…@"),
)
LONG_RUN = re.compile(r"[A-Za-z0-9/+=_-]{40,}")


def presentable(message: str) -> str:
    """
    Return AWS's *message* on one line, with ARNs but without secrets.

    Some messages quote the signed request, keys, tokens, or a proxy's password.
    """
    text = QUOTED_REQUEST.sub("", message)
    for pattern, instead in SECRETS:
        text = pattern.sub(instead, text)
    words = [each if "arn:" in each or "://" in each else LONG_RUN.sub("…", each) for each in text.split()]
    text = " ".join(words).strip().removesuffix(".")
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
