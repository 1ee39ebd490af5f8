"""Snippets of the documentation, which tests run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"


def run_section(page: str, heading: str, given: dict[str, Any]) -> None:
    """Run the one Python snippet of a section.

    Args:
        page: Name of the file.
        heading: How the section's heading begins.
        given: Names that the snippet finds.
    """
    section = (DOCS / page).read_text(encoding="utf-8").split(f"\n## {heading}")[1].split("\n## ")[0]
    (snippet,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    exec(compile(snippet, f"docs/{page}, {heading}", "exec"), given)
