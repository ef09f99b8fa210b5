"""What an application declares of its responses."""

import pytest

from starlette_drain import Drain, Settings, SettingsError
from starlette_drain._core.streams import Declaration, Streams, declaration_of

SESSION, CUT, ANSWER = Declaration("session"), Declaration("session", "cut"), Declaration("answer")


@pytest.mark.parametrize(
    ("path", "declared"),
    [
        ("/watch", None),
        ("/watch/pods", SESSION),
        ("/watch/a/b", SESSION),
        ("/watch/a\nb", SESSION),
        ("/watchers", None),
        ("/feed", CUT),
        ("/feed/", None),
        ("/a.b", ANSWER),
        ("/aXb", None),
        ("/v1/jobs/7/events", ANSWER),
        ("/watch/jobs/7/events", SESSION),
        ("/", None),
    ],
)
def test_the_first_pattern_that_matches_counts(path, declared):
    """A star stands for any characters, everything else for itself, and the pattern for the whole path."""
    patterns = {"/watch/*": "session", "/feed": "session:cut", "/a.b": "answer", "*/jobs/*/events": "answer"}
    assert Streams(patterns).find(path) == declared


@pytest.mark.parametrize(
    "given",
    [
        {"/watch/*": "session", "/feed": "session:cut", "/x=y": "answer"},
        "/watch/*=session,/feed=session:cut , /x=y = answer,",
    ],
)
def test_it_is_given_as_a_mapping_or_as_text(given, monkeypatch):
    """The text of the environment means what the mapping does."""
    assert Settings(streams=given).streams == {"/watch/*": "session", "/feed": "session:cut", "/x=y": "answer"}
    if isinstance(given, str):
        monkeypatch.setenv("DRAIN_STREAMS", given)
        assert Drain(triggers=[], observers=[]).settings.streams == Settings(streams=given).streams


@pytest.mark.parametrize(
    "given",
    [
        *("/watch", "watch=session", "/watch=sesion", 7, ["/a"]),
        *({"/watch": "session:gone"}, {"": "answer"}, {1: "answer"}, {"/watch": None}, {"/watch": []}),
    ],
)
def test_what_cannot_work_stops_the_start(given, monkeypatch):
    """With the value, and an example of what can."""
    with pytest.raises(SettingsError, match=r"streams=.* cannot work: map path patterns .* 'session:cut'"):
        Settings(streams=given)
    if isinstance(given, str):
        monkeypatch.setenv("DRAIN_STREAMS", given)
        with pytest.raises(SettingsError, match=r"DRAIN_STREAMS=.* cannot work"):
            Drain(triggers=[], observers=[])


@pytest.mark.parametrize(
    ("text", "declared"),
    [
        ("session", SESSION),
        ("Session ; End = cut", CUT),
        ("session;end=clean", SESSION),
        ("session:cut", CUT),
        ("answer", ANSWER),
        ("answer; end=clean", ANSWER),
        ("answer; end=cut", None),
        ("session; end=gone", None),
        ("", None),
    ],
)
def test_a_response_declares_itself_as_headers_do(text, declared):
    """In any case, with spaces, with a parameter."""
    assert declaration_of(text) == declared
