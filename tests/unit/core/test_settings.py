"""The options of a drain: every bound, both ways in, and what an error says."""

import inspect
import math
import re
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from types import UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints

import pytest

from starlette_drain._core.options import DrainOptions
from starlette_drain._core.pacing import BatchPacing, EvenPacing, RateCapPacing
from starlette_drain._core.settings import Settings, environment_name
from starlette_drain.exceptions import DrainError, SettingsError

PAGE = Path(__file__).parents[3] / "docs" / "settings.md"
NAMES = [each.name for each in fields(Settings)]
ARN = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/streams/6d0ecf831eec9f09"
TOKEN = "correct-horse-battery"
UNITS = {"poll_share": "", "fleet_rate": "1/s"}
"""Of those numbers that are no seconds."""
NOT_SECONDS = [-1, -1e-9, math.nan, math.inf, "5", True, None, 10**400]

SOUND = {
    "window": [None, 1, 0.5, 3600],
    "margin": [0, 15.5],
    "pacing": [EvenPacing(), RateCapPacing(5), BatchPacing(), "even", "rate:5", "batches:2"],
    "shed_first": ["random", "oldest", "newest", "idle", id],
    "late_arrivals": ["refuse", "accept"],
    "retry_after": [0, 30],
    "reconnect_window": [None, 0.1, 120],
    "max_session_age": [None, 3600],
    "close_code": [1001, 1012, 1013, 3000, 4999],
    "close_reason": ["", "x" * 123, "é" * 61],
    "farewell_timeout": [0, 2],
    "close_timeout": [0, 5],
    "grace": [0, 5],
    "sigterm": ["auto", True, False],
    "sigterm_window": [0, 20],
    "cancel_transfers": [True, False],
    "exit_when_drained": [True, False],
    "freeze_gc": [True, False],
    "workers_dir": [None, "/run/app"],
    "admin_token": [None, "x" * 16, TOKEN],
    "admin_path": ["/drain", "/internal/drain"],
    "admin_proxied": [True, False],
    "sources": [(), ("task-state",), "target-health", "target-health, task-state,service-deployment", "none"],
    "self_registration": [True, False, "deregister"],
    "protection_limit": [None, 60, 172_800],
    "protection_sessions": [None, 0, 5000],
    "target_group_arn": [(), (ARN,), ARN, f" {ARN} , {ARN}2 ", ""],
    "target_group_policy": ["any", "all"],
    "target_id": [None, "10.0.0.1", "i-0123456789abcdef0", "fd00::1"],
    "target_port": [None, 1, 65535],
    "deregistration_delay": [None, 0, 3600],
    "poll_interval": [1, 60.5],
    "poll_share": [1, 0.01],
    "fleet_rate": [None, 500, 0.5],
    "start_delay": [0, 10],
}

UNSOUND = {
    "window": [0, *NOT_SECONDS[:-2]],
    "margin": NOT_SECONDS,
    "pacing": [None, 5, "fast", "rate:0", "", EvenPacing, RateCapPacing, object()],
    "shed_first": ["", "youngest", None, 5],
    "late_arrivals": ["", "Refuse", None, True],
    "retry_after": NOT_SECONDS,
    "reconnect_window": [0, -1, "5"],
    "max_session_age": [0, -1, True],
    "close_code": [1000, 1005, 1006, 1011, 1014, 2999, 5000, 1012.0, True, "1012", None],
    "close_reason": ["x" * 124, "é" * 62, b"x", None, "\udcff"],
    "farewell_timeout": NOT_SECONDS,
    "close_timeout": NOT_SECONDS,
    "grace": NOT_SECONDS,
    "sigterm": ["yes", 1, 0, None],
    "sigterm_window": NOT_SECONDS,
    "cancel_transfers": [1, "yes", None],
    "exit_when_drained": [0, "no", None],
    "freeze_gc": [1, "yes", None],
    "workers_dir": ["", "run/app", "~/run", 5],
    "admin_token": ["", "x" * 15, "x" * 16 + " ", "pässwörter-sind-lang", b"x" * 20, 5],
    "admin_path": ["", "/", "drain", "/drain/", None],
    "admin_proxied": [1, "yes", None],
    "sources": ["target", ("sigterm",), ["target-health"], None, ("target-health", []), 5],
    "self_registration": ["", "register", None, 1],
    "protection_limit": [0, 59, 172_801, math.nan, "300", True],
    "protection_sessions": [-1, 2.5, "5", True],
    "target_group_arn": ["streams", ("arn:aws:s3:::bucket",), [ARN], None, (ARN, 5)],
    "target_group_policy": ["", "some", None],
    "target_id": ["", 5],
    "target_port": [0, 65536, -1, 80.0, True, "80"],
    "deregistration_delay": [-1, 3601, math.nan, "300", True],
    "poll_interval": [0.99, 0, *NOT_SECONDS],
    "poll_share": [0, 1.01, *NOT_SECONDS],
    "fleet_rate": [0, -1, math.nan, math.inf, "5", True],
    "start_delay": NOT_SECONDS,
}

FROM_ENVIRONMENT = {
    "window": ("240", 240.0),
    "margin": ("0", 0.0),
    "pacing": ("rate:50", RateCapPacing(50.0)),
    "shed_first": ("oldest", "oldest"),
    "late_arrivals": ("accept", "accept"),
    "retry_after": ("1.5", 1.5),
    "reconnect_window": ("90", 90.0),
    "max_session_age": ("14400", 14400.0),
    "close_code": ("4000", 4000),
    "close_reason": ("back soon", "back soon"),
    "farewell_timeout": ("1e-1", 0.1),
    "close_timeout": (" 3 ", 3.0),
    "grace": ("7", 7.0),
    "sigterm": ("Off", False),
    "sigterm_window": ("25", 25.0),
    "cancel_transfers": ("1", True),
    "exit_when_drained": ("YES", True),
    "freeze_gc": ("1", True),
    "workers_dir": ("/run/app", "/run/app"),
    "admin_token": (TOKEN, TOKEN),
    "admin_path": ("/x", "/x"),
    "admin_proxied": ("true", True),
    "sources": (" task-state,target-health", ("task-state", "target-health")),
    "self_registration": ("Deregister", "deregister"),
    "protection_limit": ("3600", 3600.0),
    "protection_sessions": ("100", 100),
    "target_group_arn": (f"{ARN}, {ARN}2,", (ARN, ARN + "2")),
    "target_group_policy": ("all", "all"),
    "target_id": ("10.0.0.1", "10.0.0.1"),
    "target_port": ("8080", 8080),
    "deregistration_delay": ("300", 300.0),
    "poll_interval": ("10", 10.0),
    "poll_share": ("0.5", 0.5),
    "fleet_rate": ("500", 500.0),
    "start_delay": ("10", 10.0),
}

BAD_ENVIRONMENT = {
    "window": "four minutes",
    "pacing": "fast",
    "late_arrivals": "maybe",
    "close_code": "1012.0",
    "close_reason": "\udcff",  # bytes that are no UTF-8, as os.environ shows them
    "sigterm": "perhaps",
    "admin_proxied": "2",
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
    if not isinstance(value, str) or name not in {"pacing", "sources", "target_group_arn"}:
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
        given = (value,) if name in {"sources", "target_group_arn"} and isinstance(value, str) else value
        assert error.value == given or error.value is given
        assert str(error) == f"{name}={given!r} cannot work: {error.remedy}"
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
    if name != "admin_token":
        assert str(caught.value.value) in str(caught.value) or not text.isprintable()


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


def test_a_fleet_rate_decides_the_pace():
    """A fleet's budget beside a pace of one's own is refused, in the name of whoever gave it."""
    with pytest.raises(SettingsError, match="leave pacing at 'even'"):
        Settings(fleet_rate=500, pacing="rate:50")
    with pytest.raises(SettingsError, match=r"DRAIN_FLEET_RATE=500.0 cannot work: .*pacing at 'even'"):
        Settings.load({}, {"DRAIN_FLEET_RATE": "500", "DRAIN_PACING": "batches:2"})


def test_unknown_option():
    """A name mistyped is refused, and the error lists the right ones."""
    with pytest.raises(SettingsError) as caught:
        Settings.load({"windw": 5}, {})
    assert caught.value.option == "windw"
    assert all(name in caught.value.remedy for name in NAMES)


def test_other_variables_are_not_ours():
    """Variables that name no option are left alone."""
    assert Settings.load({}, {"DRAIN_WINDW": "5", "WINDOW": "5", "PATH": "/bin"}) == Settings()


def test_settings_are_frozen_and_named():
    """Options are checked once: nothing changes them later, and none is given by position."""
    with pytest.raises(FrozenInstanceError):
        Settings().window = 5
    with pytest.raises(TypeError):
        Settings(240)


def test_tail_is_the_longest_goodbye():
    """The farewell comes first; the close and the grace run side by side."""
    assert Settings(farewell_timeout=2, close_timeout=5, grace=9).tail == 11
    assert Settings(farewell_timeout=2, close_timeout=5, grace=1).tail == 7


def forms(hint):
    """Return the members of a union, or the one type."""
    return set(get_args(hint)) if get_origin(hint) in {Union, UnionType, Literal} else {hint}


def test_typed_dictionary_and_dataclass_agree():
    """What a type checker offers to `Drain` is what `Settings` takes: the same names, order and types."""
    offered, taken = get_type_hints(DrainOptions), get_type_hints(Settings)
    assert list(offered) == NAMES
    wider = {"pacing": {str}, "target_group_arn": {str}, "sources": {str}}
    for name in NAMES:
        assert forms(offered[name]) == forms(taken[name]) | wider.get(name, set()), name


def test_every_option_is_explained():
    """The docstring of `Settings` explains every option, in order, and no other."""
    documented = re.findall(r"^    (\w+): ", inspect.getdoc(Settings), re.MULTILINE)
    assert documented == NAMES


# The page in the documentation

needs_docs = pytest.mark.skipif(not PAGE.parent.is_dir(), reason="the documentation is not here: a test of a wheel")


def rows():
    """Return the cells of each option's row on the page."""
    table = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\| `(\w+)` \|", line):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            assert match[1] not in table, f"{match[1]} has two rows"
            table[match[1]] = cells
    return table


def shown(value):
    """Return how the page shows a default."""
    match value:
        case EvenPacing():
            return '`"even"`'
        case ():
            return "`()`"
        case float():
            return f"`{value:g}`"
        case str():
            return f'`"{value}"`'
    return f"`{value!r}`"


@needs_docs
def test_page_has_every_option_and_no_other():
    """docs/settings.md has a row for each option."""
    assert sorted(rows()) == sorted(NAMES)


@needs_docs
@pytest.mark.parametrize("each", fields(Settings), ids=lambda each: each.name)
def test_page_tells_the_truth(each):
    """Default, unit and variable on the page are those of the code, and the meaning is more than a word."""
    _, default, unit, variable, meaning = rows()[each.name]
    assert default == shown(each.default)
    is_number = float in forms(get_type_hints(Settings)[each.name])
    assert unit == UNITS.get(each.name, "s" if is_number else "")
    assert variable == f"`{environment_name(each.name)}`"
    assert len(meaning) > 20
