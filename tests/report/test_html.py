"""Pages as files: self-contained, small, and safe whatever the names in them are."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from lensai_integrations import Baseline, Profile, Profiler, compare
from lensai_integrations.report import baseline_html, drift_html
from lensai_integrations.report.html import breakable

VOID = {"meta", "br", "wbr", "img", "input", "link", "hr"}
#: Attributes that make a browser load or open something.
LOADING = {"src", "href", "srcset", "action", "data", "poster", "xlink:href", "formaction", "background", "ping"}


class Checker(HTMLParser):
    """Collects tags and attributes, and checks that what is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attributes]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def pages(photos: Baseline, hostile: Baseline) -> dict[str, str]:
    drifted = compare(photos, photos.training)
    attack = compare(hostile, hostile.reference)
    return {
        "baseline": baseline_html(photos),
        "profile": baseline_html(photos.training),
        "empty": baseline_html(Profile()),
        "drift": drift_html(drifted, photos, photos.training),
        "hostile": baseline_html(hostile),
        "hostile drift": drift_html(attack, hostile, hostile.reference),
    }


NAMES = ["baseline", "profile", "empty", "drift", "hostile", "hostile drift"]


@pytest.mark.parametrize("name", NAMES)
def test_pages_are_well_formed_and_load_nothing(pages: dict[str, str], name: str) -> None:
    found = Checker(pages[name])
    assert found.open == []
    assert {attribute for attribute, _ in found.attributes} & LOADING == set()
    assert not any(attribute.startswith("on") for attribute, _ in found.attributes)
    assert found.tags.count("script") == 1
    assert {"img", "link", "iframe", "a", "object", "embed", "form", "base"} & set(found.tags) == set()
    style = re.search(r"<style>(.*?)</style>", pages[name], re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style


@pytest.mark.parametrize("name", NAMES)
def test_only_our_script_may_run(pages: dict[str, str], name: str) -> None:
    script = re.search(r"<script>(.*?)</script>", pages[name], re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [value for _, value in Checker(pages[name]).attributes if value.startswith("default-src")]
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_hostile_names_are_shown_as_text(pages: dict[str, str]) -> None:
    for name in ("hostile", "hostile drift"):
        text = "".join(Checker(pages[name]).text)
        assert "window.hacked=1" in text
        assert "{{7*7}}" in text
        assert "<script>window.hacked" not in pages[name]
        assert "<img" not in pages[name]


def test_breakable_names_are_escaped_and_whole() -> None:
    for name in ("plain", "a_b/c.d-e", "<i>_&\"'", "__", "", "ünï_cödé", "x" * 300):
        marked = breakable(name)
        assert marked.replace("<wbr>", "") == str(marked.__class__.escape(name))
    assert breakable("margin_confidence") == "margin_<wbr>confidence"


def test_the_page_tells_the_headline_in_its_title(pages: dict[str, str]) -> None:
    headline = "220 validation images of epoch 4, held against 300 training images"
    assert f"<title>Data baseline: {headline}</title>" in pages["baseline"]
    assert f"<h1>{headline}</h1>" in pages["baseline"]


def test_every_drawing_has_a_title_or_is_hidden(pages: dict[str, str]) -> None:
    for page in pages.values():
        for opening, content in re.findall(r"<svg([^>]*)>(.*?)</svg>", page, re.DOTALL):
            assert 'aria-hidden="true"' in opening or re.search(r"<title>[^<]+</title>", content)


def test_legends_show_what_is_drawn(pages: dict[str, str]) -> None:
    first, *others = re.findall(r'<ul class="legend">(.*?)</ul>', pages["baseline"], re.DOTALL)
    assert re.findall(r"<(rect|path) class", first) == ["rect", "path"]
    classes = next(legend for legend in others if "predicted" in legend)
    assert re.findall(r'<(?:rect|path) class="([^"]+)"', classes) == ["s0", "s2 mark", "s1 mark"]


def test_numbers_are_rounded(pages: dict[str, str]) -> None:
    text = re.sub(r"<(style|script|svg|title|code).*?</\1>", "", pages["baseline"], flags=re.DOTALL)
    assert re.findall(r"\d\.\d{5,}", text) == []
    assert "nan" not in re.sub(r"<[^>]+>", " ", text).lower().split()


def test_the_same_profiles_give_the_same_page(photos: Baseline, pages: dict[str, str]) -> None:
    assert baseline_html(photos) == pages["baseline"]


def test_a_page_is_the_same_after_saving(photos: Baseline, pages: dict[str, str], tmp_path: Path) -> None:
    assert baseline_html(Baseline.load(photos.save(tmp_path))) == pages["baseline"]


def test_a_wide_model_of_a_thousand_classes_stays_small() -> None:
    rng = np.random.default_rng(0)
    profiler = Profiler(source="validation")
    profiler.update(
        inputs=rng.integers(0, 256, (300, 8, 8, 3), dtype=np.uint8),
        outputs=rng.normal(0, 3, (300, 1000)).astype(np.float32),
        embeddings={f"layer{i}": rng.normal(0, 1, (300, 2048)).astype(np.float32) for i in range(3)},
        labels=rng.integers(0, 1000, 300),
    )
    profile = profiler.profile()
    assert len(baseline_html(Baseline(profile, profile)).encode()) < 400_000
