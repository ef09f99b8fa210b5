"""What the unit tests share."""

import pytest
from worker_crowd import Crowd


@pytest.fixture
async def crowd(tmp_path):
    """Return a task without workers."""
    crowd = Crowd(tmp_path / "workers")
    yield crowd
    await crowd.dismiss()
