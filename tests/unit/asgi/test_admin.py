"""The admin route: every status code, every shape of answer, and what it must never do."""

import asyncio
import json
import logging
import os
import signal
from operator import itemgetter
from random import Random
from unittest.mock import ANY

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from worker_crowd import Watcher, soon

from starlette_drain import Drain, DrainCause, DrainMiddleware, DrainState, Session
from starlette_drain._asgi.admin import describe
from starlette_drain._core.events import DrainReplanned, TriggerStoodDown, WatchReported
from starlette_drain.testing.recording import RecordingObserver
from starlette_drain.triggers.manual import ManualTrigger

pytestmark = pytest.mark.anyio

TOKEN = "correct-horse-battery-staple"
BEARER = {"authorization": f"Bearer {TOKEN}"}
NEVER = object()
"""A chunk that does not come."""
JSON = {**BEARER, "content-type": "application/json"}


class Answer:
    """One response."""

    def __init__(self, messages) -> None:
        start = messages[0]
        self.status = start["status"]
        self.headers = {name.decode(): value.decode() for name, value in start["headers"]}
        self.body = b"".join(message.get("body", b"") for message in messages[1:])

    def json(self):
        """Return the body as JSON."""
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)


class Idle(Session):
    """A session that goes when asked."""

    __slots__ = ("_drain",)

    def __init__(self, drain) -> None:
        super().__init__("/", drain.host.engine.time())
        self._drain = drain
        drain.host.engine.track(self)
        drain.host.engine.opened(self)

    def begin_close(self, _policy) -> None:
        """Go."""
        asyncio.get_running_loop().call_later(0.5, self.go)

    def go(self) -> None:
        """Go."""
        self._drain.host.engine.closed(self, forced=False)


class House:
    """An application with an admin route."""

    def __init__(self, app=None, admin_path="/drain", triggers=(), **options) -> None:
        self.recording = RecordingObserver()
        options = {"admin_token": TOKEN, **options}
        self.trigger = ManualTrigger("switch")
        self.drain = Drain(triggers=[self.trigger, *triggers], observers=[self.recording], rng=Random(7), **options)
        self.app = DrainMiddleware(
            app or Starlette(routes=[Route("/{path:path}", fallback, methods=["GET", "POST", "DELETE"])]),
            drain=self.drain,
            admin_path=admin_path,
        )

    async def ask(self, method="GET", path="/drain", headers=BEARER, body=b"", **scope) -> Answer:
        """Ask as an HTTP client would; *body* may be a list of chunks."""
        path, _, query = path.partition("?")
        chunks = list(body) if isinstance(body, list) else [body]
        sent = []

        async def receive():
            if not chunks:
                await asyncio.get_running_loop().create_future()
            chunk = chunks.pop(0)
            if chunk is NEVER:
                await asyncio.get_running_loop().create_future()
            if chunk is None:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

        async def send(message):
            sent.append(message)

        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        own = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": raw}
        await self.app({**own, **scope}, receive, send)
        return Answer(sent) if sent else None

    async def open(self, count: int = 10) -> None:
        """Have sessions."""
        self.drain.host.begin()
        for _ in range(count):
            Idle(self.drain)
        await asyncio.sleep(0)


async def fallback(request):
    """Answer whatever is not the admin route's."""
    return PlainTextResponse("the application's own", 418)


# --- Who may ---


@pytest.mark.parametrize("path", ["/drain/", "/Drain", "/drainage", "/", "/x/drain", "//drain"])
async def test_other_paths_are_the_applications(path):
    """Only the very path is ours; anything else falls through to the application."""
    assert (await House().ask(path=path)).status == 418


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_without_a_token_there_is_no_route(method):
    """With no token configured nothing is answered and nothing starts, whoever asks."""
    house = House(admin_token=None)
    for headers in ({}, BEARER, {"authorization": "Bearer "}, {"authorization": "Bearer None"}):
        assert (await house.ask(method, headers=headers)).status == 418
    assert house.drain.state is DrainState.SERVING


@pytest.mark.parametrize(
    ("authorization", "challenge"),
    [
        (None, "Bearer"),
        ("", "Bearer"),
        (f"Basic {TOKEN}", "Bearer"),
        (TOKEN, "Bearer"),
        ("Bearer", 'Bearer error="invalid_token"'),
        ("Bearer ", 'Bearer error="invalid_token"'),
        ("Bearer wrong", 'Bearer error="invalid_token"'),
        (f"Bearer {TOKEN}x", 'Bearer error="invalid_token"'),
        (f"Bearer {TOKEN[:-1]}", 'Bearer error="invalid_token"'),
        (f"Bearer {TOKEN.upper()}", 'Bearer error="invalid_token"'),
        ("Bearer \xe9\xff", 'Bearer error="invalid_token"'),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PATCH"])
async def test_without_the_token_nothing_is_told_or_done(method, authorization, challenge):
    """401 with a challenge (RFC 6750), whatever the method, and not a word about the drain."""
    house = House()
    headers = {} if authorization is None else {"authorization": authorization}
    answer = await house.ask(method, headers=headers, body=b"x" * 100_000)

    assert answer.status == 401
    assert answer.headers["www-authenticate"] == challenge
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json().keys() == {"error"}
    assert house.drain.state is DrainState.SERVING


async def test_the_scheme_is_case_insensitive():
    """The name of an authentication scheme is case-insensitive (RFC 9110 section 11.1)."""
    for scheme in ("bearer", "BEARER"):
        assert (await House().ask(headers={"authorization": f"{scheme} {TOKEN}"})).status == 200


PROXY_HEADERS = [
    "cdn-loop",
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-real-ip",
]


@pytest.mark.parametrize("header", ["x-forwarded-proto", *PROXY_HEADERS])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_request_through_a_balancer_is_forbidden(method, header):
    """A balancer would drain a task of its choice: 403."""
    house = House()
    answer = await house.ask(method, headers={**BEARER, header: "198.51.100.1"})
    assert answer.status == 403
    assert "the task's own address" in answer.json()["error"]
    assert house.drain.state is DrainState.SERVING


ENVOY = {"x-forwarded-proto": "http", "x-request-id": "62ebccc2", "x-envoy-expected-rq-timeout-ms": "15000"}


@pytest.mark.parametrize("left_out", [None, "x-request-id", "x-envoy-expected-rq-timeout-ms"])
async def test_the_proxy_of_the_task_itself_is_no_balancer(left_out):
    """Service Connect's Envoy adds headers of its own and leads to this task alone: what comes through is obeyed."""
    house = House()
    headers = {name: value for name, value in ENVOY.items() if name != left_out}
    assert (await house.ask("GET", headers={**BEARER, **headers})).status == 200


@pytest.mark.parametrize("header", PROXY_HEADERS)
async def test_a_balancer_in_front_of_that_proxy_is_one(header):
    """What a load balancer has sent through the task's Envoy is refused, whichever of its headers is left."""
    house = House()
    assert (await house.ask("GET", headers={**BEARER, **ENVOY, header: "198.51.100.1"})).status == 403


async def test_a_stranger_does_not_learn_that_proxied_requests_are_forbidden():
    """Without the token a proxied request is a 401 like any other."""
    assert (await House().ask(headers={"x-forwarded-for": "198.51.100.1"})).status == 401


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE", "BREW"])
async def test_other_methods_are_not_allowed(method):
    """405 with the list of methods that are."""
    answer = await House().ask(method)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD, POST, DELETE"


async def test_nothing_secret_is_in_any_answer_or_log(caplog):
    """Neither the token nor the attempt at it appears in answers or logs."""
    caplog.set_level(logging.DEBUG)
    house = House()
    attempts = [
        await house.ask(method, headers=headers, body=body)
        for method in ("GET", "POST", "DELETE", "PUT")
        for headers in (JSON, {"authorization": "Bearer hunter2-hunter2"})
        for body in (b"", b"{", b'{"window": "x"}')
    ]
    for secret in (TOKEN, "hunter2"):
        assert all(secret not in answer.body.decode() + str(answer.headers) for answer in attempts)
        assert secret not in caplog.text
        assert secret not in repr(house.drain.settings)


# --- Where it is ---


@pytest.mark.parametrize(
    ("path", "root_path", "is_ours"),
    [
        ("/drain", "", True),
        ("/api/drain", "/api", True),
        ("/drain", "/api", True),
        ("/api/drain", "/api/", True),
        ("/api/drain", "", False),
        ("/apidrain", "/api", False),
        ("/drain", "/dr", True),
        ("/drain/drain", "/drain", True),
        ("/other/drain", "/api", False),
    ],
)
async def test_the_route_is_found_behind_a_root_path(path, root_path, is_ours):
    """Servers put root_path in front of the path or leave it out: the route is found either way."""
    assert (await House().ask(path=path, root_path=root_path)).status == (200 if is_ours else 418)


async def test_the_path_is_the_users():
    """`admin_path` moves the route."""
    house = House(admin_path="/internal/drain")
    assert (await house.ask(path="/internal/drain")).status == 200
    assert (await house.ask(path="/drain")).status == 418


async def test_the_route_works_in_a_mounted_application():
    """In a mounted application the route is below the mount."""
    house = House()
    outer = Starlette(routes=[Mount("/inner", house.app)])
    house.app = outer
    assert (await house.ask(path="/inner/drain")).status == 200
    assert (await house.ask(path="/drain")).status == 404


async def test_the_route_stands_before_the_applications_own():
    """The route is answered before the application, whatever the application has there."""
    house = House(Starlette(routes=[Route("/drain", fallback)], middleware=[Middleware(lambda app: app)]))
    assert (await house.ask()).status == 200


# --- GET ---


async def test_get_while_serving():
    """The schema, state, sessions by standing, answers, workers and triggers: no drain and no report."""
    house = House()
    await house.open(3)
    answer = await house.ask()

    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"
    numbers = {
        "state": "serving",
        "sessions": {"open": 3, "waiting": 3, "held": 0, "leaving": 0, "opened": 3, "closed": 0},
        "answers": 0,
        "working": 0,
        "failed_hooks": 0,
    }
    drain = {
        "rotated": 0,
        "rotating": 0,
        "shed": 0,
        "left": 0,
        "refused": 0,
        "forced": 0,
        "return_rate": 0,
        "rate": 0.0,
        "eta": 0.0,
    }
    assert answer.json() == {
        "schema": 1,
        "mode": "drain",
        "scope": "task",
        **numbers,
        "process": ANY,
        "watch": None,
        "workers": [{"pid": os.getpid(), **numbers, **drain, "seconds_ago": 0.0}],
        "triggers": {"switch": {"fired": 0}, "workers": {"scope": "task"}},
    }


async def test_the_watch_is_that_of_the_leader(crowd):
    """Whichever worker is asked, `watch` says how the sources of the task are seen, the worst first."""

    class Source(Watcher):
        def status(self, _now):
            return {"watch": "not yet"}

    watchers = [Source(), Source()]
    workers = []
    for watcher in watchers:
        workers.append(crowd.hire(triggers=[watcher]))
        await soon()

    async def report(state, because="", trigger="watcher", leader=0):
        watchers[leader].control.emit(WatchReported(workers[0].engine.time(), trigger, state, "a in b", because))
        await asyncio.sleep(10)
        return [describe(each.drain)["watch"] for each in workers[leader:]]

    assert [describe(each.drain)["watch"] for each in workers] == ["not yet"] * 2
    assert await report("watching") == ["watching"] * 2
    assert await report("not yet", trigger="another") == ["not yet"] * 2
    blind = await report("blind", because="no answer has come")
    assert blind == ["blind for 10 s: watcher: no answer has come"] * 2
    now = workers[0].engine.time()
    watchers[0].control.emit(TriggerStoodDown(now, "another", "no target group", is_alarm=True))
    assert await report("watching") == ["blind for 10 s: another: no target group"] * 2
    watchers[0].control.emit(TriggerStoodDown(0.0, "another", "off"))
    assert await report("watching") == ["watching"] * 2
    await workers[0].die()
    await asyncio.sleep(2)
    assert describe(workers[1].drain)["watch"] == "not yet"
    assert await report("watching", leader=1) == ["watching"]


async def test_the_numbers_are_those_of_the_task(crowd):
    """Whichever of several workers answers, the first numbers are sums over all; each worker's own are in `workers`."""
    workers = [crowd.hire() for _ in range(2)]
    for worker, count in zip(workers, (30, 10), strict=True):
        worker.seat(count)
    await soon()
    await workers[0].drain.start(window=100)
    await asyncio.sleep(50)
    for worker in workers:
        answer = describe(worker.drain)
        assert (answer["state"], answer["scope"]) == ("draining", "task")
        assert answer["sessions"]["open"] == sum(each.drain.statistics().open for each in workers)
        assert answer["sessions"]["opened"] == 40
        assert answer["drain"]["shed"] == sum(each.drain.progress().shed for each in workers)
        assert answer["drain"]["rate"] == pytest.approx(0.4, rel=0.3)
        assert answer["drain"]["pacing"].endswith(" (in one of 2 workers)")
        assert [each["sessions"]["opened"] for each in sorted(answer["workers"], key=itemgetter("shed"))] == [10, 30]
    await asyncio.sleep(60)
    for worker in workers:
        answer = describe(worker.drain)
        assert answer["state"] == "drained"
        assert answer["report"]["sessions_at_start"] == answer["report"]["shed"] == 40


async def test_a_trigger_that_is_off_says_why():
    """The reason is in the answer, whatever the trigger says of itself."""
    house = House()
    await house.open(0)
    await asyncio.sleep(1)
    house.drain.host.engine.emit(TriggerStoodDown(house.drain.host.engine.time(), "switch", "nobody may switch here."))
    assert (await house.ask()).json()["triggers"]["switch"] == {"fired": 0, "why": "nobody may switch here"}


async def test_get_while_draining():
    """Cause, window, time left, rate, ETA and counts of the drain under way; moments as seconds ago."""
    house = House()
    await house.open(10)
    house.trigger.fire("a reason", window=100)
    await asyncio.sleep(50)
    answer = (await house.ask()).json()

    assert answer["state"] == "draining"
    drain = answer["drain"]
    assert drain.keys() == {
        "drain_id", "causes", "window", "time_left", "rate", "eta", "pacing", "shed", "left", "refused", "forced",
        "return_rate",
    }  # fmt: skip
    assert drain["causes"] == [
        {
            "trigger": "switch",
            "reason": "a reason",
            "seconds_ago": 50,
            "revocable": True,
            "taken_out": False,
            "detection_lag": 0,
        }
    ]
    assert (drain["window"], drain["time_left"]) == (100, 50)
    assert 4 <= drain["shed"] <= 6
    assert 0 < drain["eta"] <= 50
    assert drain["rate"] == pytest.approx(0.1, rel=0.3)
    assert "report" not in answer


async def test_get_when_drained():
    """The report, when the drain is over."""
    house = House()
    await house.open(10)
    await house.drain.start(window=10)
    await house.drain.wait_drained()
    answer = (await house.ask()).json()

    assert answer["state"] == "drained"
    report = answer["report"]
    assert (report["shed"], report["still_open"], report["window"]) == (10, 0, 10)
    assert report["causes"][0]["trigger"] == "manual"


async def test_head_answers_like_get():
    """HEAD is GET without anybody looking at the body: the server leaves that out."""
    house = House()
    get, head = await house.ask(), await house.ask("HEAD")
    assert (head.status, head.headers.keys()) == (get.status, get.headers.keys())
    assert house.drain.state is DrainState.SERVING


async def test_a_trigger_that_cannot_tell_does_not_spoil_the_answer():
    """A custom trigger's fault is its own line in the answer."""
    house = House()
    house.trigger.status = lambda _: 1 / 0
    answer = await house.ask()
    assert answer.status == 200
    assert answer.json()["triggers"]["switch"] == {"error": "ZeroDivisionError"}


# --- POST ---


async def test_a_status_that_is_no_json_does_not_spoil_the_answer():
    """JSON knows no infinity, and none of the objects that a trigger may think of."""
    house = House()
    for value in (float("inf"), float("nan"), object()):
        house.trigger.status = lambda _now, value=value: {"value": value}
        assert "not JSON" in (await house.ask()).json()["triggers"]["switch"]["error"]


async def test_post_starts_with_202_and_the_plan():
    """202: accepted, and the plan to look at."""
    house = House()
    await house.open(10)
    answer = await house.ask("POST", headers=JSON, body=b'{"window": 60, "reason": "a deployment"}')

    assert answer.status == 202
    assert answer.json()["state"] == "draining"
    drain = answer.json()["drain"]
    assert (drain["window"], drain["causes"][0]["reason"]) == (60, "a deployment")
    assert house.drain.state is DrainState.DRAINING


async def test_post_without_a_body_takes_the_options():
    """No body, no content type: the window is the option's."""
    house = House(window=77)
    await house.open(1)
    answer = await house.ask("POST")
    assert (answer.status, answer.json()["drain"]["window"]) == (202, 77)


async def test_post_again_is_200_and_the_running_plan():
    """A drain under way is joined; an earlier deadline shortens it, a later one changes nothing."""
    house = House()
    await house.open(10)
    first = await house.ask("POST", headers=JSON, body=b'{"window": 60}')
    again = await house.ask("POST", headers=JSON, body=b'{"window": 600}')
    shorter = await house.ask("POST", headers=JSON, body=b'{"window": 6}')

    assert [each.status for each in (first, again, shorter)] == [202, 200, 200]
    assert [each.json()["drain"]["window"] for each in (first, again, shorter)] == [60, 60, 6]
    assert len({each.json()["drain"]["drain_id"] for each in (first, again, shorter)}) == 1
    assert len(house.recording.of(DrainReplanned)) == 1


class Source:
    """A trigger that watches a target."""

    name = "target"

    async def watch(self, _control):
        """See nothing."""
        await asyncio.get_running_loop().create_future()

    def status(self, _now):
        """Return what it watches."""
        return {"watch": "watching"}


async def test_post_says_that_the_target_is_still_in_service():
    """A drain by hand takes no target out: the answer says so, and how to do that, until it is known to be out."""
    house = House(triggers=[Source()])
    await house.open(10)
    assert "note" not in (await house.ask()).json()
    note = (await house.ask("POST", headers=JSON, body=b'{"window": 60}')).json()["note"]
    assert "still in service" in note
    assert "deregister-targets" in note
    assert "stop-task" in note
    answer = (await house.ask("POST", headers=JSON, body=b'{"window": 60, "taken_out": true}')).json()
    assert "note" not in answer
    assert answer["drain"]["causes"][0]["taken_out"] is True
    await house.ask("DELETE")
    assert "note" not in (await house.ask()).json()


async def test_where_there_is_no_target_the_note_is_not_about_aws():
    """Without a source, such as off ECS, it speaks of any balancer. After the deadline it promises nothing."""
    house = House()
    await house.open(10)
    note = (await house.ask("POST", headers=JSON, body=b'{"window": 60}')).json()["note"]
    assert "aws" not in note
    assert note.endswith("take this process out of it; until then new clients are accepted up to the deadline")
    await asyncio.sleep(61)
    assert (await house.ask()).json()["note"].endswith("until then new clients are refused")


@pytest.mark.parametrize(
    ("body", "window"),
    [
        (b'{"age": 60}', 140),
        (b'{"age": 60.5, "window": 100}', 39.5),
        (b'{"age": 0}', 200),
        (b'{"age": null, "window": null}', 200),
        (b'{"age": 300}', 0),
    ],
)
async def test_an_age_is_taken_off_the_window(body, window):
    """Who tells of something that happened a while ago says so, and the drain still ends in time."""
    house = House(window=200)
    await house.open(10)
    answer = await house.ask("POST", headers=JSON, body=body)
    assert answer.json()["drain"]["window"] == window
    assert house.drain.progress().causes[0].lag == (json.loads(body)["age"] or 0)


async def test_an_age_is_taken_off_what_a_trigger_has_found_out():
    """Without a window of one's own the age counts within what AWS leaves."""
    house = House()
    await house.open(10)
    house.drain.host.engine.note_window(100)
    answer = await house.ask("POST", headers=JSON, body=b'{"age": 60}')
    assert answer.json()["drain"]["window"] == 40


@pytest.mark.parametrize("earlier", [0.0, 0.4, -0.4])
async def test_an_event_told_twice_changes_nothing(earlier):
    """Told again a minute later, with an age that is measured a little otherwise, it is the same event."""
    house = House()
    await house.open(10)
    first = await house.ask("POST", headers=JSON, body=b'{"age": 5}')
    await asyncio.sleep(60)
    again = await house.ask("POST", headers=JSON, body=json.dumps({"age": 65 + earlier}).encode())
    assert first.json()["drain"]["window"] == again.json()["drain"]["window"] == 280
    assert len(again.json()["drain"]["causes"]) == 1
    assert house.recording.of(DrainReplanned) == []
    older = await house.ask("POST", headers=JSON, body=b'{"age": 75}')
    assert older.json()["drain"]["window"] == 270


async def test_post_without_sessions_is_over_at_once():
    """202 and the report: there was nobody to ask."""
    answer = await House().ask("POST")
    assert (answer.status, answer.json()["state"]) == (202, "drained")
    assert answer.json()["report"]["sessions_at_start"] == 0


async def test_post_in_chunks():
    """A body may come in chunks."""
    house = House()
    await house.open(1)
    answer = await house.ask("POST", headers=JSON, body=[b'{"win', b'dow": ', b"5}"])
    assert (answer.status, answer.json()["drain"]["window"]) == (202, 5)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{", None),
        (b"\xff\xfe\xfd", None),
        (b"null", None),
        (b"[]", None),
        (b"60", None),
        (b"[" * 10_000, None),
        (b'{"window": "60"}', "window"),
        (b'{"window": true}', "window"),
        (b'{"window": -1}', "window"),
        (b'{"window": 3601}', "window"),
        (b'{"window": NaN}', "window"),
        (b'{"window": Infinity}', "window"),
        (b'{"window": 1' + b"0" * 400 + b"}", "window"),
        (b'{"window": [60]}', "window"),
        (b'{"age": "60"}', "age"),
        (b'{"age": true}', "age"),
        (b'{"age": -0.1}', "age"),
        (b'{"age": 3600.5}', "age"),
        (b'{"age": NaN}', "age"),
        (b'{"reason": ""}', "reason"),
        (b'{"reason": 1}', "reason"),
        (b'{"reason": null}', "reason"),
        (b'{"reason": "a\\nb"}', "reason"),
        (b'{"reason": "\\ud800"}', "reason"),
        (b'{"reason": "' + b"x" * 201 + b'"}', "reason"),
        (b'{"windw": 60}', "windw"),
        (b'{"\\ud800": 60}', "\\ud800"),
        (b'{"window": 60, "force": true}', "force"),
    ],
)
@pytest.mark.parametrize("is_draining", [False, True])
async def test_a_bad_body_is_400_and_changes_nothing(body, field, is_draining):
    """400 names the field, the value and the remedy; a drain under way is not disturbed."""
    house = House()
    await house.open(10)
    if is_draining:
        await house.drain.start(window=100)
    before = house.drain.progress()
    events = len(house.recording.events)
    answer = await house.ask("POST", headers=JSON, body=body)

    assert answer.status == 400
    assert answer.json().get("field") == field
    assert len(answer.json()["error"]) < 300
    assert any(word in answer.json()["error"] for word in ("give", "send"))
    assert house.drain.progress() == before
    assert len(house.recording.events) == events


async def test_the_error_names_field_value_and_remedy():
    """The sentence of a 400 says what was given and what to give."""
    answer = await House().ask("POST", headers=JSON, body=b'{"window": -5}')
    assert answer.json() == {"error": "window=-5 cannot work: give seconds from 0 to 3600", "field": "window"}
    answer = await House().ask("POST", headers=JSON, body=b'{"age": 7200}')
    assert answer.json() == {"error": "age=7200 cannot work: give seconds from 0 to 3600", "field": "age"}


@pytest.mark.parametrize("wait", ["x", "", "-1", "nan", "inf", "3601", "1e9"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_bad_wait_is_400_and_starts_nothing(method, wait):
    """A wait that cannot work is refused before anything starts."""
    house = House()
    answer = await house.ask(method, path=f"/drain?wait={wait}")
    assert (answer.status, answer.json()["field"]) == (400, "wait")
    assert house.drain.state is DrainState.SERVING


@pytest.mark.parametrize("body", [b"x" * 16_385, [b"x" * 8_000, b"x" * 8_000, b"x" * 8_000, b"never read"]])
async def test_a_large_body_is_413(body):
    """More than 16 KiB is not read to its end, chunked or not; the connection closes."""
    house = House()
    answer = await house.ask("POST", headers=JSON, body=body)
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    assert house.drain.state is DrainState.SERVING


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
async def test_a_body_of_another_type_is_415(content_type):
    """A body must say that it is JSON."""
    house = House()
    headers = BEARER if content_type is None else {**BEARER, "content-type": content_type}
    answer = await house.ask("POST", headers=headers, body=b'{"window": 60}')
    assert (answer.status, answer.headers["accept"]) == (415, "application/json")
    assert house.drain.state is DrainState.SERVING


async def test_a_content_type_may_have_parameters():
    """`application/json; charset=utf-8` is JSON, in any case."""
    house = House()
    headers = {**BEARER, "content-type": "Application/JSON; charset=utf-8"}
    assert (await house.ask("POST", headers=headers, body=b'{"window": 60}')).status == 202


async def test_a_client_that_leaves_while_sending_starts_nothing():
    """Half an order is none, and no error."""
    house = House()
    assert await house.ask("POST", headers=JSON, body=[b'{"window"', None]) is None
    assert house.drain.state is DrainState.SERVING


# --- DELETE ---


async def test_delete_cancels_with_200():
    """200, serving again, with the report of how far it came."""
    house = House()
    await house.open(10)
    await house.ask("POST", headers=JSON, body=b'{"window": 100}')
    await asyncio.sleep(50)
    answer = await house.ask("DELETE")

    assert (answer.status, answer.json()["state"]) == (200, "serving")
    assert 4 <= answer.json()["report"]["shed"] <= 6
    assert "drain" not in answer.json()
    assert house.drain.state is DrainState.SERVING


async def test_delete_while_serving_is_409():
    """There is nothing to cancel."""
    answer = await House().ask("DELETE")
    assert answer.status == 409
    assert answer.json()["error"] == "no drain is running; there is nothing to cancel"


async def test_delete_when_too_late_is_409_and_the_drain_goes_on():
    """Once the process was told to stop a drain cannot be taken back."""
    house = House()
    await house.open(10)
    now = house.drain.host.engine.time()
    house.drain.host.engine.claim(DrainCause("sigterm", "told to stop", now, now + 20, revocable=False))
    answer = await house.ask("DELETE")

    assert answer.status == 409
    assert "told to stop" in answer.json()["error"]
    assert house.drain.state is DrainState.DRAINING


# --- ?wait ---


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_wait_answers_when_drained(method):
    """The answer comes when the drain is over, and tells how it went."""
    house = House()
    await house.open(10)
    if method != "POST":
        await house.drain.start(window=20)
    began = house.drain.host.engine.time()
    answer = await house.ask(method, "/drain?wait=600", headers=JSON, body=b'{"window": 20}')

    assert answer.status == (202 if method == "POST" else 200)
    assert answer.json()["state"] == "drained"
    assert answer.json()["report"]["shed"] == 10
    assert 15 < house.drain.host.engine.time() - began <= 21


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_wait_answers_when_the_time_is_up(method):
    """The answer comes after so many seconds at the latest, and tells how far it is."""
    house = House()
    await house.open(10)
    await house.drain.start(window=100)
    began = house.drain.host.engine.time()
    answer = await house.ask(method, "/drain?wait=7.5")

    assert house.drain.host.engine.time() - began == 7.5
    assert (answer.status, answer.json()["state"]) == (200, "draining")


async def test_wait_while_serving_waits_for_a_drain_to_begin_and_end():
    """GET may wait for a drain that has not begun."""
    house = House()
    await house.open(10)
    waiting = asyncio.create_task(house.ask(path="/drain?wait=600"))
    await asyncio.sleep(100)
    assert not waiting.done()
    await house.drain.start(window=20)
    assert (await waiting).json()["state"] == "drained"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_wait_ends_with_a_cancelled_drain(method):
    """Who waits for a drain that is cancelled is told so at once."""
    house = House()
    await house.open(10)
    await house.drain.start(window=100)
    waiting = asyncio.create_task(house.ask(method, "/drain?wait=600"))
    await asyncio.sleep(10)
    began = house.drain.host.engine.time()
    await house.ask("DELETE")
    answer = await waiting

    assert house.drain.host.engine.time() == began
    assert (answer.status, answer.json()["state"]) == (200, "serving")
    assert "report" in answer.json()


async def test_wait_when_drained_answers_at_once():
    """There is nothing to wait for once it is over."""
    house = House()
    await house.drain.start()
    began = house.drain.host.engine.time()
    assert (await house.ask(path="/drain?wait=600")).status == 200
    assert house.drain.host.engine.time() == began


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_wait_ends_with_its_client(method):
    """A server that ends waits for its requests, so none goes on when nobody is there to be told."""
    house = House()
    await house.open(10)
    await house.drain.start(window=100)
    began = house.drain.host.engine.time()
    answer = await house.ask(method, "/drain?wait=600", body=[b"", None])

    assert answer is None
    assert house.drain.host.engine.time() == began
    assert house.drain.state is DrainState.DRAINING


class Server:
    """What uvicorn's signal handlers are methods of."""

    def __init__(self):
        self.should_exit = False
        self.servers = [self]
        self.serves = True

    def is_serving(self):
        """Tell whether it accepts connections."""
        return self.serves

    def handle_exit(self, *_):
        """Handle a signal."""


@pytest.fixture
def server():
    """Stand for the server whose handlers are installed."""
    server = Server()
    saved = {each: signal.signal(each, server.handle_exit) for each in (signal.SIGTERM, signal.SIGINT)}
    yield server
    for number, handler in saved.items():
        signal.signal(number, handler)


def is_told(server):
    """Tell it to stop by a signal."""
    server.should_exit = True


def stops_by_itself(server):
    """Let it stop as after --limit-max-requests."""
    server.serves = False


@pytest.mark.parametrize("how", [is_told, stops_by_itself])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_wait_ends_when_the_server_stops(server, method, how):
    """A server that stops waits for its requests: those that wait for a drain are answered at once."""
    house = House()
    await house.open(10)
    await house.drain.start(window=100)
    waiting = asyncio.create_task(house.ask(method, "/drain?wait=3600"))
    await asyncio.sleep(10)
    assert not waiting.done()
    how(server)
    began = house.drain.host.engine.time()
    answer = await waiting
    assert (answer.status, answer.json()["state"]) == (200, "draining")
    assert house.drain.host.engine.time() - began <= 1


async def test_wait_ends_with_the_application():
    """Where the lifespan ends first, a request that waits is answered then."""
    house = House()
    await house.open(0)
    waiting = asyncio.create_task(house.ask(path="/drain?wait=3600"))
    await asyncio.sleep(10)
    await house.drain.host.end()
    await asyncio.wait_for(waiting, 1)


async def test_a_body_that_does_not_end_is_408():
    """A body that does not arrive in time is refused, and starts nothing."""
    house = House()
    began = asyncio.get_running_loop().time()
    answer = await house.ask("POST", headers=JSON, body=[b'{"window":', NEVER])
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert asyncio.get_running_loop().time() - began == 10
    assert house.drain.state is DrainState.SERVING


async def test_a_body_that_does_not_end_does_not_hold_up_the_server(server):
    """When the server stops meanwhile, the request is refused at once."""
    house = House()
    asking = asyncio.create_task(house.ask("POST", headers=JSON, body=[b'{"window":', NEVER]))
    await asyncio.sleep(1)
    server.should_exit = True
    answer = await asyncio.wait_for(asking, 1)
    assert (answer.status, answer.headers["connection"]) == (503, "close")
    assert house.drain.state is DrainState.SERVING


@pytest.mark.parametrize(("version", "expected"), [("1.1", "close"), ("2", None)])
async def test_connections_end_with_the_answer_while_draining(version, expected):
    """As with every other response, where the protocol knows such a header."""
    house = House()
    assert "connection" not in (await house.ask(http_version=version)).headers
    await house.open(10)
    await house.drain.start(window=100)
    assert expected == (await house.ask(http_version=version)).headers.get("connection")


# --- Rotation ---

ROTATION = "/drain/rotation"


async def test_a_rotation_by_the_route():
    """POST begins it, GET shows it, also below the drain, and DELETE ends it; those who come meanwhile are let in."""
    house = House()
    await house.open(100)
    assert (await house.ask(path=ROTATION)).json() == {"state": "none"}
    began = await house.ask("POST", ROTATION, JSON, b'{"window": 1000, "share": 0.5, "reason": "a second balancer"}')
    assert began.status == 202
    assert began.json() == {
        "state": "rotating",
        "trigger": "rotation",
        "reason": "a second balancer",
        "window": 1000,
        "share": 0.5,
        "time_left": 1000.0,
        "rate": 0.05,
        "asked": 0,
        "remaining": 50,
    }
    await asyncio.sleep(500)
    await house.open(10)
    shown = (await house.ask()).json()
    assert shown["state"] == "serving"
    assert shown["rotation"] == (await house.ask(path=ROTATION)).json()
    assert shown["rotation"]["asked"] == 25
    assert (await house.ask("DELETE")).status == 409  # there is no drain to cancel
    assert (await house.ask("POST", ROTATION, JSON, b'{"window": 10}')).status == 409
    assert (await house.ask("DELETE", ROTATION)).json() == {"state": "none"}
    assert (await house.ask("DELETE", ROTATION)).status == 409
    await asyncio.sleep(1000)
    assert house.drain.statistics().open == 85


async def test_a_rotation_is_not_part_of_the_drain():
    """A drain that is begun and cancelled meanwhile leaves the rotation as it was, but for the time it took."""
    house = House()
    await house.open(100)
    await house.ask("POST", ROTATION, JSON, b'{"window": 1000}')
    await asyncio.sleep(200)
    await house.ask("POST", body=b'{"window": 3000}', headers=JSON)
    await asyncio.sleep(100)
    shown = (await house.ask()).json()
    assert shown["rotation"]["state"] == "paused"
    assert shown["rotation"]["rate"] == 0
    assert (await house.ask("DELETE")).status == 200
    assert (await house.ask()).json()["rotation"]["state"] == "rotating"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"window": 0}', "window"),
        (b'{"window": "1 d"}', "window"),
        (b'{"window": 1e9}', "window"),
        (b'{"window": null}', "window"),
        (b'{"share": 0}', "share"),
        (b'{"share": 1.1}', "share"),
        (b'{"share": true}', "share"),
        (b'{"reason": ""}', "reason"),
        (b'{"window": 60, "age": 60}', "age"),
        (b'{"colour": "blue"}', "colour"),
    ],
)
async def test_a_rotation_that_cannot_work(body, field):
    """400, with the field and the remedy."""
    house = House()
    await house.open(3)
    answer = await house.ask("POST", ROTATION, JSON, body)
    assert answer.status == 400
    assert answer.json()["field"] == field
    assert house.drain.rotation() is None


async def test_a_rotation_begins_only_where_the_process_serves():
    """409 while a drain runs; 405 for other methods; and the token is needed here too."""
    house = House()
    await house.open(3)
    await house.ask("POST")
    assert (await house.ask("POST", ROTATION)).status == 409
    assert (await house.ask("PUT", ROTATION)).status == 405
    assert (await house.ask(path=ROTATION, headers={})).status == 401
    assert (await House(admin_token=None).ask(path=ROTATION)).status == 418
    observing = House(mode="observe")
    await observing.open(3)
    assert (await observing.ask("POST", ROTATION)).status == 409


async def test_a_rotation_after_the_end_is_refused():
    """503, as for a drain."""
    house = House()
    await house.open(3)
    await house.drain.host.end()
    assert (await house.ask("POST", ROTATION)).status == 503
