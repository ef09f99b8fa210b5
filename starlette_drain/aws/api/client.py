"""AWS clients: created on first use, off the event loop, and closed at the end."""

import contextlib
import importlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Any, Protocol, Self, runtime_checkable

from starlette_drain.aws.api.as_sent import AS_SENT
from starlette_drain.aws.api.blocking import BlockingClient
from starlette_drain.aws.api.errors import AwsCallFailed, classify
from starlette_drain.aws.api.loop_thread import LoopThread
from starlette_drain.aws.api.size_limit import limit_answers

__all__ = ["Aioboto3Clients", "AwsClients", "GivenClients"]

TIME_LIMITS: Mapping[str, Any] = {
    # By default botocore waits 60 s for a connection and 60 s for an answer, and tries five times: with a network that
    # drops packets a poll would hang for as long as the whole drain. Polls are repeated anyway.
    "connect_timeout": 1,
    "read_timeout": 2,
    "retries": {"total_max_attempts": 1},
}

LONGEST_STRETCH = 4.0
"""The largest factor by which the time limits above grow if calls take longer."""


@runtime_checkable
class AwsClients(Protocol):
    """
    Creates clients of AWS services, as ``aioboto3.Session`` does.

    A client has coroutines named as in aiobotocore: ``describe_target_health(TargetGroupArn=...)``.
    """

    def client(self, service: str, /, *, region_name: str | None = None) -> AbstractAsyncContextManager[Any]:
        """Return a context manager that opens and closes the client of ``"elbv2"``, ``"ecs"`` or ``"ec2"``."""


class GivenClients:
    """Clients that the caller has opened and will close: ``GivenClients(elbv2=..., ecs=...)``."""

    def __init__(self, **clients: Any) -> None:
        self._clients = clients

    @contextlib.asynccontextmanager
    async def client(self, service: str, /, *, region_name: str | None = None) -> AsyncIterator[Any]:  # noqa: ARG002
        """
        Yield the client of *service*, with its own region.

        Raises:
            AwsCallFailed: If none was given.
        """
        if service not in self._clients:
            missing = ImportError(f"no client of {service} was given")
            raise AwsCallFailed(classify(missing, service, "*"))
        yield self._clients[service]


class Aioboto3Clients:
    """
    Creates clients with aioboto3, aiobotocore or boto3, whichever is installed, in this order.

    All three use botocore's data, of which an environment has one version, so they support the same calls.

    The clients run on a separate event loop, in a thread. On the loop that serves, importing the library would take a
    third of a second, parsing botocore's data 50 ms, and each client 50 ms for its certificates. They have short time
    limits, which grow if calls time out, and make a single attempt: see `TIME_LIMITS`.

    Args:
        **arguments: Further arguments for each client, such as ``endpoint_url``.
    """

    def __init__(self, **arguments: str) -> None:
        self._arguments = arguments
        self._thread = LoopThread()
        self._session: Any = None
        self._config: Any = None
        self._stretch = 1.0

    @classmethod
    def patient(cls) -> Self:
        """Return clients with the longest time limits, for a command, which makes each call only once."""
        clients = cls()
        clients._stretch = LONGEST_STRETCH
        return clients

    def be_patient(self) -> None:
        """Double the time limits of clients opened from now on, up to a limit: a call has timed out."""
        self._stretch = min(LONGEST_STRETCH, self._stretch * 2)

    @contextlib.asynccontextmanager
    async def client(self, service: str, /, *, region_name: str | None = None) -> AsyncIterator[Any]:
        """
        Open the client of *service*.

        Raises:
            ImportError: If none of the three libraries is installed.
        """
        async with self._thread as thread:
            stack = contextlib.AsyncExitStack()
            opened = await thread.run(self._open(stack, service, region_name))
            try:
                yield _OnThread(opened, thread)
            finally:
                await thread.run(stack.aclose())

    async def _open(self, stack: contextlib.AsyncExitStack, service: str, region_name: str | None) -> Any:
        if self._session is None:
            session, config = _import_session()
            self._config = config
            self._session = session
        create = getattr(self._session, "client", None) or self._session.create_client
        config = self._config(**_stretched(TIME_LIMITS, self._stretch))
        made = create(service, region_name=region_name, config=config, **self._arguments)
        if not hasattr(made, "__aenter__"):
            stack.callback(made.close)
            return BlockingClient(_adapted(made))
        return _adapted(await stack.enter_async_context(made))


class _OnThread:
    """A client whose calls run on the loop of another thread."""

    def __init__(self, client: Any, thread: LoopThread) -> None:
        self._client = client
        self._thread = thread

    def __getattr__(self, operation: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._client, operation)
        return lambda **parameters: self._thread.run(method(**parameters))


def _stretched(limits: Mapping[str, Any], factor: float) -> Mapping[str, Any]:
    return {name: value * factor if name.endswith("_timeout") else value for name, value in limits.items()}


def _import_session() -> tuple[Any, Any]:
    """Return a new session and the class of its configuration; raise ImportError if no library is installed."""
    try:
        config = importlib.import_module("aiobotocore.config").AioConfig
    except ImportError:  # also if it does not match the installed botocore
        session = importlib.import_module("boto3").Session()
        return session, importlib.import_module("botocore.config").Config
    try:
        return importlib.import_module("aioboto3").Session(), config
    except ImportError:
        return importlib.import_module("aiobotocore.session").get_session(), config


def _adapted(client: Any) -> Any:
    """
    Limit the size of *client*'s answers, and keep unknown fields of services and their revisions.

    The botocore version that the newest aioboto3 requires does not know Express mode and Gateway connectors, so it
    drops the balancers that ECS manages for them.
    """
    limit_answers(client)
    for operation in ("DescribeServices", "DescribeServiceRevisions"):
        client.meta.events.register(f"before-parse.ecs.{operation}", _add_as_sent)
    return client


def _add_as_sent(response_dict: Mapping[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    if response_dict["status_code"] == HTTPStatus.OK:
        with contextlib.suppress(ValueError):
            customized_response_dict[AS_SENT] = json.loads(response_dict["body"])
