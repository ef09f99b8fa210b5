"""The lab's own balancer: which target is picked, and what becomes of the bytes."""

import pytest

routing = pytest.importorskip("example_app.rollout.balancer.routing", reason="the example is no part of the wheel")
splice = pytest.importorskip("example_app.rollout.balancer.splice")

A, B, C = (("127.0.0.1", port) for port in (1, 2, 3))


class FakeTransport:
    """Remembers what is done to it."""

    def __init__(self):
        self.done = []

    def __getattr__(self, name):
        """Take note of any call."""
        return lambda *arguments: self.done.append((name, *arguments))

    def is_closing(self):
        """Say that it is open."""
        return False


def test_nobody_is_picked_where_nobody_is_healthy():
    """The connection is closed instead."""
    assert routing.Routing("round-robin").pick() is None


def test_round_robin_takes_turns():
    """Each healthy target gets as many as the others."""
    rule = routing.Routing("round-robin")
    rule.route_to([A, B])
    assert sorted(rule.pick() for _ in range(4)) == [A, A, B, B]


def test_least_connections_fills_the_empty_one_first():
    """A new task gets every connection until it has as many as the others."""
    rule = routing.Routing("least-connections")
    rule.route_to([A, B])
    for _ in range(4):
        rule.pick()
    rule.route_to([A, B, C])
    assert [rule.pick() for _ in range(2)] == [C, C]


def test_a_target_that_drains_is_not_picked_and_keeps_what_it_has():
    """Draining means nothing new."""
    rule = routing.Routing("least-connections")
    rule.route_to([A, B])
    for _ in range(10):
        rule.pick()
    rule.route_to([B])
    assert {rule.pick() for _ in range(10)} == {B}
    assert rule.connections[A] == 5


@pytest.fixture
def sides():
    """A client's side and a task's side, joined, each with a transport that remembers."""
    splices = splice.Splices(routing.Routing("round-robin"))
    client = splices.accept()
    client.transport = FakeTransport()
    return client, splice.TargetSide(client)


def test_what_comes_too_early_is_kept(sides):
    """A handshake that is faster than the connection to the task reaches it all the same."""
    client, target = sides
    client.data_received(b"GET ")
    client.data_received(b"/")
    client.other = target
    task = FakeTransport()
    target.connection_made(task)
    client.data_received(b" HTTP/1.1")
    assert task.done == [("write", b"GET /"), ("write", b" HTTP/1.1")]


def test_a_side_that_cannot_be_written_stops_the_other(sides):
    """A client that does not read fills no memory of the balancer's."""
    client, target = sides
    client.other = target
    target.connection_made(FakeTransport())
    client.pause_writing()
    client.resume_writing()
    assert target.transport.done[-2:] == [("pause_reading",), ("resume_reading",)]


def test_a_close_of_the_task_reaches_the_client(sides):
    """Gently: what was written before, the close frame for instance, is sent first."""
    client, target = sides
    target.connection_lost(None)
    assert client.transport.done == [("close",)]


def test_the_cut_ends_both_sides_at_once(sides):
    """No close frame, no waiting."""
    client, target = sides
    client.other = target
    target.connection_made(FakeTransport())
    client.cut()
    assert (client.transport.done[-1], target.transport.done[-1]) == (("abort",), ("abort",))


def test_a_share_of_each_target_is_dropped():
    """The others notice nothing."""
    splices = splice.Splices(routing.Routing("round-robin"))
    sides = [splices.accept() for _ in range(9)]
    for side in sides:
        side.transport = FakeTransport()
    splices._open = {A: set(sides[:6]), B: set(sides[6:])}
    splices.drop(1 / 3)
    assert [sum(bool(side.transport.done) for side in those) for those in (sides[:6], sides[6:])] == [2, 1]
