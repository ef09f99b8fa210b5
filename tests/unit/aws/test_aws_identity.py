"""Who am I: every way a task can be registered, and every permission that can be missing."""

import asyncio

import pytest
from aws_fakes import ClientError, NoRegionError

from starlette_drain._core.events import TriggerImpaired, TriggerRestored, TriggerStoodDown
from starlette_drain.testing import FakeRegistration

pytestmark = pytest.mark.anyio


async def targets_of(stage, task, **options):
    """Return the targets that discovery finds for *task*."""
    async with stage.watching(task, **options) as control:
        await asyncio.sleep(1)
        assert control.told(TriggerImpaired) == []
        return list(stage.trigger.identity.targets)


def group_named(stage, name):
    """Return the ARN of a group."""
    return next(arn for arn, group in stage.fake.groups.items() if group.name == name)


async def test_awsvpc(stage):
    """A Fargate task is its address and the port of the container that the service names."""
    task = stage.fake.add_task(stage.fake.add_service(delay=120, port=8080))

    (target,) = await targets_of(stage, task)

    assert (frozenset({"10.0.0.5"}), frozenset({8080})) == (target.ids, target.ports)
    assert (target.delay, target.delay_known, target.target_type, target.group) == (120, True, "ip", "web")
    assert str(target) == "10.0.0.5 (8080)"
    of_ecs = ["DescribeTasks", "DescribeServices", "DescribeServiceRevisions"]
    expected = [*of_ecs, "DescribeTargetGroups", "DescribeTargetGroupAttributes"]
    assert expected == stage.clients.operations()[:5]


async def test_ipv6_and_several_addresses(stage):
    """All addresses of the task are its own, whichever of them the group lists, in whatever spelling."""
    service = stage.fake.add_service()
    ipv6 = ("2001:0DB8:0:0:0:0:0:5",)
    task = stage.fake.add_task(service, addresses=("10.0.0.5", "10.0.0.6"), ipv6_addresses=ipv6)

    (target,) = await targets_of(stage, task)

    assert {"10.0.0.5", "10.0.0.6", "2001:db8::5"} == target.ids


async def test_ipv6_only(stage):
    """A task in an IPv6 subnet drains like any other."""
    task = stage.fake.add_task(stage.fake.add_service(), addresses=(), ipv6_addresses=("2001:db8::5",))
    async with stage.watching(task) as control:
        await asyncio.sleep(10)
        stage.fake.deregister(task)
        await asyncio.sleep(10)

        assert len(control.causes) == 1


async def test_addresses_that_only_ecs_tells(stage):
    """Where the metadata endpoint shows no address, those that ECS has recorded serve."""
    task = stage.fake.add_task(stage.fake.add_service())
    async with stage.watching(task):
        shown = task.metadata()
        shown["Containers"][0]["Networks"] = []
        stage.metadata.shown = shown
        await asyncio.sleep(1)

        (target,) = stage.trigger.identity.targets
        assert {"10.0.0.5"} == target.ids


async def test_metadata_of_another_shape(stage):
    """An answer that is none of a metadata endpoint is told, with the variable that led there."""
    async with stage.watching(stage.fake.add_task(stage.fake.add_service())) as control:
        stage.metadata.shown = {"hello": "world"}
        await asyncio.sleep(1)

        (impaired,) = control.told(TriggerImpaired)
        assert "answered without 'Cluster'" in impaired.problem
        assert "ECS_CONTAINER_METADATA_URI_V4" in impaired.remedy


async def test_bridge_mode_with_dynamic_ports(stage):
    """In bridge mode the target is the instance, and the port is the one Docker drew."""
    service = stage.fake.add_service(target_type="instance")
    options = {"network_mode": "bridge", "instance_id": "i-0abc", "host_ports": {8000: 49153}}
    task = stage.fake.add_task(service, addresses=("172.17.0.2",), **options)

    (target,) = await targets_of(stage, task)

    assert ({"i-0abc"}, {49153}) == (target.ids, target.ports)
    assert "DescribeContainerInstances" in stage.clients.operations()


async def test_neighbours_on_one_instance(stage):
    """Another task on the same instance, at another port, is not ours."""
    service = stage.fake.add_service(target_type="instance")
    options = {"network_mode": "bridge", "instance_id": "i-0abc", "addresses": ("172.17.0.2",)}
    ours = stage.fake.add_task(service, host_ports={8000: 49153}, **options)
    other = stage.fake.add_task(service, host_ports={8000: 49154}, **options)
    async with stage.watching(ours) as control:
        await asyncio.sleep(10)
        stage.fake.deregister(other)
        await asyncio.sleep(10)
        assert control.causes == []
        stage.fake.deregister(ours)
        await asyncio.sleep(10)
        assert len(control.causes) == 1


async def test_host_mode(stage):
    """In host mode the port of the container is the port of the instance."""
    service = stage.fake.add_service(target_type="instance", port=8443)
    task = stage.fake.add_task(service, network_mode="host", instance_id="i-0abc")

    (target,) = await targets_of(stage, task)

    assert ({"i-0abc"}, {8443}) == (target.ids, target.ports)


async def test_several_containers_ports_and_groups(stage):
    """Each group goes with the container and port that its entry names; two ports in one group are one target."""
    public = stage.fake.add_target_group("public")
    internal = stage.fake.add_target_group("internal", delay=30)
    entries = [
        FakeRegistration(public, "proxy", 443),
        FakeRegistration(internal, "app", 8000),
        FakeRegistration(internal, "app", 8001),
    ]
    task = stage.fake.add_task(stage.fake.add_service(registrations=entries))

    targets = await targets_of(stage, task)

    assert [("public", {443}), ("internal", {8000, 8001})] == [(each.group, each.ports) for each in targets]
    assert stage.trigger.identity.shortest_delay == 30


async def test_several_containers_in_bridge_mode(stage):
    """Two containers that publish the same port are told apart by the name in the entry."""
    group = stage.fake.add_target_group("web", target_type="instance")
    service = stage.fake.add_service(registrations=[FakeRegistration(group, "app", 8000)])
    containers = {"sidecar": (9000,), "app": (8000, 9000)}
    ports = {8000: 40000, 9000: 40001}
    task = stage.fake.add_task(
        service, network_mode="bridge", instance_id="i-0abc", containers=containers, host_ports=ports
    )

    (target,) = await targets_of(stage, task)

    assert {40000} == target.ports


async def test_blue_green(stage):
    """Of a blue/green pair both groups are watched: the task is in one of them, and nobody says in which."""
    blue, green = stage.fake.add_target_group("blue"), stage.fake.add_target_group("green")
    service = stage.fake.add_service(registrations=[FakeRegistration(blue, "app", 8000, alternate=green)])
    task = stage.fake.add_task(service, register=False)
    green.register("10.0.0.5", 8000)
    async with stage.watching(task) as control:
        await asyncio.sleep(10)
        verdicts = [each["verdict"] for each in stage.trigger.status(control.time())["target_groups"]]
        assert verdicts == ["not-yet", "serving"]
        assert control.causes == []

        green.deregister("10.0.0.5", 8000)
        await asyncio.sleep(10)
        assert len(control.causes) == 1


async def test_everything_by_hand(stage):
    """What is given by hand is not looked up: only the poll itself is left, on ECS or elsewhere."""
    stage.fake.add_task(stage.fake.add_service())
    arn = group_named(stage, "web")
    given = {"target_group_arn": arn, "target_id": "10.0.0.5", "target_port": 8000, "deregistration_delay": 90}

    (target,) = await targets_of(stage, None, environ={}, **given)

    assert (90, {"10.0.0.5"}, {8000}) == (target.delay, target.ids, target.ports)
    assert {"DescribeTargetHealth"} == set(stage.clients.operations())
    assert stage.metadata.asked == []


async def test_the_group_by_hand(stage):
    """With the group given, ECS is not asked: an address needs no port to be ours."""
    task = stage.fake.add_task(stage.fake.add_service())

    (target,) = await targets_of(stage, task, target_group_arn=group_named(stage, "web"))

    assert ({"10.0.0.5"}, frozenset()) == (target.ids, target.ports)
    assert "ecs" not in stage.clients.opened


async def test_the_group_by_hand_in_bridge_mode(stage):
    """With the group given in bridge mode, the service still tells the port."""
    service = stage.fake.add_service(target_type="instance", port=8001)
    containers, ports = {"app": (8000, 8001)}, {8000: 40000, 8001: 40001}
    task = stage.fake.add_task(
        service, network_mode="bridge", instance_id="i-0abc", containers=containers, host_ports=ports
    )

    (target,) = await targets_of(stage, task, target_group_arn=group_named(stage, "web"))

    assert {40001} == target.ports


async def test_no_service(stage):
    """A task that was started on its own has nothing to watch; that is said once and is no fault."""
    async with stage.watching(stage.fake.add_task(None)) as control:
        await asyncio.sleep(1)

        (event,) = control.told(TriggerStoodDown)
        assert "belongs to no service" in event.why


async def test_a_service_without_a_balancer(stage):
    """A service without target groups has nothing to watch either."""
    async with stage.watching(stage.fake.add_task(stage.fake.add_service(registrations=[]))) as control:
        await asyncio.sleep(1)

        (event,) = control.told(TriggerStoodDown)
        assert "the service web registers its tasks with no target group" in event.why


@pytest.mark.parametrize(
    ("operation", "action", "setting"),
    [
        ("DescribeTasks", "ecs:DescribeTasks", "DRAIN_TARGET_GROUP_ARN"),
        ("DescribeServices", "ecs:DescribeServices", "DRAIN_TARGET_GROUP_ARN"),
        ("DescribeContainerInstances", "ecs:DescribeContainerInstances", "DRAIN_TARGET_ID"),
    ],
)
async def test_a_missing_permission(stage, operation, action, setting):
    """A refusal names the call, the IAM action and the setting that replaces it; a later grant is picked up."""
    service = stage.fake.add_service(target_type="instance")
    task = stage.fake.add_task(service, network_mode="host", instance_id="i-0abc")
    stage.clients.failures[operation] = ClientError("AccessDeniedException")
    async with stage.watching(task) as control:
        await asyncio.sleep(200)
        (impaired,) = control.told(TriggerImpaired)
        assert action in impaired.problem
        assert action in impaired.remedy
        assert setting in impaired.remedy

        stage.clients.failures.clear()
        await asyncio.sleep(61)
        assert len(control.told(TriggerRestored)) == 1
        assert stage.trigger.status(control.time())["state"] == "watching"


async def test_without_the_delay(stage):
    """Without permission to read the delay, the default of AWS is assumed, and that is said."""
    stage.clients.failures["DescribeTargetGroupAttributes"] = ClientError("AccessDenied")
    async with stage.watching(stage.fake.add_task(stage.fake.add_service(delay=60))) as control:
        await asyncio.sleep(1)

        (target,) = stage.trigger.identity.targets
        assert (target.delay, target.delay_known) == (300, False)
        (impaired,) = control.told(TriggerImpaired)
        assert "300 s is assumed" in impaired.problem
        assert "DRAIN_DEREGISTRATION_DELAY" in impaired.remedy
        assert stage.trigger.status(control.time())["notes"] == list(stage.trigger.identity.notes)


async def test_without_the_target_type(stage):
    """Without permission to read the target type, the network mode tells it."""
    stage.clients.failures["DescribeTargetGroups"] = ClientError("AccessDenied")
    service = stage.fake.add_service(target_type="instance")
    async with stage.watching(stage.fake.add_task(service, network_mode="host", instance_id="i-0abc")) as control:
        await asyncio.sleep(10)

        (target,) = stage.trigger.identity.targets
        assert ({"i-0abc"}, "instance") == (target.ids, target.target_type)
        assert stage.trigger.status(control.time())["target_groups"][0]["verdict"] == "serving"


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (ImportError("aioboto3"), "pip install 'aioboto3>=15.1' (the extra [aws])"),
        (NoRegionError(), "set AWS_DEFAULT_REGION"),
    ],
)
async def test_clients_that_cannot_be_opened(stage, error, remedy):
    """A missing library or region is told once with the remedy, and the process goes on."""
    stage.clients.opening_fails = error
    async with stage.watching(stage.fake.add_task(stage.fake.add_service())) as control:
        await asyncio.sleep(300)

        (impaired,) = control.told(TriggerImpaired)
        assert remedy == impaired.remedy


async def test_metadata_that_does_not_answer(stage):
    """A metadata endpoint that fails at first is asked again."""
    async with stage.watching(stage.fake.add_task(stage.fake.add_service())) as control:
        stage.metadata.error = OSError("unreachable")
        await asyncio.sleep(30)
        stage.metadata.error = None
        await asyncio.sleep(61)

        assert stage.trigger.status(control.time())["state"] == "watching"
        assert len(control.told(TriggerImpaired)) <= 1


async def test_a_task_that_ecs_does_not_know_yet(stage):
    """Right after its start ECS may not show the task; that passes."""
    task = stage.fake.add_task(stage.fake.add_service())
    stage.fake.tasks.remove(task)
    async with stage.watching(task) as control:
        await asyncio.sleep(3)
        assert "MISSING" in control.told(TriggerImpaired)[0].problem
        stage.fake.tasks.append(task)
        await asyncio.sleep(61)
        assert stage.trigger.status(control.time())["state"] == "watching"


@pytest.mark.parametrize(("given", "remedy"), [({}, "DRAIN_TARGET_ID"), ({"target_id": "i-0abc"}, "DRAIN_TARGET_PORT")])
async def test_off_ecs_something_is_missing(stage, given, remedy):
    """Off ECS, what nobody can look up is named."""
    stage.fake.add_task(stage.fake.add_service(target_type="instance"), instance_id="i-0abc")
    arn = group_named(stage, "web")
    async with stage.watching(None, environ={}, target_group_arn=arn, **given) as control:
        await asyncio.sleep(1)

        assert remedy in control.told(TriggerImpaired)[0].remedy


@pytest.mark.parametrize("target_type", ["lambda", "alb"])
async def test_groups_that_are_not_for_tasks(stage, target_type):
    """A group of Lambda functions or of balancers is refused by name."""
    task = stage.fake.add_task(stage.fake.add_service(target_type=target_type))
    async with stage.watching(task) as control:
        await asyncio.sleep(1)

        assert f"targets of type {target_type}" in control.told(TriggerImpaired)[0].problem


async def test_connection_termination(stage):
    """For an NLB it is known whether connections are cut at the end of the delay."""
    attributes = {"deregistration_delay.connection_termination.enabled": "true"}
    service = stage.fake.add_service(protocol="TCP", attributes=attributes)

    (target,) = await targets_of(stage, stage.fake.add_task(service))

    assert target.connection_termination is True
