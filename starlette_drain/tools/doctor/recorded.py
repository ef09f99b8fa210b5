"""Calls to AWS that are written down: which were allowed, which failed, and how."""

from collections.abc import Mapping
from typing import Any

from starlette_drain.aws.api.calls import AwsCalls
from starlette_drain.aws.api.client import AwsClients
from starlette_drain.aws.api.errors import AwsCallFailed, Trouble

__all__ = ["RecordedCalls"]


class RecordedCalls(AwsCalls):
    """
    Calls as the package makes them, written down.

    Attributes:
        allowed: The operations that were answered, in the order of the first time.
        troubles: What went wrong, each once.

    Args:
        clients: Who makes the clients.
        region: The region to call.
    """

    def __init__(self, clients: AwsClients, region: str | None = None) -> None:
        super().__init__(clients, region)
        self.allowed: dict[str, None] = {}
        self.troubles: dict[Trouble, None] = {}

    async def call(self, service: str, operation: str, /, **parameters: Any) -> Mapping[str, Any]:
        """
        Call *operation* and return the answer.

        Raises:
            AwsCallFailed: If there is none that can be used.
        """
        try:
            answer = await super().call(service, operation, **parameters)
        except AwsCallFailed as failed:
            self.troubles[failed.trouble] = None
            raise
        self.allowed[operation] = None
        return answer

    async def ask(self, service: str, operation: str, /, **parameters: Any) -> Mapping[str, Any]:
        """Return the answer, or an empty one where there is none."""
        try:
            return await self.call(service, operation, **parameters)
        except AwsCallFailed:
            return {}
