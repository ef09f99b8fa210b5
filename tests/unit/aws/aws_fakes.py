"""Plain objects in the places of AWS and of the drain: no threads, no sockets."""

import asyncio
import contextlib

from starlette_drain import Settings as AwsSettings
from starlette_drain.testing.fake_aws import deployments, ecs, elbv2
from starlette_drain.testing.fake_aws.faults import ApiError, as_error


class RecordingControl:
    """A drain that only writes down what a trigger does to it: ``causes`` has each that was another than before."""

    def __init__(self, **options):
        self.settings = AwsSettings(**options)
        self.causes = []
        self.advice = []
        self.events = []
        self.workers = 1
        self.open = 0
        self.listeners = []

    def time(self):
        """Return the loop's time."""
        return asyncio.get_running_loop().time()

    def claim(self, cause):
        """Note what is wanted; that it is wanted still is no news."""
        if cause not in self.causes:
            self.causes.append(cause)

    def withdraw(self, trigger):
        """Note that the causes were taken back, where *trigger* alone has asked."""
        if not self.causes or {each.trigger for each in self.causes} != {trigger}:
            return False
        self.causes.clear()
        return True

    def open_sessions(self):
        """Return what a test says."""
        return self.open

    def note_fleet(self, draining, healthy, *, counted=True):
        """Note how many there are."""
        self.seen = draining, healthy
        self.counted = counted

    def note_window(self, window):
        """Note an advice."""
        self.advice.append(window)

    def emit(self, event):
        """Note a fact."""
        self.events.append(event)

    async def wait_drained(self):
        """Return at once."""
        return True

    async def flush(self):
        """Do nothing."""

    def told(self, kind):
        """Return the facts of one kind."""
        return [each for each in self.events if type(each) is kind]


class ClientError(Exception):
    """As botocore's: told by its ``response``."""

    def __init__(self, code, message="AWS says why. The Canonical String was secret"):
        super().__init__(code)
        self.response = {"Error": {"Code": code, "Message": message}}


class NoCredentialsError(Exception):
    """As botocore's: told by its name."""


class NoRegionError(Exception):
    """As botocore's: told by its name."""


class ScriptedClients:
    """
    Clients that answer from a FakeAWS without a wire.

    ``failures`` maps an operation to what it raises, for as long as it is there, and ``answers`` to what it answers
    instead; ``taking`` is the virtual time a call takes; ``lost`` maps an operation to the seconds after which AWS does
    what nobody hears the answer to; ``hanging`` holds the ARNs of target groups about which nothing is answered;
    ``calls`` lists when and what was called.
    """

    def __init__(self, fake):
        self.fake = fake
        self.failures = {}
        self.answers = {}
        self.taking = 0.0
        self.lost = {}
        self.hanging = set()
        self.calls = []
        self.regions = []
        self.opened = []
        self.closed = []
        self.opening_fails = None

    @contextlib.asynccontextmanager
    async def client(self, service, /, *, region_name=None):
        """Open a scripted client."""
        if self.opening_fails:
            raise self.opening_fails
        self.regions.append(region_name)
        self.opened.append(service)
        try:
            yield ScriptedClient(self, service)
        finally:
            self.closed.append(service)

    def times(self, operation):
        """Return when an operation was called."""
        return [at for at, called, _ in self.calls if called == operation]

    def operations(self):
        """Return the names of what was called, in order."""
        return [called for _, called, _ in self.calls]


class ScriptedClient:
    """One client of `ScriptedClients`."""

    def __init__(self, owner, service):
        self._owner = owner
        self._service = service

    def __getattr__(self, method):
        operation = "".join(part.capitalize() for part in method.split("_"))

        async def call(**parameters):
            owner = self._owner
            loop = asyncio.get_running_loop()
            owner.calls.append((loop.time(), operation, parameters))
            if operation in owner.lost:
                loop.call_later(owner.lost[operation], self._answer, operation, parameters)
            if operation in owner.lost or parameters.get("TargetGroupArn") in owner.hanging:
                await loop.create_future()
            await asyncio.sleep(owner.taking)
            error = owner.failures.get(operation) or owner.failures.get("*")
            if error:
                raise error
            owner.fake.advance()
            if fault := owner.fake._faults.strike(operation, self._service):
                raise ClientError(as_error(fault, operation, is_json=self._service == "ecs").code)
            if operation in owner.answers:
                return owner.answers[operation]
            return self._answer(operation, parameters)

        return call

    def _answer(self, operation, parameters):
        fake = self._owner.fake
        fake.advance()
        try:
            if "ServiceDeployments" in operation or "ServiceRevisions" in operation:
                return deployments.answer(operation, parameters, fake.deployments, fake.services)
            if self._service == "ecs":
                return ecs.answer(operation, parameters, fake.services, fake.tasks)
            form = {"TargetGroupArn": parameters.get("TargetGroupArn", "")}
            for number, target in enumerate(parameters.get("Targets", ()), 1):
                form |= {f"Targets.member.{number}.{key}": str(value) for key, value in target.items()}
            for number, arn in enumerate(parameters.get("TargetGroupArns", ()), 1):
                form[f"TargetGroupArns.member.{number}"] = arn
            return elbv2.CALLS[operation](form, fake.groups)
        except ApiError as error:
            raise ClientError(error.code) from None


class MetadataOf:
    """The task metadata endpoint of one task."""

    def __init__(self, task):
        self.task = task
        self.error = None
        self.shown = None
        self.asked = []

    async def __call__(self, url):
        """Answer as the endpoint does."""
        self.asked.append(url)
        if self.error:
            raise self.error
        return self.shown or self.task.metadata()


ON_ECS = {"ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4/0123"}
