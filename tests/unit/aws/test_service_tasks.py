"""The tasks of a service as the command finds them: which port gets the admin token, and how often each is asked."""

import contextlib
import types

import pytest
from aws_fakes import ClientError, ScriptedClients

from starlette_drain.testing import FakeAWS, FakeGateway, FakeRegistration
from starlette_drain.testing.fake_aws.cluster import FakeTaskSet
from starlette_drain.tools.tasks import service as module
from starlette_drain.tools.tasks.channel import NotListening, Refused, Stuck, Unreachable
from starlette_drain.tools.tasks.ecs_exec import UNKNOWN
from starlette_drain.tools.tasks.seen import problems
from starlette_drain.tools.tasks.service import ServiceTasks

TOKEN = "a-token-of-24-characters"
SHOWN = {"state": "serving", "sessions": {"open": 5}, "triggers": {}}


class Network:
    """What answers at each address, which of them got the token, and a clock."""

    def __init__(self):
        self.servers, self.asked, self.now = {}, [], 1000.0

    def channel(self, url, token):
        """Return the channel to an address."""
        assert token == TOKEN
        where = url.removeprefix("http://").removesuffix("/drain")
        return types.SimpleNamespace(ask=lambda *_: self._ask(where))

    def _ask(self, where):
        self.asked.append(where)
        answer = self.servers.get(where, NotListening(f"{where}: nothing listens there"))
        if isinstance(answer, Exception):
            raise answer
        return 200, answer

    def monotonic(self):
        """Return the time."""
        return self.now


class Exec:
    """ECS Exec, which has an *answer*, and notes what was asked."""

    def __init__(self, answer=None):
        self.answer, self.asked = answer or Unreachable("ECS Exec needs aws on this machine", "run: aws …"), []

    def __call__(self, task):
        """Return the channel to a task."""
        return types.SimpleNamespace(ask=lambda *_: self._ask(task))

    def _ask(self, task):
        self.asked.append(task.container)
        if isinstance(self.answer, Exception):
            raise self.answer
        return 200, self.answer


@pytest.fixture
def fake():
    """Return a FakeAWS."""
    return FakeAWS()


@pytest.fixture
def network(monkeypatch):
    """Return the network of the tasks."""
    network = Network()
    monkeypatch.setattr(module, "HttpChannel", network.channel)
    monkeypatch.setattr(module, "time", network)
    return network


@pytest.fixture
def find(fake):
    """Return what finds the tasks of a service, or one task."""
    with contextlib.ExitStack() as stack:

        def find(service="web", clients=None, **options):
            options = {"token": TOKEN, "by_exec": Exec(), **options}
            clients = clients or ScriptedClients(fake)
            return stack.enter_context(contextlib.closing(ServiceTasks("main", service, clients=clients, **options)))

        yield find


WITH_SIDECAR = {"sidecar": (8000,), "app": (9000,)}


@pytest.mark.parametrize("by_service", [True, False])
@pytest.mark.parametrize("kind", ["service", "express", "gateway", "task sets"])
def test_the_token_goes_to_the_port_of_the_target(fake, network, find, kind, by_service):
    """A sidecar may listen on 8000, or be the first container; no balancer of the task leads there."""
    group = fake.add_target_group("web", port=9000)
    entry = FakeRegistration(group, "app", 9000)
    how = {
        "express": {"express": [group]},
        "gateway": {"gateways": [FakeGateway(group, port=9000)]},
    }.get(kind, {"registrations": [entry]})
    service = fake.add_service("web", **how)
    if kind == "task sets":
        service.controller, service.registrations = "EXTERNAL", []
        service.task_sets = [FakeTaskSet("1", [entry])]
    more = {"started_by": "ecs-svc/1"} if kind == "task sets" else {}
    task = fake.add_task(service, containers=WITH_SIDECAR, **more)
    network.servers = {"10.0.0.5:9000": SHOWN, "10.0.0.5:8000": SHOWN}
    tasks = find("web") if by_service else find(None, task=task.id)
    (seen,) = tasks.look()
    assert (seen.state, seen.why_not) == ("serving", "")
    assert network.asked == ["10.0.0.5:9000"]


def test_a_task_of_an_older_revision_keeps_its_port(fake, network, find):
    """The service shows the port of its newest revision; on that number an old task may have something else."""
    group = fake.add_target_group("web")
    service = fake.add_service("web", registrations=[FakeRegistration(group, "app", 9000)])
    fake.add_task(service, addresses=("10.0.0.1",), containers={"app": (9000,), "sidecar": (8000,)})
    fake.update_service(service, registrations=[FakeRegistration(group, "app", 8000)])
    fake.add_task(service, addresses=("10.0.0.2",), containers={"app": (8000,)})
    find("web").look()
    assert sorted(network.asked) == ["10.0.0.1:9000", "10.0.0.2:8000"]


@pytest.mark.parametrize("denied", [[], ["DescribeServices"], ["DescribeServiceRevisions", "DescribeTargetHealth"]])
def test_where_the_port_is_not_known_no_port_gets_the_token(fake, network, find, denied):
    """Such as without a balancer, or where a call is denied. ECS Exec remains, and --port."""
    group = fake.add_target_group("web", port=9000)
    service = fake.add_service("web", **({"express": [group]} if denied else {"registrations": []}))
    task = fake.add_task(service, containers=WITH_SIDECAR)
    clients = ScriptedClients(fake)
    clients.failures = dict.fromkeys(denied, ClientError("AccessDeniedException"))
    (seen,) = find(None, clients, task=task.id).look()
    assert "ECS does not tell the port of its server (--port)" in seen.why_not
    assert network.asked == []
    by_exec = Exec()
    find(None, clients, task=task.id, port=7000, by_exec=by_exec).look()
    assert network.asked == ["10.0.0.5:7000"]
    assert by_exec.asked == [UNKNOWN]


def test_a_server_that_starts_later_is_asked_at_each_look(fake, network, find):
    """In every deployment ECS shows a task before its server listens; before its containers run it is no problem."""
    fake.add_task(fake.add_service("web"), last_status="PENDING")
    tasks = find("web")
    (seen,) = tasks.look()
    assert (seen.state, problems([seen]), network.asked) == ("starting", [], [])
    fake.tasks[0].last_status = "RUNNING"
    network.now += 5
    for _ in range(3):
        (seen,) = tasks.look()
        network.now += 1
    assert (seen.state, network.asked) == ("not known", ["10.0.0.5:8000"] * 3)
    assert "nothing listens there" in seen.why_not
    network.servers["10.0.0.5:8000"] = SHOWN
    (seen,) = tasks.look()
    assert (seen.state, seen.why_not) == ("serving", "")


def test_a_route_is_tried_again(fake, network, find):
    """Each such look takes seconds, so it is once a minute; meanwhile ECS Exec answers."""
    fake.add_task(fake.add_service("web"))
    network.servers["10.0.0.5:8000"] = Unreachable("no answer in time")
    by_exec = Exec(SHOWN)
    tasks = find("web", by_exec=by_exec)
    for _ in range(7):
        (seen,) = tasks.look()
        assert (seen.state, seen.why_not) == ("serving", "")
        network.now += 9.9
    assert (len(network.asked), by_exec.asked) == (1, ["app"] * 4)
    network.servers["10.0.0.5:8000"] = SHOWN
    network.now += 60
    tasks.look()
    tasks.look()
    assert (len(network.asked), len(by_exec.asked)) == (3, 4)


def test_a_task_that_hangs(fake, network, find):
    """There is a route to it, and ECS Exec would ask the same process: it can only be stopped."""
    task = fake.add_task(fake.add_service("web"))
    network.servers["10.0.0.5:8000"] = Stuck("it does not answer within 5 s")
    by_exec = Exec()
    tasks = find("web", by_exec=by_exec)
    assert "is stuck, or starting" in tasks.look()[0].why_not
    (seen,) = tasks.look()
    assert seen.why_not.endswith("its process is stuck")
    assert seen.remedy.endswith(f"aws ecs stop-task --cluster main --task {task.arn}")
    assert by_exec.asked == []


def test_an_application_without_the_admin_route(fake, network, find):
    """It is asked by ECS Exec, as one is that has no token, and is not told the token again."""
    fake.add_task(fake.add_service("web"))
    network.servers["10.0.0.5:8000"] = Refused(404, "it answers 404: no admin route is there")
    tasks = find("web", by_exec=Exec(SHOWN))
    for _ in range(3):
        assert tasks.look()[0].state == "serving"
        network.now += 1
    assert len(network.asked) == 1
    network.servers["10.0.0.5:8000"] = Refused(401, "that is not the admin token")
    (seen,) = find("web", by_exec=Exec(SHOWN)).look()
    assert (seen.why_not, seen.remedy) == (
        "that is not the admin token", "set DRAIN_ADMIN_TOKEN here to the task's own",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("which", "failure", "words"),
    [
        (("web",), "ClusterNotFoundException", "Remedy: check --cluster and --service, and the Region"),
        (("wep",), "", "the cluster main has no service wep"),
        (("web", "nosuch"), "", "the cluster main has no task nosuch of the service web"),
        ((None, "nosuch"), "", "the cluster main has no task nosuch"),
        (("web",), "AccessDeniedException", "Remedy: allow it to the role or user that runs this command"),
        (("web",), "ExpiredTokenException", "Remedy: check AWS_PROFILE, or log in again"),
    ],
)
def test_the_remedy_fits_the_command(fake, find, which, failure, words):
    """It runs on an operator's machine: no option of a task, and no task role, would help there."""
    fake.add_task(fake.add_service("web"))
    clients = ScriptedClients(fake)
    clients.failures = {"*": ClientError(failure)} if failure else {}
    service, *task = which
    with pytest.raises(Unreachable) as raised:
        find(service, clients, **({"task": task[0]} if task else {})).look()
    assert words in str(raised.value)
    assert "DRAIN_" not in str(raised.value)


def test_a_token_that_no_header_can_carry(find):
    """Such as one with a line break from a file is the caller's mistake, and found before anything is asked."""
    with pytest.raises(Unreachable, match="DRAIN_ADMIN_TOKEN has a character that no token has"):
        find("web", token=TOKEN + "\n")
