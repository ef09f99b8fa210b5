"""Sessions, and the registry that knows them all."""

from collections import Counter
from dataclasses import FrozenInstanceError
from random import Random

import pytest
from rehearsal import START, crowd

from starlette_drain._core.precedence import find_precedence
from starlette_drain._core.session import ClosePolicy, RegistryStatistics, Session, SessionRegistry


class LastOfAll(Random):
    """The most extreme luck that `random` can have."""

    def random(self):
        """Return the greatest float below 1."""
        return 1.0 - 2.0**-53


def statistics(**counts):
    """Return statistics in which all other counts are 0."""
    return RegistryStatistics(**dict.fromkeys(RegistryStatistics.__slots__, 0) | counts)


def at(moment):
    """Return a session that was opened at *moment*."""
    return Session("/", moment)


def pick_all(registry, rng=None):
    """Pick until nobody is left."""
    picked = []
    while session := registry.pick(rng or Random(7)):
        picked.append(session)
    return picked


def test_counts_tell_the_whole_story():
    """Every move of a session shows in the statistics, and `open` is always the sum."""
    registry, session = SessionRegistry(), Session("/", START)
    assert statistics() == registry.statistics()
    registry.add(session)
    assert statistics(open=1, waiting=1, opened=1) == registry.statistics()
    registry.hold(session)
    assert statistics(open=1, held=1, opened=1) == registry.statistics()
    registry.release(session)
    assert session is registry.pick(Random(7))
    assert statistics(open=1, leaving=1, opened=1) == registry.statistics()
    assert (registry.waiting, registry.remaining, len(registry)) == (0, 0, 1)
    registry.discard(session)
    assert statistics(opened=1, closed=1) == registry.statistics()


def test_statistics_cannot_be_changed():
    """A snapshot stays what it was."""
    registry = crowd(1)
    snapshot = registry.statistics()
    with pytest.raises(FrozenInstanceError):
        snapshot.open = 5
    crowd(1, registry)
    assert snapshot.open == 1


def test_session_costs_no_dictionary():
    """Tens of thousands are open at once: a session has slots only."""
    assert not hasattr(Session("/", START), "__dict__")


def test_session_of_no_kind_cannot_leave():
    """How to say goodbye is known to the kinds of connection, on the top floor."""
    with pytest.raises(NotImplementedError):
        Session("/", START).begin_close(ClosePolicy(1012, 1.0))


def test_adding_twice_is_refused_and_changes_nothing():
    """One connection is one session."""
    registry = crowd(1)
    session = registry._waiting[0]
    with pytest.raises(ValueError, match="add each session once"):
        registry.add(session)
    assert statistics(open=1, waiting=1, opened=1) == registry.statistics()


@pytest.mark.parametrize("standing", ["outside", "waiting", "held", "leaving", "held, leaving", "gone"])
def test_discard_from_every_standing(standing):
    """A session that is over is forgotten wherever it stood; twice does no harm; its neighbours stay."""
    registry, session = crowd(3), Session("/", START)
    if standing != "outside":
        registry.add(session)
    if "held" in standing:
        registry.hold(session)
    if "leaving" in standing:
        registry.take(session)
    for _ in range(2):
        registry.discard(session)
        assert registry.statistics().open == 3
        assert registry.statistics().closed == (standing != "outside")
    assert not registry.discard(session)
    assert len(pick_all(registry)) == 3


@pytest.mark.parametrize("standing", ["waiting", "held", "leaving"])
@pytest.mark.parametrize("move", ["discard", "hold", "hold and release", "take"])
def test_session_of_another_registry_moves_nobody_here(standing, move):
    """A drain that has moved to another event loop has another registry; who is left of the first does it no harm."""
    other, here = SessionRegistry(), crowd(3)
    session = Session("/", START)
    other.add(session)
    if standing == "held":
        other.hold(session)
    elif standing == "leaving":
        other.take(session)
    match move:
        case "discard":
            assert not here.discard(session)
        case "take":
            with pytest.raises(ValueError, match="take each session once"):
                here.take(session)
        case _:
            here.hold(session)
            if "release" in move:
                here.release(session)
    assert here.statistics() == statistics(open=3, waiting=3, opened=3)
    assert len(pick_all(here)) == 3
    assert len(other) == 1
    assert other.discard(session)
    assert len(other) == 0


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_anyone_may_step_out_of_line(count):
    """First, last or in between: those who stay keep their places, and each is picked once."""
    for index in range(count):
        registry = crowd(count)
        everybody = list(registry._waiting)
        registry.discard(everybody[index])
        assert set(everybody) - {everybody[index]} == set(pick_all(registry))


def test_pick_is_fair():
    """Each of 10 sessions is the first pick of 5,000 about 500 times (within 4 standard deviations)."""
    rng, picks = Random(7), Counter()
    for _ in range(5_000):
        registry = crowd(10)
        everybody = list(registry._waiting)
        picks[everybody.index(registry.pick(rng))] += 1
    assert len(picks) == 10
    assert all(abs(count - 500) < 4 * (5_000 * 1 / 10 * 9 / 10) ** 0.5 for count in picks.values())


@pytest.mark.parametrize("count", [1, 2, 3, 1000, 2**16, 2**16 + 1])
def test_pick_survives_the_most_extreme_luck(count):
    """The greatest float below 1 picks the last, not one beyond."""
    registry = crowd(count)
    last = registry._waiting[-1]
    assert last is registry.pick(LastOfAll())


def test_pick_of_nobody():
    """With nobody there, or all leaving, there is nobody to pick, held or not."""
    registry = SessionRegistry()
    assert registry.pick(Random(7)) is None
    assert registry.pick(Random(7), even_held=True) is None
    crowd(1, registry).pick(Random(7))
    assert registry.pick(Random(7), even_held=True) is None


def test_held_are_picked_last_and_only_when_asked():
    """The application's "not now" is heeded while anybody else is left, and longer unless the caller insists."""
    registry = crowd(3)
    held = registry._waiting[1]
    registry.hold(held)
    assert held not in pick_all(registry)
    assert registry.pick(Random(7)) is None
    assert held is registry.pick(Random(7), even_held=True)


def test_take_picks_a_certain_one():
    """Ageing takes one, waiting or held, without any luck; a second time is refused and changes nothing."""
    registry = crowd(2)
    first, second = registry._waiting
    registry.hold(second)
    for session in (first, second):
        registry.take(session)
        with pytest.raises(ValueError, match="take each session once"):
            registry.take(session)
    assert statistics(open=2, leaving=2, opened=2) == registry.statistics()
    with pytest.raises(ValueError, match="take each session once"):
        registry.take(Session("/", START))


def test_holds_nest():
    """Only the last release lets a session be picked again."""
    registry = crowd(1)
    (session,) = registry._waiting
    registry.hold(session)
    registry.hold(session)
    registry.release(session)
    assert session.is_held
    assert registry.pick(Random(7)) is None
    registry.release(session)
    assert not session.is_held
    assert session is registry.pick(Random(7))


def test_release_without_a_hold_is_refused_and_changes_nothing():
    """A release too many does not swallow the next hold."""
    registry = crowd(1)
    (session,) = registry._waiting
    with pytest.raises(ValueError, match="release each hold once"):
        registry.release(session)
    registry.hold(session)
    assert registry.pick(Random(7)) is None
    registry.release(session)
    assert session is registry.pick(Random(7))


def test_session_held_before_it_is_added_stays_held():
    """An endpoint may hold its session before the handshake is over."""
    registry, session = SessionRegistry(), Session("/", START)
    registry.hold(session)
    registry.add(session)
    assert registry.pick(Random(7)) is None
    assert statistics(open=1, held=1, opened=1) == registry.statistics()
    registry.release(session)
    assert session is registry.pick(Random(7))


def test_hold_of_one_who_leaves_comes_too_late():
    """A hold within the farewell changes nothing, nor does its end, nor an end after the session is over."""
    registry = crowd(1)
    session = registry.pick(Random(7))
    registry.hold(session)
    assert statistics(open=1, leaving=1, opened=1) == registry.statistics()
    registry.release(session)
    registry.hold(session)
    registry.discard(session)
    registry.release(session)
    assert statistics(opened=1, closed=1) == registry.statistics()


@pytest.mark.unmeasured
@pytest.mark.slow
def test_a_hundred_thousand_sessions():
    """100,000 come, half are held, a third go, some are released: all the rest are picked, each once."""
    registry, rng = crowd(100_000), Random(7)
    everybody = list(registry._waiting)
    for session in everybody[::2]:
        registry.hold(session)
    for session in everybody[::3]:
        registry.discard(session)
    for session in everybody[::4]:
        registry.release(session)
    picked = []
    while session := registry.pick(rng, even_held=True):
        picked.append(session)
    assert set(everybody) - set(everybody[::3]) == set(picked)
    assert (len(registry), registry.remaining) == (66_666, 0)


# Precedence


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("oldest", [1, 2, 3]), ("newest", [3, 2, 1]), ("idle", [3, 1, 2]), (lambda session: session.path, [2, 3, 1])],
)
def test_precedence(choice, expected):
    """Sessions are asked in the order that the option names."""
    registry = SessionRegistry()
    for opened_at, active_at, path in ((1, 20, "/c"), (2, 30, "/a"), (3, 10, "/b")):
        session = Session(path, opened_at)
        session.active_at = active_at
        registry.add(session)
    registry.rank(find_precedence(choice))
    assert expected == [session.opened_at for session in pick_all(registry)]


def test_the_order_is_that_of_the_moment_at_which_they_were_ranked():
    """Sorted once: who comes later, or is released when its turn has passed, goes after all who were there."""
    registry = SessionRegistry()
    sessions = {moment: at(moment) for moment in range(10)}
    for moment in (5, 6, 7, 8, 9):
        registry.add(sessions[moment])
    registry.hold(sessions[9])
    registry.rank(find_precedence("oldest"))
    assert sessions[5] is registry.pick(Random(7))
    registry.add(sessions[3])
    registry.hold(sessions[6])
    registry.discard(sessions[7])
    registry.release(sessions[9])
    sessions[8].opened_at = 100
    assert [sessions[8], sessions[9], sessions[3]] == pick_all(registry)
    registry.release(sessions[6])
    assert [sessions[6]] == pick_all(registry)


def test_one_that_has_moved_to_another_registry_is_not_picked_here():
    """A session that is over may be added elsewhere; the order that knew it passes it over."""
    registry, other = crowd(3), SessionRegistry()
    registry.rank(find_precedence("oldest"))
    first = registry._ranked[-1]
    registry.discard(first)
    other.add(first)
    assert first not in pick_all(registry)
    assert first is other.pick(Random(7))


def test_unrank_forgets_the_order_and_those_in_it():
    """When a drain is over its order keeps no session in memory, and the next picks are at random."""
    registry = crowd(100)
    registry.rank(id)
    registry.unrank()
    assert registry._ranked == []
    assert pick_all(registry, Random(7)) != sorted(registry._waiting, key=id)
    assert registry.statistics() == statistics(open=100, leaving=100, opened=100)


def test_every_session_is_asked_for_its_rank_once():
    """A key that grows each time it is asked for (the time since something) costs one call a session."""
    asked = iter(range(10_000_000))
    registry = crowd(1000)
    everybody = set(registry._waiting)
    registry.rank(lambda _: next(asked))
    picked = pick_all(registry)
    assert (everybody, 1000) == (set(picked), len(picked))
    assert next(asked) == 1000


@pytest.mark.parametrize("fails_at", [0, 1, 4])
@pytest.mark.parametrize("is_ranked", [False, True])
def test_failing_precedence_harms_nobody(fails_at, is_ranked):
    """A key that cannot be compared raises when they are ranked; the picks go on at random, each session once."""
    ranks = iter([*range(fails_at), "no number", *range(100)])
    registry = crowd(5)
    everybody = set(registry._waiting)
    if is_ranked:
        registry.rank(id)
    with pytest.raises(TypeError):
        registry.rank(lambda _: next(ranks))
    assert registry._ranked == []
    picked = pick_all(registry)
    assert (set(picked), len(picked)) == (everybody, 5)
    assert registry.statistics() == statistics(open=5, leaving=5, opened=5)
