"""What stands between SIGTERM and the server, with real signals in this process."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from random import Random

import pytest

from starlette_drain import Drain, DrainCause, DrainState, Session, TooLateToCancel, Trigger
from starlette_drain._core.events import DrainCancelled, DrainFinished, TriggerImpaired, TriggerStoodDown
from starlette_drain.testing.recording import RecordingObserver
from starlette_drain.triggers import sigterm
from starlette_drain.triggers.sigterm import SigtermTrigger

pytestmark = pytest.mark.anyio

ON_ECS = {"ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4/x"}


class Server:
    """Looks like uvicorn's: a handler that is a method of something with `should_exit`."""

    def __init__(self) -> None:
        self.should_exit = False
        self.heard = []

    def handle_exit(self, signum, frame) -> None:
        """Take note of a signal."""
        self.heard.append((signum, frame))
        self.should_exit = True


class Slow(Session):
    """A session that takes its time to go."""

    __slots__ = ("_drain",)

    def __init__(self, drain) -> None:
        super().__init__("/", drain.host.engine.time())
        self._drain = drain
        drain.host.engine.track(self)
        drain.host.engine.opened(self)

    def begin_close(self, policy) -> None:  # noqa: ARG002
        """Go after three seconds."""
        asyncio.get_running_loop().call_later(3, lambda: self._drain.host.engine.closed(self, forced=False))


class House:
    """A drain that watches SIGTERM."""

    def __init__(self, environ=ON_ECS, **options) -> None:
        self.recording = RecordingObserver()
        self.trigger = SigtermTrigger(environ)
        self.drain = Drain(triggers=[self.trigger], observers=[self.recording], **options)

    @property
    def state(self) -> str:
        """Return what the trigger says of itself."""
        return self.trigger.status(0.0)["state"]

    def stood_down(self) -> list[str]:
        """Return why the trigger stood down."""
        return [event.why for event in self.recording.of(TriggerStoodDown)]


@pytest.fixture(autouse=True)
def handlers():
    """Put the real signal handlers back, whatever a test does to them."""
    saved = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in saved.items():
        signal.signal(number, handler)


@pytest.fixture
def server(handlers):
    """Return a server whose handler is installed, as uvicorn does before the application starts."""
    server = Server()
    signal.signal(signal.SIGTERM, server.handle_exit)
    return server


async def sigterm_arrives() -> None:
    """Send SIGTERM to this process and let everything happen."""
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0.01)


async def until(condition) -> None:
    """Wait for what a thread, a flush for instance, brings about."""
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it never came about")


# --- The ordinary course ---


async def test_the_server_hears_of_sigterm_when_the_sessions_are_gone_and_telemetry_is_flushed(server):
    """SIGTERM starts a drain of `sigterm_window`; the server is told after it, and after the flush."""
    house = House(sigterm_window=20)
    order = []
    house.recording.flush = lambda _: order.append(("flushed", list(server.heard)))
    async with house.drain.run():
        await asyncio.sleep(0)
        assert house.state == "in place"
        for _ in range(5):
            Slow(house.drain)
        await sigterm_arrives()
        assert house.drain.state is DrainState.DRAINING
        assert house.drain.progress().window == pytest.approx(20, abs=0.01)
        assert house.state == "received"
        assert server.heard == []
        await house.drain.wait_drained()
        assert server.heard == []
        await until(lambda: server.heard)

        assert order == [("flushed", [])], "flushed once, before the server heard of it"
        assert server.heard == [(signal.SIGTERM, None)]
        assert house.state == "passed on"
        assert house.drain.report.still_open == 0
        assert signal.getsignal(signal.SIGTERM) == server.handle_exit


async def test_sigterm_makes_a_drain_irrevocable(server):
    """The process has been told to stop: the drain cannot be taken back."""
    house = House()
    async with house.drain.run():
        Slow(house.drain)
        await asyncio.sleep(0)
        await sigterm_arrives()
        with pytest.raises(TooLateToCancel):
            await house.drain.cancel()


async def test_sigterm_shortens_a_drain_under_way(server):
    """SIGTERM in a long drain plans what is left into its own window."""
    house = House(sigterm_window=10)
    async with house.drain.run():
        for _ in range(20):
            Slow(house.drain)
        await house.drain.start(window=1000)
        await asyncio.sleep(100)
        await sigterm_arrives()
        assert house.drain.progress().time_left == pytest.approx(10, abs=0.1)
        await house.drain.wait_drained()
    assert [cause.trigger for cause in house.drain.report.causes] == ["manual", "sigterm"]


async def test_sigterm_when_drained_is_passed_on_at_once(server):
    """With nobody left there is nothing to wait for."""
    house = House()
    async with house.drain.run():
        await house.drain.start()
        await asyncio.sleep(0)
        began = house.drain.host.engine.time()
        await sigterm_arrives()
        await until(lambda: server.heard)
        assert house.drain.host.engine.time() - began < 1


async def test_a_second_sigterm_is_passed_on_at_once(server, caplog):
    """Who sends SIGTERM twice means it; one line says why the rest of the sessions is closed at once."""
    house = House()
    async with house.drain.run():
        Slow(house.drain)
        await asyncio.sleep(0)
        await sigterm_arrives()
        assert server.heard == []
        await sigterm_arrives()
        assert [signum for signum, _ in server.heard] == [signal.SIGTERM]
        assert house.drain.state is DrainState.DRAINING
        await sigterm_arrives()
        assert [each.getMessage().partition(":")[0] for each in caplog.records if each.levelname == "WARNING"] == [
            "A second stop signal is passed on at once"
        ]


# --- SIGINT ---


@pytest.fixture
def interruptible(server):
    """Return a server that has installed its handler for both of uvicorn's stop signals."""
    signal.signal(signal.SIGINT, server.handle_exit)
    return server


async def arrives(number) -> None:
    """Send a signal to this process and let everything happen."""
    os.kill(os.getpid(), number)
    await asyncio.sleep(0.01)


async def untouched(house):
    """Check that SIGINT is left alone."""
    before = signal.getsignal(signal.SIGINT)
    async with house.drain.run():
        await asyncio.sleep(0)
        assert house.state == "in place"
        assert signal.getsignal(signal.SIGINT) == before
    assert signal.getsignal(signal.SIGINT) == before


async def test_sigint_is_not_touched_off_ecs(interruptible):
    """Ctrl-C stays immediate, also where SIGTERM is held."""
    await untouched(House({}, sigterm=True))


async def test_sigint_is_not_touched_at_a_terminal(interruptible, monkeypatch):
    """Somebody looks at a container with a terminal of its own, and presses Ctrl-C."""
    monkeypatch.setattr(os, "isatty", lambda descriptor: descriptor == 1)
    await untouched(House())


async def test_sigint_is_not_touched_where_it_is_not_the_servers(server):
    """Only what uvicorn takes for a stop signal is one."""
    await untouched(House())


async def test_on_ecs_sigint_is_held_like_sigterm(interruptible):
    """The image says STOPSIGNAL SIGINT: the sessions leave within the window, then the server gets it, once."""
    house = House(sigterm_window=20)
    async with house.drain.run():
        await asyncio.sleep(0)
        for _ in range(5):
            Slow(house.drain)
        await arrives(signal.SIGINT)
        assert house.drain.progress().window == pytest.approx(20, abs=0.01)
        assert house.drain.progress().causes[0].reason == "the process received SIGINT"
        status = house.trigger.status(house.drain.host.engine.time())
        assert (status["state"], status["signal"]) == ("received", "SIGINT")
        assert 20 < status["passed_on_within"] <= 20 + 7 + sigterm.LIMIT
        assert interruptible.heard == []
        await house.drain.wait_drained()
        await until(lambda: interruptible.heard)
        assert interruptible.heard == [(signal.SIGINT, None)]
        assert house.trigger.status(0.0) == {"state": "passed on", "signal": "SIGINT"}
    for number in (signal.SIGTERM, signal.SIGINT):
        assert signal.getsignal(number) == interruptible.handle_exit


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_of_either_kind_is_passed_on_at_once(interruptible, first, second):
    """Who sends two means it; the server gets the second one, and no third when the drain ends."""
    house = House()
    async with house.drain.run():
        Slow(house.drain)
        await asyncio.sleep(0)
        await arrives(first)
        assert interruptible.heard == []
        await arrives(second)
        assert [number for number, _ in interruptible.heard] == [second]
        await house.drain.wait_drained()
        await asyncio.sleep(1)
    assert len(interruptible.heard) == 1


async def test_two_applications_hold_sigint_until_both_have_drained(interruptible):
    """Also where the first of them holds SIGTERM only."""
    first, second = House({}, sigterm=True), House()
    async with first.drain.run():
        await asyncio.sleep(0)
        async with second.drain.run():
            await asyncio.sleep(0)
            Slow(first.drain)
            Slow(second.drain)
            await arrives(signal.SIGINT)
            assert (first.drain.state, second.drain.state) == (DrainState.DRAINING, DrainState.DRAINING)
            await first.drain.wait_drained()
            await second.drain.wait_drained()
            await until(lambda: interruptible.heard)
    assert interruptible.heard == [(signal.SIGINT, None)]
    for number in (signal.SIGTERM, signal.SIGINT):
        assert signal.getsignal(number) == interruptible.handle_exit


# --- The stand-in ---


async def test_the_stand_in_shows_the_server(server):
    """`getsignal(SIGTERM).__self__` is how sse-starlette finds the server: it must find it still."""
    async with House().drain.run():
        await asyncio.sleep(0)
        handler = signal.getsignal(signal.SIGTERM)
        assert handler != server.handle_exit
        assert handler.__self__ is server


async def test_the_stand_in_of_a_function_shows_no_server(handlers):
    """Where the former handler is no method there is no `__self__`, not one that is None."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    async with House(sigterm=True).drain.run():
        await asyncio.sleep(0)
        assert not hasattr(signal.getsignal(signal.SIGTERM), "__self__")


async def test_the_former_handler_is_put_back_at_the_end(server):
    """An application that stops without a signal leaves the handler as it found it."""
    async with House().drain.run():
        await asyncio.sleep(0)
        assert signal.getsignal(signal.SIGTERM) != server.handle_exit
    assert signal.getsignal(signal.SIGTERM) == server.handle_exit


async def test_somebody_elses_handler_is_left_where_it_is(server):
    """Where another handler took our place it stays at the end."""

    def other(signum, frame):
        pass

    async with House().drain.run():
        await asyncio.sleep(0)
        signal.signal(signal.SIGTERM, other)
    assert signal.getsignal(signal.SIGTERM) is other


async def test_a_handler_that_keeps_ours_and_calls_it_works(server):
    """A handler installed later that calls the one it found changes nothing, now and after the end."""
    house = House()
    async with house.drain.run():
        await asyncio.sleep(0)
        ours = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, lambda *call: [ours(*call)])
        Slow(house.drain)
        await sigterm_arrives()
        assert house.drain.state is DrainState.DRAINING
        assert server.heard == []
    assert len(server.heard) == 1, "the drain has ended as it stood: the signal that was heard is passed on"
    await sigterm_arrives()
    assert len(server.heard) == 2, "nobody listens any more: the signal is not swallowed"


async def test_a_stand_in_that_never_heard_a_signal_passes_on_the_first_after_the_end(server):
    """Kept by somebody else beyond the end, ours does not swallow the signal."""
    async with House().drain.run():
        await asyncio.sleep(0)
        ours = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, lambda *call: [ours(*call)])
    await sigterm_arrives()
    assert len(server.heard) == 1


async def test_a_handler_that_took_our_place_is_noticed_once(server):
    """loop.add_signal_handler takes ours out for good: one warning says what happens and what to do."""
    house = House()
    async with house.drain.run():
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: None)
        await asyncio.sleep(60)
        (event,) = house.recording.of(TriggerImpaired)
        assert "replaced ours" in event.problem
        assert "signal.signal" in event.remedy
        assert house.state == "replaced"
        loop.remove_signal_handler(signal.SIGTERM)


async def test_two_applications_in_one_process_both_drain_before_the_server_hears(server):
    """The second stands in for the first; the server is told when both are empty, in whichever order they end."""
    first, second = House(), House()
    async with first.drain.run():
        await asyncio.sleep(0)
        async with second.drain.run():
            await asyncio.sleep(0)
            assert signal.getsignal(signal.SIGTERM).__self__ is server
            Slow(first.drain)
            Slow(second.drain)
            await sigterm_arrives()
            await second.drain.wait_drained()
            await first.drain.wait_drained()
            await until(lambda: server.heard)
        assert len(server.heard) == 1
    assert signal.getsignal(signal.SIGTERM) == server.handle_exit


async def two_on_duty():
    """Return two applications that stand in one for the other, each with a session that takes three seconds to go."""
    houses = House(sigterm_window=1, rng=Random(7)), House(sigterm_window=100, rng=Random(7))
    for house in houses:
        house.drain.host.begin()
        await asyncio.sleep(0)
        Slow(house.drain)
    return houses


async def test_two_applications_drain_at_once(server):
    """Both begin at the signal: the balancer's cut waits for neither. The server hears once, after the later one."""
    first, second = await two_on_duty()
    await sigterm_arrives()
    assert (first.drain.state, second.drain.state) == (DrainState.DRAINING, DrainState.DRAINING)
    await first.drain.wait_drained()
    await until(lambda: first.state == "passed on")
    assert (second.drain.state, server.heard) == (DrainState.DRAINING, [])
    await second.drain.wait_drained()
    await until(lambda: server.heard)
    for house in (second, first):
        await house.drain.host.end()
    assert len(server.heard) == 1
    assert signal.getsignal(signal.SIGTERM) == server.handle_exit


async def test_two_applications_pass_a_second_sigterm_on_at_once(server):
    """Who sends SIGTERM twice means both; the end of their drains is no third one."""
    first, second = await two_on_duty()
    await sigterm_arrives()
    await sigterm_arrives()
    assert len(server.heard) == 1
    for house in (first, second):
        await house.drain.wait_drained()
        await until(lambda house=house: house.state == "passed on")
        await house.drain.host.end()
    assert len(server.heard) == 1


@pytest.mark.parametrize("leaves", [0, 1])
async def test_an_application_that_stops_in_its_drain_holds_nobody_up(server, leaves):
    """The server hears when the other one has drained, whichever of the two has gone."""
    houses = await two_on_duty()
    await sigterm_arrives()
    await houses[leaves].drain.host.end()
    assert server.heard == []
    await houses[1 - leaves].drain.wait_drained()
    await until(lambda: server.heard)
    await houses[1 - leaves].drain.host.end()
    assert len(server.heard) == 1


async def test_a_drain_that_fails_passes_the_signal_on(server, caplog):
    """Whatever goes wrong after SIGTERM, the process was told to stop, and its server hears of it."""
    house = House()

    async def broken():
        raise ZeroDivisionError

    async with house.drain.run():
        house.drain.host.control().flush = broken
        await asyncio.sleep(0)
        await sigterm_arrives()
        await until(lambda: server.heard)
        assert len(server.heard) == 1
    assert "The drain at SIGTERM failed" in caplog.text


async def test_two_applications_that_end_in_the_wrong_order_lose_no_signal(server):
    """Where the first ends before the second, its stand-in may be put back; it passes everything on."""
    first, second = House().drain, House().drain
    first.host.begin()
    await asyncio.sleep(0)
    second.host.begin()
    await asyncio.sleep(0)
    await first.host.end()
    await second.host.end()
    await sigterm_arrives()
    assert len(server.heard) == 1


# --- Former handlers of every kind ---


async def test_a_former_handler_that_ignores_goes_on_ignoring(handlers):
    """SIG_IGN: the drain runs, and then nothing happens; ignored before, ignored after."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    house = House(sigterm=True)
    async with house.drain.run():
        await asyncio.sleep(0)
        assert house.state == "in place"
        await sigterm_arrives()
        await until(lambda: house.state == "passed on")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


async def test_a_former_handler_not_from_python_is_left_alone(monkeypatch):
    """None means that C code installed it: it cannot be called or put back, so nobody stands in."""
    monkeypatch.setattr(sigterm.signal, "getsignal", lambda _: None)
    for options in ({"sigterm": True}, {}):
        house = House(**options)
        before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, before)
        async with house.drain.run():
            await asyncio.sleep(0)
        assert len(house.stood_down()) == 1
        assert signal.signal(signal.SIGTERM, before) is before


@pytest.mark.parametrize("signals", [1, 2])
def test_a_former_default_ends_the_process_by_the_signal(signals):
    """SIG_DFL: after the drain, or at the second signal, the process dies of SIGTERM as it would have."""
    program = f"""
        import asyncio, os, signal
        from starlette_drain import Drain, Session
        from starlette_drain._asgi.closer import close_due
        from starlette_drain.testing import VirtualTimeLoop
        from starlette_drain.triggers.sigterm import SigtermTrigger

        class Stubborn(Session):
            def begin_close(self, policy):
                print("asked", flush=True)

        async def main():
            drain = Drain(triggers=[SigtermTrigger()], observers=[], sigterm=True)
            drain.host.close_with(close_due)
            async with drain.run():
                await asyncio.sleep(0)
                drain.host.engine.track(Stubborn("/", drain.host.engine.time()))
                for _ in range({signals}):
                    os.kill(os.getpid(), signal.SIGTERM)
                    await asyncio.sleep(0.001)
                await asyncio.sleep(100)
            print("survived", flush=True)

        asyncio.Runner(loop_factory=VirtualTimeLoop).run(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "asked\n" if signals == 1 else "", "")


async def test_a_former_handler_that_raises_is_heard(server, caplog):
    """A handler that fails fails in the log; it does not take the drain with it."""

    def broken(signum, frame):
        msg = "broken"
        raise ValueError(msg)

    signal.signal(signal.SIGTERM, broken)
    house = House(sigterm=True)
    async with house.drain.run():
        await asyncio.sleep(0)
        await sigterm_arrives()
        await until(lambda: "broken" in caplog.text)
    assert house.drain.state is DrainState.DRAINED
    assert signal.getsignal(signal.SIGTERM) is broken


# --- Whether to stand in at all ---


@pytest.mark.parametrize(
    ("choice", "on_ecs", "is_uvicorn", "why"),
    [
        ("auto", True, True, None),
        ("auto", True, False, "not uvicorn's"),
        ("auto", False, True, "not an ECS task"),
        ("auto", False, False, "not an ECS task"),
        (True, True, True, None),
        (True, True, False, None),
        (True, False, True, None),
        (True, False, False, None),
        (False, True, True, "sigterm=False"),
        (False, False, False, "sigterm=False"),
    ],
)
async def test_when_it_stands_in(handlers, choice, on_ecs, is_uvicorn, why):
    """`auto` stands in on ECS under uvicorn; True always; False never. Whoever does not says why, once."""
    former = Server().handle_exit if is_uvicorn else lambda *_: None
    signal.signal(signal.SIGTERM, former)
    house = House(ON_ECS if on_ecs else {}, sigterm=choice)
    async with house.drain.run():
        await asyncio.sleep(0)
        is_in_place = signal.getsignal(signal.SIGTERM) != former
        assert is_in_place is (why is None)
        if why is None:
            assert house.stood_down() == []
        else:
            (reason,) = house.stood_down()
            assert why in reason
            assert house.state == "stood down"


async def test_it_stands_down_outside_the_main_thread(server):
    """signal.signal works in the main thread only: elsewhere (TestClient) it says so and does nothing."""
    house = House(sigterm=True)

    async def main():
        async with house.drain.run():
            await asyncio.sleep(0)

    await asyncio.to_thread(asyncio.run, main())
    assert "main thread" in house.stood_down()[0]
    assert signal.getsignal(signal.SIGTERM) == server.handle_exit


async def test_standing_down_leaves_the_rest_working(server):
    """Without SIGTERM the drain can still be started by hand."""
    house = House(sigterm=False)
    async with house.drain.run():
        await asyncio.sleep(0)
        await house.drain.start()
    assert len(house.recording.of(DrainFinished)) == 1


async def test_before_it_is_watched_it_says_so():
    """Its status is never empty."""
    assert SigtermTrigger({}).status(0.0) == {"state": "not started"}
    assert isinstance(SigtermTrigger({}), Trigger)


# --- Ends in between ---


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
async def test_a_signal_that_was_heard_is_passed_on_when_the_block_ends(server, turns):
    """At whichever moment of its drain the application ends: once, and not before the end."""
    house = House(sigterm_window=50)
    async with house.drain.run():
        await asyncio.sleep(0)
        Slow(house.drain)
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(turns):
            await asyncio.sleep(0)
        assert server.heard == []
    assert server.heard == [(signal.SIGTERM, None)]
    await asyncio.sleep(100)
    assert len(server.heard) == 1
    assert signal.getsignal(signal.SIGTERM) == server.handle_exit


async def test_a_signal_that_is_heard_while_others_end_is_passed_on(server):
    """Another trigger takes its time at the end, and SIGTERM comes: it goes to the server, at once."""

    class Slowly:
        name = "slowly"

        async def watch(self, _control):
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                await asyncio.sleep(3)

        def status(self, _now):
            return {}

    house = House()
    house.drain.host.add(Slowly())
    house.drain.host.begin()
    await asyncio.sleep(0)
    ending = asyncio.create_task(house.drain.host.end())
    await asyncio.sleep(1)
    await sigterm_arrives()
    assert len(server.heard) == 1
    await ending
    assert len(server.heard) == 1


async def test_asking_again_at_a_cancel_leaves_no_signal_unpassed(server):
    """SIGTERM's drain is its own, also where an observer began it by asking again when another was cancelled."""
    house = House(sigterm_window=10)

    class Insists(RecordingObserver):
        def notify(self, event):
            if isinstance(event, DrainCancelled):
                now = engine.time()
                engine.claim(DrainCause("insists", "again", now, now + 100))

    house.drain.host._observers.add(Insists())
    async with house.drain.run():
        await asyncio.sleep(0)
        engine = house.drain.host.engine
        Slow(house.drain)
        await house.drain.start(window=100)
        await house.drain.cancel()
        assert house.drain.state is DrainState.DRAINING
        await sigterm_arrives()
        await house.drain.wait_drained()
        await until(lambda: server.heard)
    assert len(server.heard) == 1


def test_a_loop_that_was_closed_without_an_end_swallows_no_signal(server):
    """The handler is still in place, and nobody is there to drain: the signal goes to the server; nothing raises."""
    house = House()
    loop = asyncio.new_event_loop()

    async def live():
        house.drain.host.begin()
        await asyncio.sleep(0.01)

    loop.run_until_complete(live())
    (task,) = asyncio.all_tasks(loop)
    loop.close()
    os.kill(os.getpid(), signal.SIGTERM)
    assert server.heard == [(signal.SIGTERM, None)]
    os.kill(os.getpid(), signal.SIGTERM)
    assert len(server.heard) == 2
    task._log_destroy_pending = False
    signal.signal(signal.SIGTERM, server.handle_exit)
    task.get_coro().close()
