"""Clients of AWS: made off the event loop when first needed, opened once, and closed at the end."""

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
    # botocore waits 60 s for a connection, 60 s for an answer, and tries five times: a poll against a network that
    # swallows packets would hang for as long as the whole drain. A poll is tried again anyhow.
    "connect_timeout": 1,
    "read_timeout": 2,
    "retries": {"total_max_attempts": 1},
}

MOST_PATIENT = 4.0
"""By how much the time limits above are stretched at the most, where calls take longer."""


@runtime_checkable
class AwsClients(Protocol):
    """
    Something that makes a client of an AWS service; an ``aioboto3.Session`` is one.

    The client has coroutines as aiobotocore names them: ``describe_target_health(TargetGroupArn=...)``.
    """

    def client(self, service: str, /, *, region_name: str | None = None) -> AbstractAsyncContextManager[Any]:
        """Return a context manager that opens and closes the client of ``"elbv2"``, ``"ecs"`` or ``"ec2"``."""


class GivenClients:
    """Clients that the caller opened, and will close: ``GivenClients(elbv2=..., ecs=...)``."""

    def __init__(self, **clients: Any) -> None:
        self._clients = clients

    @contextlib.asynccontextmanager
    async def client(self, service: str, /, *, region_name: str | None = None) -> AsyncIterator[Any]:  # noqa: ARG002
        """
        Lend the client of *service*; its own region rules.

        Raises:
            AwsCallFailed: If there is none.
        """
        if service not in self._clients:
            missing = ImportError(f"no client of {service} was given")
            raise AwsCallFailed(classify(missing, service, "*"))
        yield self._clients[service]


class Aioboto3Clients:
    """
    Clients made by aioboto3, aiobotocore or boto3, the first of them that is installed.

    All three read the model of AWS that botocore brings, of which an environment has one version: none knows more than
    another.

    They live on an event loop of their own, in a thread. On the loop that serves, importing the library would take a
    third of a second, parsing botocore's data 50 ms, and each client 50 ms for the certificates that it trusts. Short
    time limits and a single attempt are set: see `TIME_LIMITS`. They grow where calls time out.

    Args:
        **arguments: What each client is made with besides, such as ``endpoint_url``.
    """

    def __init__(self, **arguments: str) -> None:
        self._arguments = arguments
        self._thread = LoopThread()
        self._session: Any = None
        self._config: Any = None
        self._stretch = 1.0

    @classmethod
    def patient(cls) -> Self:
        """Return clients for a command, which asks once and has no drain to be late for: they wait the longest."""
        clients = cls()
        clients._stretch = MOST_PATIENT
        return clients

    def be_patient(self) -> None:
        """Let clients that are opened from now on wait longer: a call has timed out."""
        self._stretch = min(MOST_PATIENT, self._stretch * 2)

    @contextlib.asynccontextmanager
    async def client(self, service: str, /, *, region_name: str | None = None) -> AsyncIterator[Any]:
        """
        Open the client of *service*.

        Raises:
            ImportError: If none of the three is installed.
        """
        async with self._thread as thread:
            stack = contextlib.AsyncExitStack()
            opened = await thread.run(self._open(stack, service, region_name))
            try:
                yield _Elsewhere(opened, thread)
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


class _Elsewhere:
    """A client whose calls are made on the loop where it lives."""

    def __init__(self, client: Any, thread: LoopThread) -> None:
        self._client = client
        self._thread = thread

    def __getattr__(self, operation: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._client, operation)
        return lambda **parameters: self._thread.run(method(**parameters))


def _stretched(limits: Mapping[str, Any], factor: float) -> Mapping[str, Any]:
    return {name: value * factor if name.endswith("_timeout") else value for name, value in limits.items()}


def _import_session() -> tuple[Any, Any]:
    """Return a new session and the class of its configuration."""
    try:
        config = importlib.import_module("aiobotocore.config").AioConfig
    except ImportError:  # also one that does not fit the botocore beside it
        session = importlib.import_module("boto3").Session()
        return session, importlib.import_module("botocore.config").Config
    try:
        return importlib.import_module("aioboto3").Session(), config
    except ImportError:
        return importlib.import_module("aiobotocore.session").get_session(), config


def _adapted(client: Any) -> Any:
    """
    Let *client* read no answer that is too large, and drop nothing of services and their revisions.

    The botocore that the newest aioboto3 demands knows neither Express mode nor Gateway connectors, so it drops the
    balancers that ECS manages for these.
    """
    limit_answers(client)
    for operation in ("DescribeServices", "DescribeServiceRevisions"):
        client.meta.events.register(f"before-parse.ecs.{operation}", _add_as_sent)
    return client


def _add_as_sent(response_dict: Mapping[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    if response_dict["status_code"] == HTTPStatus.OK:
        with contextlib.suppress(ValueError):
            customized_response_dict[AS_SENT] = json.loads(response_dict["body"])
