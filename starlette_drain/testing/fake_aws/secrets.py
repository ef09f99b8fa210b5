"""The JSON protocol of Secrets Manager, for reading secrets."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from starlette_drain.testing.fake_aws.cluster import ACCOUNT, REGION
from starlette_drain.testing.fake_aws.faults import ApiError

__all__ = ["answer"]


def answer(action: str, request: Mapping[str, Any], secrets: Mapping[str, str]) -> Any:
    """
    Return the JSON object that answers *action*.

    Raises:
        ApiError: If the API would answer with an error.
    """
    if action != "GetSecretValue":
        raise ApiError("InvalidAction", f"FakeAWS does not speak {action}")
    wanted = str(request.get("SecretId") or "")
    name = next((each for each in secrets if wanted in (each, _arn(each))), None)
    if name is None:
        raise ApiError("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
    return {
        "ARN": _arn(name),
        "Name": name,
        "VersionId": "EXAMPLE1-90ab-cdef-fedc-ba987EXAMPLE",
        "SecretString": secrets[name],
        "VersionStages": ["AWSCURRENT"],
        "CreatedDate": datetime(2026, 1, 1, tzinfo=UTC).timestamp(),
    }


def _arn(name: str) -> str:
    return f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{name}-a1b2c3"
