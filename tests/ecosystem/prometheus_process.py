"""Prometheus, where it is installed."""

import shutil
from pathlib import Path

__all__ = ["PROMETHEUS", "PROMTOOL", "RULES"]

PROMETHEUS = shutil.which("prometheus")
PROMTOOL = shutil.which("promtool")
RULES = Path(__file__).parents[2] / "example_app" / "deploy" / "monitoring" / "prometheus-rules.yaml"
