"""The promise of telemetry/console.py: a plain uvicorn shows our lines, and configured logging is left alone."""

import io
import logging

import pytest
from plain_uvicorn import OURS, SERVER, plain_uvicorn
from starlette.applications import Starlette
from starlette.testclient import TestClient

from starlette_drain import Drain, DrainMiddleware
from starlette_drain.telemetry.console import Console


def make_console(*, speaks=True, origin=""):
    """Make the console of a worker."""
    return Console(lambda: speaks, lambda: origin)


def as_it_was():
    """Tell whether our logger is as Python made it."""
    return OURS.handlers == [] and OURS.level == logging.NOTSET


def test_a_plain_uvicorn_shows_the_lines_in_its_own_format():
    """Level and format are those of uvicorn.error; what is below its level is not shown."""
    with plain_uvicorn() as written:
        with make_console():
            OURS.info("a drain %s", "starts")
            OURS.warning("it ended late")
            OURS.debug("a session opened")
        OURS.info("not shown")
        assert as_it_was()
    assert written.getvalue().splitlines() == ["INFO:     a drain starts", "WARNING:  it ended late"]


def test_the_level_is_that_of_uvicorn():
    """With --log-level warning there is no INFO of ours either."""
    with plain_uvicorn(logging.WARNING) as written, make_console():
        OURS.info("a drain starts")
    assert written.getvalue() == ""


def test_where_logging_is_configured_nothing_is_attached():
    """A handler of the root logger or of ours is a configuration: it is not touched."""
    for logger in (OURS, logging.getLogger()):
        with plain_uvicorn() as written:
            logger.addHandler(own := logging.StreamHandler(io.StringIO()))
            OURS.setLevel(logging.ERROR)
            with make_console():
                OURS.error("this is for the handler that was configured")
            assert logger.handlers == [own]
            assert OURS.level == logging.ERROR
        assert written.getvalue() == ""


def test_without_uvicorns_logging_nothing_is_attached():
    """Another server, or `log_config=None`: there is no format to borrow."""
    with plain_uvicorn():
        SERVER.handlers = []
        with make_console():
            assert as_it_was()


def test_a_level_that_was_set_is_kept():
    """An application that set the level of our logger without any handler keeps that level."""
    with plain_uvicorn() as written:
        OURS.setLevel(logging.WARNING)
        with make_console():
            OURS.info("too low")
            OURS.warning("high enough")
        assert OURS.level == logging.WARNING
    assert written.getvalue().splitlines() == ["WARNING:  high enough"]


def test_logging_that_is_configured_later_takes_over():
    """No line is shown twice where the application configures logging after the start."""
    with plain_uvicorn() as written, make_console():
        own = io.StringIO()
        logging.getLogger().addHandler(logging.StreamHandler(own))
        OURS.warning("once")
        assert as_it_was()
    assert written.getvalue() == ""
    assert own.getvalue().splitlines() == ["once"]


def test_of_two_applications_in_one_process_one_shows_the_lines():
    """The second finds the handler of the first."""
    with plain_uvicorn() as written:
        first, second = make_console(), make_console()
        with first:
            with second:
                OURS.info("once")
            OURS.info("and again")
        assert as_it_was()
    assert written.getvalue().splitlines() == ["INFO:     once", "INFO:     and again"]


def test_a_worker_that_does_not_speak_shows_warnings_only():
    """One line a task: the course of things is shown by one worker, what is wrong by the worker it is wrong in."""
    with plain_uvicorn() as written, make_console(speaks=False):
        OURS.info("a drain starts")
        OURS.warning("it ended late")
    assert written.getvalue().splitlines() == ["WARNING:  it ended late"]


def test_the_lines_of_a_drain_name_their_worker():
    """With several workers the figures are those of one of them, and the line says of which."""
    with plain_uvicorn() as written, make_console(origin="worker 31, one of 2"):
        OURS.info("drain %(drain_id)s starts", {"drain_id": "d-1"}, extra={"drain_id": "d-1"})
        OURS.info("starlette_drain watches sigterm")
    assert written.getvalue().splitlines() == [
        "INFO:     drain d-1 starts (worker 31, one of 2)",
        "INFO:     starlette_drain watches sigterm",
    ]


@pytest.mark.parametrize(("options", "prefix"), [({}, "WARNING:  "), ({"log": False}, "")])
def test_the_warnings_of_the_options_come_in_its_format(options, prefix, capsys):
    """They come while the application is imported, long before it starts; without `log` it is left to Python."""
    with plain_uvicorn() as written:
        Drain(window=0.5, **options)
        assert as_it_was()
    assert (written.getvalue() + capsys.readouterr().err).startswith(f"{prefix}Check the options: window=0.5")


def test_an_option_that_cannot_work_comes_in_its_format():
    """Without a lifespan the error is logged with the first request, and no drain runs that shows the log."""
    app = Starlette()
    app.add_middleware(DrainMiddleware, window="4m")
    with plain_uvicorn() as written:
        TestClient(app).get("/")
        assert as_it_was()
    assert written.getvalue().startswith("ERROR:    DrainMiddleware does nothing here")
