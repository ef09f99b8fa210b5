"""What is published agrees with itself: versions, the wheel, the documentation, the tests."""

import ast
import importlib
import os
import re
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import starlette_drain
import starlette_drain.telemetry
import starlette_drain.testing

ROOT = Path(__file__).parent.parent
SOURCES = Path(os.environ.get("STARLETTE_DRAIN_SOURCES", ROOT))
"""Where the package is; `make wheel-test` copies the tests away from it."""
TESTS = sorted((ROOT / "tests").rglob("*.py"))
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel, with the build backend that is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(SOURCES)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_changelog_begins_with_the_version_of_the_package():
    """The newest section of the changelog is about this version."""
    text = (ROOT / "docs" / "changelog.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+) - ", text, re.MULTILINE)
    assert newest
    assert newest[1] == starlette_drain.__version__


@pytest.mark.slow
@pytest.mark.xdist_group("wheel")
def test_wheel_holds_every_module_and_nothing_else(wheel):
    """The wheel holds the package with its py.typed, its page and its licence, and neither tests nor the example."""
    sources = {str(path.relative_to(SOURCES)) for path in (SOURCES / "starlette_drain").rglob("*.py")}
    names = set(wheel.namelist())
    packaged = {name for name in names if not name.partition("/")[0].endswith(".dist-info")}
    page = {f"starlette_drain/_asgi/page/page.{kind}" for kind in ("css", "html", "js")}
    data = {"starlette_drain/py.typed", "starlette_drain/tools/plan/clients.json"}
    assert packaged == sources | page | data
    assert any(name.endswith("/licenses/LICENSE") for name in names)


@pytest.mark.slow
@pytest.mark.xdist_group("wheel")
def test_wheel_requires_only_what_the_core_needs(wheel):
    """Without extras an installation brings Starlette and the API of OpenTelemetry, nothing more."""
    (name,) = [each for each in wheel.namelist() if each.endswith(".dist-info/METADATA")]
    metadata = wheel.read(name).decode()
    required = re.findall(r"^Requires-Dist: ([\w-]+)(?!.*; extra)", metadata, re.MULTILINE)
    assert sorted(required) == ["opentelemetry-api", "starlette"]


@pytest.mark.slow
@pytest.mark.xdist_group("wheel")
def test_description_has_no_link_into_the_repository(wheel):
    """On a package index each link and picture leads somewhere."""
    (name,) = [each for each in wheel.namelist() if each.endswith(".dist-info/METADATA")]
    description = wheel.read(name).decode().partition("\n\n")[2]
    assert description.startswith("# starlette_drain")
    assert re.findall(r"\]\((?!https?:|#)[^)]*\)", description) == []


def test_description_leads_to_the_source_where_there_is_one():
    """With a project URL links and pictures become absolute, those within the page stay."""
    hook = runpy.run_path(str(SOURCES / "hatch_build.py"))
    readme = "![A curve](docs/images/a.png) [tutorial](docs/tutorial.md#x) [here](#what) [other](https://example.com)"
    assert hook["description"](readme, "https://example.com/blob/v1") == (
        "![A curve](https://example.com/blob/v1/docs/images/a.png?raw=true) "
        "[tutorial](https://example.com/blob/v1/docs/tutorial.md#x) [here](#what) [other](https://example.com)"
    )
    assert hook["description"](readme, None) == "*A curve* tutorial [here](#what) [other](https://example.com)"


@pytest.mark.parametrize(
    "name", sorted({*starlette_drain.__all__, *starlette_drain.telemetry.__all__, *starlette_drain.testing.__all__})
)
def test_public_name_is_documented(name):
    """Every public name stands on some page, as code."""
    code = re.compile(rf"(?s)`[^`\n]*\b{name}\b[^`\n]*`|```.*?\b{name}\b.*?```")
    assert any(code.search(page.read_text(encoding="utf-8")) for page in PAGES), f"document {name} in docs/"


def test_every_public_name_is_in_the_reference_of_the_api():
    """docs/api.md is made from the docstrings of all public names; the events come from their module."""
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    names = {
        f"{module.__name__}.{name}" for module in (starlette_drain, starlette_drain.testing) for name in module.__all__
    }
    elsewhere = {"starlette_drain.Settings"}  # docs/settings.md
    assert names - elsewhere | {"starlette_drain.telemetry"} == set(re.findall(r"^::: (\S+)$", page, re.MULTILINE))


def test_names_of_the_reference_are_where_it_says():
    """Whoever imports a name from the module that the reference tells, gets it."""
    page = (DOCS / "reference.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `(starlette_drain[\w.]+)` \|", page, re.MULTILINE)
    assert len(rows) >= 10
    for name, module in rows:
        assert hasattr(importlib.import_module(module), name), f"there is no {name} in {module}"


def test_public_names_are_sorted():
    """A reader finds a name where they look for it."""
    assert starlette_drain.__all__ == sorted(starlette_drain.__all__)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_states_its_promise(path):
    """Every test has a docstring."""
    silent = [
        f"{node.name}, line {node.lineno}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_make_commands_exist(page):
    """Whoever types a command of the documentation finds a target for it."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    mentioned = re.findall(r"(?:^|`)make ((?:[A-Z]+=\S+ )?[a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert {each.split()[-1] for each in mentioned} <= targets


def test_every_page_is_in_the_navigation():
    """No page of the documentation is an orphan, and none is there twice."""
    navigation = re.findall(r"^ +- .*: (\S+\.md)$", (ROOT / ".mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(navigation) == sorted(str(page.relative_to(DOCS)) for page in PAGES)
