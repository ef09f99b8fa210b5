"""Several workers, one drain: what they agree on, and what happens when they cannot."""

import asyncio
import os

import pytest
from worker_crowd import Guest, Watcher, deadline, hang, soon, states

from starlette_drain import Drain, DrainCause, DrainState, IllegalTransition, RateCapPacing, TooLateToCancel
from starlette_drain._asgi.defaults import equip
from starlette_drain._core.events import (
    DrainCancelled,
    DrainReplanned,
    DrainStarted,
    TriggerImpaired,
    TriggerRestored,
    WorkersSeen,
)
from starlette_drain._workers.heartbeat import task_state
from starlette_drain.testing import VirtualTimeLoop

pytestmark = pytest.mark.anyio


# --- One drain ---


async def test_a_drain_asked_of_one_worker_drains_all_by_the_same_deadline(crowd):
    """Whichever worker is asked, all drain, with the same cause and by the same moment."""
    workers = [crowd.hire() for _ in range(3)]
    for worker in workers:
        worker.seat(10)
    await soon()
    ends = workers[1].engine.time() + 60
    await workers[1].drain.start(window=60, reason="the rack burns")
    await soon()

    assert states(crowd) == [DrainState.DRAINING] * 3
    assert {round(ends, 6)} == {round(deadline(worker), 6) for worker in workers}
    assert {"the rack burns"} == {worker.drain.progress().causes[0].reason for worker in workers}


@pytest.mark.unmeasured
async def test_the_sum_of_the_workers_falls_on_one_even_line(crowd):
    """Four workers with different numbers of sessions shed together as one process would."""
    for count in (50, 150, 200, 400):
        crowd.hire().seat(count)
    await soon()
    await crowd.everyone[0].drain.start(window=80)
    start, worst = crowd.everyone[0].engine.time(), 0.0
    for second in range(1, 80):
        await asyncio.sleep(start + second - crowd.everyone[0].engine.time())
        left = sum(worker.drain.statistics().waiting for worker in crowd.everyone)
        worst = max(worst, abs(left - 800 * max(0.0, 1 - second / 79)))

    # Half a second late, 750 sessions are 2.3 behind; each worker may be one off the line by its jitter.
    assert worst < 7
    await asyncio.sleep(2)
    assert states(crowd) == [DrainState.DRAINED] * 4


async def test_a_limit_of_the_task_is_divided_among_its_workers(crowd):
    """What a pace promises per second holds for the sum, and follows the number of workers."""
    workers = [crowd.hire(pacing=RateCapPacing(8)) for _ in range(4)]
    for worker in workers:
        worker.seat(200)
    await soon()
    await workers[0].drain.start(window=3000)
    await soon()
    assert [worker.drain.progress().rate for worker in workers] == [2.0] * 4

    await workers[3].die()
    await soon()
    assert [pytest.approx(8 / 3)] * 3 == [worker.drain.progress().rate for worker in workers[:3]]


@pytest.mark.parametrize("windows", [(60, 30), (30, 60)])
async def test_of_two_commands_in_the_same_moment_the_earlier_deadline_holds_for_all(crowd, windows):
    """Two requests reach two workers before either hears of the other: none is left with the later deadline."""
    workers = [crowd.hire() for _ in range(3)]
    for worker in workers:
        worker.seat(10)
    await soon()
    at = workers[0].engine.time()
    await workers[0].drain.start(window=windows[0])
    await workers[1].drain.start(window=windows[1])
    await soon()

    assert {at + 30} == {round(deadline(worker), 6) for worker in workers}


async def test_a_later_request_to_another_worker_brings_the_deadline_forward_for_all(crowd):
    """Any worker may bring the deadline forward, and the others hear of it once."""
    workers = [crowd.hire() for _ in range(3)]
    for worker in workers:
        worker.seat(10)
    await soon()
    await workers[0].drain.start(window=100)
    await soon()
    await workers[2].drain.start(window=20)
    await asyncio.sleep(2)

    assert len({round(deadline(worker), 6) for worker in workers}) == 1
    assert [len(worker.recording.of(DrainStarted)) for worker in workers] == [1, 1, 1]
    assert [len(worker.recording.of(DrainReplanned)) for worker in workers] == [1, 1, 1]


async def test_a_later_request_to_a_worker_without_sessions_brings_the_deadline_forward_for_all(crowd):
    """A worker that is idle, and so drained at once, publishes what it is asked for like the others."""
    idle, busy = crowd.hire(), crowd.hire()
    busy.seat(50)
    await soon()
    await idle.drain.start(window=200)
    await soon()
    assert (idle.drain.state, busy.drain.state) == (DrainState.DRAINED, DrainState.DRAINING)
    ends = idle.engine.time() + 20
    await idle.drain.start(window=20)
    await soon()
    assert busy.engine.time() + busy.drain.progress().time_left == pytest.approx(ends)


async def test_a_drain_taken_back_by_one_worker_is_taken_back_by_all(crowd):
    """After DELETE on any worker all serve, and a worker that comes later does too."""
    workers = [crowd.hire() for _ in range(3)]
    for worker in workers:
        worker.seat(10)
    await soon()
    await workers[0].drain.start(window=60)
    await soon()
    await workers[2].drain.cancel()
    await soon()
    crowd.hire()
    await soon()

    assert states(crowd) == [DrainState.SERVING] * 4
    assert [len(worker.recording.of(DrainCancelled)) for worker in workers] == [1, 1, 1]


def cause(worker, trigger, window):
    """Return what *trigger* would say in *worker* now."""
    now = worker.engine.time()
    return DrainCause(trigger, f"{trigger} says so", now, now + window)


async def test_a_rollback_does_not_cancel_what_was_asked_of_another_worker(crowd):
    """A claim that shortens nothing is known to all, so a trigger that withdraws ends only what it alone wanted."""
    one, other = crowd.hire(), crowd.hire()
    one.seat(10)
    other.seat(10)
    await soon()
    one.control.claim(cause(one, "service-deployment", 60))
    await soon()
    await other.drain.start(window=100, reason="maintenance")
    await soon()
    assert [each.trigger for each in one.drain.progress().causes] == ["service-deployment", "manual"]
    assert one.control.withdraw("service-deployment")
    await soon()
    assert states(crowd) == [DrainState.DRAINING] * 2
    assert [[each.trigger for each in worker.engine.claims] for worker in (one, other)] == [["manual"]] * 2
    assert round(deadline(one), 6) == round(deadline(other), 6)


async def test_a_rollback_and_a_command_to_another_worker_in_the_same_moment(crowd):
    """Where one worker withdraws while another is asked for a drain by hand, the drain by hand stands in both."""
    one, other = crowd.hire(), crowd.hire()
    one.seat(10)
    other.seat(10)
    await soon()
    one.control.claim(cause(one, "service-deployment", 60))
    await soon()
    await other.drain.start(window=100, reason="maintenance")
    assert one.control.withdraw("service-deployment")
    await soon()
    assert states(crowd) == [DrainState.DRAINING] * 2
    assert [[each.trigger for each in worker.engine.claims] for worker in (one, other)] == [["manual"]] * 2


async def test_a_worker_that_comes_half_way_knows_every_cause(crowd):
    """The next leader must not end a drain that somebody else has asked for, too."""
    old = crowd.hire()
    old.seat(10)
    await soon()
    await old.drain.start(window=100)
    await old.drain.cancel()
    await old.drain.start(window=100)
    old.control.claim(cause(old, "service-deployment", 200))
    await soon()
    new = crowd.hire(late_arrivals="accept")
    await soon()
    assert [each.trigger for each in new.drain.progress().causes] == ["manual", "service-deployment"]
    assert not new.control.withdraw("service-deployment")
    assert round(deadline(old), 6) == round(deadline(new), 6)


async def test_drains_begin_and_are_cancelled_again_and_again(crowd):
    """Every command is applied once, and all in the same order."""
    one, other = crowd.hire(), crowd.hire()
    one.seat(5)
    other.seat(5)
    await soon()
    for _ in range(3):
        await one.drain.start(window=60)
        await soon()
        assert states(crowd) == [DrainState.DRAINING] * 2
        await other.drain.cancel()
        await soon()
        assert states(crowd) == [DrainState.SERVING] * 2


async def test_a_worker_that_comes_half_way_joins_the_drain(crowd):
    """A worker started again while the task drains admits no session: the application waits for its first exchange."""
    old = crowd.hire()
    old.seat(10)
    await soon()
    await old.drain.start(window=60, taken_out=True)
    await asyncio.sleep(20)
    new = crowd.hire()
    await new.control.refresh()

    assert new.drain.state is DrainState.DRAINED
    assert not new.engine.admits()
    assert round(deadline(old), 6) == round(deadline(new), 6)


async def test_a_worker_that_comes_half_way_takes_what_is_accepted_into_what_remains(crowd):
    """Where late arrivals are accepted, the new worker sheds its own by the deadline of the task."""
    old = crowd.hire(late_arrivals="accept")
    old.seat(10)
    await soon()
    await old.drain.start(window=60)
    await asyncio.sleep(20)
    new = crowd.hire(late_arrivals="accept")
    await soon()
    new.seat(10)
    assert new.drain.state is DrainState.DRAINING
    await asyncio.sleep(45)
    assert states(crowd) == [DrainState.DRAINED] * 2


async def test_a_killed_worker_does_not_disturb_the_rest(crowd):
    """The others keep to their line, and no longer show the one that died."""
    workers = [crowd.hire() for _ in range(3)]
    for worker in workers:
        worker.seat(60)
    await soon()
    await workers[0].drain.start(window=60)
    ends = deadline(workers[0])
    await asyncio.sleep(30)
    await workers[0].die()
    await soon()

    assert [worker.process.pid for worker in workers[1:]] == sorted(
        each["pid"] for each in workers[1].status()["workers"]
    )
    assert {round(ends, 6)} == {round(deadline(worker), 6) for worker in workers[1:]}
    assert all(abs(worker.drain.statistics().waiting - 29) <= 2 for worker in workers[1:])


async def test_being_told_to_stop_is_each_workers_own_affair(crowd):
    """SIGTERM to one worker (uvicorn restarts them in turn at SIGHUP) leaves the others serving."""
    one, _ = crowd.hire(), crowd.hire()
    one.seat(5)
    await soon()
    one.control.claim(DrainCause("sigterm", "SIGTERM", one.engine.time(), one.engine.time() + 20, revocable=False))
    await soon()

    assert states(crowd) == [DrainState.DRAINING, DrainState.SERVING]


async def test_a_worker_that_was_told_to_stop_goes_on_draining(crowd):
    """A drain cancelled elsewhere goes on in a worker that has heard SIGTERM, and says so when asked itself."""
    one, other = crowd.hire(), crowd.hire()
    one.seat(5)
    other.seat(5)
    await soon()
    await other.drain.start(window=60)
    await soon()
    one.control.claim(DrainCause("sigterm", "SIGTERM", one.engine.time(), one.engine.time() + 20, revocable=False))
    await other.drain.cancel()
    await soon()

    assert states(crowd) == [DrainState.DRAINING, DrainState.SERVING]
    with pytest.raises(TooLateToCancel):
        await one.drain.cancel()


# --- What is shown ---


async def test_every_worker_shows_all_and_the_sum(crowd):
    """Whichever worker is asked, the answer has each worker's counts and their sum."""
    workers = [crowd.hire() for _ in range(3)]
    for count, worker in enumerate(workers, 1):
        worker.seat(10 * count)
        worker.engine.answers.under_way += 1
    workers[0].engine.hold(Guest(workers[0].drain))
    await soon()
    await workers[0].drain.start(window=600)
    workers[1].engine.refused("websocket", "/late")
    await soon()
    workers[2].engine.refused("websocket", "/late")
    await soon()

    for worker in workers:
        status = worker.status()
        assert status["scope"] == "task"
        assert 60 >= status["sessions"]["open"] > 55
        assert status["answers"] == 3
        assert status["refused"] == 1
        assert status["forced"] == 0
        assert [each.process.pid for each in sorted(workers, key=lambda each: each.process.pid)] == [
            each["pid"] for each in status["workers"]
        ]
        assert {"draining"} == {each["state"] for each in status["workers"]}
        assert all(0 <= each["seconds_ago"] <= 1.3 for each in status["workers"])
    assert 60 >= workers[0].engine.open_sessions() > 55


async def test_a_worker_that_hangs_is_seen_by_its_silence(crowd):
    """Its last heartbeat is shown, and how old that is; what is shown is not said to be the task's."""
    one, other = crowd.hire(), crowd.hire()
    await soon()
    assert one.status()["scope"] == "task"
    assert all("silent" not in each for each in one.status()["workers"])
    hang(other)
    await asyncio.sleep(10)

    (shown,) = [each for each in one.status()["workers"] if each["pid"] == other.process.pid]
    assert 9 < shown["seconds_ago"] < 11
    assert shown["silent"] is True
    assert one.status()["scope"] == "worker"


async def test_a_worker_that_hangs_is_an_event_for_the_others(crowd):
    """They say so within seconds, once, and again when it is heard of."""
    one, other = crowd.hire(), crowd.hire()
    await soon()
    go_on = hang(other)
    await asyncio.sleep(7)
    pid = other.process.pid
    assert [(each.workers, each.silent) for each in one.recording.of(WorkersSeen)][-2:] == [(2, ()), (2, (pid,))]
    go_on()
    await asyncio.sleep(3)
    assert one.recording.of(WorkersSeen)[-1].silent == ()
    assert all(each.silent == () for each in other.recording.of(WorkersSeen))


async def test_one_process_alone_is_the_task(crowd):
    """Without a supervisor there is nobody to agree with, and no directory."""
    worker = crowd.hire(alone=True)
    worker.seat(3)
    await soon()
    await worker.drain.start(window=10)
    await soon()

    assert (worker.status()["scope"], len(worker.status()["workers"])) == ("task", 1)
    assert not crowd.directory.exists()
    assert worker.recording.of(TriggerImpaired) == []


async def test_waiting_for_the_task_waits_for_all_workers(crowd):
    """Waiting for the task ends when the last worker has drained, not the first."""
    busy, idle = crowd.hire(), crowd.hire()
    busy.seat(50)
    await soon()
    at = idle.engine.time()
    await idle.drain.start(window=30)
    assert await idle.drain.wait_drained()
    assert at == idle.engine.time()
    assert await idle.control.wait_all_drained()
    assert 28 < idle.engine.time() - at < 32


async def test_waiting_for_the_task_ends_when_the_drain_is_taken_back(crowd):
    """Who waits is told that the drain was cancelled, by whichever worker."""
    busy, idle = crowd.hire(), crowd.hire()
    busy.seat(50)
    await soon()
    await idle.drain.start(window=30)
    waiting = asyncio.create_task(idle.control.wait_all_drained())
    await soon()
    await busy.drain.cancel()
    await asyncio.sleep(1)
    assert waiting.done()
    assert waiting.result() is False


async def test_waiting_is_not_misled_by_a_heartbeat_from_before_the_command(crowd):
    """A worker that was drained, serves again and drains again counts as drained only after the latest command."""
    busy, idle = crowd.hire(), crowd.hire()
    await soon()
    await idle.drain.start(window=5)
    await soon()
    await soon()
    await idle.drain.cancel()
    assert idle.member._others[busy.process.pid].applied == 1  # it has drained, and not heard of the cancellation yet
    busy.seat(10)
    await idle.drain.start(window=20)
    at = idle.engine.time()
    await idle.control.wait_all_drained()
    assert idle.engine.time() - at > 15


# --- When they cannot agree ---


def wide_open(directory):
    """Make it anybody's."""
    directory.mkdir(mode=0o755)


def symlink(directory):
    """Make it lead elsewhere."""
    elsewhere = directory.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    directory.symlink_to(elsewhere)


def a_file(directory):
    """Make it something else."""
    directory.write_text("")


@pytest.mark.parametrize("spoil", [wide_open, symlink, a_file])
async def test_a_directory_that_cannot_be_trusted_leaves_each_worker_to_itself(crowd, spoil):
    """Then a drain is one of this worker only; that is said once, with the remedy, and everybody watches."""
    spoil(crowd.directory)
    watchers = [Watcher(), Watcher()]
    one, _ = (crowd.hire(triggers=[watcher]) for watcher in watchers)
    one.seat(5)
    await soon()
    await one.drain.start(window=10)
    await asyncio.sleep(3)

    assert states(crowd) == [DrainState.DRAINING, DrainState.SERVING]
    assert (one.status()["scope"], len(one.status()["workers"])) == ("worker", 1)
    (impaired,) = one.recording.of(TriggerImpaired)
    assert str(crowd.directory) in impaired.problem
    assert "TMPDIR" in impaired.remedy
    assert all(watcher.control is not None for watcher in watchers)


async def test_a_directory_that_vanishes_is_made_again(crowd):
    """A clean-up of the temporary directory does not end the agreement."""
    one, other = crowd.hire(), crowd.hire()
    other.seat(5)
    await soon()
    for file in crowd.directory.iterdir():
        file.unlink()
    crowd.directory.rmdir()
    await soon()
    await one.drain.start(window=10)
    await soon()
    assert other.drain.state is DrainState.DRAINING
    assert crowd.directory.stat().st_mode & 0o777 == 0o700


async def test_a_command_that_could_not_be_written_is_written_later(crowd, monkeypatch):
    """Where nothing at all can be made, the worker says that it drains alone, and that it is restored, later."""
    one, other = crowd.hire(), crowd.hire()
    one.seat(50)
    other.seat(50)
    await soon()
    draft = one.directory._draft

    def full(pid, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(one.directory, "_draft", full)
    monkeypatch.setattr(os, "symlink", full)
    await one.drain.start(window=60)
    await soon()
    assert states(crowd) == [DrainState.DRAINING, DrainState.SERVING]
    assert one.status()["scope"] == "worker"

    monkeypatch.setattr(one.directory, "_draft", draft)
    await soon()
    assert states(crowd) == [DrainState.DRAINING] * 2
    assert one.status()["scope"] == "task"
    assert len(one.recording.of(TriggerImpaired)) == 1
    assert len(one.recording.of(TriggerRestored)) == 1


@pytest.mark.parametrize("what", ["_pause", "_exit_when_drained"])
async def test_an_error_makes_no_worker_deaf(crowd, what, monkeypatch):
    """Whatever ends the exchanges of a worker, they begin again a moment later, and it hears of a drain."""
    one, other = crowd.hire(), crowd.hire()
    await soon()
    with monkeypatch.context() as broken:
        broken.setattr(other.member, what, lambda: 1 / 0)
        await soon()
    await asyncio.sleep(5)
    other.seat(3)
    await one.drain.start(window=10)
    await soon()
    assert states(crowd) == [DrainState.DRAINED, DrainState.DRAINING]
    assert len(one.status()["workers"]) == 2


async def test_a_heartbeat_of_another_version_is_no_harm(crowd):
    """A worker of another version (an upgrade by HUP) is said, by the name of its file, and stops nothing."""
    one, other = crowd.hire(), crowd.hire()
    await soon()
    hang(other)
    (file,) = crowd.directory.glob(f"worker-{other.process.pid}-*")
    file.write_text('{"colour": "blue"}')
    await soon()
    assert one.status()["scope"] == "worker"
    await other.die()
    await soon()
    assert (one.status()["scope"], len(one.status()["workers"])) == ("task", 1)


async def test_the_directory_goes_with_the_last_worker(crowd):
    """What was private is not left behind."""
    workers = [crowd.hire() for _ in range(3)]
    await soon()
    await workers[0].drain.start(window=1)
    await soon()
    for worker in workers[:2]:
        await worker.leave()
        assert crowd.directory.exists()
    await workers[2].leave()
    assert not crowd.directory.exists()


async def test_the_commands_of_an_earlier_life_do_not_count(crowd):
    """Where the directory outlives a task that was killed, the next one begins afresh."""
    old = crowd.hire()
    await soon()
    await old.drain.start(window=60)
    (command,) = (file.read_text() for file in crowd.directory.glob("command-*"))
    await old.die()
    crowd.directory.mkdir(mode=0o700, exist_ok=True)
    (crowd.directory / "command-000001.json").write_text(command)
    (crowd.directory / "worker-1-1.json").write_text("{}")

    new = crowd.hire()
    await soon()
    assert new.drain.state is DrainState.SERVING
    assert list(crowd.directory.glob("command-*")) == []


def test_a_drain_with_triggers_of_the_leader_lives_again_on_another_loop(caplog):
    """One application, several event loops after each other, as under TestClient: every life watches."""
    watcher = Watcher()
    drain = Drain(triggers=[watcher], observers=[], max_session_age=10.0)
    equip(drain)

    async def live():
        async with drain.run():
            await soon()
            assert watcher.control is not None

    for _ in range(3):
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as loop:
            loop.run(live())
    assert caplog.records == []


@pytest.mark.parametrize(
    ("own", "others", "state"),
    [
        ("serving", [], "serving"),
        ("drained", [], "drained"),
        ("serving", [("serving", True)], "serving"),
        ("serving", [("draining", True)], "draining"),
        ("drained", [("draining", True)], "draining"),
        ("draining", [("drained", True)], "draining"),
        ("drained", [("drained", True)], "drained"),
        ("drained", [("serving", True)], "serving"),
        ("draining", [("serving", False)], "draining"),
        ("drained", [("serving", False)], "draining"),
        ("drained", [("drained", True), ("serving", False)], "draining"),
        ("serving", [("draining", False)], "serving"),
    ],
)
def test_the_state_of_the_task(own, others, state):
    """It drains where any worker drains, and is drained where all are; one that is behind follows this one."""
    assert task_state(own, others) == state


async def test_a_worker_that_is_empty_does_not_call_the_task_drained(crowd):
    """Asked first, it has drained at once, and the others have not even begun: that is not the end."""
    empty, full = crowd.hire(), crowd.hire()
    full.seat(5)
    await soon()
    await empty.drain.start(window=10)
    assert (empty.drain.state, full.drain.state) == (DrainState.DRAINED, DrainState.SERVING)
    assert empty.status()["state"] == "draining"
    await soon()
    assert {empty.status()["state"], full.status()["state"]} == {"draining"}
    await asyncio.sleep(11)
    assert {empty.status()["state"], full.status()["state"]} == {"drained"}


async def test_the_report_is_that_of_all_workers(crowd):
    """Whichever worker is asked: counts are sums, the longest duration and the smallest slack count."""
    workers = [crowd.hire() for _ in range(3)]
    workers[0].seat(6)
    workers[1].seat(3)
    await soon()
    await workers[2].drain.start(window=10)
    await asyncio.sleep(11)
    await soon()
    for worker in workers:
        report = worker.status()["report"]
        assert (report["sessions_at_start"], report["shed"], report["still_open"]) == (9, 9, 0)
        assert report["duration"] == pytest.approx(max(each.drain.report.duration for each in workers), abs=0.001)
        assert report["slack"] == pytest.approx(min(each.drain.report.slack for each in workers), abs=0.001)
        assert report["mean_rate"] == pytest.approx(sum(each.drain.report.mean_rate for each in workers), abs=0.01)


# --- Rotations ---


async def test_a_rotation_asked_of_one_worker_is_one_of_the_task(crowd):
    """All rotate over the same time; the numbers are sums, and a worker that comes later rotates no session."""
    workers = [crowd.hire() for _ in range(3)]
    for worker in workers:
        worker.seat(100)
    await soon()
    await workers[1].drain.rotate(window=1000)
    await asyncio.sleep(2)
    late = crowd.hire()
    late.seat(10)
    await asyncio.sleep(500)
    assert [worker.drain.rotation().window for worker in workers] == [1000] * 3
    assert workers[2].status()["rotated"] == pytest.approx(150, abs=6)
    assert workers[2].status()["rotating"] == pytest.approx(150, abs=6)
    assert late.drain.rotation() is None
    with pytest.raises(IllegalTransition):
        await late.drain.rotate(window=10)
    await asyncio.sleep(500)
    assert [worker.drain.statistics().open for worker in crowd.everyone] == [0, 0, 0, 10]
    await workers[0].drain.rotate(window=10)  # the first is over


async def test_a_rotation_cancelled_in_any_worker_is_cancelled_in_all(crowd):
    """Also by one that has no session to rotate."""
    workers = [crowd.hire() for _ in range(3)]
    for worker in workers[:2]:
        worker.seat(100)
    await soon()
    await workers[0].drain.rotate(window=1000)
    await asyncio.sleep(2)
    await workers[2].drain.stop_rotating()
    await asyncio.sleep(3)
    assert [worker.drain.rotation() for worker in workers] == [None] * 3
    with pytest.raises(IllegalTransition):
        await workers[1].drain.stop_rotating()
