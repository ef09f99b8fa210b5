"""The files for Kubernetes, systemd, EC2 and Docker Compose, against their schemas and tools, and against the code."""

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest
import yaml

from starlette_drain import Settings
from starlette_drain._engine.flush import FLUSH_TIMEOUT

jsonschema = pytest.importorskip("jsonschema")

TESTS = Path(__file__).parents[1]
DEPLOY = TESTS.parent / "example_app" / "deploy"
KUBERNETES, COMPOSE, SYSTEMD, EC2 = (DEPLOY / name for name in ("kubernetes", "compose", "systemd", "ec2"))

UVICORN = 5.0
"""Seconds of ``--timeout-graceful-shutdown``."""

PATIENCE = 1.0
"""Seconds that a drain waits for the last session beyond what it may take."""

TOKEN_HEADER = "X-aws-ec2-metadata-token"


def at_worst(environment):
    """Return how long a drain by the command may take, and how long the process takes from SIGTERM to its end."""
    settings = Settings.load({}, environment)
    return settings.window + settings.tail + PATIENCE, settings.sigterm_window + settings.tail + PATIENCE + (
        FLUSH_TIMEOUT + UVICORN
    )


def is_an_option(name):
    """Tell whether a variable is one of ours."""
    return name.removeprefix("DRAIN_").lower() in Settings.__dataclass_fields__


def documents(path):
    """Return the documents of a YAML file."""
    return list(yaml.safe_load_all(path.read_text()))


# Kubernetes


@pytest.fixture
def pod():
    """The specification of the pod."""
    deployment, *_ = documents(KUBERNETES / "streams.yaml")
    return deployment["spec"]["template"]["spec"]


def test_kubernetes_knows_every_field():
    """Each object satisfies its kind's definition, in which a field that does not exist is an error."""
    schema = jsonschema.Draft202012Validator(json.loads((TESTS / "schemas" / "kubernetes.json").read_text()))
    objects = [each for path in sorted(KUBERNETES.glob("*.yaml")) for each in documents(path)]
    assert [each["kind"] for each in objects] == ["Ingress", "Deployment", "Service", "PodDisruptionBudget"]
    for each in objects:
        schema.validate(each)
    objects[1]["spec"]["template"]["spec"]["terminationGracePeriod"] = 300
    with pytest.raises(jsonschema.ValidationError, match="terminationGracePeriod"):
        schema.validate(objects[1])


def test_the_grace_period_holds_the_drain_and_what_follows(pod):
    """The preStop hook and what follows SIGTERM share the grace period, and the balancer waits no less."""
    (container,) = pod["containers"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert all(map(is_an_option, environment))
    assert Settings.load({}, environment).sigterm is True
    drain, end = at_worst(environment)
    wait = int(re.match(r"sleep (\d+); exec ", container["lifecycle"]["preStop"]["exec"]["command"][-1])[1])
    assert wait + drain + end < pod["terminationGracePeriodSeconds"]
    (ingress,) = documents(KUBERNETES / "eks-alb.yaml")
    attributes = ingress["metadata"]["annotations"]["alb.ingress.kubernetes.io/target-group-attributes"]
    delay = int(re.fullmatch(r"deregistration_delay\.timeout_seconds=(\d+)", attributes)[1])
    assert delay >= pod["terminationGracePeriodSeconds"]


def test_the_objects_find_each_other(pod):
    """Service, Ingress, probes and budget name what the Deployment has."""
    deployment, service, budget = documents(KUBERNETES / "streams.yaml")
    (ingress,) = documents(KUBERNETES / "eks-alb.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    assert budget["spec"]["selector"]["matchLabels"] == labels
    (container,) = pod["containers"]
    (port,) = container["ports"]
    assert {container[probe]["httpGet"]["port"] for probe in ("readinessProbe", "livenessProbe")} == {port["name"]}
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
    assert path["backend"]["service"]["name"] == service["metadata"]["name"]
    assert path["backend"]["service"]["port"]["name"] == service["spec"]["ports"][0]["name"]


# systemd and EC2


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_takes_the_units(tmp_path):
    """``systemd-analyze verify`` finds no fault in the units, with and without the drop-in for EC2."""
    for name in ("uvicorn", "starlette-drain", "python"):
        (tmp_path / name).symlink_to(shutil.which("true"))
    for unit in (SYSTEMD / "streams.service", EC2 / "streams-lifecycle.service"):
        text = unit.read_text().replace("/opt/streams/venv/bin", str(tmp_path))
        (tmp_path / unit.name).write_text(text)
    command = ["systemd-analyze", "verify", tmp_path / "streams.service", tmp_path / "streams-lifecycle.service"]
    for with_drop_in in (False, True):
        if with_drop_in:
            drop_in = tmp_path / "streams.service.d" / "balancer.conf"
            drop_in.parent.mkdir()
            text = (EC2 / "balancer.conf").read_text().replace("/opt/streams/venv/bin", str(tmp_path))
            drop_in.write_text(text.replace("/opt/streams/with-target-id", str(EC2 / "with-target-id")))
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_waits_for_the_drain():
    """ExecStop and the time after SIGTERM each fit into TimeoutStopSec, which counts for each."""
    unit = (SYSTEMD / "streams.service").read_text()
    environment = dict(
        each.split("=", 1)
        for line in re.findall(r"^Environment=(.*)", unit, re.MULTILINE)
        for each in shlex.split(line)
    )
    assert all(map(is_an_option, environment))
    assert Settings.load({}, environment).sigterm is True
    assert max(at_worst(environment)) < int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[1])
    assert "KillMode=mixed" in unit


class Metadata(BaseHTTPRequestHandler):
    """The instance's metadata by IMDSv2, and the API of Auto Scaling, which moto has without lifecycle actions."""

    def do_PUT(self):
        """Give a token."""
        assert self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self.answer(200, "a-token")

    def do_GET(self):
        """Show the metadata, to those that bring the token; the other path waits for a heartbeat."""
        if self.path == "/beaten":
            self.server.beaten.wait(30)
            self.answer(200, "")
            return
        if self.headers[TOKEN_HEADER] != "a-token":
            self.answer(401, "")
            return
        known = {
            "instance-id": "i-0123456789abcdef0",
            "local-ipv4": "10.0.3.17",
            "placement/region": "eu-central-1",
            "autoscaling/target-lifecycle-state": self.server.states.pop(0) if self.server.states else "Terminated",
        }
        self.answer(200, known[self.path.removeprefix("/latest/meta-data/")])

    def do_POST(self):
        """Take note of a call; the hook has not begun when the first comes."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.calls.append({name: value for name, (value,) in parse_qs(body).items()})
        self.server.beaten.set()
        if len(self.server.calls) == 1:
            error = "<Code>ValidationError</Code><Message>No active Lifecycle Action found</Message>"
            self.answer(400, f"<ErrorResponse><Error><Type>Sender</Type>{error}</Error></ErrorResponse>")
        else:
            name = self.server.calls[-1]["Action"]
            self.answer(200, f"<{name}Response><{name}Result/></{name}Response>")

    def answer(self, status, text):
        """Send an answer."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def instance(monkeypatch):
    """Serve the metadata of an instance, and Auto Scaling."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        server.states, server.calls, server.beaten = ["InService", "InService"], [], threading.Event()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_AUTO_SCALING", url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        for name in ("DRAIN_TARGET_ID", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
            monkeypatch.delenv(name, raising=False)
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_a_server_on_ec2_knows_its_target(instance, monkeypatch):
    """The wrapper asks IMDSv2 for id and Region, runs the command in its own place, and starts it without them too."""
    show = [str(EC2 / "with-target-id"), "sh", "-c", 'echo "${DRAIN_TARGET_ID-none} ${AWS_DEFAULT_REGION-none} $$"']

    def run():
        with subprocess.Popen(show, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            (*shown, pid) = process.communicate(timeout=30)[0].split()
            assert int(pid) == process.pid
            return shown

    assert run() == ["i-0123456789abcdef0", "eu-central-1"]
    monkeypatch.setenv("TARGET_TYPE", "ip")
    assert run() == ["10.0.3.17", "eu-central-1"]
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{instance.server_port}/nothing")
    monkeypatch.setattr(Metadata, "do_PUT", lambda request: request.answer(404, ""))
    assert run() == ["none", "none"]


@pytest.fixture
def lifecycle_hook(instance, monkeypatch):
    """The script, with the names that its unit gives it."""
    unit = (EC2 / "streams-lifecycle.service").read_text()
    for each in re.search(r"^Environment=(.*)$", unit, re.MULTILINE)[1].split():
        monkeypatch.setenv(*each.split("=", 1))
    spec = importlib.util.spec_from_file_location("lifecycle_hook", EC2 / "lifecycle_hook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "LOOK", 0.01)
    monkeypatch.setattr(module, "HEARTBEAT", 0.05)
    return module


def test_auto_scaling_waits_for_the_drain(instance, lifecycle_hook, monkeypatch):
    """The hook waits for the end of the instance, drains, beats meanwhile, and goes on however the drain has ended."""
    url = f"http://127.0.0.1:{instance.server_port}/beaten"
    drain = f"import urllib.request; urllib.request.urlopen('{url}'); raise SystemExit(1)"
    monkeypatch.setattr(lifecycle_hook, "COMMAND", [sys.executable, "-c", drain])
    lifecycle_hook.main()
    assert instance.states == []
    *beats, end = instance.calls
    assert {each["Action"] for each in beats} <= {"RecordLifecycleActionHeartbeat", "CompleteLifecycleAction"}
    assert beats[0]["Action"] == "RecordLifecycleActionHeartbeat"
    names = {"AutoScalingGroupName": "streams", "LifecycleHookName": "drain", "InstanceId": "i-0123456789abcdef0"}
    assert end == {
        **names,
        "Action": "CompleteLifecycleAction",
        "LifecycleActionResult": "CONTINUE",
        "Version": "2011-01-01",
    }


def test_auto_scaling_is_told_when_the_hook_begins(instance, lifecycle_hook, monkeypatch):
    """A drain may be over before the balancer has let go of the instance, and the hook has begun."""
    monkeypatch.setattr(lifecycle_hook, "COMMAND", [sys.executable, "-c", ""])
    monkeypatch.setattr(lifecycle_hook, "HEARTBEAT", 30)
    lifecycle_hook.main()
    assert [each["Action"] for each in instance.calls] == ["CompleteLifecycleAction"] * 2


def test_the_policy_of_the_instance_is_what_it_calls():
    """It may look at its target, and tell Auto Scaling of its own group's instances."""
    policy = json.loads((EC2 / "iam-policy.json").read_text())
    target, hook = policy["Statement"]
    called = re.findall(r"client\.(\w+)\(", (EC2 / "lifecycle_hook.py").read_text())
    as_called = {each.partition(":")[2] for each in hook["Action"]}
    assert as_called == {"".join(part.title() for part in name.split("_")) for name in called}
    assert hook["Resource"].endswith(":autoScalingGroupName/streams")
    assert all(":Describe" in each for each in target["Action"])


# Docker Compose


@pytest.fixture
def compose():
    """The Compose file."""
    return yaml.safe_load((COMPOSE / "compose.yaml").read_text())


def test_the_compose_file_is_as_specified(compose):
    """It satisfies the schema of the Compose Specification, where a field that does not exist is an error."""
    schema = jsonschema.Draft7Validator(json.loads((TESTS / "schemas" / "compose.json").read_text()))
    schema.validate(compose)
    compose["services"]["app-1"]["pre_stopp"] = []
    with pytest.raises(jsonschema.ValidationError, match="pre_stopp"):
        schema.validate(compose)


def test_what_the_compose_file_mounts_is_there(compose):
    """Every file that it mounts or builds from exists."""
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            assert (COMPOSE / volume.split(":")[0]).exists(), volume
    build = compose["services"]["app-1"]["build"]
    assert (COMPOSE / build["context"] / build["dockerfile"]).samefile(DEPLOY / "Dockerfile")


def test_the_alarms_of_the_compose_file_are_for_what_it_watches(compose):
    """No balancer is watched there, so the alarm that none is would fire for ever; the others are the same."""
    (rules,) = (each.split(":")[0] for each in compose["services"]["prometheus"]["volumes"] if "rules" in each)
    (own,), (usual,) = (
        documents(COMPOSE / each)[0]["groups"] for each in (rules, "../monitoring/prometheus-rules.yaml")
    )
    assert [each["alert"] for each in usual["rules"] if each not in own["rules"]] == ["DrainWatchMissing"]


def test_the_compose_file_waits_for_the_drain(compose):
    """Two tasks drain before SIGTERM, and the grace period holds what follows it."""
    tasks = {name: each for name, each in compose["services"].items() if name.startswith("app-")}
    assert len(tasks) == 2
    for task in tasks.values():
        environment = {name: value for name, value in task["environment"].items() if name.startswith("DRAIN_")}
        assert all(map(is_an_option, environment))
        assert Settings.load({}, environment).sigterm is True
        assert at_worst(environment)[1] < float(task["stop_grace_period"].removesuffix("s"))
        assert task["pre_stop"][0]["command"][:2] == ["starlette-drain", "start"]


def test_what_is_measured_finds_its_way(compose):
    """Application, collector, Prometheus and Grafana name each other and the ports that they have."""
    names = set(compose["services"])
    collector = documents(COMPOSE / "collector.yaml")[0]
    sent_to = compose["services"]["app-1"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert sent_to == f"http://collector:{collector['receivers']['otlp']['protocols']['http']['endpoint'][-4:]}"
    (target,) = documents(COMPOSE / "prometheus.yaml")[0]["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target == f"collector:{collector['exporters']['prometheus']['endpoint'][-4:]}"
    (source,) = documents(COMPOSE / "grafana" / "datasources.yaml")[0]["datasources"]
    assert source["url"] == "http://prometheus:9090"
    servers = re.findall(r"^    server (\S+) (\S+):8000$", (COMPOSE / "haproxy.cfg").read_text(), re.MULTILINE)
    assert {name for pair in servers for name in pair} | {"collector", "prometheus"} <= names
    assert len(servers) == 2


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("haproxy", ("-c", "-f", "haproxy.cfg")),
        ("promtool", ("check", "config", "--syntax-only", "prometheus.yaml")),
    ],
)
def test_each_tool_takes_its_configuration(tool, arguments):
    """HAProxy and Prometheus find no fault in their files."""
    found = shutil.which(tool, path="/usr/sbin:/usr/bin:/usr/local/bin")
    if found is None:
        pytest.skip(f"there is no {tool}")
    done = subprocess.run([found, *arguments], cwd=COMPOSE, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
