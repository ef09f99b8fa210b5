"""The first promise, tried on applications that nobody has thought of: never worse than without it."""

import os

import pytest
from drawn_scenes import http_scenes, websocket_scenes
from hypothesis import HealthCheck, Phase, given, note, settings
from rules import check_drained, check_untouched
from twin import Scene, play

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:websockets", "ignore:remove second argument"),
    pytest.mark.slow,
    pytest.mark.unmeasured,
]

EXAMPLES = int(os.environ.get("TWIN_EXAMPLES", "0"))

TWIN = settings(
    max_examples=EXAMPLES or 300,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
"""A minute or so for all four, each time the same; ``TWIN_EXAMPLES=20000`` looks further, each time elsewhere."""


def untouched(scene: Scene) -> None:
    """Play *scene* bare and wrapped, without a drain, and compare."""
    bare, wrapped = play(scene, wrapped=False), play(scene, wrapped=True)
    note(f"bare:\n{bare}\nwrapped:\n{wrapped}")
    check_untouched(scene, bare, wrapped)


def drained(scene: Scene) -> None:
    """Play *scene* bare, and wrapped with its drain, and compare."""
    bare, wrapped = play(scene, wrapped=False), play(scene, wrapped=True)
    note(f"bare:\n{bare}\nwrapped:\n{wrapped}")
    check_drained(scene, bare, wrapped)


KINDS = {
    "websocket": (websocket_scenes(drain=False), untouched),
    "http": (http_scenes(drain=False), untouched),
    "websocket-drained": (websocket_scenes(drain=True), drained),
    "http-drained": (http_scenes(drain=True), drained),
}


@TWIN
@given(websocket_scenes(drain=False))
def test_websocket_untouched(scene):
    """Without a drain nothing differs."""
    untouched(scene)


@TWIN
@given(http_scenes(drain=False))
def test_http_untouched(scene):
    """Without a drain nothing differs."""
    untouched(scene)


@TWIN
@given(websocket_scenes(drain=True))
def test_websocket_drained(scene):
    """A drain changes what it may, and no more."""
    drained(scene)


@TWIN
@given(http_scenes(drain=True))
def test_http_drained(scene):
    """A drain changes what it may, and no more."""
    drained(scene)
