"""The files that are made of `queries`."""

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml
from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from example_app.deploy.monitoring.dialects import CLOUDWATCH, PROMETHEUS, Dialect
from example_app.deploy.monitoring.queries import PANELS, RULES, Panel, Rule

__all__ = ["RUNBOOK", "files"]

RUNBOOK = "docs/runbook.md"
"""Where the runbook is found; ``--runbook`` puts the address of your own site in its place."""

SOURCE = models.DataSourceRef("prometheus", "${source}")
COLUMNS, HEIGHT = 24, 8

RATE_INTERVAL = "2m"
"""In place of Grafana's variable, which CloudWatch does not have: eight exports of the stack."""

TEXT = 2
"""Lines that fit into one unit of a CloudWatch dashboard's height, about."""

LINE = 10_000
"""The YAML writer is not to fold sentences."""


def files(runbook: str = RUNBOOK) -> dict[str, str]:
    """Return the content of each file, by its name."""
    return {
        "grafana.json": _grafana(PROMETHEUS),
        "grafana-cloudwatch.json": _grafana(CLOUDWATCH),
        "prometheus-rules.yaml": _prometheus_rules(RULES, runbook),
        "prometheus-rules-sigterm.yaml": _prometheus_rules(
            tuple(each for each in RULES if each.name != "DrainWatchMissing"), runbook
        ),
        "cloudwatch-alarms.json": _cloudwatch_alarms(runbook),
        "cloudwatch-dashboard.json": _cloudwatch_dashboard(runbook),
    }


def _grafana(dialect: Dialect) -> str:
    made = (
        dashboard.Dashboard("Drains" if dialect is PROMETHEUS else "Drains, from CloudWatch")
        .uid("starlette-drain" if dialect is PROMETHEUS else "starlette-drain-cloudwatch")
        .description("Made by example_app/deploy/monitoring of starlette_drain: change the queries there.")
        .tags(["starlette-drain"])
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("30s")
        .with_variable(dashboard.DatasourceVariable("source").label("Data source").type("prometheus"))
        .with_variable(_services(dialect))
    )
    number = 0
    for row, panels in PANELS.items():
        made.with_row(dashboard.Row(row))
        shown = [each for each in panels if not (each.has_buckets and dialect.is_utf8)]
        for panel in shown:
            number += 1
            width = COLUMNS // min(4 if panel.numbers else 3, len(shown))
            made.with_panel(_panel(panel, dialect).id(number).span(width).height(HEIGHT))
    return json.dumps(made.build(), cls=JSONEncoder, indent=2) + "\n"


def _services(dialect: Dialect) -> dashboard.QueryVariable | dashboard.TextBoxVariable:
    if dialect.is_utf8:  # Grafana asks for values of labels by names without dots
        return dashboard.TextBoxVariable("service").label("Service (a pattern)").default_value(".*")
    query = f"label_values({dialect.metric('drain.state')}, {dialect.service})"
    variable = dashboard.QueryVariable("service").label("Service").datasource(SOURCE).query(query)
    return variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).multi(True).include_all(True).all_value(".*")


def _panel(panel: Panel, dialect: Dialect) -> stat.Panel | timeseries.Panel:
    made = stat.Panel() if panel.numbers else timeseries.Panel()
    made.title(panel.title).description(panel.says).datasource(SOURCE).unit(panel.unit)
    for query, legend in panel.targets:
        expression = dialect.query(query, only="$service")
        target = prometheus.Dataquery().expr(expression).legend_format(dialect.legend(legend))
        made.with_target(target.instant() if panel.numbers else target.range())
    if panel.words:
        results = {str(value): models.ValueMappingResult(text=text, color=color) for value, text, color in panel.words}
        made.mappings([models.ValueMap(results)])
    return made


def _prometheus_rules(alarms: tuple[Rule, ...], runbook: str) -> str:
    rules = [
        {
            "alert": each.name,
            "expr": PROMETHEUS.query(each.query),
            "for": f"{each.seconds}s",
            "labels": {"severity": each.severity},
            "annotations": {
                "summary": f"{each.says} ({_whose(each)})",
                "description": each.remedy,
                "runbook_url": f"{runbook}#{each.section}",
            },
        }
        for each in alarms
    ]
    groups = {"groups": [{"name": "starlette-drain", "rules": rules}]}
    head = "# Made by `python -m example_app.deploy.monitoring`: change queries.py and run it again.\n"
    return head + yaml.safe_dump(groups, sort_keys=False, allow_unicode=True, width=LINE)


def _whose(rule: Rule) -> str:
    return "{{ $labels.job }} {{ $labels.instance }}" if "@worker" in rule.query else "{{ $labels.job }}"


def _cloudwatch_alarms(runbook: str) -> str:
    template: Mapping[str, Any] = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "Alarms on starlette_drain's metrics, which come to CloudWatch by its OTLP endpoint.",
        "Parameters": {
            "Topic": {"Type": "String", "Description": "The ARN of the SNS topic to notify."},
            "Service": {"Type": "String", "Default": ".*", "Description": "A pattern for service.name."},
        },
        "Resources": {each.name: _cloudwatch_alarm(each, runbook) for each in RULES},
    }
    return json.dumps(template, indent=2, ensure_ascii=False) + "\n"


def _cloudwatch_alarm(rule: Rule, runbook: str) -> dict[str, Any]:
    query = {"Fn::Sub": CLOUDWATCH.query(rule.query, only="${Service}")}
    criteria = {"Query": query, "PendingPeriod": rule.seconds, "RecoveryPeriod": 300}
    return {
        "Type": "AWS::CloudWatch::Alarm",
        "Properties": {
            "AlarmDescription": f"{rule.says}. {rule.remedy} {runbook}#{rule.section}",
            "EvaluationCriteria": {"PromQLCriteria": criteria},
            "EvaluationInterval": min(60, max(30, rule.seconds)),
            "AlarmActions": [{"Ref": "Topic"}],
            "Tags": [{"Key": "severity", "Value": rule.severity}],
        },
    }


def _cloudwatch_dashboard(runbook: str) -> str:
    body = {"start": "-PT3H", "periodOverride": "inherit", "widgets": _widgets(runbook)}
    template: Mapping[str, Any] = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "A dashboard of starlette_drain's metrics, which come to CloudWatch by its OTLP endpoint.",
        "Parameters": {"Service": {"Type": "String", "Description": "The service.name of its metrics."}},
        "Resources": {
            "Dashboard": {
                "Type": "AWS::CloudWatch::Dashboard",
                "Properties": {
                    # Dashboards are the account's, in all Regions.
                    "DashboardName": {"Fn::Sub": "${Service}-drains-${AWS::Region}"},
                    "DashboardBody": {"Fn::Sub": json.dumps(body, ensure_ascii=False)},
                },
            }
        },
    }
    return json.dumps(template, indent=2, ensure_ascii=False) + "\n"


def _widgets(runbook: str) -> list[dict[str, Any]]:
    """Return the rows one below the other, each under a text that says what its panels show."""
    widgets: list[dict[str, Any]] = []
    y = 0
    for row, panels in PANELS.items():
        shown = [each for each in panels if not each.has_buckets]
        says = [f"## {row}", *(f"- **{each.title}** {each.says}" for each in shown)]
        if not widgets:
            says = [f"# Drains of ${{Service}}. The runbook: {runbook}", *says]
        tall = 1 + len(says) // TEXT
        widgets.append(_placed("text", (0, y, COLUMNS, tall), {"markdown": "\n".join(says)}))
        y += tall
        columns = min(4 if shown[0].numbers else 3, len(shown))
        width = COLUMNS // columns
        for at, panel in enumerate(shown):
            place = at % columns * width, y + at // columns * HEIGHT, width, HEIGHT
            widgets.append(_placed("chart", place, _chart(panel)))
        y += -(-len(shown) // columns) * HEIGHT
    return widgets


def _placed(kind: str, place: tuple[int, int, int, int], properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": kind, **dict(zip(("x", "y", "width", "height"), place, strict=True)), "properties": properties}


def _chart(panel: Panel) -> dict[str, Any]:
    words = ", ".join(f"{value}: {text}" for value, text, _ in panel.words)
    queries = []
    for number, (query, legend) in enumerate(panel.targets):
        expression = CLOUDWATCH.query(query, only="${Service}").replace("$__rate_interval", RATE_INTERVAL)
        made = {"id": f"q{number}", "type": "cloudwatch-metrics", "language": "PromQL", "query": expression}
        # A label is a text here; without one CloudWatch shows the labels of the series.
        if label := words or re.sub(r"\{\{[^}]*\}\}", "", legend).strip():
            made["label"] = label
        queries.append(made)
    return {
        "title": panel.title,
        "view": "number" if panel.numbers else "line",
        "region": "${AWS::Region}",
        "data": {"queries": queries},
        "plotOptions": {"legend": {"position": "bottom", "show": True}},
    }
