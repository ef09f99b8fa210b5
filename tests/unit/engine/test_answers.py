"""Responses that end by themselves: counted, and nothing else."""

from starlette_drain._engine.answers import Answers


def test_they_are_counted_from_begin_to_end():
    """Ending twice does no harm."""
    answers, download = Answers(), object()
    answers.began(download)
    assert len(answers) == 1
    answers.ended(download)
    answers.ended(download)
    assert len(answers) == 0
