"""The process of a rehearsal's server: its output, line by line, and its end."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import cast

__all__ = ["Process"]

LONGEST = 65536
"""Bytes after which a line without an end is passed on as it is."""


class Process(asyncio.SubprocessProtocol):
    """
    A process that is read to the end of its output, whatever it writes.

    A helper that it started may live on with the same output. So the process has ended before its output has, and
    `asyncio.subprocess.Process.wait` may wait for both.

    Args:
        take: Called with each line of the output.
    """

    def __init__(self, take: Callable[[str], object]) -> None:
        self.ended = asyncio.Event()
        self._was_read = asyncio.Event()
        self._take = take
        self._rest = b""
        self._transport: asyncio.SubprocessTransport

    @classmethod
    async def start(
        cls, command: Sequence[str], take: Callable[[str], object], environment: Mapping[str, str], descriptor: int
    ) -> "Process":
        """Start a process in a group of its own that inherits *descriptor*; its input stays open."""
        _, started = await asyncio.get_running_loop().subprocess_exec(
            lambda: cls(take),
            *command,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            pass_fds=(descriptor,),
            process_group=0,
        )
        return started

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._transport.get_pid()

    @property
    def returncode(self) -> int | None:
        """Its exit code; ``None`` while it runs."""
        return self._transport.get_returncode()

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        self._transport.send_signal(number)

    async def read_rest(self) -> None:
        """Wait for the end of the output, unless a helper keeps it open."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._was_read.wait(), 1.0)

    def close(self) -> None:
        """Close its input and output."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # noqa: ARG002
        """Pass on the complete lines."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self._take(line.decode(errors="replace").rstrip())

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002
        """Pass on what the output ended with."""
        if fd != 1:
            return
        if self._rest:
            self.pipe_data_received(fd, b"\n")
        self._was_read.set()

    def process_exited(self) -> None:
        """Note the end."""
        self.ended.set()
