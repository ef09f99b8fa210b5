"""The claims that triggers hold, and the deadline that follows from those that stand."""

import math

import pytest

from starlette_drain._core.cause import DrainCause
from starlette_drain._core.claims import BY_HAND, SAME_MOMENT, Claims


def claim(trigger, deadline, *, reason="", revocable=True):
    """Return a claim."""
    return DrainCause(trigger, reason, 0.0, deadline, revocable=revocable)


def names(claims):
    """Return the triggers whose claims stand."""
    return [each.trigger for each in claims.standing]


def test_without_a_claim_there_is_no_deadline():
    """Nobody wants a drain, and the process has not been told to stop."""
    claims = Claims()
    assert (claims.standing, claims.muted, claims.deadline, claims.is_revocable) == ((), (), math.inf, True)
    assert claims.withdraw("health") is False
    claims.cancel()
    assert claims.of("health") is None


def test_the_earliest_deadline_wins_and_the_next_when_it_is_withdrawn():
    """A deadline moves later too: it is always the earliest of the claims that stand."""
    claims = Claims()
    assert claims.hold(claim("health", 100)) is True
    assert claims.hold(claim("deployment", 50)) is True
    assert claims.hold(claim("task", 80)) is True
    assert (claims.deadline, names(claims)) == (50, ["health", "deployment", "task"])
    assert claims.withdraw("deployment") is True
    assert claims.deadline == 80
    assert claims.withdraw("deployment") is False
    assert claims.withdraw("health") is True
    assert claims.deadline == 80
    assert claims.withdraw("task") is True
    assert claims.deadline == math.inf


def test_a_trigger_may_move_its_deadline_either_way():
    """Its new claim takes the place of the former one: it knows better now."""
    claims = Claims()
    claims.hold(claim("health", 100))
    assert claims.hold(claim("health", 60)) is True
    assert claims.deadline == 60
    assert claims.hold(claim("health", 140)) is True
    assert (claims.deadline, len(claims.standing)) == (140, 1)


@pytest.mark.parametrize("off", [0.0, 0.5, -0.5, SAME_MOMENT - 1e-9])
def test_the_same_moment_told_twice_is_no_news(off):
    """A trigger repeats its claim at every look; ages are measured, and travel."""
    claims = Claims()
    first = claim("health", 100, reason="first")
    claims.hold(first)
    assert claims.hold(claim("health", 100 + off, reason="again")) is False
    assert claims.standing == (first,)
    assert claims.hold(claim("health", 100 + 2 * SAME_MOMENT)) is True


def test_moments_that_creep_are_news_in_the_end():
    """A second and more away from what was told first is another moment, however small the steps."""
    claims = Claims()
    claims.hold(claim("health", 100))
    news = [claims.hold(claim("health", 100 + step * 0.4)) for step in range(1, 6)]
    assert news == [False, False, True, False, False]
    assert claims.deadline == pytest.approx(101.2)


def test_a_trigger_that_does_not_know_leaves_its_claim():
    """Neither claimed nor withdrawn: what it said last stands."""
    claims = Claims()
    claims.hold(claim("health", 100))
    claims.hold(claim("task", 200))
    claims.withdraw("task")
    assert names(claims) == ["health"]


def test_a_command_by_hand_only_shortens():
    """A later one joins and lengthens nothing."""
    claims = Claims()
    claims.hold(claim(BY_HAND, 100))
    assert claims.hold(claim(BY_HAND, 500)) is False
    assert claims.deadline == 100
    assert claims.hold(claim(BY_HAND, 40)) is True
    assert claims.deadline == 40


def test_cancel_withdraws_the_command_and_mutes_the_rest():
    """The drain is taken back although triggers still want it; a new command begins another."""
    claims = Claims()
    claims.hold(claim(BY_HAND, 100))
    claims.hold(health := claim("health", 200))
    claims.cancel()
    assert (claims.standing, claims.deadline, claims.muted) == ((), math.inf, (health,))
    assert claims.of(BY_HAND) is None
    assert claims.hold(claim(BY_HAND, 300)) is True
    assert (claims.deadline, names(claims)) == (300, [BY_HAND])


def test_muted_until_it_is_dropped_and_made_anew():
    """What was cancelled stays so while its trigger repeats it, whatever its deadline; a new claim is another."""
    claims = Claims()
    claims.hold(claim("health", 100))
    claims.cancel()
    assert claims.hold(claim("health", 100)) is False
    assert claims.hold(claim("health", 50)) is False
    assert claims.standing == ()
    assert claims.of("health").deadline == 50, "it is kept up to date"
    assert claims.withdraw("health") is False, "it did not stand"
    assert claims.of("health") is None
    assert claims.hold(claim("health", 80)) is True
    assert claims.deadline == 80


def test_a_claim_that_comes_after_the_cancel_is_not_muted():
    """Cancel mutes what stands at that moment, and no trigger for ever."""
    claims = Claims()
    claims.hold(claim("health", 100))
    claims.cancel()
    assert claims.hold(claim("task", 90)) is True
    assert names(claims) == ["task"]


def test_a_process_told_to_stop_cannot_be_told_otherwise():
    """An irrevocable claim is neither withdrawn nor muted, and its deadline never moves later."""
    claims = Claims()
    claims.hold(claim("health", 100))
    claims.hold(claim("sigterm", 50, revocable=False))
    assert claims.is_revocable is False
    claims.cancel()
    assert claims.withdraw("sigterm") is False
    assert (names(claims), claims.deadline) == (["sigterm"], 50)
    assert claims.hold(claim("sigterm", 80, revocable=False)) is False
    assert claims.hold(claim("sigterm", 80)) is False
    assert (claims.deadline, claims.is_revocable) == (50, False)
    assert claims.hold(claim("sigterm", 20)) is True
    assert (claims.deadline, claims.is_revocable) == (20, False)


def test_a_claim_may_become_irrevocable_and_is_heard_then():
    """Muted or not, a trigger that says that the process must stop is heard, also with the same deadline."""
    for is_muted in (False, True):
        claims = Claims()
        claims.hold(claim("task", 100))
        if is_muted:
            claims.cancel()
        assert claims.hold(claim("task", 100, revocable=False)) is True
        assert (names(claims), claims.is_revocable) == (["task"], False)


def test_what_was_cancelled_elsewhere_is_muted_here():
    """A worker that comes later is told of it; its own claim, if there is one, stands."""
    claims = Claims()
    claims.mute(health := claim("health", 100))
    assert (claims.standing, claims.muted) == ((), (health,))
    assert claims.hold(claim("health", 90)) is False
    claims.hold(task := claim("task", 80))
    claims.mute(claim("task", 70))
    assert claims.standing == (task,)


def test_a_claim_without_a_deadline_decides_nothing():
    """The engine gives each one; here such a claim counts as the latest there can be."""
    claims = Claims()
    claims.hold(claim("health", None))
    assert claims.deadline == math.inf
    assert claims.hold(claim("health", 100)) is True
    assert claims.deadline == 100
    assert claims.hold(claim("health", math.inf)) is True
