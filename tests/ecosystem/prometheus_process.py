"""Prometheus, where it is installed."""

import os
import shutil
from pathlib import Path

import pytest

__all__ = ["RULES", "program"]

RULES = Path(__file__).parents[2] / "example_app" / "deploy" / "monitoring" / "prometheus-rules.yaml"


def program(name):
    """Return the path of ``prometheus`` or ``promtool``; skip the test where it is missing, and in CI fail."""
    if (found := shutil.which(name)) is None:
        end = pytest.fail if os.environ.get("CI") else pytest.skip
        end(f"{name} is not installed; tests/ecosystem/install.sh does it")
    return found
