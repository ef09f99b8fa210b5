"""What a zero-code installation gets, by its options."""

import pytest

from starlette_drain import Drain, DrainMiddleware


def names(**options):
    """Return the names of the triggers that an installation with these options has."""
    drain = Drain(observers=[], **options)
    DrainMiddleware(lambda *_: None, drain=drain)
    return [each.name for each in drain.host.triggers]


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({}, ["target-health"]),
        ({"sources": ()}, []),
        ({"sources": "task-state"}, ["task-state"]),
        ({"sources": "service-deployment,target-health"}, ["target-health", "service-deployment"]),
        ({"self_registration": True}, ["target-health", "self-registration"]),
        ({"self_registration": "deregister"}, ["target-health", "self-registration"]),
    ],
)
def test_the_options_choose(options, chosen):
    """SIGTERM is always there; each option adds its own, and nothing else."""
    assert names(**options) == ["sigterm", *chosen, "workers", "announcement", "process", "command"]


@pytest.mark.parametrize(("option", "registers"), [(True, True), ("deregister", False)])
def test_how_it_registers(option, registers):
    """Only with self_registration=True does a task put itself in."""
    drain = Drain(observers=[], sources=(), self_registration=option)
    DrainMiddleware(lambda *_: None, drain=drain)
    (registration,) = (
        each for each in drain.host._observers._observers if getattr(each, "name", "") == "self-registration"
    )
    assert registration._registers is registers


def test_from_the_environment(monkeypatch):
    """The zero-code form works alike."""
    monkeypatch.setenv("DRAIN_SOURCES", "task-state,service-deployment")
    monkeypatch.setenv("DRAIN_SELF_REGISTRATION", "1")
    chosen = ["task-state", "service-deployment", "self-registration"]
    assert names() == ["sigterm", *chosen, "workers", "announcement", "process", "command"]


def test_triggers_that_are_given():
    """Who names the triggers gets these and no others, whatever the options say."""
    assert names(triggers=[], self_registration=True) == ["workers", "announcement", "process", "command"]
