"""The Lambda function without AWS and without tasks: batches, versions, and what a whole deployment costs."""

import json
import threading
import types
from datetime import UTC, datetime, timedelta

import pytest
from simulations.forwarder import simulate_forwarder

lambda_forwarder = pytest.importorskip("example_app.lambda_forwarder")

CLUSTER = "arn:aws:ecs:eu-central-1:123456789012:cluster/main"


def record_of(name, *, version=5, last="DEACTIVATING", desired="STOPPED", cluster=CLUSTER):
    """Return a task as events and DescribeTasks show it."""
    return {
        "taskArn": f"{cluster.replace(':cluster', ':task')}/{name}",
        "clusterArn": cluster,
        "lastStatus": last,
        "desiredStatus": desired,
        "version": version,
        "containers": [{"networkInterfaces": [{"privateIpv4Address": f"address of {name}"}]}],
    }


def event_of(detail, *, age=100.0, source="aws.ecs"):
    """Return an event about a task."""
    time = (datetime.now(UTC) - timedelta(seconds=age)).isoformat()
    return {"detail-type": "ECS Task State Change", "source": source, "time": time, "detail": detail}


def batch_of(*events):
    """Return the events as a queue hands them over; what is no event is a body of its own."""
    return {
        "Records": [
            {"messageId": str(number), "body": each if isinstance(each, str) else json.dumps(each)}
            for number, each in enumerate(events)
        ]
    }


class Ecs:
    """DescribeTasks."""

    def __init__(self):
        self.records = {}
        self.calls = []
        self.fails_for = ()

    def describe_tasks(self, *, cluster, tasks):
        """Answer."""
        self.calls.append(tasks)
        if cluster in self.fails_for:
            raise RuntimeError("throttled")
        return {"tasks": [self.records[each] for each in tasks if each in self.records]}

    def add(self, record):
        """Know a task."""
        self.records[record["taskArn"]] = record


@pytest.fixture
def ecs(monkeypatch):
    """Return the ECS that the function asks."""
    found = Ecs()
    monkeypatch.setattr(lambda_forwarder, "_clients", {"ecs": found})
    return found


@pytest.fixture
def told(monkeypatch):
    """Return the addresses that were told."""
    found = []
    monkeypatch.setattr(lambda_forwarder, "_post", lambda address, _order: found.append(address) or 202)
    return found


def test_a_fresh_event_of_ecs_is_believed(ecs, told):
    """Only AWS can write such an event, so nothing is asked about it."""
    assert lambda_forwarder.handler(event_of(record_of("a"), age=1))["outcome"] == "asked"
    assert (told, ecs.calls) == (["address of a"], [])


@pytest.mark.parametrize("event", [{"source": "my.own", "age": 1}, {"age": 21}, {"age": -100}, {"age": 4000}])
def test_any_other_event_is_not(ecs, told, event):
    """Of an event of another source, an old one, or one from the future, the record counts, and its address."""
    ecs.add(record_of("a") | {"containers": record_of("b")["containers"]})
    assert lambda_forwarder.handler(event_of(record_of("a"), **event))["outcome"] == "asked"
    assert told == ["address of b"]


@pytest.mark.parametrize("time", [None, "", "yesterday", 5])
def test_an_event_without_a_time_is_not_fresh(ecs, told, time):
    """ECS is asked about one that does not tell when it happened, again until it shows the task."""
    event = event_of(record_of("a"), age=1) | {"time": time}
    with pytest.raises(lambda_forwarder.NotAskedYet, match="does not know"):
        lambda_forwarder.handler(event)
    assert (told, len(ecs.calls)) == ([], 1)
    ecs.add(record_of("a"))
    assert lambda_forwarder.handler(event)["outcome"] == "asked"


@pytest.mark.parametrize(
    ("event", "record", "outcome"),
    [
        (5, {"version": 3, "last": "RUNNING", "desired": "RUNNING"}, "again"),
        (5, {"version": 4, "last": "ACTIVATING", "desired": "RUNNING"}, "again"),
        (5, {"version": 5, "last": "RUNNING", "desired": "RUNNING"}, "gone"),
        (5, {"version": 7, "last": "RUNNING", "desired": "RUNNING"}, "gone"),
        (5, {"version": 4, "last": "RUNNING", "desired": "STOPPED"}, "asked"),
        (5, {"version": 4, "last": "STOPPED", "desired": "STOPPED"}, "gone"),
        (5, {"version": 9, "last": "STOPPING", "desired": "STOPPED"}, "gone"),
        (None, {"version": 3, "last": "RUNNING", "desired": "RUNNING"}, "gone"),
        ("5", {"version": 3, "last": "RUNNING", "desired": "RUNNING"}, "again"),
    ],
)
def test_a_record_older_than_the_event_is_waited_for(ecs, told, event, record, outcome):
    """DescribeTasks lags: what it shows counts where it is as new as the event, and else the event comes again."""
    ecs.add(record_of("a", **record))
    given = event_of(record_of("a", version=event))
    if outcome == "again":
        with pytest.raises(lambda_forwarder.NotAskedYet, match="older than the event"):
            lambda_forwarder.handler(given)
    else:
        assert lambda_forwarder.handler(given)["outcome"] == outcome
    assert told == (["address of a"] if outcome == "asked" else [])


@pytest.mark.parametrize("age", [1, 100, 299])
def test_a_task_that_ecs_does_not_know_yet(ecs, told, age):
    """ECS shows a stopped task for an hour, so one that it does not know so soon is one that it has yet to show."""
    given = event_of(record_of("a"), age=age, source="my.own")
    with pytest.raises(lambda_forwarder.NotAskedYet, match="does not know"):
        lambda_forwarder.handler(given)
    assert (told, len(ecs.calls)) == ([], 1)


def test_a_batch_takes_one_call_for_a_hundred_tasks(ecs, told):
    """250 events are three calls; all tasks are told."""
    events = [event_of(record_of(f"{number}")) for number in range(250)]
    for each in events:
        ecs.add(each["detail"])
    assert lambda_forwarder.handler(batch_of(*events)) == {"batchItemFailures": []}
    assert [len(each) for each in ecs.calls] == [100, 100, 50]
    assert len(set(told)) == 250


def test_only_what_failed_comes_again(ecs, told):
    """A body that cannot be read, a lagging record and a cluster that throttles are reported; the others are told."""
    other = CLUSTER.replace("main", "other")
    ecs.fails_for = (other,)
    ecs.add(record_of("a"))
    ecs.add(record_of("lags", version=3, last="RUNNING", desired="RUNNING"))
    given = batch_of(
        event_of(record_of("a")),
        event_of(record_of("lags")),
        event_of(record_of("elsewhere", cluster=other)),
        "no JSON",
        '["no event"]',
        event_of(record_of("a", last="PENDING", desired="RUNNING")),
        event_of(record_of("fresh"), age=2),
    )
    failures = lambda_forwarder.handler(given)["batchItemFailures"]
    assert {each["itemIdentifier"] for each in failures} == {"1", "2", "3", "4"}
    assert sorted(told) == ["address of a", "address of fresh"]


def test_one_task_that_does_not_answer_holds_up_no_other(ecs, monkeypatch):
    """It comes again, unless it has gone meanwhile; whatever it answers is its own affair."""
    trouble = {"address of dark": TimeoutError(), "address of odd": ValueError("no JSON"), "address of gone": OSError()}
    told = []

    def post(address, _order):
        if address in trouble:
            raise trouble[address]
        told.append(address)
        return 202

    monkeypatch.setattr(lambda_forwarder, "_post", post)
    names = ("dark", "odd", "gone", "a", "b")
    for name in names:
        ecs.add(record_of(name, last="STOPPED" if name == "gone" else "DEACTIVATING", version=6))
    given = batch_of(*(event_of(record_of(name), age=1) for name in names))
    failures = lambda_forwarder.handler(given)["batchItemFailures"]
    assert [each["itemIdentifier"] for each in failures] == ["0", "1"]
    assert sorted(told) == ["address of a", "address of b"]


def test_a_task_is_asked_at_each_of_its_addresses(ecs, monkeypatch):
    """Where nothing listens at the IPv4 address the IPv6 address is tried."""
    asked = []

    def post(address, _order):
        asked.append(address)
        if ":" not in address:
            raise ConnectionRefusedError
        return 202

    monkeypatch.setattr(lambda_forwarder, "_post", post)
    detail = record_of("a")
    detail["containers"][0]["networkInterfaces"][0]["ipv6Address"] = "2001:db8::5"
    assert lambda_forwarder.handler(event_of(detail, age=1))["outcome"] == "asked"
    assert asked == ["address of a", "2001:db8::5"]


POISON = {
    "a detail that is text": {"detail": "none"},
    "a detail that is a list": {"detail": ["none"]},
    "containers without form": {"detail": record_of("a") | {"containers": ["app"]}},
    "interfaces without form": {"detail": record_of("a") | {"containers": [{"networkInterfaces": {"a": 1}}]}},
    "attachments without form": {"detail": record_of("a") | {"attachments": [None]}},
    "too deep": "[" * 100_000,
}


@pytest.mark.parametrize("which", POISON)
def test_a_message_that_is_no_event_holds_up_no_other(ecs, told, which):
    """It alone comes again, and ends in the dead letters; what stands beside it is told."""
    poison = POISON[which]
    poison = poison if isinstance(poison, str) else event_of(None, age=1) | poison
    given = batch_of(poison, event_of(record_of("b"), age=1))
    assert lambda_forwarder.handler(given) == {"batchItemFailures": [{"itemIdentifier": "0"}]}
    assert told == ["address of b"]


def test_a_name_that_ecs_does_not_like_holds_up_no_other(ecs, told):
    """DescribeTasks refuses the whole call then, so it is asked about fewer until that one stands alone."""
    refused = RuntimeError("Invalid identifier")
    refused.response = {"Error": {"Code": "InvalidParameterException"}}
    answer = ecs.describe_tasks

    def describe_tasks(*, cluster, tasks):
        if any(each.endswith("/odd") for each in tasks):
            ecs.calls.append(tasks)
            raise refused
        return answer(cluster=cluster, tasks=tasks)

    ecs.describe_tasks = describe_tasks
    names = [*map(str, range(40)), "odd", *map(str, range(40, 99))]
    events = [event_of(record_of(name)) for name in names]
    for each in events:
        ecs.add(each["detail"])
    assert lambda_forwarder.handler(batch_of(*events)) == {"batchItemFailures": [{"itemIdentifier": "40"}]}
    assert (len(told), len(ecs.calls)) == (99, 13)


def test_some_of_a_hundred_are_missing(ecs, told):
    """ECS names them as failures: they come again while they may be known yet, and the rest is told."""
    events = [event_of(record_of(f"{number}"), age=400 if number < 5 else 100) for number in range(100)]
    for each in events[10:]:
        ecs.add(each["detail"])
    failures = lambda_forwarder.handler(batch_of(*events))["batchItemFailures"]
    assert [each["itemIdentifier"] for each in failures] == ["5", "6", "7", "8", "9"]
    assert (len(told), len(ecs.calls)) == (90, 1)


def test_versions_out_of_order_in_one_batch(ecs, told):
    """Each event is judged by itself: an older one changes nothing, and a repeated one is asked about once."""
    ecs.add(record_of("a", version=7))
    given = batch_of(
        event_of(record_of("a", version=7)),
        event_of(record_of("a", version=6, last="RUNNING")),
        event_of(record_of("a", version=5, last="RUNNING", desired="RUNNING")),
        event_of(record_of("a", version=7)),
    )
    assert lambda_forwarder.handler(given) == {"batchItemFailures": []}
    assert (set(told), [len(each) for each in ecs.calls]) == ({"address of a"}, [1])


def test_a_task_of_several_interfaces(ecs, monkeypatch):
    """Each address that ECS names is tried, IPv4 first and each once."""
    asked = []

    def post(address, _order):
        asked.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(lambda_forwarder, "_post", post)
    detail = record_of("a") | {
        "containers": [
            {"networkInterfaces": [{"privateIpv4Address": "10.0.0.5", "ipv6Address": "2001:db8::5"}]},
            {"networkInterfaces": [{"privateIpv4Address": "10.0.1.5"}]},
            {"networkInterfaces": []},
        ],
        "attachments": [
            {"details": [{"name": "privateIPv4Address", "value": "10.0.0.5"}]},
            {"details": [{"name": "privateIPv4Address", "value": "10.0.2.5"}, {"name": "subnetId", "value": ""}]},
        ],
    }
    ecs.add(detail)
    with pytest.raises(lambda_forwarder.NotAskedYet, match=r"10\.0\.0\.5 and 10\.0\.1\.5 and 10\.0\.2\.5 and 2001"):
        lambda_forwarder.handler(event_of(detail, age=1))
    assert asked == ["10.0.0.5", "10.0.1.5", "10.0.2.5", "2001:db8::5"]


class Context:
    """What Lambda says of a call: how much of its time is left."""

    def __init__(self, seconds):
        self.seconds = seconds

    def get_remaining_time_in_millis(self):
        """Return the milliseconds."""
        return self.seconds * 1000


def test_what_is_not_asked_in_time_comes_again(ecs, monkeypatch):
    """A task that answers byte by byte would take all of the call's time, and the whole batch would come again."""
    is_over = threading.Event()

    def post(address, _order):
        if address != "address of b":
            is_over.wait(30)
        return 202

    monkeypatch.setattr(lambda_forwarder, "_post", post)
    for name in "abc":
        ecs.add(record_of(name))
    given = batch_of(*(event_of(record_of(name), age=1) for name in "abc"))
    failures = lambda_forwarder.handler(given, Context(lambda_forwarder.RESERVED + 0.2))["batchItemFailures"]
    is_over.set()
    assert {each["itemIdentifier"] for each in failures} == {"0", "2"}


@pytest.mark.parametrize("trouble", ["denied", "wrong"])
def test_a_hundred_tasks_read_a_token_once(ecs, monkeypatch, trouble):
    """A secret that cannot be read, or that every task refuses, is asked for once in a call of the function."""
    asked = []

    class Secrets:
        def get_secret_value(self, **_name):
            asked.append(1)
            if trouble == "denied":
                raise RuntimeError("AccessDeniedException")
            return {"SecretString": "the-token-of-yesterday"}

    class Refusing:
        def __init__(self, *_address):
            self.status = 401

        def request(self, *_given):
            pass

        def getresponse(self):
            return self

        def read(self):
            return b"{}"

        def close(self):
            pass

    monkeypatch.setattr(lambda_forwarder, "_token", None)
    monkeypatch.setattr(lambda_forwarder, "_connection", Refusing)
    monkeypatch.setenv("TOKEN_SECRET", "drain-token")
    lambda_forwarder._clients["secretsmanager"] = Secrets()
    for number in range(100):
        ecs.add(record_of(f"{number}"))
    given = batch_of(*(event_of(record_of(f"{number}"), age=1) for number in range(100)))
    assert len(lambda_forwarder.handler(given)["batchItemFailures"]) == 100
    assert len(asked) == 1
    lambda_forwarder.handler(given)
    assert len(asked) == 2


@pytest.mark.parametrize("secret", [{}, {"SecretBinary": b"a-token"}, {"SecretString": '{"token": "half-a-secret'}])
def test_a_secret_without_a_token_is_not_shown(ecs, monkeypatch, capsys, secret):
    """What is wrong with it is said, and nothing of it."""
    monkeypatch.setattr(lambda_forwarder, "_token", None)
    monkeypatch.setenv("TOKEN_SECRET", "drain-token")
    lambda_forwarder._clients["secretsmanager"] = types.SimpleNamespace(get_secret_value=lambda **_name: secret)
    ecs.add(record_of("a"))
    assert lambda_forwarder.handler(batch_of(event_of(record_of("a"), age=1)))["batchItemFailures"]
    said = capsys.readouterr().out
    assert "contains no token" in said
    assert "half-a-secret" not in said


@pytest.mark.parametrize("looks", [False, True])
def test_a_deployment_of_hundreds_costs_a_few_calls(looks):
    """Behind the template's queue every task is told within seconds, and others keep the bucket of DescribeTasks."""
    figures = simulate_forwarder(400, looks=looks)
    assert (figures.never, figures.throttled) == (0, 0)
    assert figures.last < 10
    assert figures.calls <= (10 if looks else 0)
    assert not looks or figures.outsider == 1


def test_a_record_that_lags_delays_and_loses_nothing():
    """Events that are newer than their records come again, until all tasks are told."""
    figures = simulate_forwarder(200, looks=True, lag=3.0)
    assert figures.never == 0
    assert figures.by_then < 60


@pytest.mark.slow
@pytest.mark.parametrize("given", [{}, {"looks": True}, {"looks": True, "lag": 3.0}, {"looks": True, "outsider": 19.0}])
def test_four_thousand_tasks_are_told_within_a_minute(given):
    """Out of a bucket of 100 calls, refilled with 20 a second, on which other tools live as well."""
    figures = simulate_forwarder(4000, **given)
    assert figures.never == 0
    assert figures.by_then < 60
    assert figures.calls <= 100
