"""The verdict on an answer of DescribeTargetHealth, as a truth table."""

import itertools

import botocore.loaders
import pytest

from starlette_drain.aws.identity.identity import canonical_id
from starlette_drain.aws.sources.verdict import Reading, Verdict, read, read_error

MODEL = botocore.loaders.Loader().load_service_model("elbv2", "service-2")["shapes"]
STATES = MODEL["TargetHealthStateEnum"]["enum"]
REASONS = [None, *MODEL["TargetHealthReasonEnum"]["enum"]]
OURS = frozenset({"10.0.0.5"})


def describe(state, reason=None, target_id="10.0.0.5", port=8000, **more):
    """Write one TargetHealthDescription."""
    health = {"State": state} | ({"Reason": reason} if reason else {})
    return {"Target": {"Id": target_id, "Port": port}, "HealthCheckPort": "8000", "TargetHealth": health} | more


def expected(state, reason, *, seen):
    """Say in other words than the code what each state means."""
    if state == "draining":
        return "draining"
    if state in ("healthy", "initial"):
        return "serving"
    if state != "unused" or reason in ("Target.NotInUse", "Target.InvalidState", "Target.IpUnusable"):
        return "ailing"
    if reason == "Target.NotRegistered":
        return "gone" if seen else "not-yet"
    return "unknown"


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize(("state", "reason"), list(itertools.product(STATES, REASONS)))
def test_every_state_and_reason_of_the_model(state, reason, seen):
    """Every state with every reason that the ELBv2 model knows has the verdict that the table of the docs gives."""
    reading = read([describe(state, reason)], OURS, frozenset({8000}), seen=seen)

    assert expected(state, reason, seen=seen) == reading.verdict.value


def test_the_model_has_the_states_that_the_table_was_written_for():
    """A state that AWS adds must be looked at by somebody: until then it is unknown, and this test fails."""
    assert {"initial", "healthy", "unhealthy", "unhealthy.draining", "unused", "draining", "unavailable"} == set(STATES)
    assert Verdict.UNKNOWN is read([describe("retiring")], OURS, frozenset(), seen=True).verdict


@pytest.mark.parametrize(("seen", "verdict"), [(False, Verdict.NOT_YET), (True, Verdict.GONE)])
def test_a_target_that_is_not_listed(seen, verdict):
    """An answer without our target means "not yet" before it was seen registered, and "gone" after."""
    others = [describe("healthy", target_id="10.0.0.6"), describe("draining", port=9000)]

    assert verdict is read([], OURS, frozenset({8000}), seen=seen).verdict
    assert verdict is read(others, OURS, frozenset({8000}), seen=seen).verdict


@pytest.mark.parametrize(
    ("code", "seen", "verdict"),
    [
        ("InvalidTarget", True, Verdict.GONE),
        ("InvalidTarget", False, Verdict.NOT_YET),
        ("TargetGroupNotFound", True, Verdict.UNKNOWN),
        ("TargetGroupNotFound", False, Verdict.UNKNOWN),
        ("HealthUnavailable", True, Verdict.UNKNOWN),
        ("ThrottlingException", True, Verdict.UNKNOWN),
        ("AccessDenied", True, Verdict.UNKNOWN),
    ],
)
def test_errors(code, seen, verdict):
    """Of all errors only InvalidTarget says something about the target; the others never start a drain."""
    assert verdict is read_error(code, seen=seen)


@pytest.mark.parametrize(
    "more",
    [
        {"AnomalyDetection": {"Result": "anomalous", "MitigationInEffect": "yes"}},
        {
            "AdministrativeOverride": {
                "State": "zonal_shift_active",
                "Reason": "AdministrativeOverride.ZonalShiftActive",
            }
        },
    ],
)
def test_a_zonal_shift_or_mitigation_is_no_deregistration(more):
    """A target that the balancer avoids for another reason is still registered."""
    assert Verdict.SERVING is read([describe("healthy", **more)], OURS, frozenset(), seen=True).verdict


def test_the_group_is_counted():
    """One answer tells how many targets of the group are healthy, how many are draining, and how many are ours."""
    answer = [describe("healthy"), describe("healthy", target_id="a"), describe("draining", target_id="b")]
    answer.append(describe("unhealthy", "Target.Timeout", target_id="c"))

    assert Reading(Verdict.SERVING, healthy=2, draining=1, targets=4, own=1) == read(
        answer, OURS, frozenset(), seen=False
    )


def test_two_ports_of_ours_in_one_group():
    """When one of our targets in a group drains, the group is draining us."""
    answer = [describe("healthy", port=8000), describe("draining", port=8001)]

    assert Verdict.DRAINING is read(answer, OURS, frozenset({8000, 8001}), seen=True).verdict
    assert Verdict.SERVING is read(answer, OURS, frozenset({8000}), seen=True).verdict
    assert Verdict.DRAINING is read(answer, OURS, frozenset(), seen=True).verdict


def test_ipv6_addresses_are_compared_by_value():
    """An IPv6 address has many spellings and one meaning."""
    ours = frozenset({canonical_id("2001:DB8:0:0::0005")})

    assert (
        Verdict.DRAINING is read([describe("draining", target_id="2001:db8::5")], ours, frozenset(), seen=True).verdict
    )
    assert canonical_id("i-0123456789abcdef0") == "i-0123456789abcdef0"


@pytest.mark.parametrize("broken", [{}, {"Target": None, "TargetHealth": None}, {"Target": {"Id": "10.0.0.5"}}])
def test_an_incomplete_description_says_nothing(broken):
    """A description with holes neither starts a drain nor raises."""
    assert read([broken], OURS, frozenset(), seen=True).verdict in (Verdict.UNKNOWN, Verdict.GONE)
