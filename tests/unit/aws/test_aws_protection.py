"""Scale-in protection: how long a lease may be, what the agent answers, and the loop around both on virtual time."""

import asyncio
import contextlib
import http.client
import json
import math
from random import Random

import pytest
from aws_fakes import RecordingControl

from starlette_drain import DrainCause, SettingsError
from starlette_drain._core.events import (
    DrainCancelled,
    DrainFinished,
    DrainReplanned,
    DrainStarted,
    SessionOpened,
    TriggerActed,
    TriggerImpaired,
    TriggerRestored,
    TriggerStoodDown,
)
from starlette_drain.aws.actions.protection import NotProtectable, TaskProtection, lease, read_answer
from starlette_drain.aws.api.errors import Incomplete
from starlette_drain.telemetry.base import Observer
from starlette_drain.testing import FakeAWS
from starlette_drain.testing.fake_aws import agent
from starlette_drain.triggers.base import Trigger

ENVIRON = {"ECS_AGENT_URI": "http://169.254.170.2/api/0123"}
MANUAL = DrainCause("manual", "asked for", at=1000.0)
DEPLOYMENT = DrainCause("service-deployment", "no traffic", at=1000.0)
HEALTH = DrainCause("target-health", "draining", at=1000.0)
STATE = DrainCause("task-state", "deactivating", at=1000.0)
SIGTERM = DrainCause("sigterm", "told to stop", at=1000.0, revocable=False)


@pytest.mark.parametrize(
    ("limit", "passed", "minutes"),
    [(3600, 0, 5), (3600, 3000, 5), (3600, 3300, 4), (3600, 3535, 1), (3600, 3536, 0), (3600, 9999, 0), (60, 0, 0)],
)
def test_how_long_a_lease_may_be(limit, passed, minutes):
    """Five minutes at the most, whole minutes, and never one that might end after the limit."""
    assert lease(limit, 1000.0, 1000.0 + passed) == minutes
    assert passed + 60 * minutes + 5 <= max(limit, passed + 5)


@pytest.mark.parametrize("wanted", [True, False])
def test_answers_that_say_yes(wanted):
    """What was wanted, and is so, is fine."""
    read_answer(200, {"protection": {"ProtectionEnabled": wanted, "TaskArn": "arn"}}, wanted=wanted)


@pytest.mark.parametrize(
    ("status", "answer", "kind", "words"),
    [
        (200, {"failure": {"Arn": "arn", "Detail": None, "Reason": "TASK_NOT_VALID"}}, NotProtectable, "no service"),
        (200, {"failure": {"Arn": "arn", "Reason": "DEPLOYMENT_BLOCKED"}}, Incomplete, "DEPLOYMENT_BLOCKED"),
        (400, {"error": {"Code": "AccessDeniedException", "Message": "x"}}, Incomplete, "ecs:UpdateTaskProtection"),
        (400, {"error": {"Code": "ThrottlingException"}}, Incomplete, "ThrottlingException"),
        (500, {"requestID": "x", "error": {"Code": "ServerException"}}, Incomplete, "ServerException"),
        (200, {"protection": {"ProtectionEnabled": False}}, Incomplete, "HTTP status 200"),
        (503, {}, Incomplete, "HTTP status 503"),
        (200, {"failure": "TASK_NOT_VALID", "protection": [], "error": 7}, Incomplete, "HTTP status 200"),
        (200, ["no object"], Incomplete, "HTTP status 200"),
        (200, None, Incomplete, "HTTP status 200"),
    ],
)
def test_answers_that_say_no(status, answer, kind, words):
    """Each way of failing has its word; only one of them is for ever."""
    with pytest.raises(Incomplete, match=words) as failed:
        read_answer(status, answer, wanted=True)
    assert type(failed.value) is kind


class Agent:
    """The agent of a task of a FakeAWS whose wall clock is the virtual one."""

    def __init__(self):
        fake = FakeAWS()
        self.task = fake.add_task(fake.add_service())
        self.asked = []
        self.held = []
        self.error = None
        self.answer = None
        self.url = "http://169.254.170.2/api/0123/task-protection/v1/state"

    async def __call__(self, url, body):
        """Answer as the agent does, and note until when the task is protected."""
        now = asyncio.get_running_loop().time()
        assert url == self.url
        self.asked.append((now, body))
        if self.error:
            raise self.error
        if self.answer:
            return self.answer
        status, answer = agent.protection(self.task, body)
        self.held.append((now, now + body["ExpiresInMinutes"] * 60 if body["ProtectionEnabled"] else None))
        return status, answer

    @property
    def until(self):
        """Until when the task is protected; None when it is not."""
        until = self.held[-1][1] if self.held else None
        return until if until and until > asyncio.get_running_loop().time() else None


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    """Let each test have a temporary directory of its own: what one has needed is no need of the next."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("starlette_drain.aws.actions.private_file.SHARED_MEMORY", "/nowhere")


@contextlib.asynccontextmanager
async def protecting(*, environ=ENVIRON, put=None, limit=3600, sessions=None):
    """Let a TaskProtection watch."""
    put = put or Agent()
    control = RecordingControl()
    protection = TaskProtection(limit=limit, sessions=sessions, put=put, environ=environ, rng=Random(7))
    watching = asyncio.create_task(protection.watch(control))
    await asyncio.sleep(1)
    try:
        yield protection, control, put
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


def started(cause=MANUAL):
    """Return the fact that a drain began."""
    return DrainStarted(1000.0, "d-1", cause, 5000.0, 10, "evenly")


@pytest.mark.anyio
@pytest.mark.parametrize("cause", [MANUAL, DEPLOYMENT])
@pytest.mark.parametrize("end", [DrainCancelled, DrainFinished])
async def test_held_while_draining(cause, end):
    """From the beginning to the end of a drain that ECS did not ask for, in leases that are renewed at half-time."""
    async with protecting() as (protection, control, put):
        assert isinstance(protection, Trigger)
        assert isinstance(protection, Observer)
        await asyncio.sleep(60)
        assert put.asked == []
        protection.notify(started(cause))
        for _ in range(60):
            await asyncio.sleep(10)
            assert put.until
        assert {body["ExpiresInMinutes"] for _, body in put.asked} == {5}
        assert 4 <= len(put.asked) <= 6
        assert protection.status(control.time())["protected_for"] > 100
        protection.notify(end(1.0, "d-1", None))
        await asyncio.sleep(1)
        assert put.asked[-1][1] == {"ProtectionEnabled": False}
        assert [each.deed.split()[0] for each in control.told(TriggerActed)] == ["protected", "released"]
        assert protection.status(control.time())["protected_for"] is None
    assert len([body for _, body in put.asked if not body["ProtectionEnabled"]]) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("cause", [HEALTH, STATE, SIGTERM])
async def test_not_when_ecs_ends_the_task(cause):
    """A drain that ECS began is not protected; one that ECS joins is not protected any more."""
    async with protecting() as (protection, _, put):
        protection.notify(started(cause))
        await asyncio.sleep(60)
        assert put.asked == []
        protection.notify(started())
        await asyncio.sleep(60)
        assert put.until
        protection.notify(DrainReplanned(1.0, "d-1", cause, 1.0, shortened=False, remaining=1, pacing=""))
        await asyncio.sleep(1)
        assert put.until is None


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [120, 600, 3600])
async def test_never_longer_than_its_limit(limit):
    """However long a drain takes, protection ends within the limit and does not begin again for the same need."""
    async with protecting(limit=limit) as (protection, control, put):
        began = control.time()
        protection.notify(started())
        await asyncio.sleep(3 * limit)
        assert put.held
        assert all(until is None or until <= began + limit for _, until in put.held)
        assert max(until for _, until in put.held if until) > began + limit - 130
        assert put.until is None


def longest_hold(put):
    """Return when protection was first asked for, and until when it was held at the latest."""
    return put.asked[0][0], max(until for _, until in put.held if until)


@pytest.mark.anyio
@pytest.mark.parametrize("lasting", [100, 250, 540])
async def test_another_process_goes_on_with_the_same_limit(lasting):
    """A worker that is recycled, or a process that starts again, does not begin the limit anew."""
    put, options = Agent(), {"limit": 600, "sessions": 100}
    for _ in range(8):
        async with protecting(put=put, **options) as (_, control, _):
            control.open = 101
            await asyncio.sleep(lasting)
    began, ended = longest_hold(put)
    assert ended <= began + 600


@pytest.mark.anyio
async def test_another_process_after_a_pause():
    """A process that starts when nobody has needed protection for a lease may hold it for the whole limit."""
    put, options = Agent(), {"limit": 600, "sessions": 100}
    for _ in range(2):
        async with protecting(put=put, **options) as (_, control, _):
            control.open = 101
            await asyncio.sleep(700)
            assert put.until is None
        await asyncio.sleep(311)
    assert len([each for _, each in put.asked if each["ProtectionEnabled"]]) > 6


@pytest.mark.anyio
@pytest.mark.parametrize("broken", ["a folder", "a link", "others may write it", "nonsense", "the future"])
async def test_a_memory_that_cannot_be_trusted(tmp_path, broken):
    """What is no private file of ours is neither read nor written, and what is no memory of ours counts for nothing."""
    async with protecting(limit=600) as (protection, control, _):
        protection.notify(started())
        await asyncio.sleep(1)
        assert protection.status(control.time())["scope"] == "task"
    (file,) = tmp_path.iterdir()
    text = file.read_text()
    match broken:
        case "a folder":
            file.unlink()
            file.mkdir()
        case "a link":
            file.rename(tmp_path / "elsewhere")
            file.symlink_to(tmp_path / "elsewhere")
        case "others may write it":
            file.chmod(0o622)
        case "nonsense":
            file.write_text("nan inf\n\0")
        case _:
            file.write_text("9e15 9e15")
    await asyncio.sleep(200)
    async with protecting(limit=600) as (protection, control, put):
        protection.notify(started())
        await asyncio.sleep(700)
        began, ended = longest_hold(put)
        assert began + 600 - 130 < ended <= began + 600
        foreign = broken in {"a folder", "a link", "others may write it"}
        assert protection.status(control.time())["scope"] == ("process" if foreign else "task")
    if foreign and file.is_file():
        assert file.read_text() == text


@pytest.mark.anyio
async def test_where_nothing_can_be_written(monkeypatch):
    """Without a directory to write to the limit holds for the process, and its status says so."""

    def none():
        raise FileNotFoundError

    monkeypatch.setattr("tempfile.gettempdir", none)
    async with protecting(limit=600) as (protection, control, put):
        protection.notify(started())
        await asyncio.sleep(700)
        began, ended = longest_hold(put)
        assert ended <= began + 600
        assert protection.status(control.time())["scope"] == "process"


@pytest.mark.anyio
async def test_a_read_only_file_system(monkeypatch, tmp_path):
    """Where the temporary directory is read-only the memory takes its place."""
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    monkeypatch.setattr("starlette_drain.aws.actions.private_file.SHARED_MEMORY", str(tmp_path))
    async with protecting() as (protection, control, _):
        protection.notify(started())
        await asyncio.sleep(1)
        assert protection.status(control.time())["scope"] == "task"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.anyio
async def test_where_it_is_remembered(tmp_path):
    """Each task, and each of its containers, for itself, in a file that only this user may read."""
    for container in ("0123", "4567"):
        environ = {"ECS_AGENT_URI": f"http://169.254.170.2/api/{container}"}
        async with protecting(environ=environ) as (protection, _, put):
            put.url = f"http://169.254.170.2/api/{container}/task-protection/v1/state"
            protection.notify(started())
            await asyncio.sleep(1)
    assert len(list(tmp_path.iterdir())) == 2
    assert {each.stat().st_mode & 0o777 for each in tmp_path.iterdir()} == {0o600}


@pytest.mark.anyio
async def test_held_while_many_sessions_are_open():
    """With a threshold the task is protected while more sessions are open, and given back when they are fewer."""
    async with protecting(sessions=100) as (protection, control, put):
        control.open = 100
        protection.notify(SessionOpened(1.0, None))
        await asyncio.sleep(30)
        assert put.asked == []
        control.open = 101
        await asyncio.sleep(11)
        assert put.until
        control.open = 50
        await asyncio.sleep(11)
        assert put.until is None


@pytest.mark.anyio
async def test_sessions_that_come_and_go():
    """Around the threshold the limit does not begin anew each time; only a pause of five minutes lets it."""
    async with protecting(limit=600, sessions=100) as (_, control, put):
        began = control.time()
        for _ in range(100):
            control.open = 101
            await asyncio.sleep(20)
            control.open = 99
            await asyncio.sleep(20)
        assert all(until is None or until <= began + 620 for _, until in put.held)
        await asyncio.sleep(310)
        control.open = 101
        await asyncio.sleep(20)
        assert put.until


@pytest.mark.anyio
async def test_given_back_at_the_end():
    """Whatever way the application ends, what is held is given back."""
    async with protecting() as (protection, _, put):
        protection.notify(started())
        await asyncio.sleep(30)
        assert put.until
    assert put.asked[-1][1] == {"ProtectionEnabled": False}
    assert put.until is None


@pytest.mark.anyio
async def test_given_back_although_the_answer_was_lost():
    """A wish whose answer was lost may have come true, so it is given back at the end, without holding that up."""
    async with protecting() as (protection, control, put):
        put.error = TimeoutError()
        protection.notify(started())
        await asyncio.sleep(60)
        (impaired,) = control.told(TriggerImpaired)
        assert "does not answer" in impaired.problem
    assert put.asked[-1][1] == {"ProtectionEnabled": False}


@pytest.mark.anyio
async def test_an_agent_that_fails():
    """A failure is told once and tried again with back-off, and once more when it works."""
    async with protecting() as (protection, control, put):
        put.answer = 400, {"error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}
        protection.notify(started())
        await asyncio.sleep(300)
        assert len(control.told(TriggerImpaired)) == 1
        assert 3 < len(put.asked) < 31
        assert "ThrottlingException" in protection.status(control.time())["last_error"]
        put.answer = None
        await asyncio.sleep(61)
        assert put.until
        assert len(control.told(TriggerRestored)) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("error", [http.client.IncompleteRead(b"{"), http.client.BadStatusLine("x"), ValueError()])
async def test_an_answer_that_breaks_off(error):
    """An agent whose answer is cut short is an agent that does not answer: tried again, and given back at the end."""
    async with protecting() as (protection, control, put):
        put.error = error
        protection.notify(started())
        await asyncio.sleep(60)
        assert type(error).__name__ in control.told(TriggerImpaired)[0].problem
        put.error = None
        await asyncio.sleep(61)
        assert put.until
        put.error = error
    assert put.asked[-1][1] == {"ProtectionEnabled": False}
    assert "could not be released" in protection.status(control.time())["last_error"]


@pytest.mark.anyio
async def test_a_task_that_cannot_be_protected():
    """A task of no service says so once, and asks no more."""
    async with protecting() as (protection, control, put):
        put.task.service = None
        protection.notify(started())
        await asyncio.sleep(300)
        assert "no service" in control.told(TriggerStoodDown)[0].why
        assert [body["ProtectionEnabled"] for _, body in put.asked] == [True, False]


@pytest.mark.anyio
async def test_without_an_agent():
    """Where there is no ECS agent there is nothing to do."""
    async with protecting(environ={}) as (protection, control, put):
        protection.notify(started())
        await asyncio.sleep(60)
        assert put.asked == []
        assert protection.status(control.time())["state"] == "stood down"
        assert json.dumps(protection.status(control.time()))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("limit", value) for value in (0, 59, 172_801, math.nan, math.inf, "300", True, None)),
        *(("sessions", value) for value in (-1, 2.5, "5", True)),
    ],
)
def test_limits_that_cannot_work(name, value):
    """They are refused where they are given."""
    with pytest.raises(SettingsError, match=f"^{name}=.* cannot work: give "):
        TaskProtection(**{"limit": 600, name: value})


@contextlib.asynccontextmanager
async def worker(put):
    """Let one worker of two attend; yields a stack for its watch, too."""
    control = RecordingControl()
    control.workers = 2
    protection = TaskProtection(limit=3600, sessions=5, put=put, environ=ENVIRON, rng=Random(7))
    async with protection.attend(control), contextlib.AsyncExitStack() as term:
        yield protection, control, term


@contextlib.asynccontextmanager
async def watched(protection, control):
    """Let a protection watch."""
    watching = asyncio.create_task(protection.watch(control))
    await asyncio.sleep(1)
    yield
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching


@pytest.mark.anyio
async def test_a_leader_that_is_deposed_gives_nothing_back():
    """The worker that hung and returns ends its watch; the one that protects now goes on, and gives back in the end."""
    put = Agent()
    async with worker(put) as (one, hung, term), worker(put) as (other, next_leader, _):
        hung.open = next_leader.open = 10
        await term.enter_async_context(watched(one, hung))
        assert put.until
        async with watched(other, next_leader):
            await term.aclose()  # it has returned, and another leads
            await asyncio.sleep(600)
            assert put.until
            assert {body["ProtectionEnabled"] for _, body in put.asked} == {True}
            next_leader.open = 0
            await asyncio.sleep(20)
            assert put.until is None


@pytest.mark.anyio
async def test_the_next_leader_gives_back_what_the_first_holds():
    """What a leader that died had asked for is given back as soon as it is not needed, not when it has run out."""
    put = Agent()
    async with worker(put) as (other, next_leader, _):
        async with worker(put) as (one, first, death):
            first.open = 10
            await death.enter_async_context(watched(one, first))
        assert put.until, "its sessions have gone to nobody yet"
        async with watched(other, next_leader):
            await asyncio.sleep(5)
            assert put.until is None


@pytest.mark.anyio
async def test_the_last_worker_gives_protection_back():
    """Where all workers leave it is given back, by the last one, whether it leads or not."""
    put = Agent()
    async with worker(put):
        async with worker(put) as (one, first, term):
            first.open = 10
            await term.enter_async_context(watched(one, first))
        assert put.until
    assert put.until is None
    assert put.asked[-1][1] == {"ProtectionEnabled": False}
