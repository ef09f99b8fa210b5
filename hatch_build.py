"""Makes the description on a package index from README.md, whose links point into the repository."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)#]*)(#[^)]*)?\)")


def description(readme: str, source: str | None) -> str:
    """
    Return *readme* with links that work outside the repository.

    *source* is where the files of this version are found on the web. Without one, links become plain text and pictures
    their alternative text.
    """

    def replaced(match: re.Match[str]) -> str:
        mark, text, path, anchor = match.groups()
        if source is None:
            return f"*{text}*" if mark else text
        return f"{mark}[{text}]({source}/{path}{anchor or ''}{'?raw=true' if mark else ''})"

    return LINK.sub(replaced, readme)


class ReadmeHook(MetadataHookInterface):
    """Sets the description when the package is built."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Set ``readme``; the project URL "Source", where there is one, leads to the files."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        source = metadata.get("urls", {}).get("Source")
        at = f"{source}/blob/v{metadata['version']}" if source else None
        metadata["readme"] = {"content-type": "text/markdown", "text": description(text, at)}
