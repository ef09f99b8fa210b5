# How SIGTERM is held back from the server, and why it is done this way.
#
# uvicorn installs its handler with `signal.signal` before the application starts and never again. At SIGTERM it closes
# every WebSocket in one pass of the loop, and sends `lifespan.shutdown` only after they are gone, so a lifespan hook
# comes too late (https://github.com/Kludex/uvicorn/issues/800). So we replace the handler that is installed when the
# application has started, shed within `sigterm_window`, and then call the original.
#
#   - Never `loop.add_signal_handler`: it removes uvicorn's handler for good, and the process never exits.
#   - Our handler is an object with the `__self__` of the handler it replaces: sse-starlette finds the server by
#     `signal.getsignal(SIGTERM).__self__`, and its streams would otherwise never end.
#   - Several applications in one process wrap one another's handlers. All of them drain at the first SIGTERM, because
#     the balancer waits for none, and the server gets the signal once, when all have drained.
#   - A second signal is passed on at once. A container whose image says STOPSIGNAL SIGINT is stopped by SIGINT (Fargate
#     has obeyed that since December 2025). So on ECS SIGINT is held like SIGTERM, if the handler is uvicorn's and there
#     is no terminal. Elsewhere it is not touched: Ctrl-C stays immediate.
#   - At the end the original handler is restored only if ours is still in place.
#   - Telemetry is flushed before the signal is passed on: uvicorn re-raises it at its end, and `atexit` does not run.
"""Drains at SIGTERM, or at SIGINT on ECS: sessions have `sigterm_window` seconds before the server gets the signal."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FrameType
from typing import Any

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.events import SignalReceived, TriggerImpaired, TriggerStoodDown
from starlette_drain.triggers.base import Control

__all__ = ["SigtermTrigger"]

CHECK_INTERVAL = 5.0
"""Seconds between two checks that our handler is still in place."""

LIMIT = 5.0
"""Seconds, after the window and the time for the last closes, after which the signal is passed on in any case."""

logger = logging.getLogger("starlette_drain")

Handler = Callable[[int, FrameType | None], Any] | int | None


class SigtermTrigger:
    """Sheds the open sessions when SIGTERM arrives, and passes the signal on when they are gone."""

    name = "sigterm"

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._state = "not started"
        self._received: str | None = None
        self._passed_on_by: float | None = None

    async def watch(self, control: Control) -> None:
        """Hold the stop signals until cancelled."""
        if why := self._why_not(control):
            self._state = "stood down"
            control.emit(TriggerStoodDown(control.time(), self.name, why))
            return
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()
        originals: dict[int, Handler] = {number: signal.getsignal(number) for number in self._stop_signals()}
        handler = _StandIn(
            originals,
            notify=lambda: loop.call_soon_threadsafe(arrived.set),
            notify_again=lambda: loop.call_soon_threadsafe(_warn_of_second),
        )
        for number in originals:
            signal.signal(number, handler)
        self._state, self._received, self._passed_on_by = "in place", None, None
        try:
            await self._wait(arrived, handler, control)
            self._state, self._received = "received", signal.Signals(handler.received).name
            control.emit(SignalReceived(control.time(), self._received))
            try:
                await self._drain(control, self._received)
            except Exception:
                logger.exception("The drain at %s failed; the signal is passed on at once", self._received)
            self._state = "passed on"
            handler.end_drain()
        finally:
            handler.retire()
            for number, original in originals.items():
                if signal.getsignal(number) is handler:
                    signal.signal(number, _in_service(original, number))

    def status(self, now: float) -> Mapping[str, Any]:
        """Return whether the handler is in place, whether a signal has arrived, and how long it is held at most."""
        if self._received is None:
            return {"state": self._state}
        status = {"state": self._state, "signal": self._received}
        if self._state != "received" or self._passed_on_by is None:
            return status
        return {**status, "passed_on_within": round(max(0.0, self._passed_on_by - now), 3)}

    def _why_not(self, control: Control) -> str | None:
        """Return why the signals are not held here, or ``None`` if they are."""
        choice = control.settings.sigterm
        if choice is False or control.settings.mode != "drain":
            return "sigterm=False" if choice is False else f"mode={control.settings.mode!r} does not hold signals"
        if threading.current_thread() is not threading.main_thread():
            return "the event loop is not in the main thread, where signals arrive"
        if choice is True:
            original = signal.getsignal(signal.SIGTERM)
            return "the SIGTERM handler was not installed from Python" if original is None else None
        if "ECS_CONTAINER_METADATA_URI_V4" not in self._environ:
            return "this is not an ECS task; set DRAIN_SIGTERM=true to drain at SIGTERM here too"
        if not _is_uvicorns(signal.SIGTERM):
            return "the SIGTERM handler is not uvicorn's, or was replaced (by loop.add_signal_handler?)"
        return None

    def _stop_signals(self) -> tuple[signal.Signals, ...]:
        """Return the stop signals to hold."""
        has_terminal = any(os.isatty(descriptor) for descriptor in range(3))
        may_be_stop_signal = "ECS_CONTAINER_METADATA_URI_V4" in self._environ and not has_terminal
        if may_be_stop_signal and _is_uvicorns(signal.SIGINT):
            return signal.SIGTERM, signal.SIGINT
        return (signal.SIGTERM,)

    async def _drain(self, control: Control, received: str) -> None:
        now, settings = control.time(), control.settings
        window = settings.sigterm_window
        # The plan ends by itself; the limit only matters if something is wrong with it.
        limit = window + settings.tail + LIMIT
        self._passed_on_by = now + limit
        control.claim(DrainCause(self.name, f"the process received {received}", now, now + window, revocable=False))
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await control.wait_drained()
        await control.flush()

    async def _wait(self, arrived: asyncio.Event, handler: "_StandIn", control: Control) -> None:
        """Wait for the signal; warn once if our handler is replaced."""
        is_ours = True
        while not arrived.is_set():
            try:
                async with asyncio.timeout(CHECK_INTERVAL):
                    await arrived.wait()
            except TimeoutError:
                if is_ours and not _is_in_place(handler):
                    is_ours = False
                    self._state = "replaced"
                    problem = "another SIGTERM handler has replaced ours; sessions will be cut at SIGTERM"
                    remedy = (
                        "install it with signal.signal before the application starts, and call the previous handler"
                    )
                    control.emit(TriggerImpaired(control.time(), self.name, problem, remedy))


def _warn_of_second() -> None:
    logger.warning("A second stop signal is passed on at once: the server closes the sessions that are left")


def _is_in_place(handler: "_StandIn") -> bool:
    return signal.getsignal(signal.SIGTERM) is handler


def _is_uvicorns(number: signal.Signals) -> bool:
    """Return whether the handler of a signal is a method of a uvicorn server, which has ``should_exit``."""
    return hasattr(getattr(signal.getsignal(number), "__self__", None), "should_exit")


def _in_service(handler: Handler, number: int) -> Handler:
    """Return *handler*, or the handler that it replaced if it is one of ours whose application has stopped."""
    while isinstance(handler, _StandIn) and handler.is_retired:
        handler = handler.originals[number]
    return handler


class _StandIn:
    """
    A handler of the stop signals that holds the first signal and passes on every further one.

    Args:
        originals: The handlers that it replaces, by signal number.
        notify: Called when the first signal arrives.
        notify_again: Called when a second one arrives during the drain.
    """

    def __init__(
        self,
        originals: Mapping[int, Handler],
        *,
        notify: Callable[[], object],
        notify_again: Callable[[], object],
    ) -> None:
        self.originals: dict[int, Handler] = dict(originals)
        self.received = signal.SIGTERM
        """The signal that has arrived."""
        self._notify = notify
        self._notify_again = notify_again
        chains = [each._chain for each in originals.values() if isinstance(each, _StandIn)]
        self._chain: _Chain = chains[0] if chains else _Chain()
        self._chain.join(self)
        self._is_listening = True
        self.is_draining = False
        self.is_retired = False

    @property
    def __self__(self) -> object:
        """The object whose method the original handler is; `AttributeError` if it is not a method."""
        return self.originals[signal.SIGTERM].__self__  # type: ignore[union-attr]

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if not self._is_listening:
            if self.is_draining:
                with suppress(RuntimeError):  # the event loop was closed
                    self._notify_again()
            self._chain.pass_on(signum, frame)
            return
        for each in self._chain.members:
            each.receive(signum)

    def receive(self, signum: int) -> None:
        """Hold the signal and report it, the first time."""
        if self._is_listening:
            self._is_listening, self.is_draining, self.received = False, True, signal.Signals(signum)
            try:
                self._notify()
            except RuntimeError:  # the event loop was closed without ending the trigger: no drain passes the signal on
                self.end_drain()

    def end_drain(self) -> None:
        """Pass the signal on when no handler in the chain is draining, unless a second signal has been passed on."""
        if self.is_draining:
            self.is_draining, self._chain.pending = False, self.received
        self._chain.settle()

    def retire(self) -> None:
        """
        Pass on every signal from now on, and the one that has arrived if it is still held.

        Another handler may still have a reference to this one, and call it.
        """
        self._is_listening = False
        self.is_retired = True
        self._chain.members.remove(self)
        self.end_drain()


class _Chain:
    """Our handlers that wrap one another, one for each application in the process."""

    def __init__(self) -> None:
        self.members: list[_StandIn] = []
        self.pending: int | None = None
        """A signal that one of them has drained for and that has not been passed on."""
        self._originals: dict[int, Handler] = {}

    def join(self, member: _StandIn) -> None:
        """Add *member*, and the original handlers that the chain does not know yet."""
        self.members.append(member)
        for number, original in member.originals.items():
            if not isinstance(original, _StandIn):
                self._originals.setdefault(number, original)

    def settle(self) -> None:
        """Pass on the pending signal, unless another handler is still draining."""
        if self.pending is not None and not any(each.is_draining for each in self.members):
            self.pass_on(self.pending, None)

    def pass_on(self, signum: int, frame: FrameType | None) -> None:
        """Call the original handler, as would have happened without us."""
        self.pending = None
        for each in self.members:
            each.is_draining = False
        original = self._originals.get(signum)
        if callable(original):
            original(signum, frame)
        elif original == signal.SIG_DFL:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
