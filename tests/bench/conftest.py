"""
Benchmarks: `make bench`. Real processes and real time; no figure is ever asserted.

Each prints its figures beside those of the bare server, measured in the same run, and writes them to bench-results/.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = ROOT / "bench-results"
sys.path.append(str(HERE.parent / "e2e"))

from harness.figures import Report  # noqa: E402
from harness.load import Load  # noqa: E402
from server_process import TOKEN, ServerProcess  # noqa: E402 - where the line above says


@pytest.fixture
def anyio_backend():
    """Run ``async def`` benchmarks on a loop with a real clock."""
    return "asyncio"


@pytest.fixture(scope="module")
def report(request: pytest.FixtureRequest) -> Iterator[Report]:
    """Keep the figures of one file: ``bench_shed.py`` writes ``bench-results/shed.json``."""
    report = Report(request.path.stem.removeprefix("bench_"))
    yield report
    report.write(RESULTS)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Start uvicorn with an application of ``apps``, ready when returned, and end it with the benchmark."""
    with ExitStack() as servers:

        def start(app: str, *arguments: str, env: dict[str, str] | None = None, **options) -> ServerProcess:
            log = tmp_path / f"server-{len(list(tmp_path.glob('server-*')))}.log"
            env = {"PYTHONPATH": f"{HERE / 'apps'}:{ROOT}", "DRAIN_ADMIN_TOKEN": TOKEN, **(env or {})}
            arguments = ("--no-access-log", "--log-level", "warning", *arguments)
            return servers.enter_context(ServerProcess(app, *arguments, log=log, env=env, **options))

        yield start


@pytest.fixture
def load() -> Iterator[Load]:
    """Start a process with clients."""
    with Load() as load:
        yield load
