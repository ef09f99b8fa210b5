"""
Writes the table of ``docs/servers.md`` anew, from what ``test_servers.py`` saw when it ran last.

Run ``make pytest ARGS=tests/ecosystem/test_servers.py``, look at what differs, then
``.venv/bin/python tests/ecosystem/make_table.py``.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "servers.md"
SEEN = ROOT / ".pytest_cache" / "v" / "servers"
BEGIN = "<!-- Seen by tests/ecosystem/test_servers.py, written by tests/ecosystem/make_table.py: -->"
END = "<!-- until here -->"

COLUMNS = {
    "server": "server",
    "versions": "seen with",
    "client": "drain: the client sees",
    "late": "a late arrival gets",
    "sigterm": "SIGTERM: the client sees",
    "sigterm_stream": "SIGTERM: an event stream has",
    "exit": "it exits",
}


def row(seen: Mapping[str, str]) -> str:
    """Return one row of the table."""
    cells = {**seen, "server": f"`{seen['server']}`"}
    return f"| {' | '.join(cells[column] for column in COLUMNS)} |"


def documented_rows() -> dict[str, str]:
    """Return the rows that the page has now, by server."""
    table = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    return {line.split("`")[1]: line for line in rows}


def main() -> None:
    """Write the table between its markers."""
    seen = [json.loads(each.read_text()) for each in sorted(SEEN.iterdir())]
    head = [f"| {' | '.join(COLUMNS.values())} |", f"|{'---|' * len(COLUMNS)}"]
    before, _, rest = PAGE.read_text().partition(BEGIN)
    table = "\n".join([*head, *map(row, seen)])
    PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.partition(END)[2]}")
    sys.stdout.write(f"{len(seen)} servers\n")


if __name__ == "__main__":
    main()
