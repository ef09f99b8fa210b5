"""What the documentation shows of FakeAWS works, over a real socket."""

import pytest
from doc_examples import run


@pytest.mark.slow
def test_fake_aws_test_passes(monkeypatch):
    """The test that we recommend for a task on ECS passes."""
    module = run("docs/testing-your-app.md", "Does it work on ECS?", monkeypatch)
    module.test_a_deregistered_task_sheds_its_sessions(monkeypatch)
