"""What a page is made of: frozen, with defaults that show nothing."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest

from lensai_integrations.report.html import render
from lensai_integrations.report.pages import Commands, Fact, Page, Section, Verdict, when

BARE = Page("Kind", "A headline", "", (), (), (), "How to use it", "So.")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-01T09:05:59+00:00", "2026-03-01 09:05 UTC"),
        ("2026-03-01T09:05:59+02:00", "2026-03-01 09:05 UTC+02:00"),
        ("2026-03-01T09:05:59", "2026-03-01 09:05"),
        ("", ""),
        ("<b>", "<b>"),
    ],
)
def test_times(text: str, expected: str) -> None:
    assert when(text) == expected


def test_a_bare_page_can_be_rendered() -> None:
    text = render(BARE)
    assert "<h1>A headline</h1>" in text
    assert 'class="box' not in text
    assert "<nav" in text


def test_all_that_is_set_is_shown() -> None:
    page = Page(
        kind="Kind",
        headline="Headline",
        made="Made today",
        facts=(Fact("Term", ("line one", "line two")),),
        sections=(Section("A title", lead=("A sentence.",), points=("A point.",)),),
        definitions=(),
        use_title="Reading",
        use="Read it.",
        commands=(Commands("In a shell", "lensai show <x>"),),
        warnings=("Mind the gap", "and the step"),
        verdict=Verdict("bad", "It moved", ("by a lot",)),
    )
    text = render(page)
    for part in ("Made today", "Term", "line two", "A title", "A sentence.", "A point.", "Reading", "Read it."):
        assert f">{part}<" in text
    for part in ("In a shell", "lensai show &lt;x&gt;", "2 warnings", "Mind the gap", "It moved", "by a lot"):
        assert part in text
    assert 'class="box bad"' in text


def test_one_warning_is_no_plural() -> None:
    assert "<strong>1 note</strong>" in render(replace(BARE, warnings=("x",), warning_noun="note"))


def test_pages_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        BARE.headline = "other"  # type: ignore[misc]
