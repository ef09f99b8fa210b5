"""Clients of AWS: made off the event loop when first needed, opened once, and closed at the end."""

import asyncio
import contextlib
import importlib
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, runtime_checkable

from starlette_drain.aws.errors import AwsCallFailed, classify

__all__ = ["Aioboto3Clients", "AwsClients", "GivenClients"]

TIME_LIMITS: Mapping[str, Any] = {
    # botocore waits 60 s for a connection, 60 s for an answer, and tries five times: a poll against a network that
    # swallows packets would hang for as long as the whole drain. Whoever polls tries again by itself.
    "connect_timeout": 1,
    "read_timeout": 2,
    "retries": {"total_max_attempts": 1},
}

# What botocore reads from its data folder to make a client: JSON of many megabytes, parsed by the thread that asks.
SHARED_DATA = ("endpoints", "partitions", "sdk-default-configuration", "_retry")
SERVICE_DATA = ("service-2", "endpoint-rule-set-1", "paginators-1")


@runtime_checkable
class AwsClients(Protocol):
    """
    Something that makes a client of an AWS service; an ``aioboto3.Session`` is one.

    The client has coroutines as aiobotocore names them: ``describe_target_health(TargetGroupArn=...)``.
    """

    def client(self, service: str, /, *, region_name: str | None = None) -> AbstractAsyncContextManager[Any]:
        """Return a context manager that opens and closes the client of ``"elbv2"``, ``"ecs"`` or ``"ec2"``."""


class GivenClients:
    """Clients that somebody else opened, and will close: ``GivenClients(elbv2=..., ecs=...)``."""

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
    Clients made by aioboto3, or by aiobotocore alone where only that is installed.

    Importing it and reading botocore's data would stop the event loop for a third of a second, so a thread does both
    on first use. Short time limits and a single attempt are set: see `TIME_LIMITS`.
    """

    def __init__(self) -> None:
        self._session: Any = None
        self._config: Any = None
        self._warming = threading.Lock()
        self._warm: set[str] = set()

    @contextlib.asynccontextmanager
    async def client(self, service: str, /, *, region_name: str | None = None) -> AsyncIterator[Any]:
        """
        Open the client of *service*.

        Raises:
            ImportError: If neither aioboto3 nor aiobotocore is installed.
        """
        if service not in self._warm:
            await asyncio.to_thread(self._warm_up, service)
        create = getattr(self._session, "client", None) or self._session.create_client
        async with create(service, region_name=region_name, config=self._config) as opened:
            yield opened

    def _warm_up(self, service: str) -> None:
        with self._warming:
            if self._session is None:
                session, config = _import_session()
                self._config = config(**TIME_LIMITS)
                self._session = session
            # aioboto3's session wraps an aiobotocore session.
            core = getattr(self._session, "_session", self._session)
            loader = core.get_component("data_loader")
            for name in SHARED_DATA:
                loader.load_data(name)
            for kind in SERVICE_DATA:
                loader.load_service_model(service, kind)
            self._warm.add(service)


def _import_session() -> tuple[Any, Any]:
    """Return a new session and the class of its configuration."""
    config = importlib.import_module("aiobotocore.config").AioConfig
    try:
        return importlib.import_module("aioboto3").Session(), config
    except ModuleNotFoundError:
        return importlib.import_module("aiobotocore.session").get_session(), config
