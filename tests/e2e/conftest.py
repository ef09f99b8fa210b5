"""Real processes, real sockets, real signals, real time: everything here is marked slow."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from server_process import ServerProcess

HERE = Path(__file__).parent


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
    """Start server processes, each ready when returned, and end them with the test whatever happens."""
    with ExitStack() as servers:

        def start(app: str, *arguments: str, **options) -> ServerProcess:
            log = tmp_path / f"server-{len(list(tmp_path.glob('server-*')))}.log"
            return servers.enter_context(ServerProcess(app, *arguments, log=log, **options))

        yield start
