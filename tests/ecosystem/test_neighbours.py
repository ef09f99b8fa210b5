"""Programs that people run beside us, each bare and wrapped: a drain changes how sessions end, and nothing else."""

import asyncio
import json
import os
import re
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from server_process import TOKEN, ServerProcess

import starlette_drain

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent
NEIGHBOURS = HERE / "neighbours"
ENVIRONMENTS = Path(os.environ.get("STARLETTE_DRAIN_SOURCES", HERE.parents[1])) / ".venv-neighbours"
REMEDY = "run `make neighbours`, and tests/ecosystem/install.sh for Node's"
SETTINGS = {
    "DRAIN_ADMIN_TOKEN": TOKEN,
    "DRAIN_SIGTERM": "true",
    "DRAIN_SIGTERM_WINDOW": "1",
    "DRAIN_GRACE": "2",
    "DRAIN_RETRY_AFTER": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_OFFLINE": "1",
}

PATIENCE = 100.0
"""Seconds that a server or a client may take to begin: gradio imports pandas, and three of each begin at once."""

Lines = list[list[Any]]
"""What a client saw, in its own words."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """
    What is expected of a neighbour: a module in ``neighbours`` with an application and a client.

    Args:
        drained: What the client sees of a drain by hand, which is cancelled in the end.
        stopped: What it sees when its server is told to stop; ``None`` if that is what it would see without us.
        sees: What the application, or who watches it, must have seen, with us and without.
        streams: How the application's event streams are declared.
        complains: What the neighbour writes to the log when a client of its own leaves, with us and without.
    """

    drained: Lines
    stopped: Lines | None = None
    sees: tuple[str, ...] = ()
    streams: str = ""
    environment: str = "current"
    node: bool = False
    complains: set[str] = field(default_factory=set)


SHED = [[name, "closed", 1012] for name in ("echo", "listens", "sends", "cleans")] + [["stream", "ended", "complete"]]
MCP = [["streamable", "answered", "counted to 10"], ["sse", "raised", "ExceptionGroup"]]
CHANNELS = [
    *([name, "closed", 1012] for name in ("echo", "ticks")),
    *([name, "ended", "complete"] for name in ("stream", "django")),
]
JOBS = [["client", "answered", 11, "counted to 10"], ["page", "answered", "process_completed"]]

EXPECTED = {
    "openai_sdk": Neighbour(drained=[["answered", 25, "stop"]]),
    "mcp_1": Neighbour(drained=MCP, stopped=MCP[1:], environment="mcp1", complains={"anyio.ClosedResourceError"}),
    "mcp_2": Neighbour(drained=MCP, stopped=MCP),
    "gradio_app": Neighbour(drained=JOBS, streams="/gradio_api/queue/data=answer"),
    "nicegui_app": Neighbour(
        drained=[["lost", "transport error"], ["back", True], ["changed again"]],
        stopped=[["lost", "transport error"]],
    ),
    "socketio_app": Neighbour(
        drained=[["lost", "transport error"], ["back", "again"], ["polling", "still here"]],
        stopped=[["lost", "transport error"]],
    ),
    "channels_app": Neighbour(drained=CHANNELS, stopped=CHANNELS, sees=("the application saw 1012",)),
    "pubsub_app": Neighbour(drained=[["lost"], ["heard", "something new"]], stopped=[["lost"]]),
    "proxy_app": Neighbour(drained=[["closed", 1012]], sees=("upstream saw 1012",)),
    "sentry_app": Neighbour(
        drained=SHED,
        stopped=SHED,
        sees=(
            "sentry saw error BufferError in /wrong",
            "sentry saw error ArithmeticError in /fails",
            "sentry saw error LookupError in /cleans",
            "sentry saw error WebSocketDisconnect in /sends",
        ),
    ),
    "elastic_app": Neighbour(
        drained=[["/answer", 25, "complete"], ["/stream", "heard", "complete"]],
        stopped=[["/answer", 25, "complete"], ["/stream", "heard", "complete"]],
        sees=("elastic saw error BufferError", "elastic saw transaction POST /answer: HTTP 2xx"),
    ),
    "browser_streams": Neighbour(
        drained=[["graphql", "complete", 25], ["events", "lost"], ["events", "back"]],
        stopped=[["graphql", "complete", 25], ["events", "lost"]],
        streams="/events=session:cut",
        node=True,
    ),
}


@dataclass(slots=True)
class Visit:
    """A server of a neighbour and a client of it; *seen* grows while the client goes on."""

    server: ServerProcess
    seen: Lines
    ready: asyncio.Event
    reading: asyncio.Task[None]
    tour: Lines = field(default_factory=list)

    async def until_seen(self, count: int) -> None:
        """Wait until the client has seen that many things, or for so long that it will not."""
        for _ in range(600):
            if len(self.seen) >= count:
                break
            await asyncio.sleep(0.05)

    async def stop(self, expected: Lines) -> None:
        """Tell the server to stop; wait until the client has noticed what is *expected*, and a moment for more."""
        self.server.signal()
        await asyncio.to_thread(self.server.wait)
        await self.until_seen(len(expected))
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self.reading), 1.5)

    def complaints(self) -> set[str]:
        """Return the errors and warnings in the server's log, and what those who watch it made errors of."""
        words = (
            r"^(?:[\w.]+(?:Error|Exception|Disconnect\w*|Group)\b.*|.* saw error .*|.*never retrieved.*|.*Warning: .*)$"
        )
        return {each.removeprefix("INFO:").strip() for each in re.findall(words, self.server.log, re.MULTILINE)}


def interpreter(environment: str) -> Path:
    """Return the Python of an environment; where it is missing skip the test, in CI fail it."""
    python = ENVIRONMENTS / environment / "bin" / "python"
    if not python.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"not installed: {python}; {REMEDY}")
    return python


@pytest.mark.parametrize(("ci", "end"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_a_missing_environment_skips_the_test_but_not_in_ci(monkeypatch, ci, end):
    """In CI nobody overlooks that a neighbour was not tried."""
    monkeypatch.setenv("CI", ci)
    with pytest.raises(end, match=r"not installed: .*make neighbours"):
        interpreter("of nobody")


def path_to_us(directory: Path) -> Path:
    """Return a folder from which the package that is tested can be imported, and nothing else."""
    (path := directory / "path").mkdir(parents=True)
    (path / "starlette_drain").symlink_to(Path(starlette_drain.__file__).parent)
    return path


@asynccontextmanager
async def visit(name: str, directory: Path, **env: str) -> AsyncIterator[Visit]:
    """Start the server and the client of a neighbour; both are under way when the block begins."""
    expected, python = EXPECTED[name], interpreter(EXPECTED[name].environment)
    env = {**SETTINGS, "PYTHONPATH": f"{NEIGHBOURS}{os.pathsep}{path_to_us(directory)}", **env}
    if expected.streams and not env.get("BARE"):
        env["DRAIN_STREAMS"] = expected.streams
    command = (python, NEIGHBOURS / "common.py", name)
    if expected.node:
        command = (shutil.which("node") or "node", HERE / "node" / "neighbours.mjs")

    arguments = ("--factory", "--timeout-graceful-shutdown", "6")
    server = ServerProcess(f"{name}:app", *arguments, log=directory / "log", env=env, python=python, patience=PATIENCE)
    await asyncio.to_thread(server.__enter__)
    process = None
    try:
        with (directory / "errors").open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *command, server.url, stdin=DEVNULL, stdout=PIPE, stderr=errors, env={**os.environ, **env}
            )
        assert process.stdout
        output, ready, seen = process.stdout, asyncio.Event(), Lines()

        async def read() -> None:
            async for line in output:
                words = json.loads(line)
                if words == ["ready"]:
                    ready.set()
                else:
                    seen.append(words)

        reading = asyncio.create_task(read())
        each = Visit(server, seen, ready, reading)
        try:
            await asyncio.wait_for(ready.wait(), PATIENCE)
        except TimeoutError:
            pytest.fail(f"the client of {name} is not ready: {seen}\n{(directory / 'errors').read_text()[-4000:]}")
        each.tour = sorted(seen)
        seen.clear()
        yield each
    finally:
        if process:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            await reading
        await asyncio.to_thread(server.__exit__, None, None, None)


@pytest.mark.parametrize("name", EXPECTED)
async def test_a_drain_changes_only_how_sessions_end(name, tmp_path):
    """
    Answers finish or fail, sessions end well and come back, and whoever watches the application sees no other errors.

    One server is bare and is told to stop; one is wrapped and is told to stop; one is wrapped and drained by hand.
    """
    expected = EXPECTED[name]

    async def stopped(**env: str) -> Visit:
        async with visit(name, tmp_path / f"stopped{env.get('BARE', '')}", **env) as each:
            await each.stop(expected.stopped or [])
        return each

    async def drained() -> Visit:
        async with visit(name, tmp_path / "drained") as each:
            _, report = await asyncio.to_thread(each.server.drain, "POST", "?wait=20", window=1)
            assert report["sessions"]["open"] == 0
            await asyncio.to_thread(each.server.drain, "DELETE")
            await each.until_seen(len(expected.drained))
            await each.stop([])
        return each

    async with asyncio.TaskGroup() as visits:
        tasks = [visits.create_task(each) for each in (stopped(BARE="1"), stopped(), drained())]
    bare, wrapped, shed = [each.result() for each in tasks]

    assert bare.tour == wrapped.tour == shed.tour
    assert sorted(shed.seen[: len(expected.drained)]) == sorted(expected.drained)
    assert sorted(wrapped.seen) == sorted(bare.seen if expected.stopped is None else expected.stopped)
    assert wrapped.complaints() <= bare.complaints() | expected.complains
    assert shed.complaints() <= bare.complaints() | expected.complains
    for words in expected.sees:
        assert all(words in each.server.log for each in (bare, wrapped, shed)), words
