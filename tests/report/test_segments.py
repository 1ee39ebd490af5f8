"""The table of segments: what is in it, in which order, and that it can be read at any width."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from browser import browser_page

from lensai_integrations import Baseline, ImageInputs, Profile, Profiler, compare
from lensai_integrations.profiles.names import OTHER_SEGMENT
from lensai_integrations.report import baseline_html, drift_html
from lensai_integrations.report.plots import ranges_svg
from lensai_integrations.report.segments import MOST_ROWS, segment_table
from lensai_integrations.report.streams import Source

HOSTILE = "<script>window.hacked=1</script><img src=x onerror=window.hacked=2>"
_rng = np.random.default_rng(0)
PATCHES = np.clip(_rng.uniform(60, 180, (400, 1, 1, 3)) + _rng.normal(0, 20, (400, 16, 16, 3)), 0, 255).astype(np.uint8)


def profile(labels: Any, source: str = "validation", gain: float = 1.0, most: int = 20, **groups: Any) -> Profile:
    images = np.clip(PATCHES[: len(labels)] * gain, 0, 255).astype(np.uint8)
    profiler = Profiler(segment_by="label", max_segments=most, source=source, seed=len(labels))
    profiler.update(**({"inputs": images} | groups), labels=labels)
    return profiler.profile()


def table_of(*profiles: Profile) -> Any:
    return segment_table([Source(number, each.source, each) for number, each in enumerate(profiles)])


def test_rows_medians_and_shares() -> None:
    labels = ["sky"] * 30 + ["stone"] * 10
    table = table_of(profile(labels), profile(labels[:35], "training", 0.5))
    assert table.by == "label"
    assert table.legend == ((0, "validation, 40 rows"), (1, "training, 35 rows"))
    assert [column.name for column in table.columns] == ["brightness", "contrast", "sharpness", "saturation"]
    assert [(row.name, row.rows) for row in table.rows] == [
        ("sky", ((0, "30"), (1, "30"))),
        ("stone", ((0, "10"), (1, "5"))),
    ]
    luma = PATCHES[:30].astype(float) @ [0.299, 0.587, 0.114]
    median = np.sort(luma.mean((1, 2)))[14]
    assert float(table.rows[0].cells[0].medians[0][1]) == pytest.approx(median, abs=0.51)
    assert "30 rows" not in table.rest


def test_every_image_input_has_a_column_of_the_first_measures() -> None:
    readers = {"left": ImageInputs(), "right": ImageInputs()}
    profiler = Profiler(inputs=readers, segment_by="label", convention=("lensai", "lensai-edge"))
    profiler.update(inputs={"left": PATCHES[:40], "right": PATCHES[:40] // 2}, labels=[0, 1] * 20)
    columns = table_of(profiler.profile()).columns
    assert [column.name for column in columns] == [
        "left brightness",
        "right brightness",
        "left contrast",
        "right contrast",
    ]
    page = baseline_html(profiler.profile())
    assert "Inputs: left, as devices measure them" in page
    assert "# images: {&#x27;left&#x27;: ..., &#x27;right&#x27;: ...}" in page or "# images: {" in page


def test_numbers_are_in_order_and_the_rest_is_last() -> None:
    assert [row.name for row in table_of(profile([10, 9, 9, 2, 2, 2], most=3)).rows] == ["2", "9", "10"]
    assert [row.name for row in table_of(profile(["a", "b", "b", "c", "c", "c"], most=2)).rows] == [
        "b",
        "a",
        OTHER_SEGMENT,
    ]
    many = table_of(profile([str(i % 30) for i in range(90)], most=25))
    assert [row.name for row in many.rows][-1] == OTHER_SEGMENT
    assert len(many.rows) == MOST_ROWS + 1
    assert many.rest == "5 more segments in profile.npz."


def test_what_may_be_in_other_is_not_called_zero() -> None:
    table = table_of(profile(["a", "b"], most=1), profile(["a", "b"], "training"))
    rows = {row.name: row for row in table.rows}
    assert rows["b"].rows == ((0, "–"), (1, "1"))
    assert rows[OTHER_SEGMENT].rows == ((0, "1"), (1, "0"))
    assert rows["b"].cells[0].medians[0] == (0, "–")


def test_without_images_the_first_streams_are_shown() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    profiler = Profiler(segment_by="label", task="values")
    profiler.update(outputs=rows, embeddings={"e": rows}, labels=np.arange(40) % 2)
    table = table_of(profiler.profile())
    assert [column.stream for column in table.columns] == [f"outputs/value/{i}" for i in range(4)]
    bare = Profiler(segment_by="label")
    bare.update(labels=[0, 1])
    assert table_of(bare.profile()).columns == ()
    assert "Segments" in baseline_html(bare.profile())


def test_other_ways_of_segmenting_are_left_out() -> None:
    other = profile(["a"], "training")
    other.info["segment_by"] = "site"
    assert len(table_of(profile(["a"]), other).legend) == 1
    assert segment_table([Source(0, "x", Profile())]) is None


def test_a_range_at_the_edge_can_be_seen() -> None:
    svg = str(ranges_svg([(0, (5.0, 5.0, 5.0)), (1, None), (2, (0.0, 0.0, 0.0))], (0.0, 5.0), "<t>"))
    assert 'd="M317 1H320V9H317Z"' in svg
    assert 'class="s2" d="M0 25H3V33H0Z"' in svg
    assert "&lt;t&gt;" in svg
    assert "M160 1H163" in str(ranges_svg([(0, (5.0, 5.0, 5.0))], (5.0, 5.0), "constant"))


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    labels = [["sky", "stone", "a_name_as_long_as_a_path/of_many_words.png", HOSTILE][i % 4] for i in range(400)]
    before, after = profile(labels), profile(labels[:200], "production", 0.5)
    baseline = Baseline(before, profile(labels, "training", 1.1))
    return {"baseline": baseline_html(baseline), "drift": drift_html(compare(before, after), before, after)}


def test_a_drift_report_says_what_moved(pages: dict[str, str]) -> None:
    assert "4 of 4 segments moved." in pages["drift"]
    assert "Worst: of segment" in pages["drift"]
    assert "half of it by 4 of segments" in pages["drift"]
    assert HOSTILE not in pages["drift"]
    assert HOSTILE not in pages["baseline"]


@pytest.mark.slow
@pytest.mark.parametrize("width", [420, 1280])
def test_it_fits_and_can_be_seen(browser: Any, pages: dict[str, str], width: int) -> None:
    for name, html in pages.items():
        with browser_page(width=width, browser=browser) as page:
            page.set_content(html)
            assert page.evaluate("window.hacked") is None
            assert page.evaluate("document.documentElement.scrollWidth") == width, name
            assert page.locator("nav button").all_inner_texts().count("Segments") == 1
            sizes = page.evaluate(
                "[...document.querySelectorAll('.segments svg')].map((s) => [s.clientWidth, s.clientHeight])"
            )
            assert len(sizes) == 4 * 5
            assert all(width >= 60 and height >= 10 for width, height in sizes)
            outside = """[...document.querySelectorAll('.segments td')].filter((cell) => [...cell.children].some(
                (child) => child.getBoundingClientRect().right > cell.getBoundingClientRect().right + 1)).length"""
            assert page.evaluate(outside) == 0
