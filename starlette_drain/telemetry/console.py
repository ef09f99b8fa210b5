"""Shows the log under a plain uvicorn, which drops INFO records of all loggers but its own."""

import copy
import logging
from collections.abc import Callable
from typing import Self

__all__ = ["Console"]

SERVER = "uvicorn.error"
"""The logger whose level and handlers are borrowed."""


class Console(logging.Handler):
    """
    Writes to the server's log handlers, in its format, while no logging is configured for us. A context manager.

    Args:
        speaks: Returns whether this process writes lines below WARNING: only one of several workers does.
        origin: Returns what to append to the lines of a drain, such as which of several workers it runs in.
    """

    def __init__(self, speaks: Callable[[], bool] = lambda: True, origin: Callable[[], str] = str) -> None:
        super().__init__()
        self._speaks = speaks
        self._origin = origin
        self._logger = logging.getLogger("starlette_drain")
        self._targets: tuple[logging.Handler, ...] = ()
        self._lent_level: int | None = None

    def __enter__(self) -> Self:
        """Write from now on, unless logging is configured or the server has no handlers."""
        if not self._logger.handlers and not logging.getLogger().handlers:
            self._attach()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop writing, and restore the logger's level."""
        self._logger.removeHandler(self)
        if self._lent_level is not None and self._logger.level == self._lent_level:
            self._logger.setLevel(logging.NOTSET)
        self._lent_level = None

    def _attach(self) -> None:
        server = logging.getLogger(SERVER)
        self._targets = _handlers_of(server)
        if self._targets:
            self._logger.addHandler(self)
        if self._targets and self._logger.level == logging.NOTSET:
            self._lent_level = server.getEffectiveLevel()
            self._logger.setLevel(self._lent_level)

    def emit(self, record: logging.LogRecord) -> None:
        """Pass *record* to the server's handlers."""
        if logging.getLogger().handlers or self._logger.handlers != [self]:
            self.__exit__()  # logging was configured after the start
            return
        if record.levelno < logging.WARNING and not self._speaks():
            return
        if hasattr(record, "drain_id") and (origin := self._origin()):
            record = copy.copy(record)
            record.msg, record.args = f"{record.getMessage()} ({origin})", None
        for each in self._targets:
            if record.levelno >= each.level:
                each.handle(record)


def _handlers_of(logger: logging.Logger) -> tuple[logging.Handler, ...]:
    """Return the handlers that receive the records of *logger*, including those of its parents."""
    found: list[logging.Handler] = []
    here: logging.Logger | None = logger
    while here is not None:
        found += here.handlers
        here = here.parent if here.propagate else None
    return tuple(found)
