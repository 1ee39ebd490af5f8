"""What a receiver keeps of an upload: checked, by canonical names, merged exactly."""

from __future__ import annotations

import contextlib
import gzip
import io
import struct
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from datasketches import kll_floats_sketch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lensai_integrations import edge
from lensai_integrations.edge import uploads
from lensai_integrations.edge.layout import FOLDERS, canonical, place_of
from lensai_integrations.edge.members import ArchiveLimits, _Unzipped
from lensai_integrations.edge.reading import profile_of_files
from lensai_integrations.edge.uploads import merged, pack_sketches, read_upload, rows_of, unpack_sketches
from lensai_integrations.errors import FormatError
from lensai_integrations.measures.edge import NO_NOISE
from lensai_integrations.sketches import wire


def sketch_of(values, k=200) -> bytes:
    sketch = kll_floats_sketch(k)
    for value in values:
        sketch.update(float(value))
    return sketch.serialize()


#: Two files as LensAI's C++ profiler packs them, with libtar 1.2.20 and zlib.
DEVICE = Path(__file__).parent / "device.tar.gz"


def tarred(contents, mode="w:gz", **more) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=tarfile.GNU_FORMAT) as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size, member.type = len(content), more.get("type", tarfile.REGTYPE)
            member.linkname = more.get("linkname", "")
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def n_of(sketch: bytes) -> int:
    return kll_floats_sketch.deserialize(sketch).n


def test_names_of_all_releases_become_one():
    names = {
        "imagestats/noise.bin": "imgstats/noise.bin",
        "stats/imgstats/mean_1.bin": "imgstats/mean_1.bin",
        "imgstats/kll_snr-2.bin": "imgstats/kll_snr-2.bin",
        "kll/imagestats/kll_channel_pixels_0-3.bin": "imgstats/kll_channel_pixels_0-2.bin",
        "customstats/mean_2.bin": "imgstats/kll_channel_mean_2-2.bin",
        "customstats/own.bin": "custom/own.bin",
        "modelstats/net7.bin": "modelstats/net_7.bin",
        "samples/entropyconfidence.bin": "samples/entropyconfidence.bin",
        "a/b/c/trackingstats/track_iou.bin": "trackingstats/track_iou.bin",
    }
    assert set(read_upload(tarred(dict.fromkeys(names, sketch_of([1, 2])))).sketches) == set(names.values())


STEMS = st.text("ab_7-+. é", min_size=1, max_size=8) | st.sampled_from(
    ["mean_1", "kll_snr-2", "embeddings", "x_embedding"]
)


@settings(max_examples=60)
@given(st.sampled_from(sorted(FOLDERS)), STEMS)
@example("modelstats", "7")
@example("modelstats", "_embedding")
@example("modelstats", "all_embedding")
@example("modelstats", "net_cat")
@example("imgstats", "contrast")
@example("imgstats", "mean_007")
@example("customstats", "pixel_0")
def test_canonical_names_are_of_the_same_stream(folder, stem):
    place = place_of(folder, stem)
    if place is None:
        return
    name = Path(canonical(place))
    again = place_of(name.parent.name, name.name.removesuffix(".bin"))
    assert again == place
    assert canonical(again) == str(name)


def test_a_stream_that_comes_twice_is_read_once():
    upload = read_upload(tarred({"a/imgstats/noise.bin": sketch_of([1]), "b/imagestats/noise.bin": sketch_of([1, 2])}))
    assert {name: n_of(sketch) for name, sketch in upload.sketches.items()} == {"imgstats/noise.bin": 1}
    assert "another file of the upload is the same stream" in upload.problems[0]


def test_images_without_noise_are_as_in_baselines():
    upload = read_upload(tarred({"imgstats/noise.bin": sketch_of([np.inf, 3.0])}))
    sketch = wire.read(upload.sketches["imgstats/noise.bin"])
    assert (sketch.minimum, sketch.maximum, sketch.n) == (3.0, NO_NOISE, 2)


GOOD = {"imgstats/brightness.bin": sketch_of([1.0])}


@pytest.mark.parametrize(
    ("archive", "problem"),
    [
        (tarred({"../imgstats/noise.bin": sketch_of([1])} | GOOD), "its path leads out"),
        (tarred({"imgstats/noise.bin": b""} | GOOD), "empty"),
        (tarred({"imgstats/noise.bin": b"x" * 99} | GOOD), "not a readable KLL sketch"),
        (tarred({"imgstats/mean_0.bin": sketch_of([np.inf])} | GOOD), "infinite values"),
    ],
)
def test_what_is_left_out_is_named(archive, problem):
    upload = read_upload(archive)
    assert list(upload.sketches) == ["imgstats/brightness.bin"]
    assert problem in upload.problems[0]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_links_and_devices_are_not_followed(kind, tmp_path):
    archive = tarred({"imgstats/noise.bin": b""}, type=kind, linkname=str(tmp_path / "secret.bin"))
    with pytest.raises(FormatError, match="a link, device or other special member"):
        read_upload(archive)


def test_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    read_upload(tarred(GOOD))
    assert list(tmp_path.rglob("*")) == []


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, size: int | None = None) -> bytes:
    """A member of an archive, with any size in its header."""
    about = tarfile.TarInfo(name)
    about.size, about.type = len(content) if size is None else size, kind
    return about.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


END = bytes(1024)


def extended_sparse() -> bytes:
    """A sparse member whose list of holes goes on beyond the end of the archive."""
    block = bytearray(member("x", b"", tarfile.GNUTYPE_SPARSE))
    block[482], block[148:156] = 1, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + b"\1" * 512 * 2


CONTENT = {"imgstats/noise.bin": sketch_of(range(300)), "imgstats/a.txt": b"x" * 600, **GOOD}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_archive_that_was_cut_anywhere_is_refused(mode, format):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=format) as archive:
        for name, content in CONTENT.items():
            about = tarfile.TarInfo(name)
            about.size, about.mtime = len(content), 1.5  # PAX has a header for that
            archive.addfile(about, io.BytesIO(content))
        end = archive.offset + len(END)
    whole = file.getvalue()
    needed = end if mode == "w" else len(whole)
    sketches = read_upload(whole).sketches
    assert len(sketches) == 2
    for cut in range(needed):
        with pytest.raises(FormatError, match=r"cut short.*send or copy it again"):
            read_upload(whole[:cut])
    for cut in range(needed, len(whole)):  # zeros that fill a record up
        assert read_upload(whole[:cut]).sketches == sketches


def test_an_archive_that_was_cut_and_then_compressed_is_refused():
    whole = b"".join(member(name, content) for name, content in CONTENT.items()) + END
    assert len(read_upload(gzip.compress(whole)).sketches) == 2
    for cut in range(0, len(whole), 256):
        with pytest.raises(FormatError, match="cut short"):
            read_upload(gzip.compress(whole[:cut]))


@pytest.mark.parametrize("form", [bytes, gzip.compress])
def test_zeros_in_a_file_are_no_end(form):
    archive = member("imgstats/brightness.bin", GOOD["imgstats/brightness.bin"]) + member("a.txt", bytes(3000))
    assert list(read_upload(form(archive + END)).sketches) == list(GOOD)
    for cut in (0, 512, 1024, 1536):
        with pytest.raises(FormatError, match="cut short"):
            read_upload(form(archive[: len(archive) - cut] + END[:512] * (cut == 0)))


@pytest.mark.parametrize("damaged", [b"\0" * 511 + b"x", b"x" * 512, b"x", END[:512] + b"x" * 512])
def test_what_is_no_file_between_files_is_no_end(damaged):
    first, second = member("imgstats/noise.bin", sketch_of([1])), member("imgstats/brightness.bin", sketch_of([1]))
    assert len(read_upload(first + second + END).sketches) == 2
    for archive in (first + damaged + second + END, first + damaged + END, first + END + damaged):
        for sent in (archive, gzip.compress(archive)):
            with pytest.raises(FormatError, match="is damaged: what comes after its last file is no file"):
                read_upload(sent)


def test_archives_of_devices_are_whole():
    """LensAI's C++ profiler writes no end, so it is gzip's checksum that says that nothing is missing."""
    sent = DEVICE.read_bytes()
    archive = gzip.decompress(sent)
    assert list(read_upload(sent).sketches) == ["imgstats/brightness.bin", "imgstats/noise.bin"]
    assert read_upload(archive + END).sketches == read_upload(sent).sketches
    for cut in range(len(sent)):
        with pytest.raises(FormatError, match="cut short"):
            read_upload(sent[:cut])
    for cut in range(len(archive)):  # not compressed, nothing says that it is whole
        with pytest.raises(FormatError, match="cut short"):
            read_upload(archive[:cut])
    with pytest.raises(FormatError, match="cut short"):
        read_upload(archive)


@pytest.mark.parametrize("more", [b"", bytes(10), bytes(1000)])
def test_gzip_may_have_several_parts_and_zeros_behind_them(more):
    archive = tarred(CONTENT, "w")
    parts = gzip.compress(archive[:700]) + gzip.compress(archive[700:]) + more
    assert len(read_upload(parts).sketches) == 2
    for damaged in (parts + b"x", parts + gzip.compress(b"x"), parts[: len(parts) - len(more) - 1]):
        with pytest.raises(FormatError):
            read_upload(damaged)
    with pytest.raises(FormatError, match="cut short"):
        read_upload(gzip.compress(archive[:700]))


def test_a_gzip_stream_may_say_much_before_it_begins_and_there_are_few_of_them():
    """A head may hold a name without end, an archive may consist of empty streams: neither is read in Python."""
    packed = tarred(CONTENT)
    named = packed[:3] + bytes([packed[3] | 8]) + packed[4:10] + b"n" * 200_000 + b"\0" + packed[10:]
    assert len(read_upload(named).sketches) == 2
    with pytest.raises(FormatError, match="more than the 16 gzip streams"):
        read_upload(gzip.compress(b"") * 1000 + packed)


@given(
    st.lists(st.binary(max_size=300).map(lambda part: part * 50), min_size=1, max_size=5),
    st.lists(st.integers(1, 5000), min_size=1, max_size=5),
)
def test_what_is_unzipped_in_pieces_is_what_gzip_unzips(parts, sizes):
    packed = bytes(3).join(gzip.compress(part) for part in parts)
    stream, pieces = _Unzipped(io.BytesIO(packed)), []
    while piece := stream.read(sizes[len(pieces) % len(sizes)]):
        pieces.append(piece)
    assert b"".join(pieces) == b"".join(parts)
    assert all(len(piece) <= sizes[number % len(sizes)] for number, piece in enumerate(pieces))


@pytest.mark.parametrize("place", range(-8, 0))
def test_gzip_checksum_and_length_are_those_of_what_is_there(place):
    archive = bytearray(tarred(CONTENT))
    archive[place] ^= 1
    with pytest.raises(FormatError):
        read_upload(bytes(archive))


def test_a_sketch_that_was_cut_is_left_out_and_named():
    sketch = CONTENT["imgstats/noise.bin"]
    for cut in range(len(sketch)):
        upload = read_upload(tarred({**GOOD, "imgstats/noise.bin": sketch[:cut]}))
        assert list(upload.sketches) == list(GOOD)
        assert "imgstats/noise.bin was not read" in upload.problems[0]


def test_names_and_times_in_extended_headers_are_read():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        about = tarfile.TarInfo("é" * 90 + "/imgstats/noise.bin")
        about.size, about.mtime = len(sketch_of([1])), 1719393854.123
        archive.addfile(about, io.BytesIO(sketch_of([1])))
    assert list(read_upload(file.getvalue()).sketches) == ["imgstats/noise.bin"]


def test_long_names_of_gnu_tar_are_read_up_to_a_length():
    folder = "é" * 60 + "/" + "b" * 180
    assert list(read_upload(tarred({f"{folder}/imgstats/noise.bin": sketch_of([1])})).sketches) == [
        "imgstats/noise.bin"
    ]


def test_names_that_no_device_has_do_not_stay_in_memory():
    uploads._named.cache_clear()
    for folder, stem in (("a" * 301, "noise"), ("custom", "b" * 301)):
        with pytest.raises(FormatError, match=r"no \.bin file in a folder"):
            read_upload(tarred({f"{folder}/{stem}.bin": sketch_of([1])}))
    assert uploads._named.cache_info().currsize == 0


def test_a_name_that_would_become_too_long_is_said():
    upload = read_upload(tarred({**GOOD, f"modelstats/{'m' * 126}7.bin": sketch_of([1])}))
    assert list(upload.sketches) == ["imgstats/brightness.bin"]
    assert "its name is too long" in upload.problems[0]
    assert len(read_upload(tarred({f"modelstats/{'m' * 125}7.bin": sketch_of([1])})).sketches) == 1


@pytest.mark.parametrize(
    ("archive", "problem"),
    [
        (member("x", b"1" * 2**20, tarfile.XHDTYPE), "an extended header of 1048576 bytes"),  # would take hours
        (member("x", b"1" * 2**20, tarfile.XGLTYPE), "an extended header of 1048576 bytes"),
        (member("x", b"a/" * 2**19, tarfile.GNUTYPE_LONGNAME), "an extended header of 1048576 bytes"),
        (member("x", b"a/" * 2**19, tarfile.GNUTYPE_LONGLINK), "an extended header of 1048576 bytes"),
        (member("x", b"", tarfile.XHDTYPE, -5), "an extended header of -5 bytes"),
        (member("x", b"y\0", tarfile.GNUTYPE_LONGNAME) * 5000, "not a readable tar archive"),  # each within the last
        (member("x", b"9 a=1234\n", tarfile.XHDTYPE) * 5000, "not a readable tar archive"),
        (member("imgstats/noise.bin", b"", size=-512), "tar archive|empty|no file"),  # points at itself
        (member("imgstats/noise.bin", b"", size=2**62), "tar archive|cut short"),
        (member("x", b"", size=2**62), "tar archive|cut short"),
        (member("x", b"29 size=4611686018427387904\n", tarfile.XHDTYPE) + member("y"), "tar archive|cut short"),
        (member("x", b"12 size=-99\n", tarfile.XHDTYPE) + member("y"), "tar archive|no .bin file"),
        (member("imgstats/noise.bin", b"", tarfile.GNUTYPE_SPARSE), "a link, device or other special member"),
        (extended_sparse(), "not a readable tar archive"),
        (END * 100, "no .bin file in a folder"),
    ],
)
def test_headers_that_are_made_up(archive, problem):
    started = time.monotonic()
    with pytest.raises(FormatError, match=problem):
        read_upload(archive + END)
    assert time.monotonic() - started < 5


def test_a_sketch_that_says_too_much_is_left_out(monkeypatch):
    monkeypatch.setattr(uploads, "MOST_VALUES", 100)
    upload = read_upload(tarred({**GOOD, "imgstats/noise.bin": sketch_of(range(101))}))
    assert list(upload.sketches) == ["imgstats/brightness.bin"]
    assert "101 values, more than any device has" in upload.problems[0]


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        (ArchiveLimits(archive_bytes=5000), "unpacks to more than the 5000"),
        (ArchiveLimits(sketches_bytes=10), "more than the 10 bytes"),
        (ArchiveLimits(members=2), "more than 2 files"),
    ],
)
def test_limits(limits, problem):
    content = {f"imgstats/mean_{n}.bin": sketch_of([n, n]) for n in range(9)}
    with pytest.raises(FormatError, match=problem):
        read_upload(tarred(content), limits)


@given(st.binary(max_size=300), st.integers(0, 400), st.integers(0, 300))
@settings(max_examples=60, deadline=None)
def test_whatever_is_sent_is_read_or_refused(noise, at, cut):
    archive = tarred({"imgstats/noise.bin": sketch_of(range(300)), **GOOD}, "w")
    for damaged in (archive[:at] + noise + archive[at + len(noise) :], archive[: len(archive) - 30 * cut], noise):
        with contextlib.suppress(FormatError):
            assert read_upload(damaged).sketches


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_sketches_are_refused_or_merge(data):
    """DataSketches itself checks little; what the reader lets through it can merge, and the counts add up."""
    n, k = data.draw(st.integers(1, 3000)), data.draw(st.sampled_from([8, 20, 200]))
    content = bytearray(sketch_of(range(n), k))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(content) - 1, 80)))
        content[at] = data.draw(st.integers(0, 255))
    try:
        sketches = read_upload(tarred({"imgstats/brightness.bin": bytes(content)}, "w")).sketches
    except FormatError:
        return
    whole = {"imgstats/brightness.bin": sketch_of(range(1000))}
    expected = n_of(sketches["imgstats/brightness.bin"])
    for times in (1, 2, 3):
        whole = merged([sketches, whole, {}])
        assert n_of(whole["imgstats/brightness.bin"]) == 1000 + times * expected
        assert wire.read(whole["imgstats/brightness.bin"]).n == 1000 + times * expected


def structured(rng, k: int, levels: int) -> bytes:
    """A sketch that only its own fields hold together: any number of items at any level."""
    capacity = wire.total_capacity(k, levels)
    sizes = [
        lambda: rng.multinomial(rng.integers(1, capacity + 1), rng.dirichlet(np.full(levels, 0.3))),
        lambda: np.eye(levels, dtype=int)[rng.integers(levels)] * rng.integers(1, capacity + 1),
        lambda: np.minimum(rng.integers(0, 3, levels), capacity // levels),
    ][rng.integers(3)]()
    n, items = sum(int(size) << level for level, size in enumerate(sizes)), int(sizes.sum())
    starts = capacity - items + np.cumsum([0, *sizes[:-1]])
    head = struct.pack("<BBBBHBBQHBB", 5, 1, 15, 2, k, 8, 0, n, int(rng.integers(8, k + 1)), levels, 0)
    values = np.concatenate([[-9.0, 9.0], *(np.sort(rng.normal(size=size)) for size in sizes)])
    return head + starts.astype("<u4").tobytes() + values.astype("<f4").tobytes()


def test_sketches_that_were_made_up_are_refused_or_merge():
    """DataSketches writes beyond its memory where there are more levels than values can fill."""
    rng, read = np.random.default_rng(0), 0
    whole, n = {"custom/a.bin": sketch_of(range(10), k=8)}, 10
    for _ in range(300):
        content = structured(rng, int(rng.choice([8, 9, 200])), int(rng.integers(1, 25)))
        with contextlib.suppress(FormatError):
            upload = read_upload(tarred({"custom/a.bin": content}, "w")).sketches
            whole, n, read = merged([upload, whole]), n + n_of(content), read + 1
            assert wire.read(whole["custom/a.bin"]).n == n
    assert 50 < read < 300


def test_merged_sketches_answer_as_one_that_has_seen_all():
    rng = np.random.default_rng(0)
    parts = [rng.normal(n, 1 + n, 2000).astype(np.float32) for n in range(20)]
    whole = merged({"imgstats/noise.bin": sketch_of(part)} for part in parts)
    values, sketch = np.sort(np.concatenate(parts)), kll_floats_sketch.deserialize(whole["imgstats/noise.bin"])
    assert (sketch.n, sketch.get_min_value(), sketch.get_max_value()) == (40_000, values[0], values[-1])
    for rank in (0.01, 0.25, 0.5, 0.75, 0.99):
        assert abs(np.searchsorted(values, sketch.get_quantile(rank)) / 40_000 - rank) < 0.0165


def test_merging_changes_nothing_it_is_given():
    one = {"imgstats/noise.bin": sketch_of(range(100))}
    before = dict(one)
    assert merged([one]) == merged([one, {}]) == before
    merged([one, one])
    assert one == before
    assert merged([]) == {}


def test_what_cannot_be_merged():
    with pytest.raises(FormatError, match=r"imgstats/noise\.bin is not a readable sketch"):
        merged([{"imgstats/noise.bin": b"abc"}])


def test_rows_are_images_not_pixels():
    content = {
        "imgstats/noise.bin": sketch_of(range(7)),
        "imgstats/pixel_0.bin": sketch_of(range(90)),
        "imgstats/kll_channel_pixels_0-2.bin": sketch_of(range(91)),
        "modelstats/embeddings.bin": sketch_of(range(92)),
        "modelstats/cat_embedding.bin": sketch_of(range(93)),
    }
    assert rows_of(content) == profile_of_files(content, "a", 0).n == 7
    assert rows_of({**content, "custom/own.bin": sketch_of(range(8))}) == 7  # images, as long as there are any
    assert profile_of_files({**content, "custom/own.bin": sketch_of(range(8))}, "a", 0).n == 7
    assert rows_of({"custom/own.bin": sketch_of(range(8))}) == 8


@given(st.dictionaries(st.text(max_size=9), st.binary(max_size=99)))
def test_packed_and_unpacked(sketches):
    assert unpack_sketches(pack_sketches(sketches)) == sketches


@pytest.mark.parametrize(
    "blob", [b"", b"{", b"[]\n", b'{"a": 3}\nab', b'{"a": 1}\nab', b'{"a": "x"}\n', b'{"a": -1, "b": 1}\n']
)
def test_what_was_not_packed(blob):
    with pytest.raises(FormatError, match="damaged"):
        unpack_sketches(blob)


def test_a_devices_files_are_the_folders_profile(data_dir):
    """Of every real folder: the same streams, counts and quantiles as reading the folder gives."""
    for folder in sorted((data_dir / "lensai_edge").glob("*/*")):
        content = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.bin")}
        upload = read_upload(tarred(content))
        ours, theirs = profile_of_files(upload.sketches, folder.parent.name, int(folder.name)), edge.read_stats(folder)
        assert ours.n == theirs.n == rows_of(upload.sketches)
        assert {name: list(group.apart) for name, group in ours.groups.items()} == {
            name: list(group.apart) for name, group in theirs.groups.items()
        }
        for name, group in theirs.groups.items():
            for stream, own in group.apart.items():
                ranks = np.linspace(0, 1, 21)
                assert np.array_equal(ours.groups[name].apart[stream].bank.quantiles(ranks), own.bank.quantiles(ranks))


def test_no_sketch_at_all():
    with pytest.raises(FormatError, match=r"no readable sketch"):
        profile_of_files({"imgstats/noise.bin": b"x"}, "door-3", 0)
