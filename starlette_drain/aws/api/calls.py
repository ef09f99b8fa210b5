"""Makes calls to AWS: one open client per service, a time limit, no traces, one type of error."""

import asyncio
import contextlib
import re
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Protocol, Self

from opentelemetry import context as otel
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY

from starlette_drain.aws.api.as_sent import complete
from starlette_drain.aws.api.client import AwsClients
from starlette_drain.aws.api.errors import AwsCallFailed, TroubleKind, classify

__all__ = ["AwsCalls", "Record", "region_of", "unobserved"]

TIME_LIMIT = 10.0
"""The most seconds for a call, including opening its client: clients passed in may have no time limits."""

REOPEN_AFTER = frozenset({TroubleKind.NO_CREDENTIALS, TroubleKind.SLOW})
"""Failures after which a new client is opened: there may be credentials by then, and its time limits are longer."""


class Record(Protocol):
    """Records the answers of AWS."""

    def answer(self, operation: str, parameters: Mapping[str, Any], answer: object) -> None:
        """Record an answer."""

    def failure(self, operation: str, parameters: Mapping[str, Any], kind: str) -> None:
        """Record a failure."""


class AwsCalls:
    """
    Calls AWS through clients that are opened on first use, kept, and closed with this object.

    Args:
        clients: Creates the clients.
        region: The region to call; ``None`` leaves it to the clients' configuration.
        record: Records the answers.
    """

    def __init__(self, clients: AwsClients, region: str | None = None, *, record: Record | None = None) -> None:
        self._clients = clients
        self._record = record
        self.region = region
        self.regions: dict[str, str | None] = {}
        """The region of services that are called in another one."""
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
        Call *operation*, named as in the API, and return the answer.

        Raises:
            AwsCallFailed: If there is no usable answer, for any reason.
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
                self._record.failure(operation, parameters, trouble.kind.value)
            if trouble.kind is TroubleKind.SLOW and hasattr(self._clients, "be_patient"):
                self._clients.be_patient()
            if trouble.kind in REOPEN_AFTER:
                await self._close(service, client)
            raise AwsCallFailed(trouble) from error
        if self._record:
            self._record.answer(operation, parameters, complete(answer))
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
            return  # another user of the client was faster
        _, stack = self._open.pop(service)
        # An error of the close must not hide the reason for it.
        with contextlib.suppress(Exception):
            await stack.aclose()


@contextlib.contextmanager
def unobserved() -> Iterator[None]:
    """Keep the instrumentation of HTTP clients and botocore from tracing every poll."""
    token = otel.attach(otel.set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
    try:
        yield
    finally:
        otel.detach(token)


def region_of(arn: str) -> str | None:
    """Return the region in *arn*, or ``None``: on EC2, ECS does not tell a container its region in another way."""
    parts = arn.split(":")
    return parts[3] or None if len(parts) > 5 else None


def _snake(operation: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower()
