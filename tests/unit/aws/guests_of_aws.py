"""Sessions that leave as soon as they are asked to."""

from starlette_drain import Session

__all__ = ["Guest"]


class Guest(Session):
    """A session that is open, and leaves as soon as it is asked to."""

    def __init__(self, drain):
        super().__init__("/", drain.host.engine.time())
        self._drain = drain
        drain.host.engine.track(self)
        drain.host.engine.opened(self)

    def begin_close(self, _policy):
        """Go at once."""
        self._drain.host.engine.closed(self, forced=False)
