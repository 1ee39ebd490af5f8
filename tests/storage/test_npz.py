"""Arrays in npz bytes: whatever they are, reading them costs what they cost, and gives numbers or a `FormatError`."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.storage import npz
from lensai_integrations.storage.npz import pack, unpack

MEBI = 2**20
GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }\n"


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def npy(header: str, data: bytes = b"\0\0\0\0") -> bytes:
    text = header.encode("latin1")
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def shaped(shape: str, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"


HEADERS = {
    "parentheses": "(" * 9000,
    "signs": "-" * 9000 + "1",
    "braces": "{'a':" * 500,
    "unbalanced": "{'descr': '<f4', 'fortran_order': False, 'shape': (1L,",
    "an endless number": shaped(f"({'9' * 5000},)"),
    "negative": shaped("(-1, -1)"),
    "a text as an extent": shaped("('a',)"),
    "a truth value as an extent": shaped("(True,)"),
    "fields": shaped("(1,)", "[('a', '<f4')]"),
    "void": shaped("(1,)", "'|V4'"),
    "objects": shaped("(1,)", "'|O'"),
    "texts": shaped("(1,)", "'<U1'"),
    "complex": shaped("(1,)", "'<c8'"),
    "big-endian": shaped("(1,)", "'>f4'"),
    "integers of no size": shaped("(1,)", "'<f1'"),
    "100 dimensions": shaped(f"({', '.join('1' * 100)})"),
    "nothing of a lot": shaped(f"(0, {2**33})"),
    "nothing of too much": shaped(f"(0, {2**62})"),
    "too little": shaped("(2,)"),
    "too much": shaped("()", "'<f8'").replace("()", "(0,)"),
    "an expression": "1+2j",
    "bytes": "b'x'",
    "another key": GOOD.replace("}", "'x': 1, }"),
    "something after it": GOOD + "#",
    "without an end": GOOD[:-1],
    "too long": GOOD[:-1] + " " * 2000 + "\n",
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_header_that_numpy_would_not_write_is_refused(header: str) -> None:
    assert unpack(zipped({"x.npy": npy(GOOD)}))["x"].tolist() == [0]
    with pytest.raises(FormatError, match=r"profile\.npz: 'x\.npy' "):
        unpack(zipped({"x.npy": npy(header)}))


@given(st.binary(max_size=200))
def test_any_header_is_read_or_refused(header: bytes) -> None:
    with pytest.raises(FormatError):
        unpack(zipped({"x.npy": b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header}))


@pytest.mark.parametrize("value", [2, 255])
def test_truth_values_are_0_or_1(value: int) -> None:
    with pytest.raises(FormatError, match="truth values"):
        unpack(zipped({"x.npy": npy(shaped("(4,)", "'|b1'"), bytes([0, 1, value, 0]))}))


def bomb(megabytes: int) -> bytes:
    """A valid array of zeros, a thousandth of its size when packed."""
    buffer = io.BytesIO()
    header = npy(shaped(f"({megabytes * MEBI // 4},)"), b"")
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
        member.write(header)
        for _ in range(megabytes):
            member.write(bytes(MEBI))
    return buffer.getvalue()


def peak_of(call: Any, *arguments: Any) -> tuple[Any, int]:
    tracemalloc.start()
    try:
        return call(*arguments), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(blob: bytes) -> str:
    with pytest.raises(FormatError) as caught:
        unpack(blob)
    return str(caught.value)


def test_a_bomb_is_refused_before_anything_is_unpacked() -> None:
    blob = bomb(100)
    assert len(blob) < MEBI / 8
    message, peak = peak_of(refused, blob)
    assert "more than" in message
    assert peak < MEBI


def test_a_bomb_that_lies_about_its_size_is_refused() -> None:
    """The directory says what the local header says, and less than there is."""
    blob, size = bomb(2), 2 * MEBI + len(npy(shaped(f"({MEBI // 2},)"), b""))
    lying = blob.replace(size.to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    assert lying.count((1000).to_bytes(4, "little")) == 2
    message, peak = peak_of(refused, lying)
    assert "x.npy" in message
    assert peak < MEBI


def test_what_pack_writes_is_read_however_empty_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = {"x": np.zeros(100_000)}
    packed = pack(zeros)
    monkeypatch.setattr(npz, "FREE_BYTES", 10_000)
    with pytest.raises(FormatError, match="more than"):
        unpack(packed)
    assert unpack(pack(zeros))["x"].shape == (100_000,)


@pytest.mark.parametrize(("limit", "value"), [("MAX_ARRAYS_BYTES", 10_000), ("MAX_FILE_BYTES", 100), ("MAX_ARRAYS", 2)])
def test_what_would_be_refused_is_not_written(limit: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {name: np.random.default_rng(0).random(1000) for name in "abc"}
    blob = pack(arrays)
    monkeypatch.setattr(npz, limit, value)
    with pytest.raises(InputError, match="read again"):
        pack(arrays)
    with pytest.raises(FormatError):
        unpack(blob)


def test_arrays_are_unpacked_into_their_own_memory_and_nowhere_else() -> None:
    arrays = {"x": np.random.default_rng(0).random(4 * MEBI // 8), "y": np.ones(4 * MEBI // 8)}
    blob = pack(arrays)
    loaded, peak = peak_of(unpack, blob)
    assert peak < sum(array.nbytes for array in loaded.values()) + 2 * MEBI
    assert all(array.flags.writeable for array in loaded.values())


def test_two_arrays_of_one_name_are_refused() -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        blob = doubled()
    assert "same name" in refused(blob)


def doubled() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.npy", npy(GOOD))
        archive.writestr("x.npy", npy(GOOD))
    return buffer.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_are_refused(method: int) -> None:
    assert "another method" in refused(zipped({"x.npy": npy(GOOD)}, method))


def test_encrypted_members_are_refused() -> None:
    blob = bytearray(zipped({"x.npy": npy(GOOD)}, zipfile.ZIP_STORED))
    blob[6] |= 1
    blob[blob.index(b"PK\x01\x02") + 8] |= 1
    assert "encrypted" in refused(bytes(blob))


def test_other_files_in_it_are_refused() -> None:
    assert "no array" in refused(zipped({"x.npy": npy(GOOD), "x.pkl": b"cos\nsystem\n"}))


def test_members_within_members_are_refused() -> None:
    """One member's local header lies in the content of another: the same bytes would be unpacked twice."""
    inner = zipped({"y.npy": npy(GOOD)}, zipfile.ZIP_STORED)
    local, entry = inner[: inner.index(b"PK\x01\x02")], inner[inner.index(b"PK\x01\x02") : inner.index(b"PK\x05\x06")]
    outer = zipped({"x.npy": npy(shaped(f"({len(local)},)", "'|u1'"), local)}, zipfile.ZIP_STORED)
    assert unpack(outer)["x"].tobytes() == local
    offset = outer.index(local)
    entry = entry[:42] + offset.to_bytes(4, "little") + entry[46:]
    start, end = outer.index(b"PK\x01\x02"), bytearray(outer[outer.index(b"PK\x05\x06") :])
    directory = outer[start : outer.index(b"PK\x05\x06")] + entry
    end[8:10] = end[10:12] = (2).to_bytes(2, "little")
    end[12:16] = len(directory).to_bytes(4, "little")
    assert "within another" in refused(outer[:start] + directory + bytes(end))


def test_every_single_bit_flip_is_refused_or_changes_nothing() -> None:
    arrays = {"a": np.arange(6, dtype=np.int16).reshape(2, 3), "b/c": np.array(1.5), "d": np.zeros(0, np.float32)}
    blob = pack(arrays)
    read = 0
    for bit in range(8 * len(blob)):
        flipped = bytearray(blob)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            loaded = unpack(bytes(flipped))
        except FormatError:
            continue
        read += 1
        assert loaded.keys() == arrays.keys(), bit
        assert all(np.array_equal(loaded[name], array) for name, array in arrays.items()), bit
    assert read < 4 * len(blob)  # dates, attributes and the like, which say nothing of the arrays


@given(
    n=st.integers(2**15 + 1, 2**17),
    values=st.integers(1, 2**16),
    columns=st.sampled_from([1, 3]),
    fortran=st.booleans(),
)
@settings(deadline=None)
def test_large_arrays_are_compressed_where_that_saves_something(n, values, columns, fortran):
    numbers = np.random.default_rng(n).integers(0, values, (n, columns), dtype=np.uint16)
    arrays = {"a": np.asfortranarray(numbers) if fortran else numbers, "small": np.arange(9)}
    blob = pack(arrays)
    whole = len(zipped({"a": arrays["a"].tobytes(order="A")}))

    with zipfile.ZipFile(io.BytesIO(blob)) as archive:
        methods = {member.filename: member.compress_type for member in archive.infolist()}
    assert methods["small.npy"] == zipfile.ZIP_DEFLATED
    if whole < 0.7 * numbers.nbytes:
        assert methods["a.npy"] == zipfile.ZIP_DEFLATED
    if whole > 0.8 * numbers.nbytes:
        assert methods["a.npy"] == zipfile.ZIP_STORED
    assert blob == pack(arrays)
    np.testing.assert_array_equal(unpack(blob)["a"], numbers)


def test_what_begins_with_noise_and_goes_on_with_zeros_is_compressed():
    array = np.zeros(2**20, np.uint8)
    array[: 2**16] = np.random.default_rng(0).integers(0, 256, 2**16)

    assert len(pack({"a": array})) < 2**17
