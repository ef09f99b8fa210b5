"""Dashboards and alarms: `queries` is their one source, and ``python -m`` of this package writes the files."""
