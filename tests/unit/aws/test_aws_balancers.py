"""Whose target is whose: each way in which ECS puts a balancer before a service, and ports that two tasks share."""

import asyncio

import pytest
from aws_fakes import ClientError

from starlette_drain._core.events import TriggerImpaired, TriggerStoodDown
from starlette_drain.testing import FakeGateway, FakeRegistration, FakeTaskSet

pytestmark = pytest.mark.anyio

BRIDGE = {"network_mode": "bridge", "instance_id": "i-0abc", "addresses": ("172.17.0.2",)}


async def found(stage, task, **options):
    """Return the names of the groups that are found, each with its ports."""
    async with stage.watching(task, **options):
        await asyncio.sleep(1)
        return {each.group: set(each.ports) for each in stage.trigger.identity.targets}


def bridge_service(stage, *protocols):
    """Return a service on instances with a group for each protocol, all of them for one port."""
    groups = [stage.fake.add_target_group(each, target_type="instance", protocol=each) for each in protocols]
    return stage.fake.add_service(registrations=[FakeRegistration(each, "app", 8000) for each in groups])


@pytest.mark.parametrize("only", ["metadata", "ecs"])
async def test_the_port_for_ipv4_is_ours(stage, only):
    """Docker may give IPv6 another port of the host, which is a neighbour's for IPv4; ECS registers that for IPv4."""
    task = stage.fake.add_task(
        bridge_service(stage, "HTTP"), host_ports={8000: 49833}, ipv6_ports={8000: 49832}, **BRIDGE
    )
    async with stage.watching(task):
        if only == "ecs":
            stage.metadata.shown = task.metadata()
            stage.metadata.shown["Containers"][0].pop("Ports")
        await asyncio.sleep(1)

        (target,) = stage.trigger.identity.targets
        assert {49833} == target.ports


async def test_a_port_for_ipv6_alone(stage):
    """Where Docker publishes for IPv6 only, that is the port."""
    task = stage.fake.add_task(bridge_service(stage, "HTTP"), host_ports={8000: 49833}, **BRIDGE)
    async with stage.watching(task):
        stage.metadata.shown = task.metadata()
        stage.metadata.shown["Containers"][0]["Ports"][0]["HostIp"] = "::"
        await asyncio.sleep(1)

        (target,) = stage.trigger.identity.targets
        assert {49833} == target.ports


@pytest.mark.parametrize(
    ("protocol", "port"),
    [("TCP", 40000), ("TLS", 40000), ("HTTP", 40000), ("UDP", 40001), ("QUIC", 40001), ("TCP_UDP", 40000)],
)
async def test_tcp_and_udp_on_one_port(stage, protocol, port):
    """The protocol of the group says which of two ports of the host is meant."""
    task = stage.fake.add_task(
        bridge_service(stage, protocol), host_ports={8000: 40000}, udp_ports={8000: 40001}, **BRIDGE
    )

    assert await found(stage, task) == {protocol: {port}}


async def test_tcp_and_udp_without_the_kind_of_the_group(stage):
    """Where the protocol of the group cannot be read, TCP is what long-lived connections come by."""
    stage.clients.failures["DescribeTargetGroups"] = ClientError("AccessDenied")
    task = stage.fake.add_task(
        bridge_service(stage, "TCP"), host_ports={8000: 40000}, udp_ports={8000: 40001}, **BRIDGE
    )

    assert await found(stage, task) == {"TCP": {40000}}


async def test_the_balancers_that_the_task_was_started_with(stage):
    """A container that starts again after its service was given another group watches the one that it is in."""
    old, new = stage.fake.add_target_group("old"), stage.fake.add_target_group("new")
    service = stage.fake.add_service(registrations=[FakeRegistration(old, "app", 8000)])
    task = stage.fake.add_task(service)
    stage.fake.update_service(service, registrations=[FakeRegistration(new, "app", 8000)])

    assert await found(stage, task) == {"old": {8000}}
    assert await found(stage, stage.fake.add_task(service, addresses=("10.0.0.6",))) == {"new": {8000}}


@pytest.mark.parametrize("started_by", ["ecs-svc/4711", "somebody"])
async def test_a_revision_that_is_not_certain(stage, started_by):
    """Where no revision has the number of the task's deployment, the groups of all that have tasks are watched."""
    old, new = stage.fake.add_target_group("old"), stage.fake.add_target_group("new")
    service = stage.fake.add_service(registrations=[FakeRegistration(old, "app", 8000)])
    stage.fake.add_task(service, addresses=("10.0.0.6",))
    stage.fake.update_service(service, registrations=[FakeRegistration(new, "app", 8000)])
    task = stage.fake.add_task(service, started_by=started_by)

    assert await found(stage, task) == {"new": {8000}, "old": {8000}}


async def test_express_mode(stage):
    """In Express mode the service names no balancer; the groups that ECS has made are in the revision."""
    group = stage.fake.add_target_group("ecs-express", delay=120)
    task = stage.fake.add_task(stage.fake.add_service(express=[group]))
    async with stage.watching(task) as control:
        await asyncio.sleep(10)
        assert control.told(TriggerStoodDown) == []
        stage.fake.deregister(task)
        await asyncio.sleep(10)

        assert len(control.causes) == 1


async def test_a_gateway_connector(stage):
    """Of a Gateway connector both groups of the pair are watched, beside those that the service names."""
    groups = [stage.fake.add_target_group(name) for name in ("own", "gateway", "gateway-2")]
    service = stage.fake.add_service(
        registrations=[FakeRegistration(groups[0], "app", 8000)], gateways=[FakeGateway(groups[1], groups[2])]
    )

    assert await found(stage, stage.fake.add_task(service)) == {"own": {8000}, "gateway": set(), "gateway-2": set()}


@pytest.mark.parametrize("controller", ["CODE_DEPLOY", "EXTERNAL"])
async def test_task_sets(stage, controller):
    """With task sets the task is in the groups of its own set; where that is not known, in those of one of them."""
    blue, green = stage.fake.add_target_group("blue"), stage.fake.add_target_group("green")
    service = stage.fake.add_service(registrations=[])
    service.controller = controller
    service.task_sets = [
        FakeTaskSet("7", [FakeRegistration(blue, "app", 8000)]),
        FakeTaskSet("8", [FakeRegistration(green, "app", 8000)], status="ACTIVE"),
    ]

    assert await found(stage, stage.fake.add_task(service, started_by="ecs-svc/8")) == {"green": {8000}}
    task = stage.fake.add_task(service, started_by="ecs-svc/9", addresses=("10.0.0.6",))
    assert await found(stage, task) == {"blue": {8000}, "green": {8000}}
    assert "DescribeServiceRevisions" not in stage.clients.operations()


@pytest.mark.parametrize("code", ["AccessDeniedException", "UnsupportedFeatureException"])
async def test_without_the_revisions(stage, code):
    """Where revisions may not be read the service does, without a word, while the task is of its newest deployment."""
    service = stage.fake.add_service()
    task = stage.fake.add_task(service)
    stage.clients.failures["DescribeServiceRevisions"] = ClientError(code)
    async with stage.watching(task) as control:
        await asyncio.sleep(100)

        assert [each.group for each in stage.trigger.identity.targets] == ["web"]
        assert control.told(TriggerImpaired) == []


async def test_without_the_revisions_of_an_older_task(stage):
    """Without the permission a task of an older deployment takes what the service has, and says what that may miss."""
    service = stage.fake.add_service()
    task = stage.fake.add_task(service)
    stage.fake.update_service(service, registrations=service.registrations)
    stage.clients.failures["DescribeServiceRevisions"] = ClientError("AccessDeniedException")
    async with stage.watching(task) as control:
        await asyncio.sleep(10)

        assert [each.group for each in stage.trigger.identity.targets] == ["web"]
        (impaired,) = control.told(TriggerImpaired)
        assert "ecs:DescribeServiceRevisions" in impaired.remedy


async def test_express_mode_without_the_permission(stage):
    """Where nothing is found because revisions may not be read, the permission is named."""
    group = stage.fake.add_target_group("ecs-express")
    task = stage.fake.add_task(stage.fake.add_service(express=[group]))
    stage.clients.failures["DescribeServiceRevisions"] = ClientError("AccessDeniedException")
    async with stage.watching(task) as control:
        await asyncio.sleep(10)

        (event,) = control.told(TriggerStoodDown)
        assert "a balancer that ECS manages" in event.why
        assert "ecs:DescribeServiceRevisions" in control.told(TriggerImpaired)[0].remedy


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "no target group, so only SIGTERM and events can start"),
        ({"service_connect": True}, "through Service Connect"),
        ({"lattice": ("arn:aws:vpc-lattice:r:1:targetgroup/tg-1",)}, "through VPC Lattice"),
    ],
)
async def test_services_without_a_target_group(stage, options, words):
    """What reaches the tasks otherwise is named, and that nothing but SIGTERM and events will tell."""
    service = stage.fake.add_service(registrations=[])
    for name, value in options.items():
        setattr(service, name, value)
    async with stage.watching(stage.fake.add_task(service)) as control:
        await asyncio.sleep(1)

        (event,) = control.told(TriggerStoodDown)
        assert words in event.why
        assert control.told(TriggerImpaired) != []


@pytest.mark.parametrize("refused", [None, "DescribeTargetGroups"])
async def test_a_group_that_was_deleted(stage, refused):
    """One group of several that does not exist any more is told of, and the others are watched."""
    live, dead = stage.fake.add_target_group("live"), stage.fake.add_target_group("dead")
    service = stage.fake.add_service(registrations=[FakeRegistration(live, "app", 8000, alternate=dead)])
    task = stage.fake.add_task(service)
    del stage.fake.groups[dead.arn]
    if refused:
        stage.clients.failures[refused] = ClientError("AccessDenied")
    async with stage.watching(task) as control:
        await asyncio.sleep(10)
        assert any("dead" in each.problem for each in control.told(TriggerImpaired))
        stage.fake.deregister(task, live)
        await asyncio.sleep(10)

        assert len(control.causes) == 1


async def test_the_only_group_was_deleted(stage):
    """A group that does not exist is no group to do without where it is the only one."""
    task = stage.fake.add_task(stage.fake.add_service())
    stage.fake.groups.clear()
    async with stage.watching(task) as control:
        await asyncio.sleep(10)

        assert "does not know" in control.told(TriggerImpaired)[0].problem
        assert stage.trigger.status(control.time())["state"] == "discovering"
