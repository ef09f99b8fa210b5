"""Five thousand sessions in one process, and an ELBv2 endpoint that is not ours: moto."""

import json
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import boto3
import pytest
from server_process import REASON, TOKEN

pytestmark = pytest.mark.xdist_group("crowds")

SESSIONS = 5000
DELAY = 26
MARGIN = 5
TARGET = {"Id": "10.0.0.5", "Port": 8000}
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "not-a-secret",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
HERE = Path(__file__).parent


@pytest.fixture
def many_files():
    """Allow this process and its children to have enough files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = SESSIONS + 1000
    if hard != resource.RLIM_INFINITY and hard < enough:
        pytest.skip(f"needs {enough} open files; the hard limit here is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, enough), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def moto(serve, monkeypatch):
    """Run moto's server; return its address and a client for it."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    command = ("-m", "moto.server", "--host", "127.0.0.1", "--port", "{port}")
    server = serve("", command=command, probe="/moto-api/data.json")
    client = boto3.client("elbv2", endpoint_url=server.url)
    ec2 = boto3.client("ec2", endpoint_url=server.url)
    network = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    group = client.create_target_group(Name="web", Protocol="HTTP", Port=8000, VpcId=network, TargetType="ip")
    arn = group["TargetGroups"][0]["TargetGroupArn"]
    delay = {"Key": "deregistration_delay.timeout_seconds", "Value": str(DELAY)}
    client.modify_target_group_attributes(TargetGroupArn=arn, Attributes=[delay])
    client.register_targets(TargetGroupArn=arn, Targets=[TARGET])
    yield server.url, client, arn
    client.close()
    ec2.close()


@pytest.mark.usefixtures("many_files")
def test_five_thousand_sessions_leave_within_the_window(serve, moto):
    """
    All see 1012 within the window, no second has more than 1.5 times the mean, none is left, nothing is in the log.

    moto shows no ``draining``: a deregistered target is gone from one answer to the next, which is a verdict too.
    """
    url, balancer, arn = moto
    environment = {
        **CREDENTIALS,
        "AWS_ENDPOINT_URL": url,
        "DRAIN_TARGET_GROUP_ARN": arn,
        "DRAIN_TARGET_ID": TARGET["Id"],
        "DRAIN_TARGET_PORT": str(TARGET["Port"]),
        "DRAIN_MARGIN": str(MARGIN),
        "DRAIN_POLL_INTERVAL": "1",
        "DRAIN_ADMIN_TOKEN": TOKEN,
        "DRAIN_SIGTERM": "true",
    }
    server = serve("one_line:app", "--log-level", "warning", env=environment)
    command = [sys.executable, str(HERE / "crowd.py"), str(server.port), "/ws", str(SESSIONS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as crowd:
        try:
            assert crowd.stdout.readline() == "open\n"
            status = server.drain()[1]
            assert status["sessions"]["open"] == SESSIONS
            assert status["triggers"]["target-health"]["target_groups"][0]["verdict"] == "serving"
            deregistered = time.monotonic()
            balancer.deregister_targets(TargetGroupArn=arn, Targets=[TARGET])
            ends = json.loads(crowd.stdout.readline())
        finally:
            crowd.kill()
    _, shown = server.drain("GET", "?wait=30")
    report = shown["report"]
    server.signal()
    server.wait()

    assert Counter((code, reason) for code, reason, _ in ends) == {(1012, REASON): SESSIONS}
    moments = sorted(at for _, _, at in ends)
    assert moments[-1] - deregistered < DELAY, "the balancer would have cut the last ones"
    mean = SESSIONS / report["window"]
    by_second = Counter(int(at - moments[0]) for at in moments)
    sys.stdout.write(f"{mean=:.0f}/s busiest={max(by_second.values())}/s report={report}\n")
    assert max(by_second.values()) <= 1.5 * mean
    assert report["peak_rate"] <= 1.5 * mean
    assert (report["shed"], report["forced"], report["left"], report["still_open"]) == (SESSIONS, 0, 0, 0)
    assert server.trouble == []
