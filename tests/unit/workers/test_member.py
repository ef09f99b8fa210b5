"""What one worker publishes and applies: in the order of the log, off the event loop, whatever goes wrong."""

import asyncio
import sys
import threading
import time

import pytest
from worker_crowd import Watcher, Worker, deadline, hang, soon, states

from starlette_drain import DrainCause, DrainState
from starlette_drain._core.events import DrainStarted, TriggerImpaired, TriggerRestored
from starlette_drain._workers.file_thread import FileThread
from starlette_drain._workers.shared_directory import SharedDirectory
from starlette_drain.testing import VirtualTimeLoop
from starlette_drain.triggers.manual import ManualTrigger

pytestmark = pytest.mark.anyio

DRAINING, SERVING = DrainState.DRAINING, DrainState.SERVING
FILE_EVENTS = {
    *("open", "os.listdir", "os.scandir", "os.mkdir", "os.rmdir", "os.remove", "os.rename", "os.link", "os.chmod"),
    *("os.truncate", "tempfile.mkstemp", "tempfile.mkdtemp", "glob.glob"),
}
opened: list[tuple[int, str, tuple]] | None = None


def audit(event, arguments):
    """Note which files are touched, by thread."""
    if opened is not None and event in FILE_EVENTS:
        opened.append((threading.get_ident(), event, arguments))


@pytest.fixture
def files(monkeypatch):
    """Return what touches files from now on; a hook cannot be removed, only be told to note nothing."""
    sys.addaudithook(audit)
    noted = []
    monkeypatch.setattr(sys.modules[__name__], "opened", noted)
    return noted


async def two(crowd, **options):
    """Hire two workers with ten sessions each."""
    workers = [crowd.hire(**options) for _ in range(2)]
    for worker in workers:
        worker.seat(10)
    await soon()
    return workers


def cause(worker, trigger="health", window=60.0, **more):
    """Return what *trigger* claims in *worker* now."""
    return DrainCause(trigger, "because", worker.engine.time(), worker.engine.time() + window, **more)


async def test_a_drain_has_one_name_in_all_workers(crowd):
    """Whoever claims first names it, by hand or not; also in a worker that comes later. Each drain has its own name."""
    one, other = await two(crowd)
    one.control.claim(cause(one))
    await soon()
    other.control.claim(cause(other, "task-state", 30))
    late = crowd.hire()
    late.seat(10)
    await soon()
    assert len({each.drain.progress().drain_id for each in (one, other, late)}) == 1
    await other.drain.cancel()
    await soon()
    await other.drain.start(window=60)
    await soon()
    for worker in (one, other):
        names = [event.drain_id for event in worker.recording.of(DrainStarted)]
        assert names == [late.drain.report.drain_id, late.drain.progress().drain_id]
        assert len(set(names)) == 2


async def test_a_late_arrival_begins_a_drain_with_the_name_that_it_would_have_in_any_worker(crowd):
    """Each worker has its own late arrivals. A second run for one claim has another name than the first."""
    one, other = await two(crowd, late_arrivals="accept")
    await one.drain.start(window=10)
    await soon()
    first = one.drain.progress().drain_id
    await asyncio.sleep(8)
    for worker in (one, other):
        assert await worker.drain.wait_drained()
        worker.seat(1)
    assert one.drain.progress().drain_id == other.drain.progress().drain_id != first


async def test_no_file_is_touched_on_the_event_loops_thread(crowd, files):
    """From the first exchange to the end, commands and statuses included; a slow disk holds up no session."""
    one, other = (crowd.hire(triggers=[Watcher()]) for _ in range(2))
    one.seat(10)
    await soon()
    await one.drain.start(window=60)
    await soon()
    assert other.status()["scope"] == "task"
    await other.drain.cancel()
    one.control.claim(cause(one))
    await soon()
    one.control.withdraw("health")
    await one.drain.host.end()
    await soon()
    mine = threading.get_ident()
    assert [each for each in files if each[0] == mine and str(crowd.directory) in str(each)] == []
    assert [each for each in files if each[0] == mine and "/proc/" in str(each)] == []
    assert len([each for each in files if each[0] != mine]) > 20


async def test_a_command_by_hand_has_one_exchange(crowd, monkeypatch):
    """It hears the others before, and is written after; nothing is read a second time."""
    one, _ = await two(crowd)
    met = []
    meet = one.member._exchange.meet
    monkeypatch.setattr(one.member._exchange, "meet", lambda heartbeat: met.append(heartbeat) or meet(heartbeat))
    await one.drain.start(window=60)
    assert len(met) == 1
    assert len(list(crowd.directory.glob("command-*"))) == 1
    await one.drain.cancel()
    assert len(met) == 2


async def test_a_command_in_the_middle_of_an_exchange_waits_for_it(crowd, monkeypatch):
    """It hears what was published since that one read, and what it did itself can be read when it is done."""
    one, other = await two(crowd)
    go_on = threading.Event()
    meet = other.member._exchange.meet

    def meet_slowly(heartbeat):
        received = meet(heartbeat)
        go_on.wait()
        return received

    monkeypatch.setattr(other.member._exchange, "meet", meet_slowly)
    under_way = asyncio.ensure_future(other.member._meet())
    await asyncio.sleep(0)
    await asyncio.to_thread(time.sleep, 0.05)
    await one.drain.start(window=60)
    threading.Timer(0.05, go_on.set).start()
    await other.drain.cancel()
    await under_way
    assert other.drain.state is SERVING
    await one.member.refresh()
    assert one.drain.state is SERVING


# --- The order of the log ---


async def test_a_claim_and_a_cancellation_in_the_same_moment_have_one_order_for_all(crowd):
    """What one worker does itself holds if it comes later in the log, and not if it comes before."""
    one, other = await two(crowd)
    one.control.claim(cause(one, "manual"))
    await soon()
    other.control.cancel()
    one.control.claim(cause(one, "health", 30))
    await one.control.publish()
    await other.control.publish()
    await soon()
    assert len(set(states(crowd))) == 1
    assert one.engine.claims == other.engine.claims


async def test_a_command_is_applied_again_after_one_that_came_before_it(crowd):
    """A claim that is made after another worker's cancellation stands, although the claimant hears of that later."""
    one, other = await two(crowd)
    await one.drain.start(window=60)
    await soon()
    other.control.cancel()
    await other.control.publish()
    one.control.claim(cause(one, "health", 30))
    await one.control.publish()
    await soon()
    assert states(crowd) == [DRAINING] * 2
    assert [[each.trigger for each in worker.engine.claims] for worker in (one, other)] == [["health"]] * 2


async def test_what_an_observer_does_of_an_event_is_published_after_it(crowd):
    """An observer that cancels each drain at once leaves all workers serving."""
    one, _ = await two(crowd)

    class Canceller:
        subscribes = (DrainStarted,)

        def notify(self, event):  # noqa: ARG002
            one.control.cancel()

        def flush(self, timeout):
            pass

    one.drain.host._observers.add(Canceller())
    one.control.claim(cause(one))
    await soon()
    assert states(crowd) == [SERVING] * 2


async def test_nothing_is_published_twice(crowd):
    """What a worker applies it does not publish, nor a claim that its trigger repeats at every poll."""
    one, other = await two(crowd)
    at = cause(one)
    for _ in range(5):
        one.control.claim(at)
        await soon()
        other.control.claim(at)
    assert [file.name for file in crowd.directory.glob("command-*")] == ["command-000001.json"]
    assert [len(worker.recording.of(DrainStarted)) for worker in (one, other)] == [1, 1]


async def test_commands_that_change_nothing_any_more_are_removed(crowd):
    """The number of files does not grow with the number of drains, and a worker that comes later serves."""
    one, other = await two(crowd)
    for _ in range(20):
        await one.drain.start(window=60)
        await other.drain.cancel()
    await soon()
    await soon()
    assert [file.name for file in crowd.directory.glob("command-*")] == ["command-000040.json"]
    new = crowd.hire()
    await soon()
    await new.drain.start(window=60)
    await soon()
    assert states(crowd) == [DRAINING, DRAINING, DrainState.DRAINED]


# --- Levels ---


async def test_the_next_leader_withdraws_the_claim_of_the_dead_one(crowd):
    """A drain whose reason has gone ends in all workers, although the leader that began it is dead."""
    watchers = [Watcher(), Watcher()]
    first, second = (crowd.hire(triggers=[watcher]) for watcher in watchers)
    third = crowd.hire()
    for worker in (first, second, third):
        worker.seat(10)
    await soon()
    leader = first if watchers[0].control else second
    next_leader, watcher = (second, watchers[1]) if leader is first else (first, watchers[0])
    leader.control.claim(cause(leader, "watcher"))
    await soon()
    assert states(crowd) == [DRAINING] * 3
    await leader.die()
    await soon()
    assert watcher.control.withdraw("watcher") is True
    assert watcher.control.withdraw("watcher") is False
    await soon()
    assert [next_leader.drain.state, third.drain.state] == [SERVING] * 2


async def test_what_was_cancelled_stays_so_for_a_worker_that_comes_later(crowd):
    """A claim that was muted begins no drain when a new worker becomes the leader and makes it again."""
    old = crowd.hire(triggers=[Watcher()])
    await soon()
    old.seat(5)
    old.control.claim(cause(old, "watcher"))
    await soon()
    await old.drain.cancel()
    watcher = Watcher()
    new = crowd.hire(triggers=[watcher])
    await soon()
    await old.die()
    await soon()
    watcher.control.claim(cause(new, "watcher", 30))
    await soon()
    assert new.drain.state is SERVING
    assert new.recording.of(DrainStarted) == []
    watcher.control.withdraw("watcher")
    watcher.control.claim(cause(new, "watcher", 30))
    assert new.drain.state is not SERVING


async def test_a_trigger_in_each_worker_withdraws_only_its_own_claim(crowd):
    """A trigger that watches in every worker may see different things there; the dead hold nothing for ever."""
    one, other = await two(crowd)
    one.control.claim(cause(one, "memory"))
    await soon()
    assert other.control.withdraw("memory") is False
    await soon()
    assert states(crowd) == [DRAINING] * 2
    await one.die()
    await soon()
    assert other.control.withdraw("memory") is True
    assert other.drain.state is SERVING


async def test_a_claim_that_two_workers_hold_ends_when_both_have_dropped_it(crowd):
    """A trigger that watches in every worker: while one of them still wants the drain, none of them flickers."""
    one, other = await two(crowd)
    for worker in (one, other):
        worker.control.claim(cause(worker, "memory"))
        await soon()
    assert one.control.withdraw("memory") is False
    for _ in range(4):
        await soon()
        assert one.control.withdraw("memory") is False
    assert states(crowd) == [DRAINING] * 2
    assert [len(worker.recording.of(DrainStarted)) for worker in (one, other)] == [1, 1]
    assert other.control.withdraw("memory") is True
    await soon()
    assert states(crowd) == [SERVING] * 2


async def test_a_claim_that_another_worker_holds_since_a_moment_is_not_lost(crowd):
    """The one that withdraws could not know yet: the other goes on, and publishes what it holds."""
    one, other = await two(crowd)
    one.control.claim(cause(one, "memory"))
    await soon()
    other.control.claim(cause(other, "memory"))
    assert one.control.withdraw("memory") is True
    await soon()
    assert states(crowd) == [DRAINING] * 2
    assert len(other.recording.of(DrainStarted)) == 1


@pytest.mark.parametrize("order", [1, -1])
async def test_two_workers_that_begin_for_two_reasons_agree_on_a_name(crowd, order):
    """That of the claim which came first in the log, whichever worker read the other's first."""
    one, other = (await two(crowd))[::order]
    one.control.claim(cause(one, "memory"))
    other.control.claim(cause(other, "disk", 30))
    assert one.drain.progress().drain_id != other.drain.progress().drain_id
    await one.control.publish()
    await other.control.publish()
    await soon()
    assert states(crowd) == [DRAINING] * 2
    assert len({worker.drain.progress().drain_id for worker in (one, other)}) == 1
    await other.drain.cancel()
    await soon()
    assert len({worker.drain.report.drain_id for worker in (one, other)}) == 1


async def test_workers_that_are_told_to_stop_drain_under_one_name(crowd):
    """SIGTERM reaches each by itself, in a moment of its own; the log of the task shows one drain."""
    workers = await two(crowd)
    for worker in workers:
        worker.control.claim(cause(worker, "sigterm", revocable=False))
        await asyncio.sleep(0.01)
    assert len({worker.drain.progress().drain_id for worker in workers}) == 1


async def test_workers_that_are_told_to_stop_one_after_the_other_share_one_window(crowd):
    """A restart in turn takes one window in all: each worker a share, at the pace of a task that stops."""
    workers = [crowd.hire() for _ in range(4)]
    for worker in workers:
        worker.seat(10)
    await soon()
    began = workers[0].engine.time()
    for worker in workers:
        worker.control.claim(cause(worker, "sigterm", 6, revocable=False))
        await worker.drain.wait_drained()
        await worker.leave()
    assert workers[0].engine.time() - began < 6 + 4 * 0.6 + 6


async def test_workers_that_are_told_to_stop_at_once_have_the_whole_window(crowd):
    """A task that stops: none of them takes a share, whichever is told first."""
    workers = [crowd.hire() for _ in range(4)]
    for worker in workers:
        worker.seat(10)
    await soon()
    for worker in workers:
        worker.control.claim(cause(worker, "sigterm", 6, revocable=False))
        await asyncio.sleep(0.05)
    await soon()
    assert {round(each.drain.progress().window, 3) for each in workers} == {6.0}


async def test_a_worker_whose_others_hang_has_the_whole_window(crowd):
    """It does not know whether they were told to stop."""
    one, other = await two(crowd)
    hang(other)
    await asyncio.sleep(6)
    one.control.claim(cause(one, "sigterm", 6, revocable=False))
    await soon()
    assert round(one.drain.progress().window, 3) == 6.0


async def test_a_trigger_of_the_application_drains_all(crowd):
    """A revocable claim is one of the whole task, whatever makes it."""
    manual = ManualTrigger("deploy-hook")
    one = crowd.hire(triggers=[manual])
    other = crowd.hire()
    other.seat(5)
    await soon()
    manual.fire(window=30)
    await soon()
    assert round(deadline(one), 6) == round(deadline(other), 6)


# --- When something goes wrong ---


async def test_an_error_that_was_not_expected_stops_nothing(crowd, monkeypatch, caplog):
    """It is logged once, /drain no longer speaks for the task, and the next exchange tries again."""
    watcher = Watcher()
    one = crowd.hire(triggers=[watcher])
    other = crowd.hire()
    other.seat(10)
    await soon()

    def fail(directory, besides, now):
        raise TypeError("surprise")

    with monkeypatch.context() as patch:
        patch.setattr(SharedDirectory, "read_heartbeats", fail)
        await asyncio.sleep(2)
        assert one.status()["scope"] == "worker"
    await soon()
    assert one.status()["scope"] == "task"
    assert watcher.control is not None
    assert [len(worker.recording.of(TriggerImpaired)) for worker in (one, other)] == [1, 1]
    assert [len(worker.recording.of(TriggerRestored)) for worker in (one, other)] == [1, 1]
    assert "surprise" in caplog.text
    assert len(caplog.records) == 2
    await one.drain.start(window=60)
    await soon()
    assert other.drain.state is DRAINING


@pytest.mark.parametrize(
    "text",
    ["{half", '{"number": 1, "cause": {"trigger": 1}}', '{"version": 1, "number": 1, "pid": 1, "claim": {"at": "x"}}'],
)
async def test_a_command_that_cannot_be_read_is_named_and_passed_over(crowd, text):
    """The commands after it are applied, and the agreement is restored when the file is removed."""
    one, other = await two(crowd)
    file = crowd.directory / "command-000001.json"
    file.write_text(text)
    await soon()
    assert [worker.status()["scope"] for worker in (one, other)] == ["worker"] * 2
    (impaired,) = one.recording.of(TriggerImpaired)
    assert str(file) in impaired.problem
    await one.drain.start(window=60)
    await soon()
    assert states(crowd) == [DRAINING] * 2
    file.unlink()
    await soon()
    assert one.status()["scope"] == "task"


async def test_a_full_disk_keeps_no_worker_from_hearing(crowd, monkeypatch):
    """A worker that cannot write its heartbeat applies what the others have published all the same."""
    one, other = await two(crowd)

    def full(pid, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(other.directory, "_draft", full)
    await one.drain.start(window=60)
    await soon()
    assert states(crowd) == [DRAINING] * 2


def test_a_file_system_that_hangs_holds_up_no_command(tmp_path):
    """A drain by hand begins within two seconds, and the worker says that it drains alone."""
    go_on = threading.Event()

    async def live(loop):
        worker = Worker({}, [], str(tmp_path / "workers"))
        worker.seat(5)
        await soon()
        worker.directory.enter = go_on.wait
        loop.let_time_pass()
        began = loop.time()
        await worker.drain.start(window=60)
        assert loop.time() - began <= 2.1
        assert worker.drain.state is DRAINING
        await asyncio.sleep(10)
        assert worker.status()["scope"] == "worker"
        began = loop.time()
        await worker.drain.cancel()
        assert loop.time() - began < 0.1
        go_on.set()
        await asyncio.to_thread(time.sleep, 0.1)
        await worker.leave()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(live(runner.get_loop()))


def test_the_thread_runs_calls_in_turn_and_raises_what_they_raise():
    """It ends after the calls that were submitted, and goes on after one that fails."""
    thread, done = FileThread(), []
    first = thread.submit(done.append, 1)
    failing = thread.submit(lambda: 1 / 0)
    last = thread.submit(threading.current_thread)
    thread.shutdown()
    assert first.result(5) is None
    assert isinstance(failing.exception(5), ZeroDivisionError)
    assert last.result(5).daemon
    last.result().join(5)
    assert not last.result().is_alive()
    assert done == [1]
