"""What a message costs: CPU of the server per echoed message."""

import pytest
from harness.figures import interleave
from harness.process import cpu_seconds

CONNECTIONS = 50
MESSAGES = 20_000
ROUNDS = 12


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("implementation", ["websockets-sansio", "wsproto"])
def test_real_echo(serve, load, report, implementation, loop):
    """Messages of sixteen bytes, one at a time on each of fifty connections, through a real uvicorn."""
    variants = {}
    for name in ("bare", "watched"):
        server = serve(f"echo:{name}", "--ws", implementation, "--loop", loop)

        def measure(server=server):
            load.open(server.port, CONNECTIONS)
            before = cpu_seconds(server.pid)
            load.echo(MESSAGES)
            used = cpu_seconds(server.pid) - before
            load.close()
            return used / MESSAGES * 1e6

        variants[name] = measure
    values = interleave(variants, ROUNDS)
    report.add(f"{implementation}, {loop}", "µs per echo", values["watched"], values["bare"], goal=1.02)
