"""AWS calls that record which operations were allowed and which failed."""

from collections.abc import Mapping
from typing import Any

from starlette_drain.aws.api.calls import AwsCalls
from starlette_drain.aws.api.client import AwsClients
from starlette_drain.aws.api.errors import AwsCallFailed, Trouble

__all__ = ["RecordedCalls"]


class RecordedCalls(AwsCalls):
    """
    The calls of the package, recorded.

    Attributes:
        allowed: The operations that succeeded, in the order of their first call.
        troubles: The failures, without duplicates.

    Args:
        clients: Creates the clients.
        region: The Region to call.
    """

    def __init__(self, clients: AwsClients, region: str | None = None) -> None:
        super().__init__(clients, region)
        self.allowed: dict[str, None] = {}
        self.troubles: dict[Trouble, None] = {}

    async def call(self, service: str, operation: str, /, **parameters: Any) -> Mapping[str, Any]:
        """
        Call *operation* and return the answer.

        Raises:
            AwsCallFailed: If the call fails.
        """
        try:
            answer = await super().call(service, operation, **parameters)
        except AwsCallFailed as failed:
            self.troubles[failed.trouble] = None
            raise
        self.allowed[operation] = None
        return answer

    async def ask(self, service: str, operation: str, /, **parameters: Any) -> Mapping[str, Any]:
        """Return the answer; empty if the call fails."""
        try:
            return await self.call(service, operation, **parameters)
        except AwsCallFailed:
            return {}
