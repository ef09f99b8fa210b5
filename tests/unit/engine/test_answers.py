"""Responses that end by themselves: counted, and nothing else."""

import logging

from starlette_drain._engine.answers import Answers


def test_they_are_counted_from_begin_to_end():
    """A number is all that is kept of most of them."""
    answers, stream = Answers(), object()
    answers.under_way += 2
    answers.undeclared[stream] = "/tokens"
    assert len(answers) == 2
    answers.ended(object())
    assert len(answers) == len(answers.undeclared) == 1
    answers.ended(stream)
    assert len(answers) == len(answers.undeclared) == 0


def test_undeclared_among_them_are_told_in_one_line(caplog):
    """How many there are, on which path, and which option makes sessions of them; a client forges no line."""
    answers = Answers()
    answers.warn_of_streams()
    assert caplog.messages == []
    answers.undeclared = {number: "/a\nb" if number else "/other" for number in range(3)}
    answers.warn_of_streams()
    ((_, level, line),) = caplog.record_tuples
    assert level == logging.WARNING
    assert "3, most of them on /a\\nb" in line
    assert 'streams={"/a\\nb": "session"}' in line


def test_a_declaration_that_means_nothing_is_told_once(caplog):
    """It comes with every response of its kind."""
    answers = Answers()
    for _ in range(3):
        answers.note_unclear("/a\nb", "sesion\r\n")
    (line,) = caplog.messages
    assert "sesion\\r\\n on /a\\nb" in line
