"""The tables of ``docs/clients.md``, from what was measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["PAGE", "page_with"]

PAGE = Path(__file__).parents[3] / "docs" / "clients.md"
BEGIN, END = "<!-- {}: written by `make zoo` -->", "<!-- until here -->"

SHOWN = {
    "aiohttp-advised": "aiohttp {}, as below",
    "chromium-eventsource": "`EventSource`, Chromium {}",
    "chromium-websocket": "`WebSocket`, Chromium {}",
    "full-jitter": "the browser's, as below",
    "graphql-ws-advised": "`graphql-ws` {}, as below",
    "mcp-sdk": "MCP SDK for TypeScript {}",
    "signalr": "SignalR {}",
    "websockets": "Python `websockets` {}, as below",
    "ws": "`ws` {}",
}
"""How the table calls them, where it is not the name of the package."""

Seen = Mapping[str, Any]


def page_with(page: str, measured: Mapping[str, Seen]) -> str:
    """Return the page with its tables written anew."""
    kinds = {"WebSockets": ("websocket", _websocket, _WEBSOCKET), "Event streams": ("event-stream", _stream, _STREAM)}
    for name, (kind, row, columns) in kinds.items():
        rows = [row(_shown(each, seen), seen) for each, seen in measured.items() if seen["kind"] == kind]
        table = [columns, ("---",) * len(columns), *sorted(rows, key=lambda cells: cells[0].strip("`").lower())]
        begin = BEGIN.format(name)
        before, _, rest = page.partition(begin)
        lines = "\n".join(f"| {' | '.join(cells)} |" for cells in table)
        page = f"{before}{begin}\n\n{lines}\n\n{END}{rest.partition(END)[2]}"
    return page


_WEBSOCKET = ("client", "close or cut", "503", "1013 at once", "patience")
_STREAM = ("client", "clean end", "cut", "`retry:`", "503")


def _websocket(name: str, seen: Seen) -> tuple[str, ...]:
    if not (first := seen["after"]["1012"]):
        return name, "**stays away**", "", "", ""
    return (
        name,
        _range(first) + (", drawn once" if seen["draws"] == "once" else "") + _exceptions(seen["after"]),
        _series(seen["refused"], seen["gives_up"]),
        _series(seen["busy"], seen["busy_gives_up"]),
        f"{seen['patience']:g} s" if seen["patience"] else "",
    )


def _stream(name: str, seen: Seen) -> tuple[str, ...]:
    after = seen["after"]
    if not after["cut"]:
        return name, "takes it for the end", "yours", "yours", "yours"
    obeys = after["retry-cut"] != after["cut"]
    return (
        name,
        _range(after["clean"]) if after["clean"] else "**stays away**",
        _range(after["cut"]),
        "obeyed" if obeys else "no",
        _series(seen["refused"], seen["gives_up"]),
    )


def _exceptions(after: Mapping[str, Any]) -> str:
    usual = after["1012"]
    away = [code for code, wait in after.items() if wait is None]
    other = [f"; {_range(wait)} after {code}" for code, wait in after.items() if wait and wait != usual]
    return (f"; stays away after {' and '.join(away)}" if away else "") + "".join(other)


def _series(ranges: Sequence[Sequence[float]], gives_up: int | None) -> str:
    if not ranges:
        return "**gives up**"
    last = f" … {_seconds(ranges[-1][1])}" if len(ranges) > 1 else ""
    times = f", {len(ranges)} times" if gives_up and len(ranges) > 1 else ", once" if gives_up else ""
    return _range(ranges[0], is_last=not last) + last + times


def _range(wait: Sequence[float], *, is_last: bool = True) -> str:
    least, most = wait
    if least == most:
        words = _seconds(most)
        return words if is_last or "ms" in words else words.removesuffix(" s")
    return f"{least:.2g} to {_seconds(most) if is_last else format(most, '.3g')}"


def _seconds(seconds: float) -> str:
    if seconds == 0:
        return "at once"
    return f"{seconds * 1000:.0f} ms" if seconds < 0.1 else f"{seconds:.3g} s"


def _shown(name: str, seen: Seen) -> str:
    return SHOWN.get(name, f"`{seen['package']}` {{}}").format(".".join(seen["version"].split(".")[:2]))
