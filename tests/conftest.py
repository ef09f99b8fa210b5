"""What all tests share."""

import pytest
from virtual_time import VirtualTimeLoop


@pytest.fixture
def anyio_backend():
    """Run every ``async def`` test marked ``anyio`` on a loop with a virtual clock; tests/e2e takes a real one."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}
