"""Rows of the table of streams: the numbers beside a histogram are those of the sketch."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lensai_integrations import Baseline, Profile
from lensai_integrations.profiles.groups import Group
from lensai_integrations.report.streams import Source, SourceShare, gap_sentence, parts_of, stream_rows
from lensai_integrations.sketches.bank import KLLBank


def part(rows: np.ndarray, streams: tuple[str, ...], number: int = 0, **info: object) -> SourceShare:
    bank = KLLBank(len(streams), seed=0)
    bank.update(rows.astype(np.float32))
    return SourceShare(
        number, ("validation", "training")[number], Group("inputs", streams, {}, {"bank": bank}, dict(info))
    )


def test_numbers_are_the_quantiles_of_the_rows() -> None:
    rows = np.random.default_rng(0).normal(1000, 50, (150, 1))
    (row,) = stream_rows([part(rows, ("size",))])
    low, middle, high = np.quantile(rows, [0.05, 0.5, 0.95], method="inverted_cdf")
    assert row.cells[0].median == f"{middle:,.0f}"
    assert row.cells[0].range == f"{low:,.0f} – {high:,.0f}"
    assert row.gap is None
    assert not row.notable
    assert row.chart is not None


def test_both_sources_share_a_row_and_its_decimals() -> None:
    rng = np.random.default_rng(0)
    first, second = part(rng.uniform(0, 1, (400, 1)), ("x",)), part(rng.uniform(5, 900, (400, 1)), ("x",), 1)
    (row,) = stream_rows([first, second])
    assert [cell.source for cell in row.cells] == ["validation", "training"]
    assert all("." not in cell.median for cell in row.cells)
    assert row.gap == 1.0
    assert row.notable
    assert 'class="s0"' in row.chart
    assert 'class="s1"' in row.chart


def test_only_wanted_streams_in_the_order_of_the_bank() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 3))
    names = [row.name for row in stream_rows([part(rows, ("a", "b", "c"))], {"c", "a", "unknown"})]
    assert names == ["a", "c"]


def test_streams_are_matched_by_name_not_by_column() -> None:
    rows = np.random.default_rng(0).normal(size=(300, 2)) + np.array([0, 100])
    table = stream_rows([part(rows, ("a", "b")), part(rows[:, ::-1], ("b", "a"), 1)])
    assert [row.gap for row in table] == [0.0, 0.0]


def test_a_stream_only_the_second_source_has() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 1))
    table = stream_rows([part(rows, ("a",)), part(rows, ("b",), 1)])
    assert [(row.name, row.cells[0].source, row.gap) for row in table] == [
        ("a", "validation", None),
        ("b", "training", None),
    ]
    assert 'class="s1"' in table[1].chart


def test_no_rows() -> None:
    (row,) = stream_rows([part(np.empty((0, 1)), ("x",))])
    assert row.chart is None
    assert row.cells[0].median == "no rows"
    assert (row.low, row.high) == ("", "")


def test_rows_on_one_side_only() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 1))
    (row,) = stream_rows([part(np.empty((0, 1)), ("x",)), part(rows, ("x",), 1)])
    assert row.chart is not None
    assert row.gap is None
    assert [cell.median == "no rows" for cell in row.cells] == [True, False]


def test_a_constant_stream_says_so_and_has_no_axis() -> None:
    (row,) = stream_rows([part(np.full((60, 1), 224.0), ("height",))])
    assert (row.low, row.high, row.cells[0].median, row.cells[0].range) == ("", "", "224", "224")
    assert "always 224" in row.chart


def test_what_is_not_drawn_is_told() -> None:
    rows = np.concatenate([np.random.default_rng(0).normal(size=2000), np.full(4, 1e6)])[:, None]
    (row,) = stream_rows([part(rows, ("x",))])
    told = re.search(r"validation: ([\d.]+)% of the rows lower, ([\d.]+)% higher", row.chart)
    assert told is not None
    assert 0.1 <= float(told[2]) <= 2.0


def test_a_fixed_axis() -> None:
    (row,) = stream_rows([part(np.random.default_rng(0).uniform(0.4, 0.6, (50, 1)), ("p",))], span=(0.0, 1.0))
    assert (row.low, row.high) == ("0", "1")


def test_units_and_descriptions_come_from_the_definition(photos: Baseline) -> None:
    rows = {row.name: row for row in stream_rows(parts_of([Source(0, "validation", photos.reference)], "inputs"))}
    group = photos.reference.groups["inputs"]
    known = group.definition(group.definition_of("snr"))
    assert known is not None
    assert rows["snr"].unit == known.unit == "dB"
    assert rows["snr"].description == known.description
    assert rows["aspect_ratio"].unit == ""


@pytest.mark.parametrize(
    ("convention", "colours"), [("lensai", ["red", "green", "blue"]), ("lensai-edge", ["blue", "green", "red"])]
)
def test_channels_are_called_by_their_colour(convention: str, colours: list[str]) -> None:
    rows = np.random.default_rng(0).normal(size=(30, 4))
    table = stream_rows([part(rows, ("mean/0", "mean/1", "mean/2", "brightness"), convention=convention)])
    assert [row.note for row in table] == [*colours, ""]


def test_channels_that_are_no_colours_have_none() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 5))
    for streams in (("mean/0", "mean/1", "x", "y", "z"), tuple(f"mean/{i}" for i in range(5))):
        assert {row.note for row in stream_rows([part(rows, streams)])} == {""}


def test_the_sentence_names_the_widest_gaps_first() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=(500, 3))
    table = stream_rows([part(first, ("a", "b", "c")), part(first + np.array([1, 0, 5]), ("a", "b", "c"), 1)])
    sentence = gap_sentence(table, "validation", "training")
    assert sentence.startswith("Training differs from validation most in c (")
    assert " and a (" in sentence
    assert "b (" not in sentence


def test_the_sentence_when_all_is_alike_or_nothing_to_compare() -> None:
    rows = np.random.default_rng(0).normal(size=(500, 1))
    alike = stream_rows([part(rows, ("a",)), part(rows, ("a",), 1)])
    assert gap_sentence(alike, "validation", "training") == "Training and validation look alike: no gap is 0.1 or more."
    assert gap_sentence(stream_rows([part(rows, ("a",))]), "validation", "training") == ""


def test_sources_without_the_group_are_passed_over(photos: Baseline) -> None:
    sources = [Source(0, "empty", Profile()), Source(1, "validation", photos.reference)]
    assert [p.number for p in parts_of(sources, "inputs")] == [1]
