"""Follows what the package does, and holds the walks of docs/contributing.md to it."""

import re
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import starlette_drain

__all__ = ["Walk", "walking"]

PACKAGE = Path(starlette_drain.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "contributing.md"
STEP = re.compile(r"^\d+\. `([\w/]+\.py)` `([\w.]+)`", re.MULTILINE)


def walk_of(heading):
    """Return the steps of one walk of the page."""
    text = PAGE.read_text(encoding="utf-8").split(f"#### {heading}\n")[1].split("\n#")[0]
    return [f"{path}:{name}" for path, name in STEP.findall(text)]


def step_of(frame):
    """Return the step that a frame is, ``None`` where it is none of the package's."""
    code = frame.f_code
    if not code.co_filename.startswith(str(PACKAGE)):
        return None
    path = Path(code.co_filename).relative_to(PACKAGE).as_posix()
    return f"{path}:{code.co_qualname.replace('.<locals>', '')}"


class Walk:
    """What was entered, in order, and what stood on the stack at the turning points."""

    def __init__(self):
        self.entered = []
        self.passed = set()

    def turn(self):
        """Note what stands on the stack."""
        frame = sys._getframe(1)
        while frame is not None:
            if step := step_of(frame):
                self.passed.add(step)
            frame = frame.f_back

    def holds(self, heading, longest):
        """Check the walk of the page against this one."""
        told = walk_of(heading)
        assert len(told) <= longest
        assert self.passed <= set(told)
        entered = iter(self.entered)
        missing = [step for step in told if step not in entered]
        assert missing == [], f"not entered, or not in this order, from the first of these on: {missing}"


@contextmanager
def walking():
    """Follow what the package does."""
    walk = Walk()

    def note(frame, event, _):
        if event == "call" and (step := step_of(frame)):
            walk.entered.append(step)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield walk
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
