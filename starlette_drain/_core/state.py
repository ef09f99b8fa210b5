# The state machine of a drain, as a table.
#
# A process that holds long-lived connections is in one of three states.
#
#   SERVING    No claim stands. New sessions are accepted and none is asked to leave.
#   DRAINING   Sessions are asked to leave, one by one, before a deadline.
#   DRAINED    The drain is over: no session is left, or the remaining sessions have run out of time.
#
# Four events can occur.
#
#   START      The first claim stands. In DRAINING and DRAINED a further claim does not change the state: it is
#              recorded, and the drain has the earliest deadline of all that stand (see _core/claims.py).
#   FINISH     The last session has gone, or the deadline and the grace after it have passed.
#   ARRIVE     A session opened although the drain was over. This happens only if late arrivals are accepted, before
#              the deadline: an NLB may send new connections for about two minutes after a deregistration began
#              (https://github.com/aws/containers-roadmap/issues/470). A further run begins for them.
#   CANCEL     The drain was cancelled, or its last claim withdrawn. Sessions already asked to leave still leave.
#
# What is not in the table cannot happen: `advance` raises IllegalTransition and nothing changes.
#
# One rule is not in the table because it depends on more than the state: after an irrevocable cause (SIGTERM: the
# process has been told to stop), CANCEL is refused with TooLateToCancel. `Engine.cancel` enforces it.
#
# The table in docs/how-a-drain-works.md shows TRANSITIONS; a test fails when they differ.
"""The states of a drain and the transitions between them."""

from enum import Enum

from starlette_drain.exceptions import IllegalTransition

__all__ = ["TRANSITIONS", "DrainEvent", "DrainState", "advance"]


class DrainState(Enum):
    """The state of a process: serving, draining or drained."""

    SERVING = "serving"
    DRAINING = "draining"
    DRAINED = "drained"


class DrainEvent(Enum):
    """What can happen to a drain."""

    START = "start"
    FINISH = "finish"
    ARRIVE = "arrive"
    CANCEL = "cancel"


TRANSITIONS: dict[DrainState, dict[DrainEvent, DrainState]] = {
    DrainState.SERVING: {
        DrainEvent.START: DrainState.DRAINING,
        DrainEvent.ARRIVE: DrainState.SERVING,
    },
    DrainState.DRAINING: {
        DrainEvent.START: DrainState.DRAINING,
        DrainEvent.ARRIVE: DrainState.DRAINING,
        DrainEvent.FINISH: DrainState.DRAINED,
        DrainEvent.CANCEL: DrainState.SERVING,
    },
    DrainState.DRAINED: {
        DrainEvent.START: DrainState.DRAINED,
        DrainEvent.ARRIVE: DrainState.DRAINING,
        DrainEvent.CANCEL: DrainState.SERVING,
    },
}


def advance(state: DrainState, event: DrainEvent) -> DrainState:
    """
    Return the state that follows *event* in *state*.

    Raises:
        IllegalTransition: If the table has no such transition.
    """
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        possible = ", ".join(each.value for each in TRANSITIONS[state])
        msg = f"a drain that is {state.value} cannot {event.value}; it can: {possible}"
        raise IllegalTransition(msg) from None
