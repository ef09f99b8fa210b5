"""The admin route in a browser: who gets the page, what it may do there, and the event stream that it lives on."""

import asyncio
import hashlib
import json
import re
import signal
from base64 import b64encode

import pytest
from test_admin import BEARER, TOKEN, House, Server

from starlette_drain import DrainCause
from starlette_drain._asgi import page
from starlette_drain._asgi.status_stream import LIMIT, MAX_AGE

pytestmark = pytest.mark.anyio

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
STREAM = {**BEARER, "accept": "text/event-stream"}
HERE = ("127.0.0.1", 50000)


async def open_page(house, **options):
    """Open the admin route as a browser does."""
    return await house.ask(**{"headers": BROWSER, "client": HERE, **options})


# --- Who gets the page ---


async def test_a_browser_gets_a_page():
    """One file, and nothing that it would have to load."""
    answer = await open_page(House())
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    text = answer.body.decode()
    assert re.findall(r"""(?:src|href|action)=["']?([^"'\s>]*)|@import|url\(""", text) == ["data:,"]
    assert set(re.findall(r"https?://[^\"'\s]+", text)) == {"http://www.w3.org/2000/svg"}


async def test_the_page_has_no_data():
    """It is the same whatever the drain does: what there is to know is for the bearer of the token."""
    house = House()
    before = (await open_page(house)).body
    await house.open(10)
    await house.drain.start(window=100, reason="the secret reason")
    assert (await open_page(house)).body == before
    assert TOKEN.encode() not in before


@pytest.mark.parametrize(
    ("host", "is_answered"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("10.0.3.17", True),
        ("172.31.255.1", True),
        ("192.168.1.2", True),
        ("100.64.7.7", True),
        ("fd00::17", True),
        ("fe80::1%eth0", True),
        ("::ffff:10.0.3.17", True),
        ("52.95.110.1", False),
        ("172.32.0.1", False),
        ("::ffff:52.95.110.1", False),
        ("2600:1f14::1", False),
        ("localhost", False),
        ("", False),
    ],
)
async def test_the_page_is_for_private_peers(host, is_answered):
    """Loopback and private networks; all others get what they get without a page."""
    answer = await open_page(House(), client=(host, 50000))
    assert answer.status == (200 if is_answered else 401)


async def test_a_peer_without_an_address_gets_no_page():
    """Behind a Unix socket stands a proxy."""
    assert (await open_page(House(), client=None)).status == 401


@pytest.mark.parametrize("header", ["x-forwarded-for", "x-forwarded-proto", "x-real-ip", "via", "cdn-loop"])
async def test_the_page_does_not_go_through_a_balancer(header):
    """A balancer's address is private, and who stands behind it is not."""
    assert (await open_page(House(), headers={**BROWSER, header: "10.0.0.1"})).status == 401


@pytest.mark.parametrize(
    "accept", ["", "*/*", "application/json", "application/json, text/plain, */*", "text/html;q=0, */*"]
)
async def test_programs_get_no_page(accept):
    """What does not ask for HTML by its name is told to send the token, in JSON."""
    answer = await open_page(House(), headers={"accept": accept})
    assert answer.status == 401
    assert "error" in answer.json()


async def test_a_bearer_gets_json():
    """A request with a token is no navigation, whatever it accepts."""
    answer = await open_page(House(), headers={**BROWSER, **BEARER})
    assert answer.json()["state"] == "serving"


async def test_a_rotation_has_no_page():
    """The page shows a drain, and would wait for ever for one at this path."""
    answer = await open_page(House(), path="/drain/rotation")
    assert answer.status == 401
    assert "error" in answer.json()


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
async def test_only_looking_brings_the_page(method):
    """A form of another site gets nowhere: there is no cookie that would let it."""
    assert (await open_page(House(), method=method)).status == 401


async def test_without_a_token_there_is_no_page():
    """The route does not exist then, for browsers neither."""
    assert (await open_page(House(admin_token=None))).status == 418


async def test_the_page_is_read_when_it_is_first_asked_for():
    """An application whose page is never opened does not pay for it."""
    page._read_page.cache_clear()
    house = House()
    await house.ask()
    assert page._read_page.cache_info().currsize == 0
    await open_page(house)
    assert page._read_page.cache_info().currsize == 1


# --- What it may do there ---


async def test_the_policy_allows_its_own_script_and_style_only():
    """By their hashes: what somebody else got into the page would not run."""
    answer = await open_page(House())
    policy = dict(each.split(" ", 1) for each in answer.headers["content-security-policy"].split("; "))
    text = answer.body.decode()
    for name, tag in (("script-src", "script"), ("style-src", "style")):
        (content,) = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", text, re.DOTALL)
        assert policy.pop(name) == f"'sha256-{b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
    assert policy == {
        "default-src": "'none'",
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }


async def test_no_browser_keeps_the_page_or_tells_others_of_it():
    """Neither in a cache, nor in a Referer; nor is it taken for another type, or opened by another site."""
    headers = (await open_page(House(), method="HEAD")).headers
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert "set-cookie" not in headers


async def test_the_page_writes_text_only():
    """A path or a reason that holds HTML stays text, and the token is kept nowhere but in memory."""
    text = (await open_page(House())).body.decode()
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write\(|\beval\(|Storage|cookie|\son\w+=", text
    )


# --- The event stream ---


class Watcher:
    """A client of the event stream."""

    def __init__(self, house, **headers) -> None:
        self.sent = []
        self.reads = True
        self.tells = True
        self._gone = asyncio.Event()
        raw = [(name.encode(), value.encode()) for name, value in (headers or STREAM).items()]
        scope = {"type": "http", "method": "GET", "path": "/drain", "query_string": b"", "headers": raw, "client": HERE}
        self.task = asyncio.create_task(house.app(scope, self._receive, self._send))

    @property
    def status(self):
        """The status of the response."""
        return self.sent[0]["status"]

    @property
    def events(self):
        """What has come."""
        text = b"".join(each.get("body", b"") for each in self.sent).decode()
        return [json.loads(each.removeprefix("data: ")) for each in text.split("\n\n") if each]

    @property
    def is_complete(self):
        """Whether the response has come to its end."""
        return self.sent[-1].get("more_body") is False

    async def go(self) -> None:
        """Go away."""
        self._gone.set()
        await asyncio.wait_for(self.task, 1.1)

    async def _receive(self):
        await self._gone.wait()
        if not self.tells:
            await asyncio.get_running_loop().create_future()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        if not self.reads:
            await asyncio.get_running_loop().create_future()
        if self._gone.is_set():
            raise OSError
        self.sent.append(message)


@pytest.fixture
def server():
    """Stand for the server whose handlers are installed."""
    server = Server()
    saved = {each: signal.signal(each, server.handle_exit) for each in (signal.SIGTERM, signal.SIGINT)}
    yield server
    for number, handler in saved.items():
        signal.signal(number, handler)


async def test_the_stream_sends_each_second_what_the_json_shows():
    """One event at once and one each second, through a whole drain, and never more than the JSON shows."""
    house = House()
    await house.open(10)
    watcher = Watcher(house)
    await asyncio.sleep(0.5)
    assert watcher.events == [(await house.ask()).json()]
    assert dict(watcher.sent[0]["headers"])[b"content-type"].startswith(b"text/event-stream")
    assert dict(watcher.sent[0]["headers"])[b"cache-control"] == b"no-store"
    await house.drain.start(window=10)
    await asyncio.sleep(15)
    assert len(watcher.events) == 16
    assert [each["state"] for each in watcher.events][::7] == ["serving", "draining", "drained"]
    assert watcher.events[-1].keys() == (await house.ask()).json().keys()
    await watcher.go()


async def test_the_stream_is_no_session():
    """It keeps no drain from its end, and is counted neither as a session nor as a response under way."""
    house = House()
    await house.open(0)
    watcher = Watcher(house)
    await asyncio.sleep(1)
    assert watcher.events[-1]["sessions"]["open"] == watcher.events[-1]["answers"] == 0
    await house.drain.start(window=60)
    await asyncio.sleep(1.1)
    assert watcher.events[-1]["state"] == "drained"
    assert not watcher.task.done()
    await watcher.go()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"accept": "text/event-stream"}, 401),
        ({**STREAM, "authorization": "Bearer wrong-horse-battery"}, 401),
        ({**STREAM, "x-forwarded-for": "10.0.0.1"}, 403),
    ],
)
async def test_the_stream_is_for_the_bearer_of_the_token(headers, status):
    """What holds for the JSON holds for its stream."""
    watcher = Watcher(House(), **headers)
    await asyncio.wait_for(watcher.task, 1)
    assert watcher.status == status


async def test_there_are_only_so_many_streams():
    """One more is refused, with the time to come back, until another has gone."""
    house = House()
    watchers = [Watcher(house) for _ in range(LIMIT)]
    await asyncio.sleep(1)
    assert {each.status for each in watchers} == {200}
    refused = Watcher(house)
    await asyncio.wait_for(refused.task, 1)
    assert refused.status == 429
    assert dict(refused.sent[0]["headers"])[b"retry-after"] == b"10"
    assert (await house.ask()).status == 200
    await watchers[0].go()
    latest = Watcher(house)
    await asyncio.sleep(1)
    assert latest.status == 200
    for each in (latest, *watchers[1:]):
        await each.go()


async def test_a_stream_does_not_last():
    """A client that vanished frees its place, and a server that hides its stop waits no longer; others ask again."""
    watcher = Watcher(House())
    await asyncio.sleep(MAX_AGE - 1)
    assert not watcher.task.done()
    await asyncio.wait_for(watcher.task, 2)
    assert watcher.is_complete


async def test_a_stream_ends_when_the_server_stops(server):
    """A server that stops waits for its responses: this one ends at once, and with the last state."""
    house = House()
    await house.open(10)
    watcher = Watcher(house)
    await asyncio.sleep(10.2)
    server.should_exit = True
    await asyncio.wait_for(watcher.task, 1)
    assert watcher.is_complete
    assert watcher.events[-1]["state"] == "serving"


async def test_a_stream_ends_when_the_process_was_told_to_stop_and_has_drained():
    """Most servers do not show that they stop, and wait for their responses: it lasts to the end of the drain."""
    house = House()
    await house.open(10)
    watcher = Watcher(house)
    now = asyncio.get_running_loop().time()
    house.drain.host.control().claim(DrainCause("sigterm", "SIGTERM", now, now + 10, revocable=False))
    await asyncio.sleep(8)
    assert watcher.events[-1]["state"] == "draining"
    await asyncio.wait_for(watcher.task, 4)
    assert watcher.is_complete
    assert watcher.events[-1]["state"] == "drained"


async def test_a_stream_ends_with_the_application():
    """Where the lifespan ends first, the stream ends then."""
    house = House()
    await house.open(0)
    watcher = Watcher(house)
    await asyncio.sleep(10)
    await house.drain.host.end()
    await asyncio.wait_for(watcher.task, 1)
    assert watcher.is_complete


async def test_a_client_that_reads_nothing_does_not_hold_up_the_server(server):
    """What cannot be sent is given up."""
    watcher = Watcher(House())
    await asyncio.sleep(1)
    watcher.reads = False
    await asyncio.sleep(10)
    server.should_exit = True
    await asyncio.wait_for(watcher.task, 2)


async def test_a_client_that_goes_ends_its_stream():
    """Also where only sending tells that it has gone."""
    watcher = Watcher(House())
    await asyncio.sleep(1)
    watcher.tells = False
    await watcher.go()
