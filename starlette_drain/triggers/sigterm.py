# What stands between SIGTERM and the server, and why it is made this way.
#
# uvicorn installs its handler with `signal.signal` before the application starts and never again. At SIGTERM it closes
# every WebSocket in one pass of the loop, and sends `lifespan.shutdown` only when they are gone, so a lifespan hook
# comes too late (https://github.com/Kludex/uvicorn/issues/800). We therefore take the place of the handler that is
# installed when the application has started, shed within `sigterm_window`, and call it then.
#
#   - Never `loop.add_signal_handler`: it takes uvicorn's handler out for good, and the process never exits.
#   - Our handler is an object that shows the `__self__` of the one it stands in for: sse-starlette finds the server by
#     `signal.getsignal(SIGTERM).__self__`, and its streams would otherwise never end.
#   - Two applications in one process stand in for one another. Both drain at the first SIGTERM, for the balancer waits
#     for neither, and the server gets it once, when both have drained.
#   - A second signal is passed on at once. SIGINT is what a container gets whose image says STOPSIGNAL SIGINT (Fargate
#     obeys that since December 2025), so on ECS it is held like SIGTERM, where the handler is uvicorn's and there is no
#     terminal. Elsewhere it is not touched: Ctrl-C stays immediate.
#   - At the end the former handler is put back only where ours is still in place.
#   - Telemetry is flushed before the signal is passed on: uvicorn re-raises it at its end, and `atexit` does not run.
"""SIGTERM, or SIGINT on ECS: the process is told to stop, and has `sigterm_window` seconds to shed before it does."""

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

LOOK_AGAIN = 5.0
"""Seconds between two looks at whether our handler is still in place."""

LIMIT = 5.0
"""Seconds, after the window and what the last closes may take, until an accepted signal is passed on in any case."""

logger = logging.getLogger("starlette_drain")

Handler = Callable[[int, FrameType | None], Any] | int | None


class SigtermTrigger:
    """Sheds the sessions that are open when SIGTERM comes, and passes the signal on when they are gone."""

    name = "sigterm"

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._state = "not started"
        self._received: str | None = None
        self._passed_on_by: float | None = None

    async def watch(self, control: Control) -> None:
        """Stand in for the installed handler until cancelled."""
        if why := self._why_not(control):
            self._state = "stood down"
            control.emit(TriggerStoodDown(control.time(), self.name, why))
            return
        loop = asyncio.get_running_loop()
        came = asyncio.Event()
        formers: dict[int, Handler] = {number: signal.getsignal(number) for number in self._stop_signals()}
        handler = _StandIn(formers, lambda: loop.call_soon_threadsafe(came.set))
        for number in formers:
            signal.signal(number, handler)
        self._state, self._received, self._passed_on_by = "in place", None, None
        try:
            await self._wait(came, handler, control)
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
            for number, former in formers.items():
                if signal.getsignal(number) is handler:
                    signal.signal(number, _in_service(former, number))

    def status(self, now: float) -> Mapping[str, Any]:
        """Return whether the handler is in place, what became of the signal, and until when it is held at most."""
        if self._received is None:
            return {"state": self._state}
        status = {"state": self._state, "signal": self._received}
        if self._state != "received" or self._passed_on_by is None:
            return status
        return {**status, "passed_on_within": round(max(0.0, self._passed_on_by - now), 3)}

    def _why_not(self, control: Control) -> str | None:
        """Return why there is nothing to stand in for."""
        choice = control.settings.sigterm
        if choice is False or control.settings.mode != "drain":
            return "sigterm=False" if choice is False else f"mode={control.settings.mode!r}"
        if threading.current_thread() is not threading.main_thread():
            return "the event loop is not in the main thread, where signals arrive"
        if choice is True:
            former = signal.getsignal(signal.SIGTERM)
            return "the SIGTERM handler was not installed from Python" if former is None else None
        if "ECS_CONTAINER_METADATA_URI_V4" not in self._environ:
            return "this is not an ECS task; set DRAIN_SIGTERM=true to drain at SIGTERM here too"
        if not _is_uvicorns(signal.SIGTERM):
            return "the SIGTERM handler is not uvicorn's, or was replaced (by loop.add_signal_handler?)"
        return None

    def _stop_signals(self) -> tuple[signal.Signals, ...]:
        """Return the signals that tell the process to stop, as far as they are ours to hold."""
        has_terminal = any(os.isatty(descriptor) for descriptor in range(3))
        is_sigint_for_stop = "ECS_CONTAINER_METADATA_URI_V4" in self._environ and not has_terminal
        if is_sigint_for_stop and _is_uvicorns(signal.SIGINT):
            return signal.SIGTERM, signal.SIGINT
        return (signal.SIGTERM,)

    async def _drain(self, control: Control, received: str) -> None:
        now, settings = control.time(), control.settings
        window = settings.sigterm_window
        # The plan ends by itself, with its last closes; the limit is for whatever should be wrong with it.
        limit = window + settings.tail + LIMIT
        self._passed_on_by = now + limit
        control.claim(DrainCause(self.name, f"the process received {received}", now, now + window, revocable=False))
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await control.wait_drained()
        await control.flush()

    async def _wait(self, came: asyncio.Event, handler: "_StandIn", control: Control) -> None:
        """Wait for the signal; say once if another handler took our place."""
        is_ours = True
        while not came.is_set():
            try:
                async with asyncio.timeout(LOOK_AGAIN):
                    await came.wait()
            except TimeoutError:
                if is_ours and not _is_in_place(handler):
                    is_ours = False
                    self._state = "replaced"
                    problem = "another SIGTERM handler has replaced ours; sessions will be cut at SIGTERM"
                    remedy = (
                        "install it with signal.signal before the application starts, and call the previous handler"
                    )
                    control.emit(TriggerImpaired(control.time(), self.name, problem, remedy))


def _is_in_place(handler: "_StandIn") -> bool:
    return signal.getsignal(signal.SIGTERM) is handler


def _is_uvicorns(number: signal.Signals) -> bool:
    """Return whether the handler of a signal is that of a server that shows whether it stops: uvicorn."""
    return hasattr(getattr(signal.getsignal(number), "__self__", None), "should_exit")


def _in_service(handler: Handler, number: int) -> Handler:
    """Return *handler*, or what it stands in for where its application has stopped before."""
    while isinstance(handler, _StandIn) and handler.is_retired:
        handler = handler.formers[number]
    return handler


class _StandIn:
    """
    A handler of the stop signals that speaks up the first time and passes on every further signal.

    Args:
        formers: What it stands in for, by the numbers of the signals.
        speak_up: What to call when one of them comes.
    """

    def __init__(self, formers: Mapping[int, Handler], speak_up: Callable[[], object]) -> None:
        self.formers: dict[int, Handler] = dict(formers)
        self.received = signal.SIGTERM
        """The signal that has come."""
        self._speak_up = speak_up
        rows = [each._row for each in formers.values() if isinstance(each, _StandIn)]
        self._row: _Row = rows[0] if rows else _Row()
        self._row.join(self)
        self._is_listening = True
        self.is_draining = False
        self.is_retired = False

    @property
    def __self__(self) -> object:
        """The object that the former handler is a method of; `AttributeError` where it is none."""
        return self.formers[signal.SIGTERM].__self__  # type: ignore[union-attr]

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if not self._is_listening:
            self._row.pass_on(signum, frame)
            return
        for each in self._row.members:
            each.receive(signum)

    def receive(self, signum: int) -> None:
        """Speak up, the first time."""
        if self._is_listening:
            self._is_listening, self.is_draining, self.received = False, True, signal.Signals(signum)
            try:
                self._speak_up()
            except RuntimeError:  # the event loop was closed without an end, so no drain will pass the signal on
                self.end_drain()

    def end_drain(self) -> None:
        """Pass the signal on as soon as none in the row drains any more; not again where a second one was."""
        if self.is_draining:
            self.is_draining, self._row.owed = False, self.received
        self._row.settle()

    def retire(self) -> None:
        """
        Pass on every signal from now on, and the one that has come if that has not been done yet.

        Another handler may have kept this one to call it.
        """
        self._is_listening = False
        self.is_retired = True
        self._row.members.remove(self)
        self.end_drain()


class _Row:
    """Handlers that stand in for one another, as those of several applications in one process do."""

    def __init__(self) -> None:
        self.members: list[_StandIn] = []
        self.owed: int | None = None
        """The signal with which one of them has drained, and which was not passed on."""
        self._formers: dict[int, Handler] = {}

    def join(self, member: _StandIn) -> None:
        """Let *member* stand in for what none does yet."""
        self.members.append(member)
        for number, former in member.formers.items():
            if not isinstance(former, _StandIn):
                self._formers.setdefault(number, former)

    def settle(self) -> None:
        """Pass on the signal that is owed, unless another still drains."""
        if self.owed is not None and not any(each.is_draining for each in self.members):
            self.pass_on(self.owed, None)

    def pass_on(self, signum: int, frame: FrameType | None) -> None:
        """Do what would have been done without us."""
        self.owed = None
        for each in self.members:
            each.is_draining = False
        former = self._formers.get(signum)
        if callable(former):
            former(signum, frame)
        elif former == signal.SIG_DFL:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
