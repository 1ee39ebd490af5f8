"""Numbers and phrases: what a person reads must not say something else than the number."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensai_integrations.report.words import count, interval, listing, number, percent, significant_decimals

FINITE = st.floats(-1e12, 1e12)


def parsed(text: str) -> float:
    return float(text.replace("\N{MINUS SIGN}", "-").replace(",", ""))


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (0.0, None, "0"),
        (-0.0, None, "0"),
        (1234567.0, None, "1,234,567"),
        (12345.6, 1, "12,345.6"),
        (0.000123, None, "0.00012"),
        (0.0000123, None, "1.2e\N{MINUS SIGN}5"),
        (3.2e12, None, "3.2e12"),
        (-5.25, None, "\N{MINUS SIGN}5.25"),
        (-0.001, 1, "0.0"),
        (2.0, None, "2"),
        (2.0, 2, "2.00"),
        (100.0, 0, "100"),
        (0.999999, None, "1"),
        (math.nan, None, "\N{EN DASH}"),
        (math.inf, None, "∞"),
        (-math.inf, 2, "\N{MINUS SIGN}∞"),
    ],
)
def test_number(value: float, decimals: int | None, text: str) -> None:
    assert number(value, decimals) == text


@given(FINITE)
def test_a_number_reads_back_as_itself_to_two_figures(value: float) -> None:
    assert parsed(number(value)) == pytest.approx(value, rel=0.051, abs=1e-300)


@given(FINITE, st.integers(0, 4))
def test_decimals_are_kept(value: float, decimals: int) -> None:
    if abs(value) < 1e7:
        text = number(value, decimals)
        assert abs(parsed(text) - value) <= 0.5001 * 10**-decimals
        assert len(text.partition(".")[2]) == decimals


@given(st.floats(1e-3, 1e6))
def test_decimals_show_a_spread_to_three_figures_or_to_the_unit(spread: float) -> None:
    step = 10.0 ** -significant_decimals(spread)
    assert step <= max(spread / 10, 1.0)
    assert step >= min(spread / 10_000, 1e-4)


@pytest.mark.parametrize("spread", [0.0, -1.0, math.nan, math.inf])
def test_no_spread_has_no_decimals(spread: float) -> None:
    assert significant_decimals(spread) == 0


def test_interval() -> None:
    assert interval(1.0, 2.5) == "1 \N{EN DASH} 2.5"
    assert interval(0.001, 0.002, 1) == "0.0"
    assert interval(-3.0, -1.0, 0) == "\N{MINUS SIGN}3 \N{EN DASH} \N{MINUS SIGN}1"


@pytest.mark.parametrize(
    ("amount", "words", "text"),
    [
        (0, ("row",), "0 rows"),
        (1, ("row",), "1 row"),
        (12000, ("training image",), "12,000 training images"),
        (1, ("class", "classes"), "1 class"),
        (3, ("class", "classes"), "3 classes"),
        (1234, (), "1,234"),
    ],
)
def test_count(amount: int, words: tuple[str, ...], text: str) -> None:
    assert count(amount, *words) == text


@given(st.floats(0, 1))
def test_percent_is_never_a_false_zero_or_hundred(fraction: float) -> None:
    text = percent(fraction)
    assert (text == "0%") == (fraction == 0)
    assert (text == "100%") == (100 * fraction == 100)
    assert abs(float(text.strip("<>%")) - 100 * fraction) <= 0.1001


def test_percent_of_nothing() -> None:
    assert percent(math.nan) == "\N{EN DASH}"


@given(st.lists(st.text("abc", min_size=1), max_size=20), st.integers(1, 10))
def test_listing_counts_what_it_leaves_out(words: list[str], most: int) -> None:
    text = listing(words, most)
    if len(words) > most:
        assert text.endswith(f" and {len(words) - most} more")
    assert all(word in text for word in words[:most])
    assert (text == "") == (words == [])
