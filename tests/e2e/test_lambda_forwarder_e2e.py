"""The Lambda function against the example server on a real uvicorn, with FakeAWS in the place of AWS, and with moto."""

import contextlib
import copy
import json
import logging
import socket
import ssl
import threading
import traceback
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from server_process import TOKEN, eventually
from websocket_clients import listeners

from example_app import lambda_forwarder
from starlette_drain.testing import FakeAWS

EVENTS = Path(__file__).parent / "ecs_events"
"""In the shape of the samples in AWS's documentation of ECS task state change events."""

OPTIONS = ("WINDOW", "PATH", "PORT", "SCHEME", "TLS_NAME", "CA")

NOT_LEAVING = [
    ("PROVISIONING", "RUNNING"),
    ("PENDING", "RUNNING"),
    ("ACTIVATING", "RUNNING"),
    ("RUNNING", "RUNNING"),
    ("STOPPING", "STOPPED"),
    ("DEPROVISIONING", "STOPPED"),
    ("STOPPED", "STOPPED"),
]


@pytest.fixture
def event():
    """Return a fresh event: ECS has begun to deactivate the task."""
    found = json.loads((EVENTS / "deactivating.json").read_text())
    found["time"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return found


@pytest.fixture
def fake():
    """Return a FakeAWS with one task, on this machine, and the secret."""
    fake = FakeAWS()
    fake.add_task(fake.add_service("streams", delay=60), addresses=("127.0.0.1",))
    fake.secrets["drain-token"] = TOKEN
    return fake


@pytest.fixture
def server(serve):
    """Start the example server."""
    return serve("example:app", env={"DRAIN_ADMIN_TOKEN": TOKEN, "DRAIN_WINDOW": "30"})


@pytest.fixture
def cold(fake, monkeypatch):
    """Return the handler in the environment of a cold start, for a port that a test has to set."""
    monkeypatch.setattr(lambda_forwarder, "_clients", {})
    monkeypatch.setattr(lambda_forwarder, "_token", None)
    monkeypatch.setattr(lambda_forwarder, "FRESH", 0.0)  # so that ECS is asked about all of them
    monkeypatch.setenv("TOKEN_SECRET", "drain-token")
    for variable in ("AWS_PROFILE", "AWS_SESSION_TOKEN", *(f"DRAIN_{each}" for each in OPTIONS)):
        monkeypatch.delenv(variable, raising=False)
    with fake.serve() as endpoint:
        for variable, value in endpoint.environment().items():
            monkeypatch.setenv(variable, value)
        yield lambda_forwarder.handler


@pytest.fixture
def function(cold, server, monkeypatch):
    """Return the handler, and let it reach the example server."""
    monkeypatch.setenv("DRAIN_PORT", str(server.port))
    return cold


def state_of(server):
    """Return what the server says of its drain."""
    status, answer = server.drain()
    assert status == 200
    return answer


@pytest.mark.anyio
async def test_a_task_is_drained_end_to_end(fake, server, function, event):
    """DEACTIVATING drains the task: its devices are asked to leave with 1012, and the cause says who asked and why."""
    fake.deactivate(fake.tasks[0])
    async with listeners(server.websocket(f"/devices/{number}") for number in range(10)) as devices:
        told = function(event)
        assert (told["outcome"], told["status"]) == ("asked", 202)
        assert told["task"] == fake.tasks[0].arn
        progress = state_of(server)["drain"]
        assert progress["causes"][0]["reason"] == "ECS wants the task to end (DEACTIVATING, ServiceSchedulerInitiated)"
        server.drain("POST", window=1)
        assert {(await each.close_policy()).code for each in devices} == {1012}
    assert server.trouble == []


@pytest.mark.parametrize("code", ["SpotInterruption", "TerminationNotice"])
def test_a_spot_interruption(fake, server, function, event, code):
    """The Spot warning drains the task while it is still RUNNING, within what is left of the two minutes."""
    task = fake.tasks[0]
    task.desired_status, task.stop_code = "STOPPED", code
    event["detail"] |= {"lastStatus": "RUNNING", "stopCode": code, "stoppedReason": "Your Spot Task was interrupted."}
    event["time"] = (datetime.now(UTC) - timedelta(seconds=90)).isoformat()
    assert function(event)["outcome"] == "asked"
    report = state_of(server)["report"]  # nobody was connected, so it is over at once
    assert 10 < report["window"] < 16
    assert code in report["causes"][0]["reason"]


def test_the_window_of_the_function(fake, server, function, event, monkeypatch):
    """DRAIN_WINDOW counts from ECS's decision, so the age of the event is taken off."""
    monkeypatch.setenv("DRAIN_WINDOW", "285")
    fake.deactivate(fake.tasks[0])
    event["time"] = (datetime.now(UTC) - timedelta(seconds=60)).isoformat()
    function(event)
    assert state_of(server)["report"]["window"] == pytest.approx(225, abs=3)


@pytest.mark.parametrize("age", [0, 20, 45])
def test_a_late_event(fake, server, function, event, age):
    """Without a window of the function the task takes its own, less the time that has passed since ECS decided."""
    fake.deactivate(fake.tasks[0])
    event["time"] = (datetime.now(UTC) - timedelta(seconds=age)).isoformat()
    assert function(event)["outcome"] == "asked"
    report = state_of(server)["report"]
    assert report["window"] == pytest.approx(max(0, 30 - age), abs=3)
    assert report["detection_lag"] == pytest.approx(age, abs=3)


def test_repeated_events(fake, server, function, event):
    """An event that comes again, with the same version, is answered 200 and changes nothing; the token is read once."""
    fake.deactivate(fake.tasks[0])
    outcomes = [function(event) for _ in range(3)]
    assert [each["status"] for each in outcomes] == [202, 200, 200]
    assert fake.calls["GetSecretValue"] == 1
    assert len(state_of(server)["report"]["causes"]) == 1


@pytest.mark.parametrize(("last", "desired"), NOT_LEAVING)
def test_events_that_say_nothing_of_leaving(fake, server, function, event, last, desired):  # noqa: PLR0917
    """What a task is on its way up, and when it is past saving, asks nobody anything: no call to AWS, no drain."""
    fake.deactivate(fake.tasks[0])
    event["detail"] |= {"lastStatus": last, "desiredStatus": desired}
    assert function(event)["outcome"] == "ignored"
    assert not fake.calls
    assert state_of(server)["state"] == "serving"


def test_events_of_another_kind(server, function, event):
    """What is no task state change, or has no detail, is ignored."""
    for other in ({}, {**event, "detail-type": "ECS Deployment State Change"}, {**event, "detail": {}}):
        assert function(other)["outcome"] == "ignored"
    assert state_of(server)["state"] == "serving"


def test_out_of_order(fake, server, function, event):
    """An older event that comes after the one that counts is ignored, and takes nothing back."""
    fake.deactivate(fake.tasks[0])
    older = copy.deepcopy(event)
    older["detail"] |= {"lastStatus": "RUNNING", "desiredStatus": "RUNNING", "version": 4}
    function(event)
    assert function(older)["outcome"] == "ignored"
    assert state_of(server)["state"] == "drained"


@pytest.mark.parametrize("end", ["stopped", "forgotten"])
def test_late_events(fake, server, function, event, end):
    """An event about a task that is gone drains nobody, even though its address belongs to another task by now."""
    if end == "stopped":
        fake.tasks[0].last_status = fake.tasks[0].desired_status = "STOPPED"
    else:
        event["time"] = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
        fake.add_task(fake.services[0], addresses=("127.0.0.1",))
        del fake.tasks[0]
    assert function(event)["outcome"] == "gone"
    assert state_of(server)["state"] == "serving"


def test_a_task_that_serves_on(server, function, event):
    """A record that is as new as the event counts: a task that is to run is not drained, whatever an event says."""
    event["detail"]["version"] = 3
    assert function(event)["outcome"] == "gone"
    assert state_of(server)["state"] == "serving"


def test_a_task_that_does_not_answer(fake, server, function, event):
    """While the task still runs, Lambda is made to try again; when it is gone meanwhile, there is nothing to do."""
    task = fake.tasks[0]
    fake.deactivate(task)
    server.signal()
    server.wait()
    with pytest.raises(lambda_forwarder.NotAskedYet, match=r"at 127\.0\.0\.1 was not asked to leave"):
        function(event)
    described = []

    class Ending:
        def describe_tasks(self, **_names):
            described.append(task.last_status)
            record = task.record()
            task.last_status = "STOPPED"
            return {"tasks": [record]}

    lambda_forwarder._clients["ecs"] = Ending()
    assert function(event)["outcome"] == "gone"
    assert described == ["DEACTIVATING", "STOPPED"]


def test_ecs_that_throttles(fake, server, function, event):
    """An error of AWS is raised, so that Lambda tries again; nothing was drained."""
    fake.deactivate(fake.tasks[0])
    fake.fail("deny", action="DescribeTasks")
    with pytest.raises(Exception, match="AccessDenied"):
        function(event)
    assert state_of(server)["state"] == "serving"
    fake.recover()
    assert function(event)["status"] == 202


def test_a_token_that_was_rotated(fake, server, function, event):
    """A token that is refused is read again, once in a call of the function; one that stays wrong is raised."""
    fake.deactivate(fake.tasks[0])
    fake.secrets["drain-token"] = "yesterdays-admin-token"
    with pytest.raises(lambda_forwarder.NotAskedYet, match="401"):
        function(event)
    fake.secrets["drain-token"] = json.dumps({"token": TOKEN})
    assert function(event)["status"] == 202
    assert fake.calls["GetSecretValue"] == 2


class Stranger(BaseHTTPRequestHandler):
    """Somebody else at the address of the task, who writes down what is asked and gives a fixed answer."""

    asked: list
    answer: tuple

    def do_POST(self):
        """Answer."""
        self.asked.append(self.headers["Authorization"])
        status, headers, body = self.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        """Answer; what is redirected comes as a GET."""
        self.do_POST()

    def log_message(self, *_arguments):
        """Be quiet."""


@contextlib.contextmanager
def a_stranger(*answer, at="127.0.0.1", tls=None):
    """Let a stranger answer; yields its port and what it is asked."""
    kind = type("Stranger", (Stranger,), {"asked": [], "answer": answer})
    family = socket.AF_INET6 if ":" in at else socket.AF_INET
    with type("Server", (ThreadingHTTPServer,), {"address_family": family})((at, 0), kind) as http:
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            http.socket = context.wrap_socket(http.socket, server_side=True)
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield http.server_address[1], kind.asked
        finally:
            http.shutdown()
            thread.join()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(fake, cold, event, monkeypatch, status):
    """A redirect is a failure like any other, and the token goes nowhere else."""
    fake.deactivate(fake.tasks[0])
    with (
        a_stranger(200, {}, b'{"state": "draining"}') as (elsewhere, leaked),
        a_stranger(status, {"Location": f"http://localhost:{elsewhere}/drain"}, b"") as (port, asked),
    ):
        monkeypatch.setenv("DRAIN_PORT", str(port))
        with pytest.raises(lambda_forwarder.NotAskedYet, match=str(status)):
            cold(event)
        assert (len(asked), leaked) == (1, [])


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"welcome"),
        (200, b""),
        (200, b'["draining"]'),
        (200, b'{"state": "serving"}'),
        (202, b"{}"),
        (201, b'{"state": "draining"}'),
        (204, b""),
        (403, b'{"error": "through a proxy"}'),
        (404, b"not here"),
        (500, b"sorry"),
    ],
)
def test_another_application_was_not_asked(fake, cold, event, monkeypatch, answer):
    """Only the answer of a task that drains counts: any other is raised, so that Lambda tries again."""
    fake.deactivate(fake.tasks[0])
    status, body = answer
    with a_stranger(status, {}, body) as (port, asked):
        monkeypatch.setenv("DRAIN_PORT", str(port))
        with pytest.raises(lambda_forwarder.NotAskedYet, match="was not asked to leave"):
            cold(event)
        assert len(asked) == 1


def test_an_answer_that_breaks_off(fake, cold, event, monkeypatch):
    """A connection that is lost in the middle of the answer is a failure like any other."""
    fake.deactivate(fake.tasks[0])
    with a_stranger(200, {"Content-Length": "1000"}, b'{"state": "draining"}') as (port, _):
        monkeypatch.setenv("DRAIN_PORT", str(port))
        with pytest.raises(lambda_forwarder.NotAskedYet, match="IncompleteRead"):
            cold(event)


@pytest.mark.parametrize("secret", ["{}\n", " {}\r\n", '{{"token": "{}\\n"}}\n'])
def test_a_secret_that_ends_in_a_newline(fake, function, event, secret):
    """What an editor or a shell has put around the token is taken off."""
    fake.deactivate(fake.tasks[0])
    fake.secrets["drain-token"] = secret.format(TOKEN)
    assert function(event)["status"] == 202


@pytest.mark.parametrize("secret", ["first-line-of-it\nsecond-line", "tokén-tokén-tokén", "two-words of-it", ""])
def test_a_secret_that_is_no_token(fake, cold, event, capsys, secret):
    """A secret that cannot be sent is said to be wrong, and never shown: what is raised stands in the log."""
    fake.deactivate(fake.tasks[0])
    fake.secrets["drain-token"] = secret
    with pytest.raises(lambda_forwarder.NotAskedYet, match="no token") as raised:
        cold(event)
    logged = "".join(traceback.format_exception(raised.value)) + "".join(capsys.readouterr())
    assert not any(part in logged for part in secret.split())


@pytest.fixture
def certificate(tmp_path):
    """Return a file with a key and its self-signed certificate, which names task.internal and no address."""
    pytest.importorskip("cryptography")
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "task.internal")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(1))
        .not_valid_after(now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("task.internal")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    file = tmp_path / "task.pem"
    file.write_bytes(pem + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.mark.parametrize("name", ["task.internal", "other.internal", None])
def test_https_to_the_task(fake, cold, event, certificate, monkeypatch, name):  # noqa: PLR0917
    """The token is sent where the certificate is trusted and names the task as it is set, and nowhere else."""
    fake.deactivate(fake.tasks[0])
    monkeypatch.setenv("DRAIN_SCHEME", "https")
    monkeypatch.setenv("DRAIN_CA", str(certificate))
    if name:
        monkeypatch.setenv("DRAIN_TLS_NAME", name)
    with a_stranger(202, {}, b'{"state": "draining"}', tls=certificate) as (port, asked):
        monkeypatch.setenv("DRAIN_PORT", str(port))
        if name == "task.internal":
            assert cold(event)["status"] == 202
            assert asked == [f"Bearer {TOKEN}"]
        else:
            with pytest.raises(lambda_forwarder.NotAskedYet, match="certificate"):
                cold(event)
            assert asked == []


def test_a_task_without_an_ipv4_address(fake, cold, event, monkeypatch):
    """In an IPv6-only subnet the task is told at its IPv6 address."""
    task = fake.tasks[0]
    task.addresses, task.ipv6_addresses = (), ("::1",)
    fake.deactivate(task)
    with a_stranger(202, {}, b'{"state": "draining"}', at="::1") as (port, asked):
        monkeypatch.setenv("DRAIN_PORT", str(port))
        assert cold(event)["status"] == 202
        assert asked == [f"Bearer {TOKEN}"]


def test_addresses():
    """Containers name the addresses, attachments name them too, IPv4 comes first, and bridge mode has none."""
    ipv4 = {"containers": [{"networkInterfaces": [{"privateIpv4Address": "10.0.0.5", "ipv6Address": "2001:db8::5"}]}]}
    eni = {"attachments": [{"type": "eni", "details": [{"name": "privateIPv4Address", "value": "10.0.0.6"}]}]}
    ipv6 = {"containers": [{"networkInterfaces": [{"ipv6Address": "2001:db8::5"}]}]}
    assert lambda_forwarder._addresses(ipv4) == ["10.0.0.5", "2001:db8::5"]
    assert lambda_forwarder._addresses(eni) == ["10.0.0.6"]
    assert lambda_forwarder._addresses(ipv6) == ["2001:db8::5"]
    assert lambda_forwarder._addresses({"containers": [{"networkBindings": []}]}) == []


def test_a_task_in_bridge_mode(fake, function, event):
    """A task without an address of its own is told of and not tried again."""
    task = fake.tasks[0]
    task.network_mode = "bridge"
    fake.deactivate(task)
    event["detail"]["attachments"] = event["detail"]["containers"] = []
    assert "awsvpc" in function(event)["outcome"]


def test_with_moto(server, event, monkeypatch):
    """A stand-in that is not ours: a task that moto deactivates is drained, and left alone when it has stopped."""
    moto = pytest.importorskip("moto")
    states = pytest.importorskip("moto.moto_api").state_manager
    states.set_transition("ecs::task", {"progression": "manual", "times": 1})
    boto3 = pytest.importorskip("boto3")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    monkeypatch.setattr(lambda_forwarder, "_clients", {})
    monkeypatch.setattr(lambda_forwarder, "_token", None)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    for name, value in {
        "AWS_DEFAULT_REGION": "eu-central-1",
        "TOKEN_SECRET": "t",
        "DRAIN_PORT": str(server.port),
    }.items():
        monkeypatch.setenv(name, value)
    with moto.mock_aws():
        ecs = boto3.client("ecs")
        boto3.client("secretsmanager").create_secret(Name="t", SecretString=TOKEN)
        ecs.create_cluster(clusterName="main")
        ecs.register_task_definition(
            family="app", networkMode="awsvpc", containerDefinitions=[{"name": "app", "image": "app:1", "memory": 64}]
        )
        subnet = boto3.client("ec2").describe_subnets()["Subnets"][0]["SubnetId"]
        network = {"awsvpcConfiguration": {"subnets": [subnet], "securityGroups": []}}
        run = ecs.run_task(cluster="main", taskDefinition="app", launchType="FARGATE", networkConfiguration=network)
        task = run["tasks"][0]
        event["detail"] |= {"taskArn": task["taskArn"], "clusterArn": task["clusterArn"]}
        assert lambda_forwarder._addresses(task)
        monkeypatch.setattr(lambda_forwarder, "FRESH", 0.0)
        monkeypatch.setattr(lambda_forwarder, "_addresses", lambda _task: ["127.0.0.1"])
        # Each look at a task moves it on in moto: DEACTIVATING, STOPPING, DEPROVISIONING, STOPPED.
        assert lambda_forwarder.handler(event)["status"] == 202
        assert lambda_forwarder.handler(event)["outcome"] == "gone"
        ecs.stop_task(cluster="main", task=task["taskArn"])
        assert lambda_forwarder.handler(event)["outcome"] == "gone"
    eventually(lambda: state_of(server)["state"] == "drained", "it was not drained")
