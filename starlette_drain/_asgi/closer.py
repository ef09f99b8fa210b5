"""Closes the sessions that are due: the engine returns them, and each reports back when it is over."""

import logging

from starlette_drain._core.printable import printable
from starlette_drain._engine.engine import Engine

__all__ = ["close_due"]

logger = logging.getLogger("starlette_drain")


def close_due(engine: Engine) -> None:
    """Begin to close the sessions that are due now. An error in one does not affect the others."""
    for session in engine.collect():
        try:
            session.begin_close(engine.close_policy)
        except Exception:
            logger.exception("A session on %s could not be closed; the drain continues", printable(session.path))
