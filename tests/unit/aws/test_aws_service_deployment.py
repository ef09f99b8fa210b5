"""The own revision losing its production traffic: the verdict by its table, and the loop around it on virtual time."""

import asyncio
import contextlib

import pytest
from aws_fakes import ClientError

from starlette_drain import DrainCause
from starlette_drain._core.events import TriggerImpaired, TriggerRestored, TriggerStoodDown
from starlette_drain.aws.identity.deployment import RevisionVerdict, bake_time, find_own_revision, is_over, judge
from starlette_drain.aws.sources.service_deployment import ServiceDeploymentTrigger
from starlette_drain.testing.fake_aws.deployments import STAGES
from starlette_drain.testing.fake_aws.strategy import STRATEGIES
from starlette_drain.triggers.base import Trigger

SERVING, LEAVING, RETURNING, UNKNOWN = (
    RevisionVerdict.SERVING,
    RevisionVerdict.LEAVING,
    RevisionVerdict.RETURNING,
    RevisionVerdict.UNKNOWN,
)
BLUE, GREEN, OTHER = (f"arn:aws:ecs:r:1:service-revision/main/web/{number}" for number in (1, 2, 3))
SHIFTED = STAGES[STAGES.index("POST_PRODUCTION_TRAFFIC_SHIFT") :]
LIST, DESCRIBE, REVISIONS = "ListServiceDeployments", "DescribeServiceDeployments", "DescribeServiceRevisions"


def deployment(status, stage=None, **more):
    """Return a ServiceDeployment from BLUE to GREEN."""
    record = {"sourceServiceRevisions": [{"arn": BLUE}], "targetServiceRevision": {"arn": GREEN}, "status": status}
    return record | ({"lifecycleStage": stage} if stage else {}) | more


@pytest.mark.parametrize("stage", [None, *STAGES, "SOMETHING_NEW"])
def test_the_old_revision_in_each_stage(stage):
    """From POST_PRODUCTION_TRAFFIC_SHIFT on the old revision leaves, never before; the new one serves throughout."""
    assert judge(deployment("IN_PROGRESS", stage), BLUE) is (LEAVING if stage in SHIFTED else SERVING)
    assert judge(deployment("IN_PROGRESS", stage), GREEN) is SERVING
    assert judge(deployment("IN_PROGRESS", stage), OTHER) is UNKNOWN


@pytest.mark.parametrize(
    ("status", "verdict", "over"),
    [
        ("PENDING", SERVING, False),
        ("SUCCESSFUL", LEAVING, True),
        ("STOP_REQUESTED", RETURNING, False),
        ("STOPPED", RETURNING, True),
        ("ROLLBACK_REQUESTED", RETURNING, False),
        ("ROLLBACK_IN_PROGRESS", RETURNING, False),
        ("ROLLBACK_SUCCESSFUL", RETURNING, True),
        ("ROLLBACK_FAILED", RETURNING, True),
        ("SOMETHING_NEW", UNKNOWN, False),
        (None, UNKNOWN, False),
    ],
)
@pytest.mark.parametrize("stage", [None, "SCALE_UP"])
def test_the_old_revision_in_each_status(status, verdict, over, stage):
    """A rollback and a stop bring the traffic back, in whatever stage; success means that it has gone."""
    assert judge(deployment(status, stage), BLUE) is verdict
    assert is_over(deployment(status)) is over
    if verdict is RETURNING:
        assert judge(deployment(status, "BAKE_TIME"), BLUE) is RETURNING


def test_an_empty_record():
    """A record that says nothing concludes nothing."""
    assert judge({}, BLUE) is UNKNOWN
    assert bake_time({}) == 0
    assert judge({"sourceServiceRevisions": [{}], "targetServiceRevision": None}, BLUE) is UNKNOWN


@pytest.mark.parametrize(("strategy", "minutes"), [("BLUE_GREEN", 90), ("LINEAR", 90), ("CANARY", 90), ("ROLLING", 0)])
def test_the_bake_time(strategy, minutes):
    """Three strategies have a bake time; steps of a canary or linear deployment do not count into it."""
    configuration = {
        "strategy": strategy,
        "bakeTimeInMinutes": 90,
        "canaryConfiguration": {"canaryBakeTimeInMinutes": 10},
    }
    assert bake_time({"deploymentConfiguration": configuration}) == minutes * 60


def revisions(one=1, other=2):
    """Return BLUE and GREEN with these task definitions."""
    return [
        {"serviceRevisionArn": BLUE, "taskDefinition": f"app:{one}"},
        {"serviceRevisionArn": GREEN, "taskDefinition": f"app:{other}"},
    ]


@pytest.mark.parametrize(
    ("task", "known", "found"),
    [
        ({"startedBy": "ecs-svc/2", "taskDefinitionArn": "app:1"}, revisions(), GREEN),
        ({"startedBy": "ecs-svc/9", "taskDefinitionArn": "app:1"}, revisions(), BLUE),
        ({"taskDefinitionArn": "app:2"}, revisions(), GREEN),
        ({"startedBy": "ecs-svc/9", "taskDefinitionArn": "app:1"}, revisions(1, 1), None),
        ({"startedBy": "ecs-svc/1", "taskDefinitionArn": "app:1"}, revisions(1, 1), BLUE),
        ({"taskDefinitionArn": "app:3"}, revisions(), None),
        ({}, revisions(), None),
        ({"taskDefinitionArn": "app:1"}, [], None),
    ],
)
def test_which_revision_is_ours(task, known, found):
    """The number decides where one fits, else the task definition where only one has it; in doubt nobody guesses."""
    assert find_own_revision(task, known) == found


@contextlib.asynccontextmanager
async def watching(stage, **options):
    """Let a ServiceDeploymentTrigger watch a task of the first revision."""
    service = stage.fake.services[0] if stage.fake.services else stage.fake.add_service(delay=300)
    async with stage.watching(stage.fake.add_task(service), kind=ServiceDeploymentTrigger, **options) as control:
        await asyncio.sleep(1)
        yield control


@pytest.mark.anyio
@pytest.mark.parametrize("strategy", ["BLUE_GREEN", "LINEAR", "CANARY"])
async def test_sheds_over_the_bake_time(stage, strategy):
    """When the traffic has gone, a drain over the bake time is asked for once: two hours, longer than any delay."""
    async with watching(stage) as control:
        assert isinstance(stage.trigger, Trigger)
        going = stage.fake.deploy(stage.fake.services[0], strategy=strategy, bake=120)
        for each in STAGES[1:-3]:
            going.stage = each
            await asyncio.sleep(60)
        assert control.causes == []
        for each in STAGES[-3:-1]:
            going.stage = each
            await asyncio.sleep(60)
        (cause,) = control.causes
        assert cause.trigger == "service-deployment"
        assert cause.revocable
        assert "POST_PRODUCTION_TRAFFIC_SHIFT, 120 min of bake time" in cause.reason
        assert cause.deadline == pytest.approx(cause.at - cause.lag + 7200 - 15)
        assert 0 < cause.lag <= 15
        going.stage = "CLEAN_UP"
        await asyncio.sleep(60)
        going.status = "SUCCESSFUL"
        await asyncio.sleep(60)
        assert len(control.causes) == 1
        status = stage.trigger.status(control.time())
        assert (status["verdict"], status["status"]) == ("leaving", "SUCCESSFUL")


@pytest.mark.anyio
@pytest.mark.parametrize("pause", [0, 30])
async def test_a_deployment_that_goes_on_by_itself_gives_its_bake_time(stage, pause):
    """From the shift of the last traffic on, and as `plan` computes: a PAUSE hook before the bake time adds nothing."""
    async with watching(stage) as control:
        strategy = STRATEGIES["canary"].with_times(20, pause, is_network=False)
        going = stage.fake.shift(stage.fake.services[0], strategy, start_up=30.0)
        while not control.causes:
            await asyncio.sleep(1)
            stage.fake.advance()
            assert control.time() < 2000
        shifted = going.deployment.stage in STAGES[STAGES.index("POST_PRODUCTION_TRAFFIC_SHIFT") :]
        (cause,) = control.causes
        assert shifted
        assert cause.deadline == pytest.approx(cause.at - cause.lag + 1200 - 15)


@pytest.mark.anyio
@pytest.mark.parametrize("status", ["ROLLBACK_REQUESTED", "ROLLBACK_IN_PROGRESS", "ROLLBACK_SUCCESSFUL", "STOPPED"])
async def test_withdraws_on_rollback(stage, status):
    """A rollback takes the drain back within one poll interval; the next deployment asks again."""
    async with watching(stage) as control:
        going = stage.fake.deploy(stage.fake.services[0])
        going.stage = "BAKE_TIME"
        await asyncio.sleep(16)
        assert len(control.causes) == 1
        going.status = status
        await asyncio.sleep(15)
        assert control.causes == []
        assert stage.trigger.status(control.time())["verdict"] == "returning"

        going.status = "ROLLBACK_SUCCESSFUL"
        await asyncio.sleep(30)
        again = stage.fake.deploy(stage.fake.services[0])
        again.source, again.stage = going.source, "BAKE_TIME"
        await asyncio.sleep(30)
        assert len(control.causes) == 1


@pytest.mark.anyio
async def test_others_keep_what_they_asked_for(stage):
    """A withdrawal takes back nothing that somebody else has asked for as well: `Control.retract` sees to it."""
    async with watching(stage) as control:
        going = stage.fake.deploy(stage.fake.services[0])
        going.stage = "BAKE_TIME"
        await asyncio.sleep(16)
        control.causes.append(type(control.causes[0])("manual", "asked for", at=1.0))
        going.status = "ROLLBACK_IN_PROGRESS"
        await asyncio.sleep(30)
        assert [each.trigger for each in control.causes] == ["service-deployment", "manual"]


@pytest.mark.anyio
async def test_calls(stage):
    """Without a deployment one List call per 15 s; with one, one Describe; the revisions are asked for once."""
    async with watching(stage):
        stage.clients.calls.clear()
        await asyncio.sleep(150)
        assert set(stage.clients.operations()) == {LIST}
        assert len(stage.clients.times(LIST)) <= 11
        stage.fake.deploy(stage.fake.services[0])
        await asyncio.sleep(16)
        stage.clients.calls.clear()
        await asyncio.sleep(150)
        assert set(stage.clients.operations()) == {DESCRIBE}
        assert len(stage.clients.times(DESCRIBE)) <= 11


@pytest.mark.anyio
@pytest.mark.parametrize(("strategy", "bake"), [("BLUE_GREEN", 0), ("BLUE_GREEN", None), ("ROLLING", 60)])
async def test_no_bake_time(stage, strategy, bake):
    """Where there is no bake time nothing is asked for: the old target is deregistered at once, and that is seen."""
    async with watching(stage) as control:
        going = stage.fake.deploy(stage.fake.services[0], strategy=strategy, bake=bake)
        going.stage = "BAKE_TIME"
        await asyncio.sleep(60)
        assert control.causes == []


@pytest.mark.anyio
async def test_the_new_revision(stage):
    """A task of the target revision serves throughout, and so do tasks of a rolled-back target."""
    going = stage.fake.deploy(stage.fake.add_service())
    async with stage.watching(
        stage.fake.add_task(stage.fake.services[0], definition=2, started_by=f"ecs-svc/{going.target.number}"),
        kind=ServiceDeploymentTrigger,
    ) as control:
        going.stage = "BAKE_TIME"
        await asyncio.sleep(60)
        assert stage.trigger.status(control.time())["revision"] == going.target.arn
        assert control.causes == []


@pytest.mark.anyio
async def test_coming_up_in_the_bake_time(stage):
    """A process that starts again in the middle takes one interval for lost, and says so."""
    stage.fake.deploy(stage.fake.add_service(), bake=60).stage = "BAKE_TIME"
    async with watching(stage) as control:
        (cause,) = control.causes
        assert "since when is unknown" in cause.reason
        assert cause.deadline == pytest.approx(cause.at - 15 + 3600 - 15)


@pytest.mark.anyio
async def test_a_revision_that_is_in_doubt(stage):
    """Where both revisions run the same task definition, and no number fits, it asks for nothing but help."""
    service = stage.fake.add_service()
    going = stage.fake.deploy(service)
    going.stage, going.target.definition, going.source.number = "BAKE_TIME", 1, "777"
    service.starts = None
    async with watching(stage) as control:
        await asyncio.sleep(60)
        (impaired,) = control.told(TriggerImpaired)
        assert "task definition" in impaired.remedy
        assert control.causes == []


@pytest.mark.anyio
@pytest.mark.parametrize("operation", [LIST, DESCRIBE, REVISIONS])
@pytest.mark.parametrize("error", ["ThrottlingException", "AccessDeniedException", "UnsupportedFeatureException"])
async def test_failed_looks_change_nothing(stage, operation, error):
    """However a look fails: no drain, and no end of one; told once, and once more when it works again."""
    async with watching(stage) as control:
        stage.clients.failures[operation] = ClientError(error)
        going = stage.fake.deploy(stage.fake.services[0])
        going.stage = "BAKE_TIME"
        await asyncio.sleep(120)
        assert control.causes == []
        (impaired,) = control.told(TriggerImpaired)
        assert operation in impaired.problem
        stage.clients.failures.clear()
        await asyncio.sleep(61)
        assert len(control.causes) == len(control.told(TriggerRestored)) == 1
        stage.clients.failures["*"] = ClientError(error)
        await asyncio.sleep(120)
        assert len(control.causes) == 1


@pytest.mark.anyio
async def test_nothing_to_watch(stage):
    """Off ECS, and for a task of no service, it says why and ends."""
    async with stage.watching(None, kind=ServiceDeploymentTrigger, environ={}) as control:
        await asyncio.sleep(1)
        assert "not an ECS task" in control.told(TriggerStoodDown)[0].why
    async with stage.watching(stage.fake.add_task(None), kind=ServiceDeploymentTrigger) as control:
        await asyncio.sleep(1)
        assert "no service" in control.told(TriggerStoodDown)[0].why
        assert stage.trigger.status(control.time())["state"] == "stood down"


@pytest.mark.anyio
@pytest.mark.parametrize("status", ["ROLLBACK_IN_PROGRESS", "ROLLBACK_SUCCESSFUL", "STOPPED"])
async def test_a_rollback_is_heeded_by_the_next_leader(stage, status):
    """The worker that watched has died in the bake time; the one that watches next drops its claim after a rollback."""
    going = stage.fake.deploy(stage.fake.add_service(), bake=60)
    going.stage, going.status = "BAKE_TIME", status
    async with watching(stage) as control:
        control.causes.append(DrainCause(stage.trigger.name, "claimed by the worker before", at=0.0))
        await asyncio.sleep(60)
        assert control.causes == []
