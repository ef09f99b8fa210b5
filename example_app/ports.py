"""Ports for the servers of the rollout lab."""

import socket
from random import Random

__all__ = ["find_port"]

PORTS = range(20000, 32000)
"""Below the range from which the kernel chooses ports for outgoing connections."""


def find_port(taken: frozenset[int] = frozenset()) -> int:
    """
    Return a free port of 127.0.0.1.

    Raises:
        OSError: If there is none.
    """
    start = Random().randrange(len(PORTS))  # so that two labs at once rarely collide
    for offset in range(len(PORTS)):
        port = PORTS[(start + offset) % len(PORTS)]
        if port not in taken and _is_free(port):
            return port
    msg = f"no free port between {PORTS.start} and {PORTS.stop}: stop a program that listens on one of them"
    raise OSError(msg)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
