"""The report as text: what a person reads, within the width they have."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensai_integrations import Profiler, compare
from lensai_integrations.drift.kernel import KernelTest
from lensai_integrations.drift.result import (
    DriftReport,
    GroupDrift,
    StreamDrift,
    VectorDrift,
    describe_stream,
    render,
    verdict,
)
from lensai_integrations.drift.text import decimals_for, describe_quantiles, number, p_text, percent

FLOATS = st.floats(-1e12, 1e12)


def numbers(name, drift=False, effect=0.05, p=1.0, before=(40.0, 131.0, 211.0), after=(41.0, 130.0, 210.0)):
    return StreamDrift(name, "numbers", "t/x@1", drift, effect, p, p, 0.1, 0.01, 0.05, 0.05, before, after)


def group(name, streams, drift_as_vectors=None, invalid=0, notes=()):
    test = KernelTest(0.21, 0.34, 1e-9, "gamma", 2000, 200, (1.0,))
    joint = None if drift_as_vectors is None else VectorDrift(drift_as_vectors, 1e-9, test, effect=0.4)
    return GroupDrift(name, 2000, 200, 0, invalid, tuple(streams), joint, notes)


def report_of(*groups, notes=()):
    return DriftReport(0.01, 0.1, 4, "validation", "production", 2000, 200, groups, notes)


@pytest.fixture
def drifted():
    dark = numbers("inputs/brightness", True, 0.62, 1e-20, after=(22.0, 71.0, 118.0))
    classes = StreamDrift(
        "outputs/top_class", "categories", "t/c@1", True, 0.21, 2e-5, 1e-6, shares=(("3", 0.1, 0.31), ("7", 0.12, 0.02))
    )
    layer = [numbers(f"embeddings/pool/{i}", i < 341, 0.81 - i / 1000, 1e-9) for i in range(512)]
    return report_of(
        group("embeddings/pool", layer, True),
        group("inputs", [dark, numbers("inputs/height", before=(32.0,) * 3, after=(32.0,) * 3)], invalid=3),
        group("outputs", [classes], False, notes=("only on one side, not compared: softmax/9",)),
        notes=("only in the baseline, not compared: labels",),
    )


def test_the_verdict_comes_first(drifted):
    assert verdict(drifted) == "DRIFT: 343 of 515 streams moved, and embeddings/pool as a whole"
    assert drifted.to_text().startswith("DRIFT: 343 of 515 streams moved")
    clean = report_of(group("inputs", [numbers("inputs/brightness")], False))
    assert clean.to_text().startswith("NO DRIFT: 0 of 1 streams moved\n")


def test_what_moved_in_words_worst_first(drifted):
    lines = [line for line in drifted.to_text(200).splitlines() if line.startswith("  - ")]
    assert lines == [
        "  - embeddings/pool: 341 of 512 streams moved, worst KS: 0 (0.81), 1 (0.81), 2 (0.81), 3 (0.81), 4 (0.81)",
        "  - inputs/brightness fell: median 131 -> 71 (KS 0.62, p <1e-16)",
        "  - embeddings/pool moved as a whole: effect 0.40, MMD 0.210 (0.34 sd), p 1e-09 (gamma)",
        "  - outputs/top_class 3 rose from 10% to 31% of rows; 7 fell from 12% to 2% of rows "
        "(share moved 0.21, p 2e-05)",
    ]


def test_a_layer_is_summed_up_and_not_listed(drifted):
    text = drifted.to_text()
    assert "embeddings/pool: 341 of 512 streams moved (200 rows)" in text
    assert "rows as vectors: effect 0.40, MMD 0.210 (0.34 sd), p 1e-09 (gamma)" in text
    assert len(text.splitlines()) < 35


def test_tables_mark_what_moved(drifted):
    text = drifted.to_text()
    row = next(line for line in text.splitlines() if line.startswith("* brightness"))
    assert " ".join(row.split()) == "* brightness 131 (40 to 211) 71 (22 to 118) 0.62 0.10 0.01 <1e-16"
    assert "  height" in text
    assert "inputs: 1 of 2 streams moved (200 rows, 3 more were not finite)" in text
    assert "3: 10%" in text


def test_names_that_are_cut_are_still_told_apart():
    labels = [replace(numbers(f"outputs/probability/{i}"), label="a long name of a label") for i in (3, 117)]
    text = report_of(group("outputs", labels)).to_text(60)
    assert [line.split()[0] for line in text.splitlines() if line.startswith("  probab")] == [
        "probabil../3",
        "probab../117",
    ]


def test_notes_and_conditions(drifted):
    text = drifted.to_text(200)
    assert "note: only in the baseline, not compared: labels" in text
    assert "  note: only on one side, not compared: softmax/9" in text
    assert "200 rows of production against 2,000 of validation" in text
    assert "0.01 for the whole report (4 families of tests, an equal share each)" in text


def test_a_long_list_of_findings_is_cut():
    streams = [numbers(f"inputs/{i}", True, 0.9 - i / 100, 1e-9) for i in range(30)]
    text = report_of(group("inputs", streams)).to_text()
    assert sum(line.startswith("  - ") for line in text.splitlines()) == 10
    assert "... and 20 more, below" in text
    assert sum(line.startswith("* ") for line in text.splitlines()) == 30


@pytest.mark.parametrize("width", [60, 72, 100, 140])
def test_no_line_is_wider_than_the_width(drifted, width):
    long = numbers("inputs/" + "a_very_long_name_of_a_measure" * 3, True, 0.5, 1e-9)
    for report in (drifted, report_of(group("inputs", [long]), notes=("word " * 60,))):
        lines = report.to_text(width).splitlines()
        assert max(map(len, lines)) <= width
        assert lines == [line.rstrip() for line in lines]
    assert report_of(group("inputs", [long])).to_text(1) == report_of(group("inputs", [long])).to_text(60)


def test_ascii_only(drifted):
    assert render(drifted, 100).isascii()


def test_an_empty_report():
    assert report_of().to_text().startswith("NO DRIFT: 0 of 0 streams moved")


# -- words


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ((40, 131, 211), (22, 71, 118), "fell: median 131 -> 71"),
        ((0.1, 0.2, 0.3), (0.3, 0.45, 0.7), "rose: median 0.200 -> 0.450"),
        ((40, 131, 211), (100, 131, 160), "narrowed: middle 90% 40 to 211 -> 100 to 160"),
        ((-1, 0, 1), (-3, 0, 3), "widened: middle 90% -1 to 1 -> -3 to 3"),
        ((0, 50, 100), (0, 55, 100), "changed shape: middle 90% 0 to 100 -> 0 to 100, median 50 -> 55"),
        ((224, 224, 224), (128, 128, 128), "fell: median 224 -> 128"),
        ((224, 224, 224), (200, 224, 250), "widened: middle 90% 224 to 224 -> 200 to 250"),
        ((5, 5, 5), (5, 5, 5), "as before: median 5"),
        ((math.nan,) * 3, (1, 2, 3), "no values to compare"),
    ],
)
def test_describing_numbers(before, after, words):
    assert describe_quantiles(before, after) == words


def test_describing_rows_left_out():
    stream = StreamDrift("a/invalid", "invalid", "", True, 0.4, 0.0, 0.0, shares=(("not finite", 0.0, 0.4),))
    assert describe_stream(stream) == "rows with a value that is not finite rose from 0% to 40% of rows"


@settings(max_examples=100, deadline=None)
@given(st.lists(FLOATS, min_size=3, max_size=3), st.lists(FLOATS, min_size=3, max_size=3))
def test_any_numbers_can_be_described(before, after):
    before, after = sorted(before), sorted(after)
    words = describe_quantiles(before, after)
    assert words.split(":")[0] in {"rose", "fell", "widened", "narrowed", "changed shape", "as before"}
    assert "nan" not in words
    assert (words.startswith("rose")) <= (after[1] > before[1])
    assert (words.startswith("fell")) <= (after[1] < before[1])


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [(131.2, 0, "131"), (-0.004, 2, "0.00"), (-1.5, 1, "-1.5"), (1e9, 0, "1e+09"), (math.nan, 3, "-"), (0.0, 0, "0")],
)
def test_numbers(value, decimals, text):
    assert number(value, decimals) == text


@pytest.mark.parametrize(
    ("values", "decimals"),
    [((0, 255), 0), ((0, 1), 0), ((0.0, 0.98), 3), ((3, 3.02), 4), ((7, 7), 0), ((0.25, 0.25), 3)],
)
def test_decimals(values, decimals):
    assert decimals_for(*values) == decimals


def test_p_values_and_shares():
    assert [p_text(p) for p in (1.0, 0.05, 0.00123, 4.4e-5, 1e-17, 0.0)] == [
        "1",
        "0.05",
        "0.0012",
        "4e-05",
        "<1e-16",
        "<1e-16",
    ]
    assert [percent(share) for share in (1.0, 0.1, 0.0999, 0.005, 0.0)] == ["100%", "10%", "10%", "0.5%", "0%"]


SHARES = st.floats(0, 1)
NEAR = st.floats(-1e-3, 1e-3)


def claims_agree(words):
    """The direction that words claim is that of the numbers beside them; equal numbers claim none."""
    for claim, before, after in re.findall(r"(rose|fell) from ([^ ]+)% to ([^ ]+)% of rows", words):
        assert np.sign(float(after) - float(before)) == (1 if claim == "rose" else -1), words
    for claim, before, after in re.findall(r"(rose|fell): median ([^ ]+) -> ([^ ;(]+)", words):
        one, two = (float(text.replace(",", "")) for text in (before, after))
        assert np.sign(two - one) == (1 if claim == "rose" else -1), words
    for claim, *ends in re.findall(r"(widened|narrowed): middle 90% ([^ ]+) to ([^ ]+) -> ([^ ]+) to ([^ ;(]+)", words):
        low, high, low2, high2 = (float(text.replace(",", "")) for text in ends)
        assert np.sign((high2 - low2) - (high - low)) == (1 if claim == "widened" else -1), words


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from("abc"), SHARES, SHARES | NEAR), min_size=1, max_size=5))
def test_words_of_shares_agree_with_the_numbers(shares):
    close = [
        (name, before, min(max(before + after, 0.0), 1.0) if after < 1e-3 else after) for name, before, after in shares
    ]
    for kind in ("categories", "invalid"):
        words = describe_stream(StreamDrift("labels", kind, "", True, 0.2, 0, 0, shares=tuple(close)))
        claims_agree(words)
        for before, after in re.findall(r"from ([^ ]+%) to ([^ ]+%) of rows", words):
            assert before != after


@settings(deadline=None, derandomize=True)
@given(
    st.tuples(*[st.floats(-1e15, 1e15)] * 3).map(sorted),
    st.tuples(*[st.floats(-1e15, 1e15)] * 3).map(sorted),
    st.sampled_from([1e-15, 1e-9, 1e-3, 1.0]),
    st.booleans(),
)
def test_words_of_quantiles_agree_with_the_numbers(before, after, scale, near):
    before = [value * scale for value in before]
    after = [value * scale for value in after]
    if near:
        after = [one * (1 + two * 1e-17) for one, two in zip(before, after, strict=True)]
    claims_agree(describe_quantiles(before, sorted(after)))


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ((1e7, 2e7, 3e7), (1e7 + 3e6, 2e7 + 3e6, 3e7 + 3e6), "rose: median 2e+07 -> 2.3e+07"),
        ((1e12, 1e12 + 1, 1e12 + 2), (1e12 + 1, 1e12 + 2, 1e12 + 3), "rose: median 1000000000001 -> 1000000000002"),
        ((1e-9, 2e-9, 3e-9), (1e-9, 5e-9, 6e-9), "rose: median 2e-09 -> 5e-09"),
        ((40, 131, 211), (40.01, 131.01, 211.01), "changed shape: median 131 and middle 90% 40 to 211 as before"),
    ],
)
def test_numbers_get_the_figures_that_their_words_need(before, after, words):
    assert describe_quantiles(before, after) == words


def test_what_did_not_change_is_not_said_to_have():
    before, after = Profiler(), Profiler()
    before.update(labels=["Canon", "Nikon"] * 40)
    after.update(labels=["Canon", "Apple"] * 40)
    report = compare(before.profile(), after.profile())
    assert report.moved[0].words == "Apple rose from 0% to 50% of rows; Nikon fell from 50% to 0% of rows"
    assert "Canon" not in report.to_text()
    still = StreamDrift("labels", "categories", "", False, 0.0, 1, 1, shares=(("Canon", 0.5, 0.5),))
    assert still.words == "Canon stayed at 50% of rows"
