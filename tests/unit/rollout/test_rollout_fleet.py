"""The lab's side of the fleet: whose records it takes, and what it says where there are none."""

import pytest

control = pytest.importorskip("example_app.rollout.clients.control", reason="the example is no part of the wheel")
records_module = pytest.importorskip("example_app.rollout.clients.records")

pytestmark = pytest.mark.anyio


class FakeChild:
    """A process of clients that leaves records, or does not."""

    name = "clients-1"
    log = "clients-1.log"

    def __init__(self, status, command, leaves):
        self._status = status
        self._file = command[command.index("--records") + 1]
        self._leaves = leaves

    def hang_up(self):
        """Leave the records now, if at all."""
        if self._leaves:
            records_module.Records(opened=[1.0]).write(self._leaves(self._file))

    async def wait(self, seconds):  # noqa: ARG002
        """Tell the exit status."""
        return self._status

    async def messages(self):
        """Say nothing."""
        for nothing in ():
            yield nothing


class FakeChildren:
    """Starts such a process."""

    def __init__(self, status=0, leaves=None):
        self._child = status, leaves
        self.command = None

    async def start(self, name, command, *, log, talks):  # noqa: ARG002
        """Start it."""
        status, leaves = self._child
        self.command = command
        return FakeChild(status, command, leaves)


async def finish(tmp_path, children):
    """Start a fleet where an earlier run has left its records, and finish it."""
    records_module.Records(opened=[0.0]).write(tmp_path / "clients-1.json")
    fleet = control.Fleet(control.FleetOptions(clients=10), children, tmp_path)
    await fleet.start("ws://127.0.0.1:1/devices")
    return await fleet.finish()


async def test_the_records_are_this_runs(tmp_path):
    """What an earlier run left is replaced."""
    records = await finish(tmp_path, FakeChildren(leaves=type(tmp_path)))
    assert records.opened == [1.0]


@pytest.mark.parametrize("status", [None, 1, 0])
async def test_a_process_that_leaves_no_records_is_an_error(tmp_path, status):
    """Whether it does not end in time, fails, or ends well without; what an earlier run left is not taken for them."""
    with pytest.raises(RuntimeError, match=rf"clients-1 left no records \(exit status {status}\); see clients-1.log"):
        await finish(tmp_path, FakeChildren(status))
