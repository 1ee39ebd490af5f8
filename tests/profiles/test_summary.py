"""The table people read agrees with the sketches it is made of."""

from __future__ import annotations

import csv
import io
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import make_baseline, make_profile

from lensai_integrations import Profiler
from lensai_integrations.profiles.summary import CATEGORY_COLUMNS, COLUMNS, _cell, segments_csv, table, to_csv
from lensai_integrations.sketches.state import RANKS


@pytest.fixture(scope="module")
def records() -> dict[str, dict[str, str]]:
    text = to_csv({"validation": make_profile(150).groups})
    return {record["stream"]: record for record in csv.DictReader(io.StringIO(text))}


def test_the_columns_are_those_promised(records: dict[str, dict[str, str]]) -> None:
    assert list(records["inputs/brightness"]) == [*COLUMNS, *CATEGORY_COLUMNS]


def test_quantiles_ascend(records: dict[str, dict[str, str]]) -> None:
    names = ["min", *(f"p{round(100 * rank):02d}" for rank in RANKS), "max"]
    for stream, record in records.items():
        if record["kind"] != "categories":
            numbers = [float(record[name]) for name in names]
            assert numbers == sorted(numbers), stream


def test_categories_show_counts_and_no_numbers(records: dict[str, dict[str, str]]) -> None:
    labels = records["labels"]
    assert (labels["kind"], labels["min"], labels["p50"]) == ("categories", "", "")
    counts = [int(part.rsplit(": ", 1)[1]) for part in labels["top"].split("; ")]
    assert sum(counts) == 150
    assert counts == sorted(counts, reverse=True)
    assert round(float(labels["distinct"])) == 4


def test_pixel_quantiles_are_exact() -> None:
    profiler = Profiler()
    images = np.random.default_rng(0).integers(0, 256, (6, 9, 7, 3), dtype=np.uint8)
    profiler.update(inputs=images)
    rows = {row.stream: row for row in profiler.profile().summaries()}
    for channel in range(3):
        row, values = rows[f"inputs/pixel/{channel}"], images[..., channel].ravel()
        assert (row.n, row.min, row.max) == (6, values.min(), values.max())
        expected = np.quantile(values, RANKS, method="inverted_cdf")
        np.testing.assert_array_equal(list(row.quantiles.values()), expected)


def test_a_row_per_source_and_stream() -> None:
    baseline = make_baseline(30)
    rows = table({source: profile.groups for source, profile in baseline.sources().items()})
    streams = [row.stream for row in baseline.reference.summaries()]
    assert [(r["source"], r["stream"]) for r in rows[: len(streams)]] == [("validation", s) for s in streams]
    assert len(rows) == 2 * len(streams)


def test_an_empty_stream_has_no_numbers() -> None:
    profiler = Profiler()
    profiler.update(embeddings={"e": np.full((3, 2), np.nan, np.float32)})
    row = profiler.profile().summaries()[0]
    assert (row.n, row.invalid) == (0, 3)
    assert math.isnan(row.min)
    assert "nan" not in to_csv({"production": profiler.profile().groups})


def read_again(cell: str) -> str:
    """A cell's text without the apostrophes that keep spreadsheets from computing it."""
    return re.sub(r"((?:^|[;\t\r\n])(?:[^\S\t\r\n]|[\0\u200b-\u200f\u2060\ufeff])*)'", r"\1", cell)


@given(st.text(st.sampled_from("=+-@\t\r\n;' ab1\uff1d,\"\0\v\xa0\ufeff")))
def test_no_cell_of_text_begins_as_a_formula_and_each_can_be_read_again(text: str) -> None:
    cell = _cell(text)
    assert not any(part.lstrip(" \0\v\xa0\ufeff")[:1] in {*"=+-@\uff1d"} for part in re.split("[;\t\r\n]", cell))
    assert cell[:1] not in {"\t", "\r", "\n"}
    assert read_again(cell) == text


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1"])
def test_names_that_a_spreadsheet_would_compute_are_texts_in_every_table(name: str) -> None:
    profiler = Profiler(source=name, segment_by="site")
    profiler.update(labels=[name, "cat"], segments=[name, name])
    profile = profiler.profile()
    profile.groups["labels"].definitions["*"] = name
    segments = {key: segment.groups for key, segment in profile.segments.items()}
    for text, keys in (
        (to_csv({profile.source: profile.groups}), ("source", "definition")),
        (segments_csv({profile.source: segments}), ("source", "segment")),
    ):
        (record,) = csv.DictReader(io.StringIO(text, newline=""))
        assert all(record[key].startswith("'") and read_again(record[key]) == name for key in keys)
        assert "'" in record["top"].partition(name[0])[0]
        assert f"{name}: 1" in read_again(record["top"])


def test_negative_numbers_stay_numbers() -> None:
    profiler = Profiler()
    profiler.update(embeddings={"fc": -np.arange(1, 9, dtype=np.float32)[:, None]})
    (record,) = csv.DictReader(io.StringIO(to_csv({"validation": profiler.profile().groups})))
    assert (record["min"], record["max"]) == ("-8", "-1")
