"""
Writes the dashboards and alarms beside itself.

python -m example_app.deploy.monitoring --runbook https://wiki.example.com/drains
"""

import argparse
from pathlib import Path

from example_app.deploy.monitoring.files import RUNBOOK, files


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(prog="python -m example_app.deploy.monitoring", description=__doc__)
    parser.add_argument("--runbook", default=RUNBOOK, help="where the runbook is found")
    parser.add_argument("--into", type=Path, default=Path(__file__).parent, help="the folder to write to")
    options = parser.parse_args()
    for name, content in files(options.runbook).items():
        (options.into / name).write_text(content, encoding="utf-8")
        print(options.into / name)


if __name__ == "__main__":
    main()
