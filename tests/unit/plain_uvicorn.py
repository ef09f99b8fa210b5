"""Python's logging as a plain uvicorn leaves it: its own loggers are configured, and nothing else."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from uvicorn.logging import DefaultFormatter

__all__ = ["plain_uvicorn"]

OURS = logging.getLogger("starlette_drain")
SERVER = logging.getLogger("uvicorn")


@contextmanager
def plain_uvicorn(level: int = logging.INFO) -> Iterator[io.StringIO]:
    """Let logging be like that inside the block; yield what uvicorn writes. To be used within a test, not a fixture."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(DefaultFormatter("%(levelprefix)s %(message)s", use_colors=False))
    loggers = [logging.getLogger(), OURS, SERVER, logging.getLogger("uvicorn.error")]
    before = [(each.handlers, each.level, each.propagate) for each in loggers]
    for each in loggers:
        each.handlers = []
        each.setLevel(logging.NOTSET if each.parent else logging.WARNING)
    SERVER.handlers = [handler]
    SERVER.setLevel(level)
    SERVER.propagate = False
    try:
        yield written
    finally:
        for each, (handlers, its_level, propagates) in zip(loggers, before, strict=True):
            each.handlers, each.propagate = handlers, propagates
            each.setLevel(its_level)
