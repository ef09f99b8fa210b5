"""The Python in the documentation, as modules that tests can run."""

import re
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))]
"""Every page of the documentation, by its path in the repository; the README is the first that anybody reads."""


def examples(page: str) -> dict[str, str]:
    """Return the Python blocks of *page* by a name made from the heading each stands under."""
    found = {}
    heading = ""
    text = (ROOT / page).read_text(encoding="utf-8")
    for match in re.finditer(r"^(?:#+ ([^\n]+)|```(\w*)[^\n]*\n(.*?)^```$)", text, re.MULTILINE | re.DOTALL):
        if match[1]:
            heading = match[1]
        elif match[2] == "python":
            name, number = heading, 1
            while name in found:
                number += 1
                name = f"{heading} ({number})"
            # Errors shall point into the page: as many empty lines as stand above the block.
            found[name] = "\n" * text[: match.start(3)].count("\n") + match[3]
    return found


def run(page: str, name: str, monkeypatch) -> ModuleType:
    """Run one example as a module of its own."""
    module = ModuleType(f"example_{abs(hash((page, name)))}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(examples(page)[name], str(ROOT / page), "exec"), vars(module))
    return module
