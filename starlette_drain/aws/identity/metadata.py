"""Reads the task metadata endpoint, version 4: what the ECS agent tells a task about itself."""

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from starlette_drain.aws.api.errors import Incomplete

__all__ = ["METADATA_VARIABLE", "ContainerMetadata", "Fetch", "HostPort", "TaskMetadata", "fetch_json", "read_task"]

METADATA_VARIABLE = "ECS_CONTAINER_METADATA_URI_V4"
TIME_LIMIT = 2.0
"""Seconds for each read: the endpoint is link-local, and answers in milliseconds or not at all."""
OVERALL_LIMIT = 4.0
"""Seconds for a whole answer, which may arrive byte by byte."""
SIZE_LIMIT = 4 * 1024 * 1024
"""The most bytes in an answer: a task with ten containers has about 10 KB."""
REMEDY = f"check that {METADATA_VARIABLE} is still what ECS has set"

Fetch = Callable[[str], Awaitable[Mapping[str, Any]]]
"""Gets a URL, and returns the JSON object found there."""


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host port that is mapped to a container port, for one protocol and address family."""

    container_port: int
    host_port: int
    protocol: str = "tcp"
    is_ipv6: bool = False

    @classmethod
    def read(cls, entry: Mapping[str, Any], container_port: str, host_port: str, protocol: str, address: str) -> Self:
        """Parse an *entry*, given the names of its fields."""
        kind, family = str(entry.get(protocol) or "tcp").lower(), ":" in str(entry.get(address) or "")
        return cls(int(entry[container_port]), int(entry[host_port]), kind, family)


@dataclass(frozen=True, slots=True)
class ContainerMetadata:
    """
    One container of the task.

    Attributes:
        name: Its name in the task definition.
        network_modes: Its network modes, such as ``"awsvpc"``, ``"bridge"`` (also called ``"default"``) or ``"host"``.
        addresses: Its IPv4 and IPv6 addresses, as the endpoint writes them.
        host_ports: The host ports that are mapped to it; empty in host mode.
    """

    name: str
    network_modes: frozenset[str]
    addresses: tuple[str, ...]
    host_ports: frozenset[HostPort]


@dataclass(frozen=True, slots=True)
class TaskMetadata:
    """
    The task as the endpoint shows it.

    It never shows that the task is being deactivated (https://github.com/aws/containers-roadmap/issues/2012), so it
    only identifies the task.

    Attributes:
        cluster: The name or ARN of the cluster.
        task_arn: The ARN of the task.
        service: The name of the service, if the agent is new enough to show it (EC2, agent 1.63.1).
        launch_type: ``"FARGATE"``, ``"EC2"`` or empty.
        containers: All containers of the task, not only this one.
    """

    cluster: str
    task_arn: str
    service: str | None
    launch_type: str
    containers: tuple[ContainerMetadata, ...]

    @classmethod
    def parse(cls, answer: Mapping[str, Any]) -> "TaskMetadata":
        """
        Parse the answer of ``${ECS_CONTAINER_METADATA_URI_V4}/task``.

        Raises:
            Incomplete: If a field is missing or has the wrong type.
        """
        try:
            return cls(
                cluster=answer["Cluster"],
                task_arn=answer["TaskARN"],
                service=answer.get("ServiceName") or None,
                launch_type=answer.get("LaunchType") or "",
                containers=tuple(_container(each) for each in answer.get("Containers") or ()),
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise Incomplete(problem=f"the task metadata endpoint answered without {error}", remedy=REMEDY) from error

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of the task's network interfaces; empty unless its network mode is awsvpc."""
        own = [each.addresses for each in self.containers if "awsvpc" in each.network_modes]
        return tuple(dict.fromkeys(address for addresses in own for address in addresses))

    @property
    def is_awsvpc(self) -> bool:
        """Whether the task has its own network interfaces."""
        return any("awsvpc" in each.network_modes for each in self.containers)


async def read_task(uri: str, fetch: Fetch) -> TaskMetadata:
    """
    Get the task's metadata from the endpoint at *uri*.

    Raises:
        Incomplete: If the endpoint does not answer, or its answer is not valid.
    """
    try:
        answer = await fetch(f"{uri.rstrip('/')}/task")
    except (OSError, ValueError, http.client.HTTPException) as error:
        why = type(error).__name__ + (f": {error!s:.100}" if str(error) else "")
        raise Incomplete(problem=f"the task metadata endpoint does not answer ({why})", remedy=REMEDY) from error
    return TaskMetadata.parse(answer)


async def fetch_json(url: str) -> Mapping[str, Any]:
    """
    Get the JSON object at *url*, in a daemon thread with a time limit.

    Raises:
        OSError: If the endpoint cannot be reached, or does not answer in time.
        ValueError: If *url* or the answer is not valid.
        http.client.HTTPException: If the answer is not HTTP.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Mapping[str, Any]] = loop.create_future()
    connection = _connect(url)

    def settle(content: Mapping[str, Any] | None, error: Exception | None) -> None:
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(content or {})

    def work() -> None:
        content, error = None, None
        try:
            content = _get(connection, url)
        except Exception as failure:  # noqa: BLE001 - re-raised where the future is awaited
            error = failure
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(settle, content, error)

    threading.Thread(target=work, name="starlette_drain metadata", daemon=True).start()
    try:
        async with asyncio.timeout(OVERALL_LIMIT):
            return await outcome
    finally:
        if connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)  # ends a read in the thread


def _connect(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(url)
    # No proxy: the endpoint is link-local, and a proxy could not reach it.
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname, parts.port, timeout=TIME_LIMIT)


def _get(connection: http.client.HTTPConnection, url: str) -> Mapping[str, Any]:
    ends = time.monotonic() + OVERALL_LIMIT
    parts = urlsplit(url)
    with contextlib.closing(connection):
        connection.request("GET", parts.path + (f"?{parts.query}" if parts.query else ""))
        with connection.getresponse() as answer:
            if answer.status != http.client.OK:
                message = f"status {answer.status}"
                raise ValueError(message)
            body = b""
            while chunk := answer.read1(65536):
                body += chunk
                if len(body) > SIZE_LIMIT:
                    message = f"more than {SIZE_LIMIT} bytes"
                    raise ValueError(message)
                if time.monotonic() > ends:
                    message = "the answer does not end"
                    raise TimeoutError(message)
    content: Mapping[str, Any] = json.loads(body)
    return content


def _container(answer: Mapping[str, Any]) -> ContainerMetadata:
    networks = answer.get("Networks") or ()
    addresses = [
        address
        for network in networks
        for key in ("IPv4Addresses", "IPv6Addresses")
        for address in network.get(key) or ()
    ]
    ports = frozenset(
        HostPort.read(port, "ContainerPort", "HostPort", "Protocol", "HostIp")
        for port in answer.get("Ports") or ()
        if port.get("ContainerPort") and port.get("HostPort")
    )
    modes = frozenset(network.get("NetworkMode", "") for network in networks)
    return ContainerMetadata(answer.get("Name", ""), modes, tuple(addresses), ports)
