"""What is written can be read, what is read can be written, and everything else is refused with its name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.storage.checked_json import MAX_DEPTH, MAX_VALUES, from_json, to_json

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
)


def nested(depth: int) -> Any:
    value: Any = 0
    for number in range(depth):
        value = [value] if number % 2 else {"a": value}
    return value


@given(VALUES, st.sampled_from([None, 1]))
def test_what_is_written_is_read(value: Any, indent: int | None) -> None:
    assert from_json(to_json(value, "it", indent), "it") == value


@given(st.binary())
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        value = from_json(content, "it")
    except FormatError:
        return
    assert from_json(to_json(value, "it"), "it") == value


@pytest.mark.parametrize(
    "content",
    [
        b'{"a": 1, "a": 1}',
        b'[{"a": {"b": 1, "b": 2}}]',
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e999",
        b'"\\ud800"',
        b'{"\\udfff": 1}',
        b'"\xed\xa0\x80"',
        b"\xff\xfe[\x00]\x00",
        b"9" * 5000,
        b"[" * 100_000,
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
        b"",
        b"{",
    ],
)
def test_what_could_not_be_written_again_is_refused(content: bytes) -> None:
    with pytest.raises(FormatError, match=r"^manifest\.json is not JSON that can be read: "):
        from_json(content, "manifest.json")


@pytest.mark.parametrize(
    "value",
    [float("nan"), [float("inf")], "\ud800", {"\udfff": 1}, object(), {1, 2}, 10**5000, nested(1000)],
    ids=lambda value: type(value).__name__,
)
def test_what_could_not_be_read_is_not_written(value: Any) -> None:
    with pytest.raises(InputError, match=r"^info is .*, which no file can hold: put texts"):
        to_json(value, "info")


def test_how_deep_values_may_lie() -> None:
    assert from_json(to_json(nested(MAX_DEPTH - 1), "it"), "it") == nested(MAX_DEPTH - 1)
    with pytest.raises(InputError, match="deep in one another"):
        to_json(nested(MAX_DEPTH), "it")


@pytest.mark.parametrize("value", [b"[]", b"0", b"{}"])
def test_few_bytes_cannot_take_gigabytes(value: bytes) -> None:
    content = b"[" + b",".join([value] * (MAX_VALUES + 1)) + b"]"
    with pytest.raises(FormatError, match="commas and brackets, more than the"):
        from_json(content, "it")


def test_more_values_than_are_read_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lensai_integrations.storage.checked_json.MAX_VALUES", 10)
    assert to_json([0] * 10, "it") == to_json(from_json(to_json([0] * 10, "it"), "it"), "it")
    with pytest.raises(InputError, match="commas and brackets"):
        to_json([0] * 11, "it")
