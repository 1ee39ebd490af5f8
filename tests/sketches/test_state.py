"""A state is believed only after every array was checked."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lensai_integrations.errors import FormatError
from lensai_integrations.sketches.state import LARGEST_COUNT, field, number, require


def test_field_returns_a_copy_of_its_own():
    original = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    copy = field({"rows": original}, "rows", np.float32, (None, 3))
    copy[0, 0] = 9
    assert original[0, 0] == 0
    assert copy.flags.c_contiguous
    assert copy.flags.writeable


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "lacks the array 'rows'"),
        (None, "lacks the array 'rows'"),
        ({"rows": [[1.0]]}, "not list"),
        ({"rows": np.zeros((1, 1))}, "should be float32, not float64"),
        ({"rows": np.zeros((1, 1), ">f4")}, "should be float32, not >f4"),
        ({"rows": np.array([[None]])}, "not object"),
        ({"rows": np.zeros((1, 2), np.float32)}, "shape (None, 1), not (1, 2)"),
        ({"rows": np.zeros(1, np.float32)}, "shape (None, 1), not (1,)"),
    ],
)
def test_field_refuses_what_does_not_fit_and_says_why(state, message):
    with pytest.raises(FormatError, match=re.escape(message)):
        field(state, "rows", np.float32, (None, 1))


def test_number_is_an_int64_scalar_within_its_range():
    assert number({"n": np.array(7, np.int64)}, "n") == 7
    assert number({"n": np.array(LARGEST_COUNT, np.int64)}, "n") == LARGEST_COUNT


@pytest.mark.parametrize(
    "value",
    [np.array(-1), np.array(LARGEST_COUNT + 1), np.array(1.0), np.array([1]), np.array(True), np.array(1, np.int32), 1],
)
def test_number_refuses_anything_else(value):
    with pytest.raises(FormatError, match="n"):
        number({"n": value}, "n")


def test_require_raises_the_problem_it_is_given():
    require(True, "fine")
    with pytest.raises(FormatError, match="two and two"):
        require(2 + 2 == 5, "two and two")
