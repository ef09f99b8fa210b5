"""An ELBv2 endpoint that is not ours (moto, with `draining` added) misbehaves in the middle of a drain."""

import asyncio
import contextlib
import threading
import time
from collections import Counter
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from server_process import REASON, TOKEN, eventually
from websocket_clients import listeners

pytestmark = pytest.mark.anyio

SESSIONS = 40
DELAY = 14
TARGET = {"Id": "10.0.0.5", "Port": 8000}
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "not-a-secret",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
NAMESPACE = "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/"
ELBV2 = "DescribeTargetHealth"


def listing(*targets):
    """Return an answer that lists (id, state) each."""
    members = "".join(
        f"<member><Target><Id>{name}</Id><Port>8000</Port></Target><TargetHealth><State>{state}</State></TargetHealth>"
        "</member>"
        for name, state in targets
    )
    return 200, (
        f'<{ELBV2}Response xmlns="{NAMESPACE}"><{ELBV2}Result><TargetHealthDescriptions>{members}'
        f"</TargetHealthDescriptions></{ELBV2}Result></{ELBV2}Response>"
    ).encode()


def error(code, status=400):
    """Return an error."""
    return status, (
        f'<ErrorResponse xmlns="{NAMESPACE}"><Error><Type>Sender</Type><Code>{code}</Code><Message>so</Message>'
        "</Error></ErrorResponse>"
    ).encode()


def slowly(_):
    """Answer late, and as it is."""
    time.sleep(2.5)


FOREIGN = [(f"10.7.{number // 250}.{number % 250}", "healthy") for number in range(5000)]
FAULTS = {
    "throttled": lambda _: error("Throttling"),
    "slow": slowly,
    "empty": lambda _: listing(),
    "foreign": lambda _: listing(*FOREIGN[:20]),
    "huge": lambda _: listing((TARGET["Id"], "draining"), *FOREIGN),
    "too large": lambda _: (200, b" " * 20_000_000),
    "gone": lambda _: error("TargetGroupNotFound"),
    "no XML": lambda _: (200, b"<html>please log in</html>"),
}


class Balancer:
    """Passes all calls on to moto. A target that is deregistered is shown as draining for the delay; faults on top."""

    def __init__(self, url):
        self._moto = urlsplit(url).netloc
        self.fault = None
        self.drains_until = 0.0
        self.delay = DELAY
        balancer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                with contextlib.suppress(OSError):
                    balancer.answer(self, body)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self):
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, handler, body):
        """Answer one call."""
        action = (parse_qs(body.decode()).get("Action") or [""])[0]
        status, content = self._ask_moto(handler, body)
        if action == ELBV2:
            if time.monotonic() < self.drains_until:
                status, content = listing((TARGET["Id"], "draining"))
            if self.fault is not None:
                status, content = self.fault(content) or (status, content)
        if action == "DeregisterTargets":
            self.drains_until = time.monotonic() + self.delay
        if action == "RegisterTargets":
            self.drains_until = 0.0
        handler.send_response(status)
        handler.send_header("content-type", "text/xml")
        handler.send_header("content-length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def _ask_moto(self, handler, body):
        fields = {name: value for name, value in handler.headers.items() if name.lower() != "host"}
        with contextlib.closing(HTTPConnection(self._moto, timeout=30)) as connection:
            connection.request("POST", handler.path, body, fields)
            answer = connection.getresponse()
            return answer.status, answer.read()


@pytest.fixture
def stage(serve, monkeypatch):
    """Return a balancer before moto, a client of it, the ARN of its group, and a server whose target is in there."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    command = ("-m", "moto.server", "--host", "127.0.0.1", "--port", "{port}")
    moto = serve("", command=command, probe="/moto-api/data.json")
    with Balancer(moto.url) as balancer, contextlib.ExitStack() as clients:
        elbv2, ec2 = (
            clients.enter_context(
                contextlib.closing(boto3.client(name, endpoint_url=moto.url if name == "ec2" else balancer.url))
            )
            for name in ("elbv2", "ec2")
        )
        network = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        group = elbv2.create_target_group(Name="web", Protocol="HTTP", Port=8000, VpcId=network, TargetType="ip")
        arn = group["TargetGroups"][0]["TargetGroupArn"]
        set_delay(elbv2, arn, DELAY)
        elbv2.register_targets(TargetGroupArn=arn, Targets=[TARGET])
        server = serve(
            "one_line:app",
            env={
                **CREDENTIALS,
                "AWS_ENDPOINT_URL": balancer.url,
                "DRAIN_TARGET_GROUP_ARN": arn,
                "DRAIN_TARGET_ID": TARGET["Id"],
                "DRAIN_TARGET_PORT": str(TARGET["Port"]),
                "DRAIN_MARGIN": "3",
                "DRAIN_POLL_INTERVAL": "1",
                "DRAIN_POLL_SHARE": "1",
                "DRAIN_ADMIN_TOKEN": TOKEN,
            },
        )
        yield balancer, elbv2, arn, server


def set_delay(elbv2, arn, delay):
    """Set the deregistration delay."""
    attribute = {"Key": "deregistration_delay.timeout_seconds", "Value": str(delay)}
    elbv2.modify_target_group_attributes(TargetGroupArn=arn, Attributes=[attribute])


def watch(server):
    """Return what the process says of its sight."""
    return server.drain()[1]["triggers"]["target-health"]["watch"]


async def until(condition, what):
    """Wait for something."""
    await asyncio.to_thread(eventually, condition, what)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_a_fault_before_and_in_the_middle_of_a_drain_closes_nobody_early_and_leaves_nobody(stage, fault):
    """
    A fault while it serves closes nobody; in the middle of a drain it changes nothing of its pace.

    While serving it lasts for one answer: what is shown twice in a row, such as a group without our target, is
    believed.
    """
    balancer, elbv2, arn, server = stage
    async with listeners([server.websocket("/ws")] * SESSIONS) as clients:
        await until(lambda: watch(server) == "watching", "it does not watch")
        asked = threading.Event()

        def once(content):
            if asked.is_set():
                return None
            asked.set()
            return fault(content)

        balancer.fault = once
        await until(asked.is_set, "it asks no more")
        await asyncio.sleep(3)
        assert server.drain()[1]["state"] == "serving"
        balancer.fault = None

        began = time.monotonic()
        await asyncio.to_thread(elbv2.deregister_targets, TargetGroupArn=arn, Targets=[TARGET])
        await until(lambda: server.drain()[1]["state"] == "draining", "it does not drain")
        await asyncio.sleep(1)
        balancer.fault = fault
        goodbyes = [await each.close_policy() for each in clients]
    assert Counter(each.words for each in goodbyes) == {(1012, REASON): SESSIONS}
    moments = sorted(each.at - began for each in goodbyes)
    assert moments[-1] < DELAY, "the balancer would have cut the last ones"
    assert moments[-1] - moments[0] > DELAY / 3, "they left in a hurry"
    assert server.trouble == []


async def test_a_target_that_comes_back_keeps_the_rest(stage):
    """Registered again in the middle of a drain: those who were not asked yet stay."""
    balancer, elbv2, arn, server = stage
    async with listeners([server.websocket("/ws")] * SESSIONS) as clients:
        await until(lambda: watch(server) == "watching", "it does not watch")
        await asyncio.to_thread(elbv2.deregister_targets, TargetGroupArn=arn, Targets=[TARGET])
        await until(lambda: server.drain()[1]["state"] == "draining", "it does not drain")
        await asyncio.to_thread(elbv2.register_targets, TargetGroupArn=arn, Targets=[TARGET])
        await until(lambda: server.drain()[1]["state"] == "serving", "it does not serve again")
        stayed = server.drain()[1]["sessions"]["open"]
        await asyncio.sleep(3)
        assert 0 < server.drain()[1]["sessions"]["open"] == stayed
        assert balancer.drains_until == 0.0
        assert len(clients) == SESSIONS


async def test_a_delay_that_has_changed_is_kept(stage):
    """Raised from 14 s to 40 s since the start, the drain takes the new delay."""
    balancer, elbv2, arn, server = stage
    await until(lambda: watch(server) == "watching", "it does not watch")
    await asyncio.to_thread(set_delay, elbv2, arn, 40)
    balancer.delay = 40
    await asyncio.to_thread(elbv2.deregister_targets, TargetGroupArn=arn, Targets=[TARGET])
    async with listeners([server.websocket("/ws")] * 5):
        await until(lambda: server.drain()[1]["state"] != "serving", "it does not drain")
    shown = server.drain()[1]
    assert (shown.get("drain") or shown["report"])["window"] > 30
    assert "delay 40 s" in server.log
