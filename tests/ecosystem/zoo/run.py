"""
Runs clients through cases in time that jumps: ``PORT LUCK CASES STABLE HORIZON NAME…``, as ``node/zoo/run.mjs`` does.

LUCK is two numbers, of before and after the end of the first connections, which comes after STABLE seconds of the
HORIZON. Writes what the clock has seen. With ``ZOO_REAL`` in the environment time is the real one.
"""

import asyncio
import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from time import sleep

from zoo.clients import CLIENTS, is_threaded
from zoo.clock import CONNECTIONS, JumpingLoop, Line, chances, watch
from zoo.server import MOST

SERIES = "refused", "retry-after", "busy", "first"
PATIENCE = 5.0
"""Real seconds for which clients that have a thread are waited for."""


async def run(port: int, after: float, asked: list[tuple[str, str]], stable: float, horizon: float) -> None:
    """Run clients that have a loop."""
    line = Line(port)
    if CONNECTIONS.loop:
        CONNECTIONS.loop.selector.line = line
    tasks = []
    for name, case in asked:
        client = CLIENTS[name]
        url = _url(client.kind, port, name, case, client.dialect)
        tasks.append(asyncio.create_task(_keep(client.keep, url)))
    await asyncio.sleep(stable)
    TOLD.value = after
    line.say("end")
    await asyncio.sleep(horizon - stable)
    for each in tasks:
        each.cancel()


async def _keep(keep, url: str) -> None:
    try:
        await keep(url)
    except Exception:
        if "ZOO_DEBUG" in os.environ:
            raise


def run_threads(port: int, after: float, asked: list[tuple[str, str]]) -> None:
    """Run clients that have a thread, and come back each time."""
    line = Line(port)
    for name, case in asked:
        client = CLIENTS[name]
        url = _url(client.kind, port, name, case, client.dialect)
        threading.Thread(target=client.keep, args=(url,), daemon=True).start()
    _wait_until(lambda: line.say("ping") >= sum(case != "first" for _, case in asked))
    TOLD.value = after
    line.say("end")
    expected = sum(MOST + 2 if case in SERIES else 2 for _, case in asked)
    _wait_until(lambda: len(CONNECTIONS.all) >= expected)
    line.say("ping")


def _wait_until(true: Callable[[], bool]) -> None:
    """Wait until *true* returns true, but not for ever: a client may behave otherwise now."""
    for _ in range(int(PATIENCE / 0.05)):
        if true():
            return
        sleep(0.05)


def _url(kind: str, port: int, name: str, case: str, dialect: str) -> str:
    return f"{'ws' if kind == 'websocket' else 'http'}://127.0.0.1:{port}/{name}/{case}/{dialect}"


TOLD = chances()


def main() -> None:
    """Run what the arguments say."""
    port, luck, cases, stable, horizon, *names = sys.argv[1:]
    before, after = map(float, luck.split(","))
    TOLD.value = before
    if "ZOO_DEBUG" not in os.environ:
        logging.disable()
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - until the end
    per_kind = json.loads(cases)
    asked = [(name, case) for name in names for case in per_kind[CLIENTS[name].kind]]
    is_real = "ZOO_REAL" in os.environ
    if not is_real:
        watch()
    if any(is_threaded(CLIENTS[name]) for name in names):
        run_threads(int(port), after, asked)
        stable = "0"
    else:
        if not is_real:
            CONNECTIONS.loop = JumpingLoop()
        loop = CONNECTIONS.loop or asyncio.new_event_loop()
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(run(int(port), after, asked, float(stable), float(horizon)))
    said = {
        name: {"package": each.package, "version": version(each.package), "kind": each.kind, "code": each.code}
        for name, each in CLIENTS.items()
        if name in names
    }
    sys.stdout.write(json.dumps({"ended": float(stable) * 1000, "connections": CONNECTIONS.all, "clients": said}))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
