"""What every page must be: whole, and leading somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")})]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.M | re.S)


def links(page: Path) -> list[str]:
    """Where a page leads; what stands in code is no link."""
    return LINK.findall(CODE.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """What a link may name on a page, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_merge_was_left_half_done(page: Path) -> None:
    assert not re.search(r"^(<{7}|>{7}|\|{7}) ", page.read_text(encoding="utf-8"), re.M)


def test_every_page_is_reached_from_the_readme() -> None:
    linked = set(links(PAGES[0]))
    assert {f"docs/{page.name}" for page in ROOT.glob("docs/*.md")} <= linked
