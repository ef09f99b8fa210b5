"""The promise of _core/printable.py: text from outside stays within its line."""

import pytest

from starlette_drain._core.printable import printable


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("/ws", "/ws"),
        ("/a b/é/日本", "/a b/é/日本"),
        ("", ""),
        ("/ws\r\nERROR all is lost", r"/ws\r\nERROR all is lost"),
        ("\x1b[31m\x07\x00\x7f", r"\x1b[31m\x07\x00\x7f"),
        ("\x85\u2028\u2029", r"\x85\u2028\u2029"),
        ("\u202eevil", r"\u202eevil"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_could_leave_its_line_is_escaped(text, escaped):
    """Control characters, all kinds of line breaks, directions and lone surrogates are escaped, and nothing else."""
    assert printable(text) == escaped
