"""The Query protocol of Elastic Load Balancing v2: form in, XML out."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from starlette_drain.testing.fake_aws.faults import ApiError
from starlette_drain.testing.fake_aws.target_group import FakeTargetGroup, Health

__all__ = ["answer", "as_xml", "error_xml", "parse_form"]

NAMESPACE = "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/"
REQUEST_ID = "01234567-89ab-cdef-0123-456789abcdef"

Groups = Mapping[str, FakeTargetGroup]


def parse_form(body: bytes) -> dict[str, str]:
    """Return the fields of a request."""
    return dict(parse_qsl(body.decode(), keep_blank_values=True))


def answer(form: Mapping[str, str], groups: Groups) -> dict[str, Any]:
    """
    Return the answer to *form*, for `as_xml`.

    Raises:
        ApiError: If the API would answer with an error.
    """
    action = form.get("Action", "")
    call = CALLS.get(action)
    if call is None:
        message = f"Could not find operation {action} for version 2015-12-01"
        raise ApiError("InvalidAction", message)
    return call(form, groups)


def as_xml(action: str, result: Mapping[str, Any]) -> str:
    """Return the XML of a result."""
    content = f"<{action}Result>{_xml(result)}</{action}Result>"
    metadata = f"<ResponseMetadata><RequestId>{REQUEST_ID}</RequestId></ResponseMetadata>"
    return f'<{action}Response xmlns="{NAMESPACE}">{content}{metadata}</{action}Response>'


def error_xml(error: ApiError) -> str:
    """Return the XML of an error."""
    side = "Sender" if error.status < 500 else "Receiver"
    content = _xml({"Error": {"Type": side, "Code": error.code, "Message": error.message}, "RequestId": REQUEST_ID})
    return f'<ErrorResponse xmlns="{NAMESPACE}">{content}</ErrorResponse>'


def _describe_target_health(form: Mapping[str, str], groups: Groups) -> dict[str, Any]:
    group = _group(form, groups)
    found = group.described(_targets(form))
    return {"TargetHealthDescriptions": [_description(group, *each) for each in found]}


def _describe_target_groups(form: Mapping[str, str], groups: Groups) -> dict[str, Any]:
    arns = _members(form, "TargetGroupArns")
    names = _members(form, "Names")
    unknown = [arn for arn in arns if arn not in groups]
    if unknown:
        raise _not_found()
    found = [each for arn, each in groups.items() if (not arns and not names) or arn in arns or each.name in names]
    return {"TargetGroups": [_group_record(each) for each in found]}


def _describe_attributes(form: Mapping[str, str], groups: Groups) -> dict[str, Any]:
    attributes = _group(form, groups).attributes
    return {"Attributes": [{"Key": key, "Value": value} for key, value in attributes.items()]}


def _register(form: Mapping[str, str], groups: Groups) -> dict[str, Any]:
    group = _group(form, groups)
    for target_id, port in _targets(form):
        group.register(target_id, port)
    return {}


def _deregister(form: Mapping[str, str], groups: Groups) -> dict[str, Any]:
    group = _group(form, groups)
    for target_id, port in _targets(form):
        group.deregister(target_id, port)
    return {}


CALLS = {
    "DescribeTargetHealth": _describe_target_health,
    "DescribeTargetGroups": _describe_target_groups,
    "DescribeTargetGroupAttributes": _describe_attributes,
    "RegisterTargets": _register,
    "DeregisterTargets": _deregister,
}


def _group(form: Mapping[str, str], groups: Groups) -> FakeTargetGroup:
    try:
        return groups[form.get("TargetGroupArn", "")]
    except KeyError:
        raise _not_found() from None


def _not_found() -> ApiError:
    return ApiError("TargetGroupNotFound", "One or more target groups not found")


def _targets(form: Mapping[str, str]) -> list[tuple[str, int | None]]:
    found: list[tuple[str, int | None]] = []
    while (target_id := form.get(f"Targets.member.{len(found) + 1}.Id")) is not None:
        port = form.get(f"Targets.member.{len(found) + 1}.Port")
        found.append((target_id, int(port) if port else None))
    return found


def _members(form: Mapping[str, str], name: str) -> list[str]:
    return [value for key, value in form.items() if key.startswith(f"{name}.member.")]


def _description(group: FakeTargetGroup, target_id: str, port: int, health: Health) -> dict[str, Any]:
    target: dict[str, Any] = {"Id": target_id, "Port": port}
    if group.target_type == "ip":
        target["AvailabilityZone"] = "eu-central-1a"
    shown = {"State": health.state, "Reason": health.reason, "Description": health.description}
    return {"Target": target, "HealthCheckPort": str(port), "TargetHealth": shown}


def _group_record(group: FakeTargetGroup) -> dict[str, Any]:
    return {
        "TargetGroupArn": group.arn,
        "TargetGroupName": group.name,
        "Protocol": group.protocol,
        "ProtocolVersion": "HTTP1" if group.protocol == "HTTP" else None,
        "Port": group.port,
        "VpcId": "vpc-0123456789abcdef0",
        "HealthCheckProtocol": group.protocol,
        "HealthCheckPort": "traffic-port",
        "HealthCheckEnabled": True,
        "HealthCheckIntervalSeconds": 30,
        "HealthCheckTimeoutSeconds": 5,
        "HealthyThresholdCount": 5,
        "UnhealthyThresholdCount": 2,
        "HealthCheckPath": "/" if group.protocol == "HTTP" else None,
        "Matcher": {"HttpCode": "200"} if group.protocol == "HTTP" else None,
        "LoadBalancerArns": [_balancer(group)] if group.in_use else [],
        "TargetType": group.target_type,
        "IpAddressType": "ipv4",
        "TargetControlPort": group.control_port,
    }


def _balancer(group: FakeTargetGroup) -> str:
    kind = "app" if group.protocol == "HTTP" else "net"
    return f"{group.arn.partition(':targetgroup/')[0]}:loadbalancer/{kind}/main/0123456789abcdef"


def _xml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "".join(f"<{key}>{_xml(each)}</{key}>" for key, each in value.items() if each is not None)
    if isinstance(value, list):
        return "".join(f"<member>{_xml(each)}</member>" for each in value)
    return escape(str(value).lower() if isinstance(value, bool) else str(value))
