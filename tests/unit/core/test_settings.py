"""The options of a drain: every bound, both ways in, and what an error says."""

import math
import pickle
import re
from dataclasses import FrozenInstanceError, fields
from typing import get_args, get_type_hints

import make_options
import pytest

from starlette_drain import Drain, Settings
from starlette_drain._core.admission import AdmissionPolicy
from starlette_drain._core.declared import environment_name, options_of
from starlette_drain._core.pacing import BatchPacing, EvenPacing, RateCapPacing
from starlette_drain._core.settings import REMOVED
from starlette_drain._core.settings import Settings as CoreSettings
from starlette_drain._engine.options import DrainOptions
from starlette_drain.aws.options import AwsSettings
from starlette_drain.exceptions import DrainError, SettingsError
from starlette_drain.tools.cli import main

NAMES = [each.name for each in fields(Settings)]
ARN = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/streams/6d0ecf831eec9f09"
TOKEN = "correct-horse-battery"
NOT_SECONDS = [-1, -1e-9, math.nan, math.inf, "5", True, None, 10**400]
NO_PACE = [f"{name}:{number}" for name in ("rate", "batches", "fleet") for number in ("0", "-1", "nan", "inf", "")]

SOUND = {
    "mode": ["drain", "observe", "off"],
    "window": [None, 1, 0.5, 3600],
    "margin": [0, 15.5],
    "pacing": [EvenPacing(), RateCapPacing(5), BatchPacing(), "even", "rate:5", "batches:2", "fleet:5"],
    "shed_first": ["random", "oldest", "newest", "idle", id],
    "start_delay": [0, 10],
    "late_arrivals": ["auto", "refuse", "accept"],
    "admission": [None, "32", "auto", "observe", "auto:observe", "8:close", " AUTO:observe:close "],
    "streams": [None, {}, {"/a": "session", "*b": "session:cut"}, "/a=answer, /b/*=session:clean"],
    "retry_after": [0, 30],
    "close_code": [1001, 1012, 1013, 3000, 4999],
    "grace": [0, 5],
    "max_session_age": [None, 3600],
    "sigterm": ["auto", True, False],
    "sigterm_window": [0, 20],
    "exit_when_drained": [True, False],
    "admin_token": [None, "x" * 16, TOKEN],
    "log": [True, False],
    "record": [True, False],
    "sources": [(), ("task-state",), "target-health", "target-health, task-state,service-deployment", "none"],
    "self_registration": [True, False, "deregister"],
    "target_group_arn": [(), (ARN,), ARN, f" {ARN} , {ARN}2 ", ""],
    "target_id": [None, "10.0.0.1", "i-0123456789abcdef0", "fd00::1"],
    "target_port": [None, 1, 65535],
    "deregistration_delay": [None, 0, 3600],
    "poll_interval": [1, 60.5],
    "poll_share": [1, 0.01],
    "rebalance": [False],
}

UNSOUND = {
    "mode": ["", "on", "Off", None, False],
    "window": [0, *NOT_SECONDS[:-2]],
    "margin": NOT_SECONDS,
    "pacing": [None, 5, "fast", "", *NO_PACE, EvenPacing, RateCapPacing, ...],
    "shed_first": ["", "youngest", None, 5],
    "start_delay": NOT_SECONDS,
    "late_arrivals": ["", "Refuse", None, True],
    "admission": ["", "0", "-1", "1.5", "32:", "auto:often", "observe:close", "close", 32, True],
    "streams": [5, True, ["/a"], "/a", {"a": "session"}, {"/a": "sesion"}, {"/a": None}, {"/a": []}, {5: "answer"}],
    "retry_after": NOT_SECONDS,
    "close_code": [1000, 1005, 1006, 1011, 1014, 2999, 5000, 1012.0, True, "1012", None],
    "grace": NOT_SECONDS,
    "max_session_age": [0, -1, True],
    "sigterm": ["yes", 1, 0, None],
    "sigterm_window": NOT_SECONDS,
    "exit_when_drained": [0, "no", None],
    "admin_token": ["", "x" * 15, "x" * 16 + " ", "pässwörter-sind-lang", b"x" * 20, 5],
    "log": [1, "yes", None],
    "record": [1, "yes", None],
    "sources": ["target", ("sigterm",), ["target-health"], None, ("target-health", []), 5],
    "self_registration": ["", "register", None, 1],
    "target_group_arn": ["streams", ("arn:aws:s3:::bucket",), [ARN], None, (ARN, 5)],
    "target_id": ["", 5],
    "target_port": [0, 65536, -1, 80.0, True, "80"],
    "deregistration_delay": [-1, 3601, math.nan, "300", True],
    "poll_interval": [0.99, 0, *NOT_SECONDS],
    "poll_share": [0, 1.01, *NOT_SECONDS],
    "rebalance": [0, "yes", None],
}

FROM_ENVIRONMENT = {
    "mode": ("observe", "observe"),
    "window": ("240", 240.0),
    "margin": ("0", 0.0),
    "pacing": ("rate:50", RateCapPacing(50.0)),
    "shed_first": ("oldest", "oldest"),
    "start_delay": ("10", 10.0),
    "late_arrivals": ("accept", "accept"),
    "admission": ("32:observe", AdmissionPolicy(32, observes=True)),
    "streams": ("/a/*=session, /b=session:cut", {"/a/*": "session", "/b": "session:cut"}),
    "retry_after": ("1.5", 1.5),
    "close_code": ("4000", 4000),
    "grace": ("7", 7.0),
    "max_session_age": ("14400", 14400.0),
    "sigterm": ("Off", False),
    "sigterm_window": ("25", 25.0),
    "exit_when_drained": ("YES", True),
    "admin_token": (TOKEN, TOKEN),
    "log": ("off", False),
    "record": ("on", True),
    "sources": (" task-state,target-health", ("task-state", "target-health")),
    "self_registration": ("Deregister", "deregister"),
    "target_group_arn": (f"{ARN}, {ARN}2,", (ARN, ARN + "2")),
    "target_id": ("10.0.0.1", "10.0.0.1"),
    "target_port": ("8080", 8080),
    "deregistration_delay": ("300", 300.0),
    "poll_interval": ("10", 10.0),
    "poll_share": ("0.5", 0.5),
    "rebalance": ("off", False),
}

BAD_ENVIRONMENT = {
    "mode": "drian",
    "window": "four minutes",
    "pacing": "fast",
    "late_arrivals": "maybe",
    "admission": "some",
    "streams": "/a",
    "close_code": "1012.0",
    "sigterm": "perhaps",
    "admin_token": "short",
    "target_group_arn": "streams",
    "target_port": "http",
    "deregistration_delay": "nan",
    "poll_interval": "0",
}


def every(values):
    """Return a pair for each option and each of its values."""
    return [pytest.param(name, value, id=f"{name}={value!r:.30}") for name, some in values.items() for value in some]


def test_every_option_has_its_examples():
    """A new option needs sound and unsound values here, and a form in the environment."""
    assert list(SOUND) == list(UNSOUND) == list(FROM_ENVIRONMENT) == NAMES


@pytest.mark.parametrize(("name", "value"), every(SOUND))
def test_sound_value_is_taken(name, value):
    """What can work is taken, both by the class and by `load`."""
    taken = getattr(Settings.load({name: value}, {}), name)
    assert taken == getattr(Settings(**{name: value}), name)
    if not isinstance(value, str) or name not in {"admission", "pacing", "sources", "streams", "target_group_arn"}:
        assert taken == value


@pytest.mark.parametrize(("name", "value"), every(UNSOUND))
def test_unsound_value_is_refused(name, value):
    """What cannot work is refused at once, naming the option, the value and the remedy; the token is never shown."""
    with pytest.raises(SettingsError) as caught:
        Settings.load({name: value}, {})
    error = caught.value
    assert error.option == name
    assert len(error.remedy) > 10
    if name == "admin_token":
        assert error.value == "…"
    else:
        assert error.value == value or error.value is value
        assert str(error) == f"{name}={value!r} cannot work: {error.remedy}"
    assert isinstance(error, DrainError)
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("name", NAMES)
def test_option_from_the_environment(name):
    """Every option has a variable, and its text means what it says."""
    text, value = FROM_ENVIRONMENT[name]
    taken = getattr(Settings.load({}, {environment_name(name): text}), name)
    assert taken == value
    assert type(taken) is type(value)


@pytest.mark.parametrize("name", NAMES)
def test_argument_beats_the_environment(name):
    """With an argument the variable is not even read: it may be wrong."""
    value = SOUND[name][0]
    variable = {environment_name(name): BAD_ENVIRONMENT.get(name, "")}
    assert getattr(Settings.load({name: value}, variable), name) == getattr(Settings(**{name: value}), name)


@pytest.mark.parametrize("name", NAMES)
def test_empty_variable_is_none(name):
    """A variable that a task definition leaves empty changes nothing."""
    assert Settings.load({}, {environment_name(name): ""}) == Settings()


@pytest.mark.parametrize(("name", "text"), BAD_ENVIRONMENT.items())
def test_unsound_variable_is_named(name, text):
    """The error of a variable names the variable, since that is what its reader can change."""
    with pytest.raises(SettingsError) as caught:
        Settings.load({}, {environment_name(name): text})
    assert caught.value.option == environment_name(name)
    assert len(caught.value.remedy) > 10
    assert caught.value.value == ("…" if name == "admin_token" else text), "as it was given, not as it was parsed"


def test_every_unsound_option_is_named():
    """One start shows all mistakes: on ECS each further one costs a deployment."""
    environ = {"DRAIN_WINDOW": "4m", "DRAIN_SOURCES": "target-helth", "DRAIN_GRACE": "1"}
    with pytest.raises(SettingsError) as caught:
        Settings.load({"windw": 5, "margin": -1}, environ)
    error = caught.value
    named = [error.option, *(each.option for each in error.others)]
    assert named == ["windw", "DRAIN_WINDOW", "margin", "DRAIN_SOURCES"]
    assert str(error).count("cannot work") == 4
    assert str(error).startswith("windw='…' cannot work: there is no such option; did you mean window?. DRAIN_WINDOW=")
    assert "DRAIN_SOURCES='target-helth' cannot work: use 'target-health'" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", ["None", " none "])
def test_none_as_a_variable(name, text):
    """Where the documentation says that None is a value, the variable takes it too."""
    if None in SOUND[name]:
        assert getattr(Settings.load({}, {environment_name(name): text}), name) is None
    elif name != "sources":
        with pytest.raises(SettingsError):
            Settings.load({}, {environment_name(name): text})


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999"])
@pytest.mark.parametrize("name", [name for name in NAMES if isinstance(FROM_ENVIRONMENT[name][1], float | int)])
def test_no_number_is_endless(name, text):
    """What is no finite number is refused in every option, as an argument and as a variable."""
    for options, environ in (({name: float(text)}, {}), ({}, {environment_name(name): text})):
        with pytest.raises(SettingsError):
            Settings.load(options, environ)


@pytest.mark.parametrize("value", ["short", "short and with blanks in it", TOKEN + "\n"])
def test_token_is_never_shown(value):
    """Not in an error of the option, nor of the variable, nor of a name mistyped, nor in the repr."""
    for options, environ in (({"admin_token": value}, {}), ({}, {"DRAIN_ADMIN_TOKEN": value})):
        with pytest.raises(SettingsError) as caught:
            Settings.load(options, environ)
        assert value not in f"{caught.value} {caught.value!r} {caught.value.args}"
        assert caught.value.__cause__ is None
    with pytest.raises(SettingsError) as caught:
        Settings.load({"admin_tokn": value}, {})
    assert value not in f"{caught.value} {caught.value!r}"
    assert TOKEN not in repr(Settings(admin_token=TOKEN))


@pytest.mark.parametrize(
    ("given", "meant"), [("windw", "window"), ("Pacing", "pacing"), ("target_group_arns", "target_group_arn")]
)
def test_unknown_option(given, meant):
    """A name mistyped is refused, and the error says which was probably meant."""
    with pytest.raises(SettingsError) as caught:
        Drain(**{given: 5})
    assert str(caught.value) == f"{given}='…' cannot work: there is no such option; did you mean {meant}?"


@pytest.mark.parametrize("name", REMOVED)
def test_removed_option(name):
    """An option of an earlier checkout is refused, and the error says what to do instead; its variable is a warning."""
    with pytest.raises(SettingsError) as caught:
        Settings.load({name: 5}, {})
    remedy = f"this option was removed; {REMOVED[name]}"
    assert caught.value.remedy == remedy
    variable = environment_name(name)
    assert list(Settings().warnings({variable: "5"})) == [f"{variable} is not read: {remedy}"]


def test_unknown_option_like_no_other():
    """A name that resembles none is refused, and the error lists all there are."""
    with pytest.raises(SettingsError) as caught:
        Settings.load({"xyz": 5}, {})
    assert all(name in caught.value.remedy for name in NAMES)


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("DRAIN_WINDWO", "did you mean DRAIN_WINDOW?"),
        ("drain_window", "did you mean DRAIN_WINDOW?"),
        ("DRAIN_TARGET_GROUP_ARNS", "did you mean DRAIN_TARGET_GROUP_ARN?"),
        ("DRAIN_XYZ", "starlette-drain --help lists the variables"),
    ],
)
def test_variable_that_is_not_read(variable, hint, monkeypatch, caplog):
    """It changes nothing, and a warning names it and the one that was probably meant; its value is not shown."""
    assert Settings.load({}, {variable: "hunter2"}) == Settings()
    monkeypatch.setenv(variable, "hunter2")
    Drain()
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("starlette_drain", "WARNING")
    assert record.message == f"Check the options: {variable} is not read: there is no such option; {hint}"


def test_other_variables_are_not_ours():
    """Variables that do not begin like ours are left alone, and so are all that are read."""
    ours = {environment_name(name): text for name, (text, _) in FROM_ENVIRONMENT.items()}
    environ = {"WINDOW": "5", "PATH": "/bin", **ours}
    assert list(Settings().warnings(environ)) == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"pacing": "batches:10", "window": 10}, ["window=10", "sigterm_window=6"]),
        ({"pacing": "batches:5", "window": 10}, []),
        ({"window": 0.5}, ["window=0.5"]),
        ({"sigterm_window": 0}, ["sigterm_window=0"]),
        ({"pacing": "rate:1", "window": 60}, []),
        ({"pacing": "fleet:1", "window": 60}, []),
    ],
)
def test_a_window_too_short_for_the_pacing_is_warned_of(options, named):
    """No option turns the drain into the burst that it is there to prevent without a warning at the start."""
    warnings = list(Settings.load(options, {}).warnings({}))
    assert [warning.partition(":")[0] for warning in warnings] == named
    assert all("at once; give" in warning or "batches, 10 s apart" in warning for warning in warnings)


def test_settings_are_frozen_and_named():
    """Options are checked once: nothing changes them later, and none is given by position."""
    with pytest.raises(FrozenInstanceError):
        Settings().window = 5
    with pytest.raises(TypeError):
        Settings(240)


def test_tail_is_the_longest_goodbye():
    """The close hooks come first, then the grace."""
    assert Settings(grace=9).tail == 2 + 9


def test_core_knows_no_aws():
    """A drain without AWS has options too, and those of AWS stand beside them in one flat list."""
    assert not {"sources", "target_id", "poll_share"} & set(options_of(CoreSettings))
    assert set(options_of(CoreSettings)) < set(NAMES)
    assert AwsSettings.of(CoreSettings(margin=3)) == Settings(margin=3)
    assert AwsSettings.of(settings := Settings(poll_share=1)) is settings


def test_options_are_few():
    """A list that a person can read: what one object needs goes into its constructor."""
    assert len(NAMES) <= 30
    assert sum(not declared.expert for _, declared in options_of(Settings).values()) <= 13


@pytest.mark.parametrize("pacing", ["even", "rate:50"])
def test_rebalance_needs_the_budget_of_the_fleet(pacing):
    """A scale-out is seen by all tasks at once: without a budget they would all move at their own pace."""
    with pytest.raises(SettingsError, match="fleet:500"):
        Settings(rebalance=True, pacing=pacing)
    assert Settings(rebalance=True, pacing="fleet:5").rebalance


# The lists

needs_docs = pytest.mark.skipif(
    not (make_options.ROOT / "docs").is_dir(), reason="the documentation is not here: a test of a wheel"
)


@needs_docs
@pytest.mark.parametrize(("file", "part"), make_options.LISTS, ids=lambda each: getattr(each, "name", each))
def test_every_list_is_made_from_the_declarations(file, part):
    """`DrainOptions` and the pages are what tests/make_options.py makes."""
    assert file.read_text(encoding="utf-8") == make_options.made(file, part)


def test_the_typed_dictionary_is_right():
    """What a type checker offers to `Drain` are the options, in order."""
    assert list(get_type_hints(DrainOptions)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_meaning_is_a_sentence(name):
    """It begins with a capital and ends with a full stop, fits into a table, and seconds have their unit."""
    _, declared = options_of(Settings)[name]
    assert re.fullmatch(r"[A-Z][^|\n]{20,}\.", declared.meaning)
    hint = get_type_hints(Settings)[name]
    assert bool(declared.unit) == ((hint is float or float in get_args(hint)) and name != "poll_share")


def test_the_command_shows_every_option(capsys):
    """``starlette-drain --help`` lists each variable with its default and meaning."""
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert [line.strip().split("=")[0] for line in told.splitlines() if line.startswith("  DRAIN_")] == sorted(
        map(environment_name, NAMES), key=lambda variable: is_expert(variable.removeprefix("DRAIN_").lower())
    )
    assert "  DRAIN_GRACE=5 (seconds)\n      Time for the application to notice" in told


def is_expert(name):
    """Tell whether most installations leave the option *name* alone."""
    return options_of(Settings)[name][1].expert
