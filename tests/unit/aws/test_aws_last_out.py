"""Which of several workers is the last to leave, and that it takes back what was done for all of them."""

import asyncio
import contextlib
from pathlib import Path
from random import Random

import pytest
from aws_fakes import ON_ECS, ClientError, MetadataOf, RecordingControl

from starlette_drain import DrainCause
from starlette_drain._core.events import DrainCancelled, DrainStarted, TriggerActed, TriggerImpaired
from starlette_drain.aws.actions.last_out import LastOut
from starlette_drain.aws.actions.private_file import name_of
from starlette_drain.aws.actions.registration import SelfRegistration
from starlette_drain.aws.api.as_sent import AS_SENT, records_of

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """Let each test have a temporary directory of its own."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("starlette_drain.aws.actions.private_file.SHARED_MEMORY", "/nowhere")
    return tmp_path


async def workers(count):
    """Return so many workers that have entered."""
    found = [LastOut("it") for _ in range(count)]
    for each in found:
        await each.enter()
    return found


async def test_only_the_last_one_is_told():
    """What one has noted is taken back by whichever worker leaves last, and by no other."""
    first, second, third = await workers(3)
    first.note({"a": [1, 2, 3]})
    assert first.leave() is None
    assert third.leave() is None
    assert second.leave() == {"a": [1, 2, 3]}


async def test_nothing_to_take_back():
    """What is taken back already is noted as nothing, also over something longer."""
    first, second = await workers(2)
    first.note({"a": "something long"})
    second.note(None)
    first.leave()
    assert second.leave() is None


async def test_a_worker_that_was_killed_holds_up_nobody():
    """The kernel drops the lock of a process that dies; what it noted is still taken back."""
    killed, other = await workers(2)
    killed.note("x")
    killed.close()
    assert other.leave() == "x"


async def test_a_newcomer_waits_until_it_is_taken_back():
    """A worker that starts while the last one takes back must not do it anew before that is over."""
    (last,) = await workers(1)
    last.leave()
    newcomer = LastOut("it")
    entering = asyncio.create_task(newcomer.enter())
    await asyncio.sleep(2)
    assert not entering.done()
    last.close()
    await asyncio.sleep(0.2)
    assert entering.done()
    newcomer.note(1)
    assert newcomer.leave() == 1


async def test_a_newcomer_does_not_wait_for_ever():
    """Where the last one hangs the newcomer goes on without the others."""
    (last,) = await workers(1)
    last.leave()
    newcomer = LastOut("it")
    await asyncio.wait_for(newcomer.enter(), 10)
    newcomer.note(1)
    assert newcomer.leave() is None


async def test_a_file_that_others_can_write(folder):
    """A file that is not private is not used, and neither is a directory that cannot be written."""
    (folder / name_of("it")).touch()
    (folder / name_of("it")).chmod(0o666)
    (worker,) = await workers(1)
    worker.note(1)
    assert worker.read() is worker.leave() is None
    worker.close()


async def test_what_cannot_be_read(folder):
    """A note that is damaged is none."""
    (worker,) = await workers(1)
    (folder / name_of("it")).write_bytes(b"{")
    assert worker.leave() is None


class Task:
    """A task that registers itself, with several workers."""

    def __init__(self, stage):
        self.fake, self.clients = stage.fake, stage.clients
        self.group = stage.fake.add_target_group("web", delay=60)
        self.task = stage.fake.add_task(stage.fake.add_service(registrations=[]))

    @property
    def states(self):
        """The states of the targets in the group, by id."""
        return {each.id: self.group.health(each).state for each in self.group.listed()}

    @contextlib.asynccontextmanager
    async def worker(self, control, *, leads=False):
        """Let a worker attend, and watch if it leads."""
        registration = SelfRegistration(
            clients=self.clients, environ=ON_ECS, rng=Random(7), fetch=MetadataOf(self.task)
        )
        async with registration.attend(control):
            watching = asyncio.create_task(registration.watch(control)) if leads else None
            await asyncio.sleep(1)
            try:
                yield registration
            finally:
                if watching:
                    watching.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await watching

    def control(self, workers=2):
        """Return a control of one of so many workers."""
        control = RecordingControl(target_group_arn=self.group.arn, target_port=8000)
        control.workers = workers
        return control


@pytest.mark.parametrize("leader_is_last", [True, False])
async def test_the_last_worker_takes_the_task_out(stage, leader_is_last):
    """However the workers leave, the last one deregisters the task; while one is there it stays in."""
    task = Task(stage)
    async with contextlib.AsyncExitStack() as last:
        one, other = task.control(), task.control()
        async with contextlib.AsyncExitStack() as first:
            stacks = (last, first) if leader_is_last else (first, last)
            await stacks[0].enter_async_context(task.worker(one, leads=True))
            await stacks[1].enter_async_context(task.worker(other))
            assert task.states == {"10.0.0.5": "healthy"}
        await asyncio.sleep(1)
        assert task.states == {"10.0.0.5": "healthy"}, "one worker is left: it was replaced, or ended alone"
    assert task.states == {"10.0.0.5": "draining"}
    told = [*one.told(TriggerActed), *other.told(TriggerActed)]
    assert [each.deed.split()[0] for each in told] == ["registered", "deregistered"]


@pytest.mark.parametrize("ends", [True, False])
async def test_sigterm_of_a_task_that_ecs_ends(stage, ends):
    """One of several workers that is told to stop asks ECS whether the task ends, and takes it out at once if so."""
    task = Task(stage)
    async with task.worker(task.control(), leads=True) as leader:
        if ends:
            task.task.desired_status = "STOPPED"
        cause = DrainCause("sigterm", "told to stop", at=0.0, revocable=False)
        leader.notify(DrainStarted(1000.0, "d-1", cause, 1006.0, 10, "evenly"))
        await asyncio.sleep(3)
        assert task.states == {"10.0.0.5": "draining" if ends else "healthy"}


async def test_a_single_worker_takes_the_task_out_once(stage):
    """One worker alone deregisters at its end, and nothing is left for the last one to do."""
    task = Task(stage)
    async with task.worker(task.control(workers=1), leads=True):
        pass
    assert task.states == {"10.0.0.5": "draining"}
    assert stage.clients.operations().count("DeregisterTargets") == 1


async def test_the_last_worker_may_not(stage):
    """Where the last worker cannot deregister the task, a warning says what will."""
    task = Task(stage)
    control = task.control()
    async with task.worker(control, leads=True):
        stage.clients.failures["DeregisterTargets"] = ClientError("AccessDenied")
    (told,) = control.told(TriggerImpaired)
    assert "the last worker could not deregister" in told.problem
    assert task.states == {"10.0.0.5": "healthy"}


@pytest.mark.parametrize("when", ["during the drain", "after the cancel"])
async def test_what_a_leader_that_died_took_out_is_put_back(stage, folder, when):
    """A task of ECS's that a drain by hand took out comes back when it is cancelled, whichever worker leads by then."""
    task = stage.fake.add_task(stage.fake.add_service())
    group = task.service.registrations[0].group
    controls, leaders = [RecordingControl(), RecordingControl()], []
    for control in controls:
        control.workers = 2
        leaders.append(
            SelfRegistration(
                clients=stage.clients, environ=ON_ECS, rng=Random(7), fetch=MetadataOf(task), registers=False
            )
        )
    first, second = leaders
    async with contextlib.AsyncExitStack() as stack:
        for leader, control in zip(leaders, controls, strict=True):
            await stack.enter_async_context(leader.attend(control))
        watching = asyncio.create_task(first.watch(controls[0]))
        await asyncio.sleep(10)
        begun = DrainStarted(1000.0, "d-1", DrainCause("manual", "by hand", at=0.0), 1300.0, 10, "evenly")
        for leader in leaders:
            leader.notify(begun)
        await asyncio.sleep(10)
        assert [group.health(each).state for each in group.listed()] == ["draining"]
        if when == "after the cancel":
            stage.clients.failures["RegisterTargets"] = ClientError("ThrottlingException")
            for leader in leaders:
                leader.notify(DrainCancelled(1000.0, "d-1", None))
            await asyncio.sleep(10)
            del stage.clients.failures["RegisterTargets"]
        first._leave_at_stop = a_killed_process
        watching.cancel()
        watching = asyncio.create_task(second.watch(controls[1]))
        await asyncio.sleep(10)
        if when == "during the drain":
            assert [group.health(each).state for each in group.listed()] == ["draining"]
            assert [each.trigger for each in controls[1].causes] == ["self-registration"]
            second.notify(DrainCancelled(1000.0, "d-1", None))
        await asyncio.sleep(60)
        assert [group.health(each).state for each in group.listed()] == ["healthy"]
        watching.cancel()
        await asyncio.wait([watching])
    assert [each.read_text().strip() for each in folder.glob("starlette-drain-*")] == [""]


async def a_killed_process(_control):
    """Do nothing any more."""


async def test_a_killed_task_is_reaped(stage):
    """The next task of the service takes out what a killed one left behind, and nothing that may be somebody's."""
    task = Task(stage)
    service, elsewhere = task.task.service, stage.fake.add_service("other", registrations=[])
    for address in ("10.0.0.6", "10.0.0.7"):
        killed = stage.fake.add_task(service, addresses=(address,))
        stage.fake.kill(killed)
    stage.fake.add_task(service, addresses=("10.0.0.8",))
    stage.fake.add_task(elsewhere, addresses=("10.0.0.7",))  # the address was given to another task
    late = stage.fake.add_task(service, addresses=("10.0.0.9",))
    for last in (6, 7, 8, 9, 99):
        task.group.register(f"10.0.0.{last}", 8000)
    control = task.control(workers=1)
    async with task.worker(control, leads=True):
        gone = {target for target, state in task.states.items() if state == "draining"}
        assert gone == {"10.0.0.6"}
        stage.fake.kill(late)
        await asyncio.sleep(70)
        gone |= {target for target, state in task.states.items() if state == "draining"}
        assert gone == {"10.0.0.6", "10.0.0.9"}
        assert sum("left over" in each.deed for each in control.told(TriggerActed)) == 2


@pytest.mark.parametrize(("code", "warnings"), [("AccessDeniedException", 1), ("ThrottlingException", 0)])
async def test_reaping_that_fails(stage, code, warnings):
    """Without the permission one warning names it; what passes is tried once more and never told."""
    task = Task(stage)
    task.group.register("10.0.0.99", 8000)
    stage.clients.failures["ListTasks"] = ClientError(code)
    control = task.control(workers=1)
    async with task.worker(control, leads=True):
        await asyncio.sleep(100)
        told = control.told(TriggerImpaired)
        assert len(told) == warnings
        assert all("ecs:ListTasks" in each.remedy for each in told)
        assert task.states["10.0.0.99"] == "healthy"


def test_records_as_they_were_sent():
    """Fields that the client does not know are kept, at every depth; what it has parsed stands."""
    parsed = {"services": [{"name": "web", "createdAt": "parsed", "deployments": [{"id": 1}], "tags": [1, 2]}]}
    sent = [{"name": "web", "createdAt": 1.5, "new": 1, "deployments": [{"id": 1, "new": 2}], "tags": []}]
    (record,) = records_of({**parsed, AS_SENT: {"services": sent}}, "services")
    assert record == {
        "name": "web",
        "createdAt": "parsed",
        "new": 1,
        "deployments": [{"id": 1, "new": 2}],
        "tags": [1, 2],
    }
    assert records_of(parsed, "services") == parsed["services"]
    assert records_of({**parsed, AS_SENT: {}}, "services") == parsed["services"]
    assert records_of({}, "services") == []


def test_no_descriptor_is_left(folder):
    """Each worker closes its file, whatever happened."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    asyncio.run(_enter_and_leave())
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def _enter_and_leave():
    worker = LastOut("it")
    await worker.enter()
    worker.leave()
    worker.close()
