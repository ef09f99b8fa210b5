"""The files of example_app/deploy/monitoring: made of one source, and of names that the package exports."""

import json
import re
from itertools import product
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from telemetry_samples import story

from example_app.deploy.monitoring.dialects import CLOUDWATCH, PROMETHEUS
from example_app.deploy.monitoring.files import files
from example_app.deploy.monitoring.queries import PANELS, RULES
from starlette_drain.telemetry.base import OpenSessions
from starlette_drain.telemetry.otel import OpenTelemetryObserver

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "example_app" / "deploy" / "monitoring"
RESOURCE = {"@resource.service.name", "@resource.service.instance.id"}


def exported():
    """Return the metrics that the SDK exports, each with its attributes."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    observer, sessions = OpenTelemetryObserver(meter_provider=provider), OpenSessions()
    sessions.by_kind = {"websocket": 1}
    observer.look_at(sessions)
    for event in story()[:-1]:
        observer.notify(event)
    return {
        metric.name: {name for point in metric.data.data_points for name in point.attributes}
        for one in reader.get_metrics_data().resource_metrics
        for scope in one.scope_metrics
        for metric in scope.metrics
    }


def queries():
    """Return all queries, as they are written."""
    panels = [query for row in PANELS.values() for panel in row for query, _ in panel.targets]
    return [*panels, *(rule.query for rule in RULES)]


def test_the_files_are_what_their_source_makes():
    """Nobody has changed one by hand, or the source without making them: `python -m example_app.deploy.monitoring`."""
    assert {name: (FOLDER / name).read_text(encoding="utf-8") for name in files()} == files()


def test_every_name_in_a_query_is_exported():
    """Metrics, and the attributes that they are grouped by and picked by; and no metric is left out."""
    known = exported()
    used = {name for query in queries() for name in re.findall(r"<(drain\.[a-z_.]+?)(?:\.bucket)?[ >]", query)}
    assert used == set(known)
    for query in queries():
        metrics = re.findall(r"<(drain\.[a-z_.]+?)(?:\.bucket)?[ >]", query)
        names = set(re.findall(r"(?:drain|network)\.[a-z_.]+", re.sub(r"<drain\.[a-z_.]+|\"[^\"]*\"", "", query)))
        assert names <= set().union(*(known[each] for each in metrics)), query


def test_alarms_and_dashboard_of_cloudwatch_name_what_the_sdk_sends():
    """In CloudWatch the names are OpenTelemetry's: every one in quotes is a metric, an attribute or a resource's."""
    known = exported()
    names = set(known) | RESOURCE | set().union(*known.values())
    alarms = json.loads(files()["cloudwatch-alarms.json"])["Resources"]
    assert set(alarms) == {rule.name for rule in RULES}
    queries = [
        each["Properties"]["EvaluationCriteria"]["PromQLCriteria"]["Query"]["Fn::Sub"] for each in alarms.values()
    ]
    assert all(query.count("${Service}") == query.count('{"drain.') for query in queries)
    for query in (*queries, *(each["query"] for widget in widgets() for each in queries_of(widget))):
        assert set(re.findall(r'"([^"]+)"', re.sub(r'=~?"[^"]*"', "", query))) <= names
        assert not re.search(r"drain_", query)


def dashboard():
    """Return the dashboard of CloudWatch, which is a text in its template."""
    return json.loads(
        json.loads(files()["cloudwatch-dashboard.json"])["Resources"]["Dashboard"]["Properties"]["DashboardBody"][
            "Fn::Sub"
        ]
    )


def widgets():
    """Return its widgets."""
    return dashboard()["widgets"]


def queries_of(widget):
    """Return the queries of a widget; texts have none."""
    return widget["properties"].get("data", {"queries": []})["queries"]


def test_the_dashboard_of_cloudwatch_is_as_aws_writes_them():
    """It satisfies the documented structure; in each widget the queries have names of their own."""
    schema = Draft202012Validator(json.loads((ROOT / "tests" / "schemas" / "cloudwatch-dashboard.json").read_text()))
    body = dashboard()
    schema.validate(body)
    for widget in body["widgets"]:
        assert len({each["id"] for each in queries_of(widget)}) == len(queries_of(widget))
    body["widgets"][1]["properties"]["titel"] = ""
    assert not schema.is_valid(body)


def test_no_widget_covers_another():
    """Each has its place on the grid of 24 columns."""
    taken = [
        cell
        for each in widgets()
        for cell in product(range(each["x"], each["x"] + each["width"]), range(each["y"], each["y"] + each["height"]))
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24


def test_the_dashboard_of_cloudwatch_shows_every_panel_of_one_service():
    """All but those that need buckets, each with the service that the template is given."""
    shown = {each["properties"]["title"]: queries_of(each) for each in widgets() if each["type"] == "chart"}
    panels = [panel for row in PANELS.values() for panel in row if not panel.has_buckets]
    assert list(shown) == [panel.title for panel in panels]
    for panel in panels:
        wanted = [CLOUDWATCH.query(query, only="${Service}") for query, _ in panel.targets]
        assert [each["query"].replace("[2m]", "[$__rate_interval]") for each in shown[panel.title]] == wanted
        assert all("${Service}" in each for each in wanted)


@pytest.mark.parametrize("source", queries())
def test_a_query_is_the_same_in_both_dialects_but_for_the_names(source):
    """What Prometheus was seen to do with the rules holds for CloudWatch's, which cannot be run here."""

    def selector(match):
        name, *matchers = re.split(r", ", match[1])
        inside = ", ".join(re.sub(r'^"([^"]+)"', lambda label: label[1].replace(".", "_"), each) for each in matchers)
        return PROMETHEUS.metric(name.strip('"')) + ("{" + inside + "}" if inside else "")

    text = re.sub(r"\{([^{}]+)\}", selector, CLOUDWATCH.query(source))
    text = text.replace('"@resource.service.name"', "job").replace('"@resource.service.instance.id"', "instance")
    text = re.sub(r'(?<!=)"([a-z_.]+)"', lambda name: name[1].replace(".", "_"), text)
    assert text == PROMETHEUS.query(source)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_says_what_to_do(rule):
    """In a few sentences, and with a section of the runbook that is there."""
    assert rule.remedy.endswith(".")
    assert rule.seconds % 15 == 0
    headings = re.findall(r"^## (.+)$", (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8"), re.MULTILINE)
    anchors = {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", each).strip().lower()) for each in headings}
    assert rule.section in anchors
