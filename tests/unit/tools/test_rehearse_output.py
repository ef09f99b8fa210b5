"""What a rehearsal reads of its server's output, and what it shows of it."""

import traceback

import pytest

from starlette_drain.tools.rehearse.output import Output
from starlette_drain.tools.rehearse.process import LONGEST, Process
from starlette_drain.tools.rehearse.server import FORCED, STARTED


def logged(error):
    """Return the lines that uvicorn logs of an error."""
    return ["ERROR:    Exception in ASGI application", *"".join(traceback.format_exception(error)).splitlines()]


def chained():
    """Return an error that was raised while another was handled."""
    try:
        try:
            raise KeyError("gone")  # noqa: TRY301
        except KeyError:
            msg = "it has gone"
            raise RuntimeError(msg)  # noqa: B904 - the chain is meant
    except RuntimeError as error:
        return error


def grouped():
    """Return an error as a TaskGroup raises it."""
    try:
        msg = "unhandled errors in a TaskGroup"
        raise ExceptionGroup(msg, [chained(), ExceptionGroup("inner", [OSError(1)]), OSError(2)])  # noqa: TRY301
    except ExceptionGroup as error:
        return error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (chained, "RuntimeError: it has gone"),
        (grouped, "ExceptionGroup: unhandled errors in a TaskGroup (3 sub-exceptions)"),
    ],
)
def test_a_traceback_is_shown_once(error, line):
    """With all that belongs to it; it counts each time, and a chain as its last."""
    output = Output()
    lines = [*logged(error()), "INFO:     next"]
    assert [shown for each in lines for shown in output.take(each)] == lines
    assert [shown for each in lines for shown in output.take(each)] == [lines[0], lines[-1]]
    assert output.tracebacks == [line, line]


def test_other_lines():
    """What the server says to the rehearsal is not shown; the rest is."""
    output = Output()
    assert [output.take(each) for each in (STARTED, f"{FORCED}/a", "", "x")] == [[], [], [""], ["x"]]
    assert output.forced == ["/a"]
    assert output.started < float("inf")
    assert list(output.lines) == ["", "x"]


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([b"one\ntw", b"o\r\n\nthree"], ["one", "two", "", "three"]),
        ([b"x" * LONGEST, b"x" * LONGEST, b"y\n"], ["x" * 2 * LONGEST, "y"]),
        ([], []),
    ],
)
def test_the_output_is_read_in_lines(chunks, lines):
    """However long they are, and to the last, also without a line end."""
    taken = []
    process = Process(taken.append)
    for each in chunks:
        process.pipe_data_received(1, each)
    process.pipe_connection_lost(1, None)
    assert taken == lines
