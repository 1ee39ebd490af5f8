"""The table people read agrees with the sketches it is made of."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest
from profiles import make_baseline, make_profile

from lensai_integrations import Profiler
from lensai_integrations.summary import CATEGORY_COLUMNS, COLUMNS, RANKS, summarize, table, to_csv


@pytest.fixture(scope="module")
def records() -> dict[str, dict[str, str]]:
    text = to_csv({"validation": make_profile(150)})
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
    rows = {row.stream: row for row in summarize(profiler.profile())}
    for channel in range(3):
        row, values = rows[f"inputs/pixel/{channel}"], images[..., channel].ravel()
        assert (row.n, row.min, row.max) == (6, values.min(), values.max())
        expected = np.quantile(values, RANKS, method="inverted_cdf")
        np.testing.assert_array_equal(list(row.quantiles.values()), expected)


def test_a_row_per_source_and_stream() -> None:
    baseline = make_baseline(30)
    rows = table(baseline.sources())
    streams = [row.stream for row in summarize(baseline.reference)]
    assert [(r["source"], r["stream"]) for r in rows[: len(streams)]] == [("validation", s) for s in streams]
    assert len(rows) == 2 * len(streams)


def test_an_empty_stream_has_no_numbers() -> None:
    profiler = Profiler()
    profiler.update(embeddings={"e": np.full((3, 2), np.nan, np.float32)})
    row = summarize(profiler.profile())[0]
    assert (row.n, row.invalid) == (0, 3)
    assert math.isnan(row.min)
    assert "nan" not in to_csv({"production": profiler.profile()})
