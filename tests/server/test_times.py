"""Times in words, for any number a device may send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensai_integrations.server.records import ago, duration, utc


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(59, "less than a minute"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (86399, "23 h"), (86400, "1 day")],
)
def test_a_duration_is_in_its_largest_whole_unit(seconds, text):
    assert duration(seconds) == text


@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(0, 2e9))
def test_any_number_has_words(moment, now):
    assert isinstance(utc(moment), str)
    assert ago(moment if moment == moment and abs(moment) < 1e15 else 0, now)
