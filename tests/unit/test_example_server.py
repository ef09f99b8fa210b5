"""The example server, through Starlette's test client."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from starlette_drain import Drain, DrainState
from starlette_drain.triggers.manual import ManualTrigger

create_app = pytest.importorskip("example_app.server", reason="the example is no part of the wheel").create_app


@pytest.fixture
def trigger():
    """Asks for a drain when a test says so."""
    return ManualTrigger()


@pytest.fixture
def drain(trigger):
    """The drain of the example: told by nobody else, heard by nobody."""
    return Drain(triggers=[trigger], observers=[])


@pytest.fixture
def client(drain):
    """A client of the running example."""
    with TestClient(create_app(drain)) as client:
        yield client


@pytest.fixture
def publish(client):
    """Publish in a thread: the answer waits for the acknowledgement."""
    with ThreadPoolExecutor() as threads:
        yield lambda device, command: threads.submit(client.post, f"/devices/{device}/commands", json=command)


def test_a_command_reaches_its_device_and_its_acknowledgement_comes_back(client, publish):
    """202, once the device has acknowledged the very command that was published."""
    with client.websocket_connect("/devices/lamp") as device:
        answer = publish("lamp", {"light": "on"})
        message = device.receive_json()
        assert message["command"] == {"light": "on"}
        device.send_text("not JSON, and no harm")
        device.send_json({"type": "ack", "id": "of another command"})
        device.send_json({"type": "ack", "id": message["id"]})
        assert answer.result(5).status_code == 202
        assert answer.result().json() == {"id": message["id"], "acknowledged": True}


def test_a_command_to_a_device_that_leaves_is_not_acknowledged(client, publish):
    """202, and the answer says at once that there was no acknowledgement."""
    with client.websocket_connect("/devices/lamp") as device:
        answer = publish("lamp", {"light": "on"})
        device.receive_json()
    assert answer.result(2).json()["acknowledged"] is False


def test_a_device_that_is_not_connected_is_not_found(client):
    """404 for a device that never came, and for one that has left."""
    assert client.post("/devices/lamp/commands", json={}).status_code == 404
    with client.websocket_connect("/devices/lamp"):
        pass
    assert client.post("/devices/lamp/commands", json={}).status_code == 404


def test_a_command_that_is_not_json_is_refused(client):
    """400: the device never sees it."""
    with client.websocket_connect("/devices/lamp"):
        assert client.post("/devices/lamp/commands", content=b"{").status_code == 400


def test_a_device_that_came_back_stays_known_when_its_old_connection_ends(client, publish):
    """The newest connection of a device gets its commands, whatever becomes of an older one."""
    with client.websocket_connect("/devices/lamp") as old, client.websocket_connect("/devices/lamp") as new:
        old.close()
        answer = publish("lamp", {"light": "on"})
        new.send_json({"type": "ack", "id": new.receive_json()["id"]})
        assert answer.result(5).json()["acknowledged"] is True


def test_a_drain_says_goodbye_and_closes_with_1012(client, drain, trigger):
    """The farewell comes before the close frame, and a drained server is still healthy and turns new devices away."""
    with client.websocket_connect("/devices/lamp") as device:
        client.portal.call(lambda: trigger.fire(window=0.01, revocable=False))
        assert device.receive_json()["type"] == "goodbye"
        with pytest.raises(WebSocketDisconnect) as closed:
            device.receive_json()
        assert (closed.value.code, closed.value.reason) == (1012, "server draining")
    client.portal.call(drain.wait_drained)
    assert drain.state is DrainState.DRAINED
    assert client.get("/healthz").status_code == 200
    with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/devices/lamp"):
        pass
    assert refused.value.status_code == 503


def test_a_drain_waits_for_an_acknowledgement(client, drain, trigger, publish):
    """A device that was sent a command is asked to leave only after its acknowledgement."""
    with client.websocket_connect("/devices/lamp") as device:
        answer = publish("lamp", {"light": "on"})
        message = device.receive_json()
        assert drain.statistics().held == 1
        client.portal.call(lambda: trigger.fire(window=30))
        assert drain.statistics().held == 1
        device.send_json({"type": "ack", "id": message["id"]})
        assert answer.result(5).json()["acknowledged"] is True
        assert drain.statistics().held == 0
