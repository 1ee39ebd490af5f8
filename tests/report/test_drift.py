"""The page of a drift report says what the report says, worst first, and draws both sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lensai_integrations import Baseline, DriftReport, Profile, Profiler, compare
from lensai_integrations.drift.accuracy import AccuracyEstimate
from lensai_integrations.drift.labelled import Confusion, Labelled
from lensai_integrations.report import drift_html
from lensai_integrations.report.accuracy import accuracy_table
from lensai_integrations.report.drift import MOST_FINDINGS, drift_page
from lensai_integrations.report.pages import Page, Section


def profile(seed: int, source: str, *, shift: float = 0.0, dark: float = 1.0, width: int = 12, n: int = 400) -> Profile:
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, n, p=[0.4, 0.3, 0.2, 0.1] if not shift else [0.1, 0.2, 0.3, 0.4])
    base = rng.uniform(60, 220, (n, 1, 1, 3)) + rng.normal(0, 20, (n, 8, 8, 3))
    profiler = Profiler(source=source, seed=seed)
    profiler.update(
        inputs=np.clip(base * dark, 0, 255).astype(np.uint8),
        outputs=rng.normal(0, 1, (n, 4)).astype(np.float32) + 4 * np.eye(4, dtype=np.float32)[labels],
        embeddings={"avgpool": (rng.normal(0, 1, (n, width)) + shift).astype(np.float32)},
        labels=labels,
    )
    return profiler.profile()


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    return Baseline(profile(0, "validation"), profile(1, "training", dark=0.5), {"epoch": 4})


@pytest.fixture(scope="module")
def moved(baseline: Baseline) -> tuple[DriftReport, Page]:
    window = profile(2, "production", shift=1.0, dark=0.5)
    report = compare(baseline, window)
    return report, drift_page(report, baseline, window)


@pytest.fixture(scope="module")
def calm(baseline: Baseline) -> tuple[DriftReport, Page]:
    window = profile(3, "production")
    report = compare(baseline, window)
    return report, drift_page(report, baseline, window)


def section(page: Page, title: str) -> Section:
    return next(section for section in page.sections if section.title == title)


def test_the_verdict_is_the_reports(moved: tuple[DriftReport, Page], calm: tuple[DriftReport, Page]) -> None:
    report, page = moved
    assert report.drift
    assert page.verdict.tone == "bad"
    assert f"{len(report.moved)} of {report.tested} streams moved" in page.verdict.title
    assert page.verdict.lines[0].startswith(f"Worst: {report.moved[0].stream} ")
    report, page = calm
    assert not report.drift
    assert page.verdict.tone == "good"
    assert [line.split(":")[0] for line in page.verdict.lines] == ["Accuracy"]


def test_accuracy_by_labels_is_drawn_with_its_classes(moved: tuple[DriftReport, Page]) -> None:
    report, page = moved
    found, table = report.accuracy, section(page, "Accuracy").accuracy
    assert [row.name for row in table.shares] == ["baseline, by its labels", "window, by 400 labels"]
    assert len(table.recalls) == len(found.labelled.recalls) == 4
    assert table.classes == ("0", "1", "2", "3")
    assert sum(int(cell.text or 0) for _, cells in table.matrix for cell in cells) == 400
    assert all(cells[at].right for at, (_, cells) in enumerate(table.matrix))
    assert not table.confusions


def test_an_estimate_is_called_one(baseline: Baseline) -> None:
    estimate = AccuracyEstimate(0.9, 0.4, 0.2, 0.6)
    table = accuracy_table(estimate)
    assert [row.texts for row in table.shares] == [("90%", ""), ("40%", "20% – 60%")]
    assert not table.recalls
    window = profile(3, "production")
    report = replace(compare(baseline, window), accuracies=(("outputs/age", estimate),))
    drawn = section(drift_page(report, baseline, window), "Accuracy of outputs/age")
    assert "has no labels" in drawn.lead[0]
    assert "the truth may lie outside" in drift_html(report, baseline, window)


def test_the_labels_contradict_an_estimate_and_many_classes_are_words() -> None:
    confusion = Confusion("cat", "<dog>", 12, 0.24, 0.05)
    labels = Labelled(rows=200, of=200, confusions=(confusion,))
    guess = AccuracyEstimate(0.9, 0.8, 0.1, 0.9)
    table = accuracy_table(AccuracyEstimate(0.9, 0.4, 0.3, 0.5, True, labelled=labels, estimated=guess, mistaken=0.4))
    assert table.shares[-1].tag == "wrong here"
    assert table.confusions == ("cat taken for <dog> in 12 rows (24% of its rows, 5% in the baseline).",)


def test_the_headline_names_both_sides(moved: tuple[DriftReport, Page]) -> None:
    assert moved[1].headline == "400 production images, held against 400 validation images"
    facts = {fact.term: fact.lines for fact in moved[1].facts}
    assert facts["Baseline"] == ("validation, 400 images", "epoch 4")
    assert facts["Window"] == ("production, 400 images",)
    assert facts["Test"][0] == "false alarms: 1% for the whole report"
    assert len(facts["Groups"]) == len(moved[0].groups)


def test_what_moved_comes_first_and_worst_first(moved: tuple[DriftReport, Page]) -> None:
    report, page = moved
    first = page.sections[0]
    assert first.title == "What moved"
    assert len(first.rows) == MOST_FINDINGS
    effects = [float(row.extra[0]) for row in first.rows]
    assert effects == sorted(effects, reverse=True)
    numbers = [stream for stream in report.moved if stream.kind == "numbers"]
    assert first.rows[0].name == numbers[0].stream
    assert f"{len(numbers) - MOST_FINDINGS} more streams moved, listed below." in first.points
    assert all(row.words and "->" not in row.words for row in first.rows)


def test_categories_and_vectors_are_told_in_sentences(moved: tuple[DriftReport, Page]) -> None:
    points = " ".join(section(moved[1], "What moved").points)
    assert "labels: " in points
    assert "of rows" in points
    assert "embeddings/avgpool: moved as a whole: effect " in points


def test_both_sides_are_drawn(moved: tuple[DriftReport, Page]) -> None:
    for row in section(moved[1], "Inputs").rows:
        assert 'class="s0"' in row.chart
        assert 'class="s1"' in row.chart
        assert [cell.source for cell in row.cells] == ["baseline", "window"]


def test_every_stream_of_a_group_is_somewhere(moved: tuple[DriftReport, Page]) -> None:
    report, page = moved
    for group in report.groups:
        shown = next(s for s in page.sections if s.title in (group.name, group.name.capitalize()))
        names = [row.name for row in shown.rows] + [row.name for part in shown.folded for row in part.rows]
        expected = [s.stream.removeprefix(group.name + "/") for s in group.listed if s.kind == "numbers"]
        assert names == expected
        assert {row.name for row in shown.rows} == {s.stream.removeprefix(group.name + "/") for s in group.moved} & set(
            expected
        )
        assert all(row.tag == "moved" and row.notable for row in shown.rows)


def test_effects_and_p_values_are_the_reports(moved: tuple[DriftReport, Page]) -> None:
    report, page = moved
    streams = {stream.stream: stream for group in report.groups for stream in group.streams}
    for row in section(page, "Inputs").rows:
        assert row.extra[0] == f"{streams[f'inputs/{row.name}'].effect:.2f}"
        assert row.gap == pytest.approx(streams[f"inputs/{row.name}"].effect, abs=1e-9)
        p = float(row.extra[1].lstrip("<").replace("\N{MINUS SIGN}", "-"))
        assert p == pytest.approx(max(streams[f"inputs/{row.name}"].p_value, 1e-16), rel=0.5)


def test_class_shares_are_bars_and_marks(moved: tuple[DriftReport, Page]) -> None:
    (chart,) = section(moved[1], "Labels").charts
    assert chart.columns == ("baseline", "window")
    assert [row.name for row in chart.rows] == ["0", "1", "2", "3"]
    assert float(chart.rows[3].shares[1].rstrip("%")) > 30 > float(chart.rows[3].shares[0].rstrip("%"))


def test_embeddings_are_a_fan_with_the_window_over_it(moved: tuple[DriftReport, Page]) -> None:
    (fan,) = section(moved[1], "embeddings/avgpool").fans
    assert fan.chart.count('class="s1"') == 3
    assert "window 400" in fan.facts[0].text


def test_nothing_moved(calm: tuple[DriftReport, Page]) -> None:
    report, page = calm
    assert len(page.sections) == len(report.groups) + 1  # and the accuracy
    for shown in page.sections:
        assert shown.rows == ()
        assert not any("moved" in point for point in shown.points)
    inputs = section(page, "Inputs")
    assert inputs.folded[0].summary == f"{len(inputs.folded[0].rows)} streams that did not move"


def test_a_group_of_many_streams_is_summed_up() -> None:
    before, after = profile(0, "validation", width=60), profile(2, "production", shift=1.0, width=60)
    report = compare(before, after)
    page = drift_page(report, before, after)
    group = next(group for group in report.groups if group.name == "embeddings/avgpool")
    assert group.summed_up
    told = f"embeddings/avgpool: {len(group.moved)} of 60 streams moved; moved as a whole: effect "
    assert any(point.startswith(told) for point in page.sections[0].points)
    assert len(section(page, "embeddings/avgpool").rows) == len(group.listed)
    assert not any(row.name.startswith("embeddings/") for row in page.sections[0].rows)
    calm = profile(3, "production", width=60)
    page = drift_page(compare(before, calm), before, calm)
    assert section(page, "embeddings/avgpool").folded[0].summary == "5 of the 60 streams that did not move"


def test_against_the_training_profile(baseline: Baseline) -> None:
    window = profile(5, "production", dark=0.5)
    report = compare(baseline, window, against="training")
    page = drift_page(report, baseline, window)
    assert page.headline.endswith("held against 400 training images")
    rows = [row for part in section(page, "Inputs").folded for row in part.rows]
    assert all(row.gap < 0.15 for row in rows)


def test_notes_are_shown(baseline: Baseline) -> None:
    window = profile(6, "production", n=10)
    page = drift_page(compare(baseline, window), baseline, window)
    assert page.warning_noun == "note"
    assert any("10 rows" in note for note in page.warnings)


def test_a_profile_as_baseline_without_a_time() -> None:
    before, after = profile(0, "validation"), profile(3, "production")
    del after.info["created"]
    page = drift_page(compare(before, after), before, after)
    assert page.made == ""
    assert {fact.term: fact.lines for fact in page.facts}["Baseline"] == ("validation, 400 images",)
