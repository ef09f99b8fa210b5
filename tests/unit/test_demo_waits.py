"""The demo says what it has waited for in vain."""

import pytest

demo = pytest.importorskip("example_app.demo.demo", reason="the example is no part of the wheel")


class BlindServer:
    """A task whose look-ups never succeed."""

    lines = ("WARNING starlette_drain: no credentials",)

    async def drain(self):
        """Tell of a trigger that has not seen its target."""
        return {"triggers": {"target-health": {"target_groups": [{"verdict": "unknown"}]}}}


@pytest.mark.anyio
async def test_a_task_that_never_sees_its_target_is_named_with_its_log():
    """The error says what was awaited, for how long, and what the task wrote meanwhile."""
    with pytest.raises(RuntimeError, match=r"did not see its target in service within 20 s(.|\n)*no credentials"):
        await demo.Demo(5, 60.0)._until_watching(BlindServer())
