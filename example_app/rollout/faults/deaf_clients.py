"""One client in twenty never reads: a device that hangs, while its kernel keeps the connection alive."""

from example_app.rollout.faults.base import Fault

__all__ = ["DEAF_CLIENTS"]

DEAF_CLIENTS = Fault("deaf-clients", "one client in twenty never reads", deaf=0.05)
