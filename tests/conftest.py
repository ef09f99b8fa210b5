"""What all tests share."""

import logging
import signal
import sys

import pytest

from starlette_drain._asgi.closer import close_due
from starlette_drain._engine.host import DrainHost
from starlette_drain.testing import VirtualTimeLoop

FOLDERS = ("e2e", "ecosystem", "integration")
"""Where tests wait for other processes, the longest first."""


@pytest.fixture
def anyio_backend():
    """Run every ``async def`` test marked ``anyio`` on a loop with a virtual clock; tests/e2e takes a real one."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture(autouse=True, scope="session")
def closer():
    """Let sessions that are due be closed without a middleware too: many tests have some of their own."""
    former = DrainHost._close_due
    DrainHost._close_due = staticmethod(close_due)
    yield
    DrainHost._close_due = staticmethod(former)


@pytest.fixture(autouse=True, scope="session")
def ctrl_c():
    """Let the processes that tests start be interrupted: a job in the background inherits that SIGINT is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def drains_that_do_not_end():
    """
    Let tests leave the drain that they began: its triggers go with the loop.

    The garbage collector finds their tasks in the middle of another test, which may look at what is logged.
    """
    logger = logging.getLogger("asyncio")
    logger.addFilter(_is_no_forgotten_trigger)
    yield
    logger.removeFilter(_is_no_forgotten_trigger)


def _is_no_forgotten_trigger(record):
    message = record.getMessage()
    return not (message.startswith("Task was destroyed") and "TriggerTasks._watch" in message)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Switch the measuring of coverage off where it is in the way; in workers pytest-cov's `no_cover` does nothing."""
    tracer = sys.gettrace()
    if item.get_closest_marker("unmeasured"):
        sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Let workers that run side by side begin with the tests that wait, so that none of these is begun last."""
    if hasattr(config, "workerinput"):
        items.sort(key=_rank)
        for item in items:
            _name_group(item)


def _name_group(item):
    """Write the group of a test into its id, for the scheduler: pytest 9.2 does not read what xdist 3.8 sets."""
    mark = item.get_closest_marker("xdist_group")
    if mark is not None and not item.nodeid.endswith(f"@{mark.args[0]}"):
        item._id = item._id.parse(f"{item.nodeid}@{mark.args[0]}")


def _rank(item):
    folder = item.path.relative_to(item.config.rootpath / "tests").parts[0]
    place = FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS)
    return place, not item.get_closest_marker("slow")
