"""Folders that can be trusted or are refused: round trips to the byte, and every way a folder can be wrong."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import itertools
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lensai_integrations.errors import FormatError, InputError, LensAIError
from lensai_integrations.storage import folders, npz
from lensai_integrations.storage.folders import ARRAYS, MANIFEST, files_of, read_files, read_folder, write_folder
from lensai_integrations.storage.npz import pack, unpack

DTYPES = st.sampled_from([np.float32, np.float64, np.int64, np.int32, np.uint8, np.bool_])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path / "saved", {"kind": "test"}, {"a/b": np.arange(6.0).reshape(2, 3)}, {"streams.csv": "x,y\n"})
    return tmp_path / "saved"


def test_what_was_read_can_be_written_again(folder: Path, tmp_path: Path) -> None:
    """What a manifest says of its own folder is said anew."""
    manifest, arrays = read_folder(folder)
    write_folder(tmp_path / "again", manifest | {"format_version": 1}, arrays, {"streams.csv": "x,y\n"})
    assert read_files(tmp_path / "again") == read_files(folder)


def edit(folder: Path, **changes: Any) -> None:
    """Change a manifest as somebody does who knows the format: its digest is right."""
    manifest = json.loads((folder / MANIFEST).read_text()) | changes
    del manifest["sha256"]
    (folder / MANIFEST).write_bytes(folders._sealed(json.dumps(manifest, indent=1).encode()))


def test_what_was_written_is_read(folder: Path) -> None:
    manifest, loaded = read_folder(folder)
    assert manifest["kind"] == "test"
    assert loaded.keys() == {"a/b"}
    np.testing.assert_array_equal(loaded["a/b"], np.arange(6.0).reshape(2, 3))
    assert sorted(p.name for p in folder.iterdir()) == [MANIFEST, ARRAYS, "streams.csv"]


@given(arrays.arrays(DTYPES, arrays.array_shapes(min_dims=0, min_side=0)))
def test_any_plain_array_survives_to_the_bit(array: np.ndarray[Any, Any]) -> None:
    loaded = unpack(pack({"x": array}))["x"]
    assert loaded.dtype == array.dtype
    assert loaded.shape == array.shape
    assert loaded.tobytes() == array.tobytes()


def test_fortran_order_survives() -> None:
    array = np.asfortranarray(np.arange(12).reshape(3, 4))
    np.testing.assert_array_equal(unpack(pack({"x": array}))["x"], array)


def test_the_same_arrays_give_the_same_bytes() -> None:
    one = pack({"a": np.arange(3), "b": np.zeros(2)})
    assert one == pack({"b": np.zeros(2), "a": np.arange(3)})


def test_numpy_itself_can_open_it(folder: Path) -> None:
    with np.load(folder / ARRAYS, allow_pickle=False) as opened:
        np.testing.assert_array_equal(opened["a/b"], np.arange(6.0).reshape(2, 3))


def test_writing_again_replaces(folder: Path) -> None:
    write_folder(folder, {"kind": "new"}, {"c": np.zeros(1)}, {})
    manifest, loaded = read_folder(folder)
    assert (manifest["kind"], list(loaded)) == ("new", ["c"])


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(InputError, match="is a file; pass a folder"):
        write_folder(tmp_path / "f", {}, {}, {})


@pytest.mark.parametrize("name", [MANIFEST, ARRAYS, "streams.csv"])
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(FormatError, match=name):
        read_folder(folder)


@pytest.mark.parametrize("name", [ARRAYS, "streams.csv"])
def test_a_truncated_file_is_refused(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1])
    with pytest.raises(FormatError, match="truncated or replaced"):
        read_folder(folder)


@pytest.mark.parametrize("name", [ARRAYS, "streams.csv"])
def test_a_changed_byte_is_refused(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(FormatError, match="sha256"):
        read_folder(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "not a manifest of this format"),
        ({"format_version": 4}, "upgrade lensai-integrations"),
        ({"format_version": 1}, "format_version 1 and a sha256"),
        ({"files": None}, "lists no profile.npz"),
        ({"files": {ARRAYS: {}}}, "truncated or replaced"),
        ({"files": {ARRAYS: None}}, "unsafe name"),
        ({"files": {ARRAYS: {}, "../secret": {}}}, "profile.npz|unsafe name"),
    ],
)
def test_a_wrong_manifest_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit(folder, **changes)
    with pytest.raises(FormatError, match=message):
        read_folder(folder)


@pytest.mark.parametrize("name", ["../secret", "a/b", "/etc/passwd", "..", ".hidden", "", "a\\b", "a b"])
def test_names_that_leave_the_folder_are_refused(folder: Path, name: str) -> None:
    files = json.loads((folder / MANIFEST).read_text())["files"]
    edit(folder, files={name: files[ARRAYS], **files})
    with pytest.raises(FormatError, match="unsafe name"):
        read_folder(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_manifest_that_is_no_manifest_is_refused(folder: Path, content: bytes) -> None:
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(FormatError):
        read_folder(folder)


def test_a_huge_manifest_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MAX_MANIFEST_BYTES", 10)
    with pytest.raises(FormatError, match="more than the 10"):
        read_folder(folder)


def test_a_zip_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    blob = pack({"x": np.zeros(100_000)})
    assert len(blob) < 2_000
    monkeypatch.setattr(npz, "MAX_ARRAYS_BYTES", 10_000)
    with pytest.raises(FormatError, match="unpack to"):
        unpack(blob)


def member(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.npy", content)
    return buffer.getvalue()


def npy(array: np.ndarray[Any, Any], *, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def test_a_pickle_is_never_loaded() -> None:
    with pytest.raises(FormatError, match="only plain numbers"):
        unpack(member(npy(np.array([{"a": 1}], dtype=object), allow_pickle=True)))


def test_strings_are_refused() -> None:
    with pytest.raises(FormatError, match="only plain numbers"):
        unpack(member(npy(np.array(["a"]))))


def test_a_header_that_claims_terabytes_allocates_nothing() -> None:
    honest = npy(np.zeros(4))
    lying = honest.replace(b"(4,), }" + b" " * 9, b"(9999999999,), }")
    assert lying != honest
    with pytest.raises(FormatError, match="says shape"):
        unpack(member(lying))


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x02\x00{}", b"no array at all"])
def test_a_member_that_is_no_array_is_refused(content: bytes) -> None:
    with pytest.raises(FormatError):
        unpack(member(content))


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_flipped_byte_never_crashes(position: int, change: int) -> None:
    blob = bytearray(pack({"x": np.arange(50.0), "y": np.arange(3)}))
    blob[position % len(blob)] ^= change
    with contextlib.suppress(LensAIError):  # refused, which is as good as read
        unpack(bytes(blob))


def test_every_truncation_is_refused() -> None:
    blob = pack({"x": np.arange(5.0)})
    for length in range(len(blob)):
        with pytest.raises(FormatError):
            unpack(blob[:length])


@pytest.mark.parametrize("name", [ARRAYS, MANIFEST])
def test_a_full_disk_leaves_what_was_there(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(path: Path, content: bytes, **_: Any) -> None:
        if name in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        path.write_bytes(content)

    monkeypatch.setattr(folders, "write_file", full)
    with pytest.raises(OSError, match="No space left"):
        write_folder(folder, {"kind": "new"}, {"a": np.zeros(2)}, {})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_no_partial_files_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folders.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_folder(folder, {}, {"a": np.zeros(2)}, {})
    assert not [path for path in folder.iterdir() if "partial" in path.name]


@pytest.fixture
def stale(tmp_path: Path) -> Path:
    """A folder that an older save has written, and something of the user's beside it."""
    write_folder(tmp_path / "a", {}, {"x": np.zeros(1)}, {"streams.csv": "old", "segments.csv": "old"})
    (tmp_path / "a" / "notes.txt").write_text("mine")
    return tmp_path / "a"


NOW = {"streams.csv": "new"}


def test_what_an_older_save_has_and_this_one_does_not_is_removed(stale: Path) -> None:
    write_folder(stale, {}, {"x": np.ones(1)}, NOW)
    assert {path.name for path in stale.iterdir()} == {"manifest.json", "profile.npz", "streams.csv", "notes.txt"}
    assert (stale / "notes.txt").read_text() == "mine"
    assert read_folder(stale)[1]["x"] == 1


def test_what_an_interrupted_save_has_left_is_removed(stale: Path) -> None:
    (stale / "manifest.json").unlink()
    write_folder(stale, {}, {"x": np.ones(1)}, NOW)
    assert not (stale / "segments.csv").exists()
    (stale / "segments.csv").write_text("left")
    (stale / "manifest.json").write_text("{")
    write_folder(stale, {}, {"x": np.ones(1)}, NOW)
    assert not (stale / "segments.csv").exists()


def test_files_of_the_user_that_are_called_as_ours_stay(tmp_path: Path) -> None:
    (tmp_path / "segments.csv").write_text("mine")
    write_folder(tmp_path, {}, {"x": np.zeros(1)}, NOW)
    (tmp_path / "report.html").write_text("mine")
    write_folder(tmp_path, {}, {"x": np.ones(1)}, NOW)
    assert [(tmp_path / name).read_text() for name in ("segments.csv", "report.html")] == ["mine", "mine"]


def steps_of_a_save(folder: Path, step: int, monkeypatch: pytest.MonkeyPatch, arrays: Any) -> bool:
    """Save, and at a step be killed: nothing after it is done. Whether there were so many steps."""
    done = itertools.count()

    def killed(real: Any) -> Any:
        def call(*arguments: Any, **settings: Any) -> Any:
            if next(done) >= step:
                raise KeyboardInterrupt
            return real(*arguments, **settings)

        return call

    with monkeypatch.context() as patch:
        for name in ("open", "write", "replace", "unlink", "fsync"):
            patch.setattr(os, name, killed(getattr(os, name)))
        try:
            write_folder(folder, {}, arrays, NOW)
        except KeyboardInterrupt:
            return True
    return False


def test_a_save_that_is_killed_at_any_step_leaves_the_older_one_or_the_newer(
    stale: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for step in itertools.count():
        folder = shutil.copytree(stale, tmp_path / str(step))
        was_killed = steps_of_a_save(folder, step, monkeypatch, {"x": np.ones(1)})
        files = read_files(folder)
        seen.append(int(read_folder(folder)[1]["x"][0]))
        assert files["streams.csv"] == (b"new" if seen[-1] else b"old")
        assert ("segments.csv" in files) == (not seen[-1])
        later = {"x": np.full(1, 2)} if step % 2 else {"x": np.ones(1), "y": np.zeros(3)}
        write_folder(folder, {}, later, NOW)  # whatever was left
        assert {path.name for path in folder.iterdir()} == {MANIFEST, ARRAYS, "streams.csv", "notes.txt"}
        assert read_folder(folder)[1].keys() == later.keys()
        if not was_killed:
            break
    assert seen == sorted(seen)
    assert {*seen} == {0, 1}
    assert len(seen) > 15


def test_a_first_save_that_is_killed_leaves_none_or_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in itertools.count():
        folder = tmp_path / str(step)
        if not steps_of_a_save(folder, step, monkeypatch, {"x": np.ones(1)}):
            break
        with contextlib.suppress(FormatError):
            assert read_folder(folder)[1]["x"] == 1
    assert read_folder(folder)[1]["x"] == 1


def test_a_killed_save_is_finished_before_the_next_is_made(
    stale: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often processes are killed there, the folder holds one of their saves."""
    held = 0
    for step in range(60):
        steps_of_a_save(stale, step % 31, monkeypatch, {"x": np.full(1, step + 1)})
        found = int(read_folder(stale)[1]["x"][0])
        assert found >= held
        held = found
    assert held > 10


def test_a_made_save_that_was_damaged_is_not_given_names(stale: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = next(n for n in itertools.count() if _made(stale, n, monkeypatch))
    assert step
    (stale / f".{ARRAYS}.next").write_bytes(b"damaged")
    assert read_folder(stale)[1]["x"] == 0
    monkeypatch.setattr(folders, "write_file", _full)
    with pytest.raises(OSError, match="full"):
        write_folder(stale, {}, {"x": np.ones(1)}, NOW)
    assert read_folder(stale)[1]["x"] == 0
    assert not list(stale.glob(".*"))


def _made(folder: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    steps_of_a_save(folder, step, monkeypatch, {"x": np.ones(1)})
    return (folder / f".{MANIFEST}.next").exists()


def _full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "full")


def test_every_single_bit_flip_of_a_manifest_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, {"kind": "test", "info": {"é": [1.5, None]}}, {"x": np.zeros(1)}, {})
    content = (tmp_path / MANIFEST).read_bytes()
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            folders._parsed(bytes(flipped), tmp_path)
        if bit % 100 == 0:
            (tmp_path / MANIFEST).write_bytes(flipped)
            with pytest.raises(FormatError):
                read_folder(tmp_path)
    assert folders._parsed(content, tmp_path)["kind"] == "test"


@pytest.mark.parametrize("change", [b" ", b"\n", b"\t"])
def test_whitespace_in_a_manifest_is_a_change(folder: Path, change: bytes) -> None:
    content = (folder / MANIFEST).read_bytes()
    for changed in (content + change, change + content, content.replace(b",", b"," + change, 1)):
        (folder / MANIFEST).write_bytes(changed)
        with pytest.raises(FormatError, match="changed after it was written"):
            read_folder(folder)


def test_a_manifest_of_the_first_version_has_no_digest(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text()) | {"format_version": 1}
    del manifest["sha256"]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert read_folder(folder)[0] == manifest
    (folder / MANIFEST).write_text(json.dumps(manifest | {"format_version": 2}))
    with pytest.raises(FormatError, match="format_version 2 and no sha256"):
        read_folder(folder)
    (folder / MANIFEST).write_text(json.dumps(manifest | {"sha256": "0" * 64}))
    with pytest.raises(FormatError, match="format_version 1 and no sha256 of itself at its end: changed"):
        read_folder(folder)


def test_a_manifest_that_could_not_be_read_again_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MAX_MANIFEST_BYTES", 300)
    with pytest.raises(InputError, match="profile fewer streams"):
        files_of({"kind": "x" * 300}, {}, {})


def test_a_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(InputError, match=r"report\.html has something in it that cannot be written as UTF-8"):
        files_of({}, {}, {"report.html": "\ud800"})


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="the system has no links")
def test_links_that_somebody_put_there_are_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "saved").mkdir()
    for name in (ARRAYS, MANIFEST, "streams.csv"):
        (tmp_path / "saved" / f".{name}.next").symlink_to(tmp_path / "mine")
        (tmp_path / "saved" / name).symlink_to(tmp_path / "mine")
    write_folder(tmp_path / "saved", {}, {"x": np.zeros(1)}, NOW)
    assert (tmp_path / "mine").read_text() == "mine"
    assert read_folder(tmp_path / "saved")[1]["x"] == 0


def test_a_pipe_that_takes_the_place_of_a_file_keeps_nobody_waiting(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ARRAYS).unlink()
    os.mkfifo(folder / ARRAYS)
    with pytest.raises(FormatError, match="missing"):
        read_folder(folder)
    monkeypatch.setattr(Path, "is_file", lambda path: True)  # it was one when it was looked at
    with pytest.raises(OSError, match="no regular file"):
        read_folder(folder)


def test_many_files_of_nothing_are_not_all_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MAX_FOLDER_BYTES", (folder / ARRAYS).stat().st_size + 1000)
    entry = {"bytes": 600, "sha256": hashlib.sha256(bytes(600)).hexdigest()}
    files = json.loads((folder / MANIFEST).read_text())["files"]
    for name in ("a", "b"):
        (folder / name).write_bytes(bytes(600))
        edit(folder, files={**files, "a": entry} if name == "a" else {**files, "a": entry, "b": entry})
        with pytest.raises(FormatError, match="b has 600 bytes") if name == "b" else contextlib.nullcontext():
            read_files(folder)
