"""Calls to AWS: one open client per service, a time limit, no telemetry of their own, one kind of error."""

import asyncio
import contextlib
import re
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Protocol, Self

from opentelemetry import context as otel
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY

from starlette_drain.aws.api.client import AwsClients
from starlette_drain.aws.api.errors import AwsCallFailed, TroubleKind, classify

__all__ = ["AwsCalls", "Record", "region_of", "unobserved"]

TIME_LIMIT = 10.0
"""Seconds a call may take at the most, opening its client included: clients handed in may know no time limits."""

OPEN_ANEW = frozenset({TroubleKind.NO_CREDENTIALS, TroubleKind.SLOW})
"""After which a client is made anew: with credentials, where there are some by then; and with longer time limits."""


class Record(Protocol):
    """Who writes down what AWS answers."""

    def answer(self, operation: str, parameters: Mapping[str, Any], answer: object) -> None:
        """Write down an answer."""

    def failure(self, operation: str, kind: str) -> None:
        """Write down that there was none."""


class AwsCalls:
    """
    Calls AWS through clients that are opened on first use, kept, and closed with this object.

    Args:
        clients: Who makes the clients.
        region: The region to call; ``None`` leaves it to the clients' own configuration.
        record: Who writes down what is answered.
    """

    def __init__(self, clients: AwsClients, region: str | None = None, *, record: Record | None = None) -> None:
        self._clients = clients
        self._record = record
        self.region = region
        self.regions: dict[str, str | None] = {}
        """The region of each service that is called in another."""
        self._open: dict[str, tuple[Any, AsyncExitStack]] = {}
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all clients."""
        for service, (client, _) in list(self._open.items()):
            await self._close(service, client)

    async def call(self, service: str, operation: str, /, **parameters: Any) -> Mapping[str, Any]:
        """
        Call *operation*, named as the API names it, and return the answer.

        Raises:
            AwsCallFailed: If there is no answer that can be used, for whatever reason.
        """
        client = None
        try:
            async with asyncio.timeout(TIME_LIMIT):
                with unobserved():
                    client = await self._client(service)
                    answer: Mapping[str, Any] = await getattr(client, _snake(operation))(**parameters)
        except AwsCallFailed:
            raise
        except Exception as error:
            trouble = classify(error, service, operation)
            if self._record:
                self._record.failure(operation, trouble.kind.value)
            if trouble.kind is TroubleKind.SLOW and hasattr(self._clients, "be_patient"):
                self._clients.be_patient()
            if trouble.kind in OPEN_ANEW:
                await self._close(service, client)
            raise AwsCallFailed(trouble) from error
        if self._record:
            self._record.answer(operation, parameters, answer)
        return answer

    async def _client(self, service: str) -> Any:
        async with self._opening:
            if service not in self._open:
                stack = AsyncExitStack()
                opening = self._clients.client(service, region_name=self.regions.get(service, self.region))
                self._open[service] = await stack.enter_async_context(opening), stack
            return self._open[service][0]

    async def _close(self, service: str, client: object) -> None:
        if service not in self._open or self._open[service][0] is not client:
            return  # another who shares it was faster
        _, stack = self._open.pop(service)
        # A client that cannot be closed must not hide why it is.
        with contextlib.suppress(Exception):
            await stack.aclose()


@contextlib.contextmanager
def unobserved() -> Iterator[None]:
    """Keep instrumentation of HTTP clients and botocore from making a trace of every poll."""
    token = otel.attach(otel.set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
    try:
        yield
    finally:
        otel.detach(token)


def region_of(arn: str) -> str | None:
    """Return the region in *arn*: ECS on EC2 does not tell a container its region otherwise."""
    parts = arn.split(":")
    return parts[3] or None if len(parts) > 5 else None


def _snake(operation: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower()
