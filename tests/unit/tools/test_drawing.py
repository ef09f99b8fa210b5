"""A drawing in a file."""

import sys

import pytest

from starlette_drain.tools import drawing as module
from starlette_drain.tools.cli import main
from starlette_drain.tools.drawing import PlotNotPossible, drawing


def test_without_matplotlib_it_names_the_remedy(monkeypatch, tmp_path):
    """Nothing is drawn, and the message says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(PlotNotPossible, match="pip install matplotlib"), drawing(str(tmp_path / "a.svg")):
        pass


def test_the_file_is_there_at_the_end(tmp_path):
    """What was drawn stands in the file."""
    pytest.importorskip("matplotlib")
    with drawing(str(tmp_path / "a.svg")) as axes:
        axes.plot([0, 1], [1, 0], label="a line")
    assert "a line" in (tmp_path / "a.svg").read_text()


def test_a_file_that_cannot_be_written(tmp_path):
    """The message names the file."""
    pytest.importorskip("matplotlib")
    path = str(tmp_path / "a.what")
    with (
        pytest.raises(PlotNotPossible, match=r"a\.what cannot be drawn"),
        drawing(path) as axes,
    ):
        axes.plot([0, 1], [1, 0], label="a line")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.txt", "a file that ends in .svg, .png or .pdf"),
        ("missing/a.svg", "in a directory that exists"),
        ("a.svg", "--plot needs matplotlib: pip install matplotlib"),
    ],
)
def test_it_is_checked_before_anything_runs(name, words, capsys, monkeypatch, tmp_path):
    """A rehearsal or a plan takes minutes; what cannot be drawn is refused first."""
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    for command in (["rehearse", "nowhere:app"], ["plan"]):
        assert main([*command, "--plot", str(tmp_path / name)]) == 2
        told = capsys.readouterr()
        assert (told.out, words in " ".join(told.err.split())) == ("", True)
