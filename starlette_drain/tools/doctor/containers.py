"""Finds the container that serves in a task definition, and reads its definition. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette_drain.tools.doctor.server_command import ServerCommand
from starlette_drain.tools.tasks.channel import TOKEN

__all__ = ["Container", "choose", "others_behind"]

STOP_TIMEOUT = 30.0
"""The default ``stopTimeout`` of a container, in seconds."""

PROXIES = ("nginx", "envoy", "haproxy", "traefik", "caddy", "httpd", "aws-appmesh-envoy")
"""Parts of the names of images that forward requests to another container."""

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Container:
    """
    The definition of a container.

    Attributes:
        name: Its name.
        stop_timeout: Its ``stopTimeout`` in seconds.
        command: Entry point and command; empty if they are in the image.
        environment: Its variables, except secrets and files.
        unseen: Our variables that are secrets, and its environment files.
        names: The names of all its variables, including secrets.
        restarts: Whether a restart policy restarts it.
        has_stop_timeout: Whether its ``stopTimeout`` is set.
        is_essential: Whether the task ends with it.
        waits_for: The containers that it depends on, which ECS stops after it.
        health_command: The command of its health check; empty if there is none.
    """

    name: str
    stop_timeout: float = STOP_TIMEOUT
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()
    restarts: bool = False
    has_stop_timeout: bool = False
    is_essential: bool = True
    waits_for: tuple[str, ...] = ()
    health_command: str = ""


def choose(records: Sequence[Record], given: str | None, behind: Sequence[str]) -> Container | None:
    """
    Return the container that serves; ``None`` if none has the name.

    Without a name, a container with a known server or with our options is preferred, then one behind the target group;
    a proxy comes last.

    Args:
        records: The containers of the definition.
        given: Its name, if given.
        behind: The names of the containers behind the target groups.
    """
    if given is not None:
        return next((_read(each) for each in records if each.get("name") == given), None)
    ranked = sorted(records, key=lambda each: _rank(each, behind))
    return _read(ranked[0]) if ranked else None


def others_behind(records: Sequence[Record], chosen: Container, behind: Sequence[str]) -> tuple[list[str], list[str]]:
    """
    Return the other containers *behind* the target groups: servers, and proxies that may stop before *chosen*.

    ECS stops a container before those that it depends on, and all others at the same time.
    """
    others = [each for each in records if each.get("name") in behind and each.get("name") != chosen.name]
    servers = [str(each["name"]) for each in others if not _is_proxy(each)]
    proxies = [str(each["name"]) for each in others if _is_proxy(each)]
    return servers, [each for each in proxies if each not in chosen.waits_for]


def _is_proxy(record: Record) -> bool:
    image = str(record.get("image") or "").rpartition("/")[2]
    command = [*(record.get("entryPoint") or ()), *(record.get("command") or ())]
    return any(each in image or each in " ".join(command[:1]) for each in PROXIES)


def _rank(record: Record, behind: Sequence[str]) -> tuple[bool, bool, bool, bool, bool]:
    container = _read(record)
    is_told = any(name.startswith("DRAIN_") for name in (*container.environment, *container.unseen))
    return (
        _is_proxy(record),
        not ServerCommand(container.command).server,
        not is_told,
        container.name not in behind,
        record.get("essential") is False,
    )


def _read(record: Record) -> Container:
    given = [*(record.get("environment") or ()), *(record.get("secrets") or ())]
    return Container(
        name=str(record.get("name") or ""),
        stop_timeout=float(record.get("stopTimeout") or STOP_TIMEOUT),
        command=(*(record.get("entryPoint") or ()), *(record.get("command") or ())),
        environment={each["name"]: each.get("value") or "" for each in record.get("environment") or ()},
        unseen=tuple(_unseen(record)),
        names=frozenset(str(each.get("name")) for each in given),
        has_stop_timeout=record.get("stopTimeout") is not None,
        is_essential=record.get("essential") is not False,
        waits_for=tuple(str(each.get("containerName")) for each in record.get("dependsOn") or ()),
        health_command=" ".join((record.get("healthCheck") or {}).get("command") or ()),
        restarts=bool((record.get("restartPolicy") or {}).get("enabled")),
    )


def _unseen(record: Record) -> Iterator[str]:
    ours = ("DRAIN_", "UVICORN_", "GUNICORN_")
    for each in record.get("secrets") or ():
        if (name := str(each.get("name") or "")).startswith(ours) and name != TOKEN:
            yield name
    for each in record.get("environmentFiles") or ():
        yield str(each.get("value") or "")
