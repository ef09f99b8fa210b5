"""What the tests over real sockets share."""

import pytest

from starlette_drain.aws.api import calls, client
from starlette_drain.aws.api.client import Aioboto3Clients
from starlette_drain.testing import FakeAWS


@pytest.fixture
def anyio_backend():
    """Take a real loop: the answers come from another thread, over a socket."""
    return "asyncio"


@pytest.fixture(autouse=True)
def patience(request, monkeypatch):
    """Wait longer for answers: a busy machine may take seconds to make a client, or to answer from another thread."""
    if request.node.get_closest_marker("time_limits"):
        return
    monkeypatch.setattr(client, "TIME_LIMITS", client._stretched(client.TIME_LIMITS, 10))
    monkeypatch.setattr(calls, "TIME_LIMIT", 60.0)


@pytest.fixture
def fake():
    """Return a FakeAWS, not yet serving."""
    return FakeAWS()


@pytest.fixture
def endpoint(fake, monkeypatch):
    """Serve the FakeAWS, and let this process take itself for its newest task."""
    for variable in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        monkeypatch.delenv(variable, raising=False)
    with fake.serve() as serving:
        for variable, value in serving.environment().items():
            monkeypatch.setenv(variable, value)
        yield serving


@pytest.fixture
def clients():
    """Return the clients that an installation gets."""
    return Aioboto3Clients()
