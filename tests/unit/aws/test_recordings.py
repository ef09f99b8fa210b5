"""Recordings of drains, ours and those that users send us: played again, each gives the same drain."""

import asyncio
import gzip
import json
import logging
import os
from pathlib import Path
from random import Random

import pytest
from aws_fakes import ON_ECS, ClientError, MetadataOf, ScriptedClients

from starlette_drain import Drain, Session
from starlette_drain._core.events import DrainFinished, DrainStarted, SignalReceived
from starlette_drain.aws.session import AWSSession
from starlette_drain.aws.sources.service_deployment import ServiceDeploymentTrigger
from starlette_drain.aws.sources.target_health import TargetHealthTrigger
from starlette_drain.aws.sources.task_state import EcsTaskTrigger
from starlette_drain.telemetry.recorder import Recorder
from starlette_drain.testing import (
    FakeAWS,
    FakeGateway,
    FakeRegistration,
    FakeTaskSet,
    RecordingObserver,
)
from starlette_drain.testing.fake_aws.replay import read_recording
from starlette_drain.tools.cli import main

pytestmark = pytest.mark.anyio

FOLDER = Path(__file__).parents[2] / "recordings"
RECORDINGS = sorted(FOLDER.glob("*.jsonl"))
TRIGGERS = {each.name: each for each in (TargetHealthTrigger, EcsTaskTrigger, ServiceDeploymentTrigger)}
SECRETS = ("streams-of-acme", "10.20.30.40", "2001:db8::77", "i-0123456789abcdef0", "acme-cluster", "987654321098")


class Guest(Session):
    """A session that leaves as soon as it is asked to."""

    def __init__(self, drain):
        super().__init__("/streams-of-acme", drain.host.engine.time())
        self._drain = drain

    def begin_close(self, _policy):
        """Go at once."""
        self._drain.host.engine.closed(self, forced=False)


def line_of(lines, what):
    """Return the first line of a kind."""
    return next((each for each in lines if each["what"] == what), None)


async def play(fake, options, sessions, seconds, *, recorder=None):
    """Let a drain watch what *fake* shows; return what it told."""
    clients, task = ScriptedClients(fake), fake.tasks[0] if fake.tasks else None
    environ = ON_ECS if task else {}
    session = AWSSession(clients=clients, environ=environ, rng=Random(7), fetch=MetadataOf(task), record=recorder)
    sources = options.pop("sources", ["target-health"])
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    if not task:
        given["target_group_arn"] = tuple(fake.groups)
    told = RecordingObserver()
    observers = [told, recorder] if recorder else [told]
    drain = Drain(triggers=[TRIGGERS[each](session) for each in sources], observers=observers, rng=Random(7), **given)
    async with drain.run():
        for _ in range(sessions):
            guest = Guest(drain)
            drain.host.engine.track(guest)
            drain.host.engine.opened(guest)
        await asyncio.sleep(seconds)
    return told


def virtual():
    """Return the options of a FakeAWS on virtual time."""
    return {"clock": lambda: asyncio.get_running_loop().time()}


@pytest.mark.parametrize("file", RECORDINGS, ids=[each.stem for each in RECORDINGS])
async def test_a_recording_played_gives_the_same_drain(file):
    """It begins within two polls of when it began, by the same trigger, and as many are asked to leave in as long."""
    lines = read_recording(file)
    options, started, drained = line_of(lines, "start")["options"], line_of(lines, "drain"), line_of(lines, "drained")
    begin = asyncio.get_running_loop().time()
    told = await play(FakeAWS.replay(file, **virtual()), options, started["sessions"], lines[-1]["at"] + 60)
    within = 2 * options.get("poll_interval", 5.0) + 0.5
    (start,) = told.of(DrainStarted)
    assert start.cause.trigger == started["trigger"]
    assert start.at - begin == pytest.approx(started["at"], abs=within)
    assert start.deadline - begin == pytest.approx(started["at"] + started["window"], abs=within)
    (end,) = told.of(DrainFinished)
    assert end.report.outcome == drained["outcome"]
    assert end.report.shed == drained["shed"]
    assert end.report.duration == pytest.approx(drained["duration"], abs=within + 0.1 * drained["duration"])


def test_there_are_recordings():
    """One of FakeAWS, and two of an endpoint that is not ours: its target vanishes, or is shown as draining."""
    if FOLDER.exists() or "STARLETTE_DRAIN_SOURCES" not in os.environ:
        assert {"fake-aws", "moto", "moto-draining"} <= {each.stem for each in RECORDINGS}


def a_service(**options):
    """Return a FakeAWS with a service, and its task."""
    fake = FakeAWS(**virtual())
    service = fake.add_service("streams-of-acme", cluster="acme-cluster", delay=60, container="streams-of-acme")
    return fake, fake.add_task(service, addresses=("10.20.30.40",), **options)


def recorder_to(caplog):
    """Return a recorder that writes to a log, and what reads it."""
    caplog.set_level(logging.INFO, logger="starlette_drain.record")
    return Recorder(key=b"0123456789abcdef"), lambda: [
        json.loads(each.getMessage()) for each in caplog.records if each.name == "starlette_drain.record"
    ]


async def test_what_is_written(caplog):
    """States, the task, its balancers, the delay, the drain and each session that ends in it: and no name of it all."""
    fake, task = a_service(ipv6_addresses=("2001:db8::77",))
    recorder, lines = recorder_to(caplog)
    asyncio.get_running_loop().call_later(10, fake.deactivate, task)
    await play(fake, {"poll_interval": 1.0, "poll_share": 1.0}, 5, 100, recorder=recorder)
    kinds = {each["what"] for each in lines()}
    assert kinds == {
        *("start", "metadata", "task", "service", "revision", "group", "delay", "targets"),
        *("drain", "drained", "asked", "closed"),
    }
    states = [each["changed"][0][2] for each in lines() if each["what"] == "targets" and each["changed"]]
    assert states == ["healthy", "draining"]
    assert sum(each["what"] == "closed" for each in lines()) == 5
    text = json.dumps(lines())
    assert not [each for each in SECRETS if each in text]
    assert len(lines()) < 30  # what is no news is not written


async def test_a_recording_of_a_recording(caplog, tmp_path):
    """What is recorded of a replay says what the recording says, but for the pseudonyms."""
    fake, task = a_service()
    recorder, lines = recorder_to(caplog)
    asyncio.get_running_loop().call_later(10, fake.deactivate, task)
    options = {"poll_interval": 1.0, "poll_share": 1.0}
    await play(fake, dict(options), 5, 100, recorder=recorder)
    first = lines()
    file = tmp_path / "first.jsonl"
    file.write_text("\n".join(map(json.dumps, first)))
    caplog.clear()
    recorder, lines = recorder_to(caplog)
    await play(FakeAWS.replay(file, **virtual()), dict(options), 5, 100, recorder=recorder)
    what = [each["what"] for each in first if each["what"] not in ("asked", "closed")]
    assert [each["what"] for each in lines() if each["what"] not in ("asked", "closed", "task")] == [
        each for each in what if each != "task"
    ]


def balanced(fake, kind):
    """Return a task of a service whose balancers are found in another way, and what takes it out."""
    group = fake.add_target_group("acme", delay=60)
    service_options, options = {}, {}
    match kind:
        case "gateway":
            service_options["gateways"] = (FakeGateway(group),)
        case "express":
            service_options["express"] = (group,)
        case "task set":
            service_options["registrations"] = ()
            options = {"started_by": "ecs-svc/1", "containers": {"app": (8000,)}}
        case "bridge":
            group.target_type = "instance"
            options = {"network_mode": "bridge", "instance_id": "i-0123456789abcdef0"}
            options |= {"host_ports": {8000: 32768}, "ipv6_ports": {8000: 32770}, "udp_ports": {8000: 32769}}
            service_options["registrations"] = (FakeRegistration(group, "app", 8000),)
        case _:
            alternate = fake.add_target_group("other", delay=60)
            service_options["registrations"] = (FakeRegistration(group, "app", 8000, alternate),)
    service = fake.add_service("acme", **service_options)
    if kind == "task set":
        service.controller = "EXTERNAL"
        service.task_sets = [FakeTaskSet("1", [FakeRegistration(group, "app", 8000)])]
    task = fake.add_task(service, **options)

    def take_out():
        if kind == "deployment":
            service.strategy = "BLUE_GREEN"
            fake.deploy(service, bake=2).stage = "BAKE_TIME"
            return
        if kind == "throttled":
            fake.fail("throttle", action="DescribeTargetHealth", times=3)
        fake.deactivate(task)

    return take_out


@pytest.mark.parametrize("kind", ["gateway", "express", "task set", "bridge", "deployment", "throttled"])
async def test_what_is_recorded_can_be_played(kind, caplog, tmp_path):
    """However a task finds its balancers, and whatever fails: the same drain, with as much time, and no names."""
    fake = FakeAWS(**virtual())
    take_out = balanced(fake, kind)
    recorder, lines = recorder_to(caplog)
    begin = asyncio.get_running_loop().time()
    asyncio.get_running_loop().call_later(40, take_out)
    options = {"poll_interval": 1.0, "poll_share": 1.0, "sources": ["target-health"]}
    if kind == "deployment":
        options["sources"] = ["service-deployment"]
    within = 16 if kind == "deployment" else 3  # two polls
    told = await play(fake, dict(options), 5, 200, recorder=recorder)
    (recorded,) = told.of(DrainStarted)
    file = tmp_path / "recording.jsonl"
    file.write_text("\n".join(map(json.dumps, lines())))
    assert not [each for each in (*SECRETS, "acme", "0123456789012345678") if each in file.read_text()]
    again = asyncio.get_running_loop().time()
    (played,) = (await play(FakeAWS.replay(file, **virtual()), dict(options), 5, 200)).of(DrainStarted)
    assert played.cause.trigger == recorded.cause.trigger
    assert played.deadline - again == pytest.approx(recorded.deadline - begin, abs=within)
    assert played.at - again == pytest.approx(recorded.at - begin, abs=16 if within > 3 else 10)


async def test_a_replay_begins_with_the_first_request():
    """Not when FakeAWS begins to serve: a server needs time to start."""
    fake = FakeAWS.replay(RECORDINGS[0])
    fake._tick()
    assert not fake._replay.has_begun
    fake.advance()
    assert fake._replay.has_begun


async def test_only_the_own_task_is_recorded(caplog):
    """A task that registers itself also asks about others, whose states are not its own."""
    _, task = a_service()
    recorder, lines = recorder_to(caplog)
    recorder.answer("metadata", {}, task.metadata())
    for arn, status in ((task.arn, "RUNNING"), ("another", "STOPPED")):
        recorder.answer("DescribeTasks", {}, {"tasks": [{"taskArn": arn, "lastStatus": status}]})
    assert [each["last"] for each in lines() if each["what"] == "task"] == ["RUNNING"]


async def test_a_call_that_keeps_failing_is_written_once(caplog):
    """Its failure, another reason, and its recovery."""
    recorder, lines = recorder_to(caplog)
    for kind in ("throttled", "throttled", "slow"):
        recorder.failure("DescribeClusters", {"clusters": []}, kind)
    recorder.failure("DescribeClusters", {"clusters": ["other"]}, "slow")
    for name in ([], ["other"], []):
        recorder.answer("DescribeClusters", {"clusters": name}, {})
    found = [(each["what"], each.get("why")) for each in lines()[1:]]
    assert found == [("failed", "throttled"), ("failed", "slow"), ("recovered", None)]


async def test_signals_and_failures_are_written(caplog):
    """A signal, and a call that failed, by its kind; what cannot be read breaks nothing."""
    fake, task = a_service()
    recorder, lines = recorder_to(caplog)
    clients = ScriptedClients(fake)
    clients.failures["DescribeTargetHealth"] = ClientError("ThrottlingException")
    session = AWSSession(clients=clients, environ=ON_ECS, rng=Random(7), fetch=MetadataOf(task), record=recorder)
    drain = Drain(triggers=[TargetHealthTrigger(session)], observers=[recorder])
    async with drain.run():
        await asyncio.sleep(20)
    recorder.notify(SignalReceived(asyncio.get_running_loop().time(), "SIGTERM"))
    recorder.answer("DescribeTargetHealth", {}, {"unexpected": 1})
    found = {each["what"]: each for each in lines()}
    assert (found["failed"]["of"], found["failed"]["why"]) == ("DescribeTargetHealth", "throttled")
    assert found["signal"]["signal"] == "SIGTERM"
    assert found["unreadable"]["why"] == "KeyError"


def test_pseudonyms_differ_by_key_and_keep_their_kind():
    """An address stays an address, so that a recording can be played; another process has other pseudonyms."""
    one, other = Recorder(key=b"1" * 16), Recorder(key=b"2" * 16)
    for name, begin in (
        ("10.20.30.40", "10."),
        ("2001:db8::77", "fd00::"),
        ("i-0123456789abcdef0", "i-"),
        ("web", "n"),
    ):
        assert one.pseudonym(name) == one.pseudonym(name) != other.pseudonym(name)
        assert one.pseudonym(name).startswith(begin)
        assert name not in one.pseudonym(name)


WRAPPED = (
    "{}",
    "INFO:     {}",
    "2026-11-28T20:00:00.000Z {}",
    '{{"timestamp": 1, "message": {}}}',
    '{{"events": [{{"log": {{"message": {}}}}}]}}',
)


def as_csv(text):
    """Return a row as Logs Insights exports it."""
    return '1,"{}"'.format(text.replace('"', '""'))


def in_json(text):
    """Return the line of a JSON formatter."""
    return json.dumps({"level": "INFO", "message": text})


@pytest.mark.parametrize("inner", [str, in_json, lambda text: json.dumps({"log": in_json(text)})])
@pytest.mark.parametrize("outer", [str, as_csv, lambda text: json.dumps({"events": [{"message": text}]}, indent=4)])
def test_the_command_takes_any_export(outer, inner, tmp_path):
    """Also indented JSON and CSV, of lines that are themselves in JSON, which may be in JSON."""
    made = {"drain_record": 1, "run": "aa", "at": 0, "what": "start", "options": {"sources": ["target-health"]}}
    log, file = tmp_path / "log.txt", tmp_path / "recording.jsonl"
    log.write_text(outer(inner(json.dumps(made))))
    assert main(["record", str(log), "--output", str(file)]) == 0
    assert read_recording(file) == [made]


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_the_command_takes_lines_out_of_any_log(wrapped, tmp_path, capsys):
    """As they are, with a prefix, in a string of another object; in order, each once; of the longest run by default."""
    made = [
        {"drain_record": 1, "run": run, "at": at, "what": "start" if not at else "task"}
        for run, last in (("aa", 3), ("bb", 1))
        for at in range(last + 1)
    ]
    texts = [json.dumps(each) for each in reversed([*made, made[0]])]
    lines = [wrapped.format(json.dumps(each) if "message" in wrapped else each) for each in texts]
    log = tmp_path / "log.txt"
    log.write_text("\n".join(["Traceback {", *lines, "{broken"]))
    file = tmp_path / "recording.jsonl"
    assert main(["record", str(log), "--output", str(file)]) == 0
    assert read_recording(file) == made[:4]
    said = capsys.readouterr().err
    assert "aa: 3 s; 3 task, 1 start" in said
    assert "--run bb" in said
    assert main(["record", str(log), "--run", "bb"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["record", str(log), "--run", "cc"]) == 2


def test_a_log_without_a_recording(tmp_path, capsys):
    """The command says what to do, and FakeAWS takes no file that is none."""
    log = tmp_path / "log.txt"
    log.write_text('{"message": "hello"}\n')
    assert main(["record", str(log)]) == 1
    assert "DRAIN_RECORD=1" in capsys.readouterr().err
    with gzip.open(tmp_path / "log.gz", "wt") as packed:
        packed.write("text")
    assert main(["record", str(tmp_path / "log.gz")]) == 1
    assert "gunzip" in capsys.readouterr().err
    with pytest.raises(ValueError, match="is not a recording"):
        FakeAWS.replay(log)
