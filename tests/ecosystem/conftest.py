"""Programs that are not ours: servers, frameworks, middleware, clients. Real processes, real sockets, real time."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "e2e"))

from server_process import TOKEN, ServerProcess  # noqa: E402 - where the line above says

SETTINGS = {
    "DRAIN_ADMIN_TOKEN": TOKEN,
    "DRAIN_SIGTERM": "true",
    "DRAIN_SIGTERM_WINDOW": "1",
    "DRAIN_GRACE": "2",
    "DRAIN_RETRY_AFTER": "1",
    "DRAIN_LATE_ARRIVALS": "refuse",  # the drains here are by hand
}


def pytest_collection_modifyitems(items):
    """Mark every test of this folder as slow."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def anyio_backend():
    """Run ``async def`` tests on a loop with a real clock."""
    return "asyncio"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Start servers of the applications in ``apps``, each ready when returned, and end them with the test."""
    with ExitStack() as servers:

        def start(app: str, *arguments: str, env: dict[str, str] | None = None, **options) -> ServerProcess:
            path = f"{HERE / 'apps'}:{HERE.parent.parent}"
            log = tmp_path / f"server-{len(list(tmp_path.glob('server-*')))}.log"
            env = {**SETTINGS, "PYTHONPATH": path, **(env or {})}
            return servers.enter_context(ServerProcess(app, *arguments, log=log, env=env, **options))

        yield start
