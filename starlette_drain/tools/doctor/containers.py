"""Which container of a task definition serves, and what its definition says of it: pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette_drain.tools.doctor.server_command import ServerCommand
from starlette_drain.tools.tasks.channel import TOKEN

__all__ = ["Container", "choose", "others_behind"]

STOP_TIMEOUT = 30.0
"""Seconds: a container's stopTimeout where none is set."""

PROXIES = ("nginx", "envoy", "haproxy", "traefik", "caddy", "httpd", "aws-appmesh-envoy")
"""What the names of images contain that pass requests on to another container."""

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Container:
    """
    A container, as its definition has it.

    Attributes:
        name: Name.
        stop_timeout: Seconds.
        command: Entry point and command; empty where they stand in the image.
        environment: The variables that can be seen.
        unseen: Variables of ours that come from secrets, and files of variables.
        names: Those of all variables that it is given, secrets too.
        restarts: Whether a restart policy starts it again when it ends.
        has_stop_timeout: Whether its stopTimeout is set.
        is_essential: Whether its end is that of the task.
        waits_for: Those that it depends on, which are stopped after it.
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


def choose(records: Sequence[Record], given: str | None, behind: Sequence[str]) -> Container | None:
    """
    Return the container that serves; ``None`` where none is named so.

    Without a name it is one in which a server runs that is known, or one that is told options of ours; else the one
    behind the target group, unless that is a proxy and there is another.

    Args:
        records: The containers of the definition.
        given: Its name, if it was given.
        behind: The names of those behind the target groups.
    """
    if given is not None:
        return next((_read(each) for each in records if each.get("name") == given), None)
    ranked = sorted(records, key=lambda each: _rank(each, behind))
    return _read(ranked[0]) if ranked else None


def others_behind(records: Sequence[Record], chosen: Container, behind: Sequence[str]) -> tuple[list[str], list[str]]:
    """
    Return the other containers *behind* the target groups: servers, and proxies that may be stopped before *chosen*.

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
        restarts=bool((record.get("restartPolicy") or {}).get("enabled")),
    )


def _unseen(record: Record) -> Iterator[str]:
    ours = ("DRAIN_", "UVICORN_", "GUNICORN_")
    for each in record.get("secrets") or ():
        if (name := str(each.get("name") or "")).startswith(ours) and name != TOKEN:
            yield name
    for each in record.get("environmentFiles") or ():
        yield str(each.get("value") or "")
