"""One lean client, fed by hand: what it remembers and when it comes back."""

import asyncio
from random import Random

import pytest

client_module = pytest.importorskip("example_app.rollout.clients.client", reason="the example is no part of the wheel")
backoff = pytest.importorskip("example_app.rollout.clients.backoff")
records_module = pytest.importorskip("example_app.rollout.clients.records")

pytestmark = pytest.mark.anyio

ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
RESTART = b"\x88\x02\x03\xf4"


class FakeTransport:
    """Remembers what is done to it."""

    def __init__(self):
        self.done = []

    def __getattr__(self, name):
        """Take note of any call."""
        return lambda *arguments: self.done.append((name, *arguments))

    def is_closing(self):
        """Tell whether it was closed."""
        return ("close",) in self.done or ("abort",) in self.done


class Subject(client_module.Client):
    """A client that does not really connect; each attempt is handed out instead."""

    __slots__ = ("attempts",)

    def __init__(self, **options):
        habits = client_module.Habits("ws://127.0.0.1:1/devices", backoff.BEHAVIOURS["phoenix"], **options)
        super().__init__(7, habits, records_module.Records(), Random(7))
        self.attempts = []

    @property
    def records(self):
        """What it remembers."""
        return self._records

    def connect(self):
        """Begin an attempt whose socket is connected at once."""
        attempt = self.attempt = client_module.Attempt(self)
        attempt.connection_made(FakeTransport())
        self.attempts.append(attempt)


@pytest.fixture
async def subject():
    """A client whose first attempt is under way."""
    made = Subject()
    made.connect()
    return made


async def test_it_asks_for_a_websocket_on_a_path_of_its_own(subject):
    """Its number is the last part."""
    name, request = subject.attempts[0]._transport.done[0]
    assert (name, request.split(b"\r\n")[0]) == ("write", b"GET /devices/7 HTTP/1.1")


async def test_a_close_frame_is_remembered_by_its_code_and_the_client_comes_back(subject):
    """1012 now; 10 ms later the next attempt; when that is accepted the loss is made good."""
    subject.attempts[0].data_received(ACCEPTED + RESTART)
    subject.attempts[0].connection_lost(None)
    assert subject.loss.code == 1012
    await asyncio.sleep(0.011)
    subject.attempts[1].data_received(ACCEPTED)
    assert [(each.client, each.code) for each in subject.records.losses] == [(7, 1012)]
    assert subject.loss is None
    assert subject.is_open


async def test_an_end_without_a_close_frame_is_1006(subject):
    """RFC 6455 section 7.4.1."""
    subject.attempts[0].data_received(ACCEPTED)
    subject.attempts[0].connection_lost(ConnectionResetError())
    assert subject.loss.code == 1006


async def test_an_attempt_that_fails_is_counted_once_and_followed_by_another(subject):
    """A refusal closes the connection too; that is no second failure."""
    subject.attempts[0].data_received(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n\r\n")
    subject.attempts[0].connection_lost(None)
    assert subject.records.failures == {"HTTP 503": 1}
    await asyncio.sleep(0.051)
    assert len(subject.attempts) == 2


async def test_retry_after_is_honoured_where_asked_for():
    """Five seconds instead of fifty milliseconds."""
    subject = Subject(honours_retry_after=True)
    subject.connect()
    subject.attempts[0].data_received(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n\r\n")
    await asyncio.sleep(4.9)
    assert len(subject.attempts) == 1
    await asyncio.sleep(0.2)
    assert len(subject.attempts) == 2


async def test_an_answer_that_comes_too_late_is_nobodys(subject):
    """After so long the client has gone on to another attempt, and must not take two connections for one."""
    await asyncio.sleep(backoff.BEHAVIOURS["phoenix"].patience + 0.1)
    assert subject.records.failures == {"timeout": 1}
    subject.attempts[0].data_received(ACCEPTED)
    assert not subject.is_open
    assert subject.records.opened == []


async def test_a_ping_is_answered(subject):
    """Or the server would take the client for dead."""
    subject.attempts[0].data_received(ACCEPTED + b"\x89\x02hi")
    assert subject.attempts[0]._transport.done[-1][1][:2] == b"\x8a\x82"
