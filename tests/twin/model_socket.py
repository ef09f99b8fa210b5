"""A TCP connection in memory: what asyncio's socket transports do, as far as a protocol can tell, and no thread."""

import asyncio
from collections.abc import Callable

__all__ = ["End", "connect"]

IN_FLIGHT = 64 * 1024
"""Bytes that the kernel keeps for a side that does not read; what is beyond waits in the writer's transport."""

AT_ONCE = 256 * 1024
"""Bytes that one read takes at most, as asyncio's does."""

SERVER, CLIENT = ("127.0.0.1", 8000), ("127.0.0.1", 50000)


class End(asyncio.Transport):
    """
    One end of the connection: the transport of the protocol at that end.

    Every delivery takes one pass of the event loop, and none takes time.

    Args:
        loop: The event loop of both ends.
        sockname: Its own address.
        peername: The other's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, sockname: tuple[str, int], peername: tuple[str, int]) -> None:
        super().__init__({"sockname": sockname, "peername": peername})
        self._loop = loop
        self._protocol: asyncio.Protocol
        self._peer: End
        self._arrived = bytearray()
        self._unsent = bytearray()
        self._limits = (16 * 1024, 64 * 1024)
        self._reading_is_paused = self._writing_is_paused = False
        self._reads_soon = False
        self._is_closing = self._has_closed = False
        self._has_ended = False
        """Whether it sends nothing more."""
        self._peer_has_ended = False
        self._is_reset = False
        """Whether the other end has gone without having read everything."""

    def join(self, peer: "End", protocol: asyncio.Protocol) -> None:
        """Name the other end, and the protocol at this one."""
        self._peer, self._protocol = peer, protocol

    # What a protocol calls

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol at this end."""
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol go on."""
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def is_closing(self) -> bool:
        """Tell whether it closes or has closed."""
        return self._is_closing

    def is_reading(self) -> bool:
        """Tell whether it reads."""
        return not (self._is_closing or self._reading_is_paused)

    def pause_reading(self) -> None:
        """Read nothing for now."""
        if not self._is_closing:
            self._reading_is_paused = True

    def resume_reading(self) -> None:
        """Read again."""
        if not self._is_closing:
            self._reading_is_paused = False
            self._read_soon()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait to be sent."""
        return len(self._unsent)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return where writing goes on, and where it pauses."""
        return self._limits

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Choose where writing pauses, and where it goes on."""
        high = high if high is not None else 64 * 1024
        self._limits = (low if low is not None else high // 4, high)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data*, or keep it until it can be sent."""
        if self._has_ended and not self._is_closing:
            msg = "Cannot call write() after write_eof()"
            raise RuntimeError(msg)
        if self._has_closed or not data:
            return
        if self._is_closing and not self._unsent:
            return
        if self._is_reset:
            self._lose(BrokenPipeError(32, "Broken pipe"))
            return
        self._unsent += data
        self._flush()
        if len(self._unsent) > self._limits[1] and not self._writing_is_paused:
            self._writing_is_paused = True
            self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        """Return that it can end one direction."""
        return True

    def write_eof(self) -> None:
        """Send nothing more."""
        if not (self._is_closing or self._has_ended):
            self._has_ended = True
            self._flush()

    def close(self) -> None:
        """Close, once everything is sent."""
        if not self._is_closing:
            self._is_closing = True
            if not self._unsent:
                self._loop.call_soon(self._end, None)

    def abort(self) -> None:
        """Close at once."""
        self._lose(None)

    def reset(self) -> None:
        """Go without a farewell: the other end meets an error instead of an end (``SO_LINGER`` of 0)."""
        self._peer._meet_reset()
        self._lose(None)

    # The works

    def _flush(self) -> None:
        """Hand over what the other end, or the kernel for it, takes."""
        peer = self._peer
        if self._unsent and peer._is_closing and not peer._unsent:
            self._unsent.clear()  # the kernel takes it, and learns that nobody is there
            self._loop.call_soon(self._meet_reset)
        elif self._unsent and (room := IN_FLIGHT - len(peer._arrived)) > 0:
            peer._arrived += self._unsent[:room]
            del self._unsent[:room]
            peer._read_soon()
        if self._writing_is_paused and len(self._unsent) <= self._limits[0]:
            self._writing_is_paused = False
            self._protocol.resume_writing()
        if self._unsent:
            return
        if self._is_closing and not self._has_closed:
            self._loop.call_soon(self._end, None)
        elif self._has_ended:
            peer._peer_has_ended = True
            peer._read_soon()

    def _read_soon(self) -> None:
        if not self._reads_soon:
            self._reads_soon = True
            self._loop.call_soon(self._read)

    def _read(self) -> None:
        self._reads_soon = False
        if not self.is_reading():
            return
        # As in Linux: what has arrived can be read, then an end that came before the reset, then the reset.
        if self._arrived:
            data = bytes(self._arrived[:AT_ONCE])
            del self._arrived[:AT_ONCE]
            self._peer._flush()
            self._protocol.data_received(data)
            if self._arrived or self._peer_has_ended or self._is_reset:
                self._read_soon()
        elif self._peer_has_ended:
            if not self._protocol.eof_received():
                self.close()
        elif self._is_reset:
            self._lose(ConnectionResetError(104, "Connection reset by peer"))

    def _lose(self, error: Exception | None) -> None:
        if not self._has_closed:
            self._is_closing = True
            self._unsent.clear()
            self._loop.call_soon(self._end, error)

    def _end(self, error: Exception | None) -> None:
        if self._has_closed:
            return
        self._has_closed = self._has_ended = True
        if self._arrived:  # with something unread, an end is a reset
            self._peer._meet_reset()
        elif not self._peer._is_reset:
            self._peer._peer_has_ended = True
        self._peer._read_soon()
        self._peer._flush()
        self._protocol.connection_lost(error)

    def _meet_reset(self) -> None:
        self._is_reset = True
        self._read_soon()


def connect(
    loop: asyncio.AbstractEventLoop,
    make_server: Callable[[], asyncio.Protocol],
    client: asyncio.Protocol,
) -> None:
    """Connect *client* with a protocol of the server."""
    near, far = End(loop, SERVER, CLIENT), End(loop, CLIENT, SERVER)
    server = make_server()
    near.join(far, server)
    far.join(near, client)
    server.connection_made(near)
    client.connection_made(far)
