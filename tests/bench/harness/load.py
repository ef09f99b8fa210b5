"""Clients in a process of their own, asked to do one thing after the other."""

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Load"]


class Load:
    """One process with up to some 19,000 clients, as a context manager. Every method waits until it is done."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "harness.load_process"],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def open(self, port: int, number: int, path: str = "/ws", *, first: int = 0, deflate: bool = False) -> None:
        """Open WebSockets and keep them; *first* numbers them, among all processes, for their source addresses."""
        self._ask("open", port=port, path=path, number=number, first=first, deflate=deflate)

    def echo(self, number: int, path: str | None = None) -> None:
        """Exchange *number* messages over all that are open, or over those that were opened on *path*."""
        self._ask("echo", number=number, path=path)

    def handshakes(self, port: int, number: int, path: str = "/ws") -> None:
        """Open and close WebSockets."""
        self._ask("handshakes", port=port, path=path, number=number)

    def http(self, port: int, number: int, path: str = "/", *, connections: int = 20) -> float:
        """Make *number* requests over kept-alive connections; return requests per second."""
        answer = self._ask("http", port=port, path=path, number=number, connections=connections)
        return float(answer["requests"] / answer["seconds"])

    def closes(self, within: float) -> list[tuple[float, int]]:
        """Wait until all have ended; return the moment (monotonic, which processes share) and the code of each."""
        return [(at, code) for at, code in self._ask("closes", within=within)["closes"]]

    def close(self) -> None:
        """Cut all."""
        self._ask("close")

    def start(self, do: str, **order: Any) -> None:
        """Give an order without waiting; `finish` waits."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"do": do, **order}) + "\n")
        self._process.stdin.flush()

    def finish(self) -> dict[str, Any]:
        """
        Wait for the answer to the oldest order not yet finished.

        Raises:
            RuntimeError: If it could not be done.
        """
        assert self._process.stdout
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the process with the clients has ended"}
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def _ask(self, do: str, **order: Any) -> dict[str, Any]:
        self.start(do, **order)
        return self.finish()
