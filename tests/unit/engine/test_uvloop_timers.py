"""What a drain may assume of an event loop's timers: only what uvloop keeps too."""

import pytest

from starlette_drain import Drain, DrainState, Session
from starlette_drain.testing import VirtualTimeLoop

pytestmark = pytest.mark.anyio


class LoopLikeUvloop(VirtualTimeLoop):
    """For a moment that has come ``call_at`` returns a plain handle, which has no ``when``."""

    def call_at(self, when, callback, *args, context=None):
        """Call soon, or at the time."""
        if when <= self.time():
            return self.call_soon(callback, *args, context=context)
        return super().call_at(when, callback, *args, context=context)


@pytest.fixture
def anyio_backend():
    """Run on that loop."""
    return "asyncio", {"loop_factory": LoopLikeUvloop}


class Leaver(Session):
    """Leaves when asked to."""

    __slots__ = ("_drain",)

    def __init__(self, drain):
        super().__init__("/fake", drain.host.engine.time())
        self._drain = drain
        drain.host.engine.track(self)
        drain.host.engine.opened(self)

    def begin_close(self, policy):  # noqa: ARG002
        """Go at once."""
        self._drain.host.engine.closed(self, forced=False)


async def test_a_session_may_leave_by_itself_while_more_are_due_than_one_pass_takes():
    """The next pass is due now, and the timer for it is asked for its time."""
    drain = Drain(triggers=[], observers=[])
    async with drain.run():
        sessions = [Leaver(drain) for _ in range(300)]
        await drain.start(window=0.0)
        drain.host.engine.closed(sessions[0], forced=False)
        drain.host.engine.closed(sessions[1], forced=False)
        await drain.wait_drained()
        assert drain.state is DrainState.DRAINED
        assert drain.report.left == 2
