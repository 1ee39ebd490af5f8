"""Device files: every layout, every name, and what disks, archives and strangers do to them."""

from __future__ import annotations

import contextlib
import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from datasketches import kll_floats_sketch

from lensai_integrations import Profile, compare, edge
from lensai_integrations.edge import members
from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.measures.edge import NO_NOISE
from lensai_integrations.profiles.groups import Group
from lensai_integrations.report import baseline_html, drift_html

IMAGES = "inputs/lensai-edge"
RANKS = (0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999)


def sketch_of(values, k=200) -> bytes:
    sketch = kll_floats_sketch(k)
    for value in values:
        sketch.update(float(value))
    return sketch.serialize()


def stored(root: Path, contents: dict[str, bytes]) -> Path:
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def archive_of(path: Path, contents: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode, format=tarfile.GNU_FORMAT) as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def bank(profile: Profile, stream: str):
    group = next(name for name in profile.groups if stream.startswith(f"{name}/"))
    return profile.groups[group].apart[stream.removeprefix(f"{group}/")].bank


@pytest.fixture(scope="module")
def devices(data_dir) -> Path:
    folder = data_dir / "lensai_edge"
    if not folder.is_dir():
        pytest.skip(f"no real device files at {folder}")
    return folder


GROUPS = {"imagestats": (IMAGES, "older"), "modelstats": ("outputs",), "samples": ("outputs",)}


def test_all_real_files_are_read_and_answer_as_datasketches_does(devices):
    read = 0
    for (sensor, when), profile in edge.read_stats(devices, merge=False).items():
        folder = devices / sensor / str(when)
        for group in profile.groups.values():
            for name, own in group.apart.items():
                stem, _, part = name.partition("/")
                plain = stem.replace("_", "")
                old = {"noise": "snr", "mean": "channel_mean_", "pixel": "channel_pixels_"}
                guesses = {
                    IMAGES: f"imagestats/{stem}{'_' if part else ''}{part}.bin",
                    "older": f"imagestats/kll_{old.get(stem, stem)}{part}-2.bin",
                    "outputs": f"modelstats/Mobilenet_Binary_{part}.bin" if part else f"samples/{plain}.bin",
                }  # fmt: skip
                path = folder / guesses[group.name]
                path = path if path.exists() else folder / guesses[group.name].replace("imagestats", "imgstats")
                theirs = kll_floats_sketch.deserialize(path.read_bytes())
                assert (own.bank.n, own.bank.min, own.bank.max) == (
                    theirs.n,
                    theirs.get_min_value(),
                    theirs.get_max_value(),
                )
                assert own.bank.quantiles(RANKS)[0].tolist() == [theirs.get_quantile(rank, True) for rank in RANKS]
                read += 1
    assert read == 78 == len(list(devices.rglob("*.bin")))


def test_the_real_reference_against_the_real_sensors(devices):
    """sensor2 has seen the reference's images but two; sensor1 others, too, with another sharpness."""
    reference, one, two = (edge.read_stats(devices / name) for name in ("reference", "sensor1", "sensor2"))
    same, other = compare(reference, two), compare(reference, one)
    assert not same.drift
    assert other.drift
    assert other.moved[0].stream == f"{IMAGES}/sharpness"
    assert {f"{IMAGES}/noise", f"{IMAGES}/pixel/0"}.isdisjoint(stream.stream for stream in other.moved)
    assert "older" in other.notes[0]
    assert any("66.9046 to 28723.3" in note for note in other.notes)
    assert any("15 files of 1719694454" in note for note in same.notes)
    for report in (same, other):
        assert "sharpness" in report.to_text()
        assert report.to_json()


def test_reports_of_devices_are_pages(devices):
    reference, one = edge.read_stats(devices / "reference"), edge.read_stats(devices / "sensor1")
    page = drift_html(compare(reference, one), reference, one)
    assert "sharpness" in page
    assert "pixel" in page
    assert "ratio" in baseline_html(one)


def test_sensors_merge_and_stay_apart(devices):
    apart, whole = edge.read_stats(devices, merge=False), edge.read_stats(devices)
    assert [sensor for sensor, _ in apart] == ["reference", "sensor1", "sensor1", "sensor2", "sensor2"]
    assert bank(whole, f"{IMAGES}/noise").n == 1000 + 2096 + 998 + 2 * 998
    assert whole.info["sensors"] == ["reference", "sensor1", "sensor2"]
    assert whole.info["files"] == 78
    assert apart["sensor1", 1719393854].info["sensor"] == "sensor1"
    direct = edge.read_stats(devices / "sensor1" / "1719393854", merge=False)
    assert list(direct) == [("sensor1", 1719393854)]


def test_a_profile_of_a_device_is_saved_and_reported(devices, tmp_path):
    profile = edge.read_stats(devices / "sensor1")
    loaded = Profile.load(profile.save(tmp_path / "profile"))
    assert [row.stream for row in loaded.summaries()] == [row.stream for row in profile.summaries()]
    assert bank(loaded, "outputs/softmax/1").quantiles([0.5]) == bank(profile, "outputs/softmax/1").quantiles([0.5])
    assert loaded.n == 3094  # images: neither pixels nor the 4,192 predictions


@pytest.mark.parametrize(
    ("file", "stream", "definition"),
    [
        ("imgstats/noise.bin", f"{IMAGES}/noise", "lensai-edge/noise@1"),
        ("imagestats/mean_2.bin", f"{IMAGES}/mean/2", "lensai-edge/mean@1"),
        ("imgstats/pixel_0.bin", f"{IMAGES}/pixel/0", "lensai-edge/pixel@1"),
        ("imgstats/kll_brightness-2.bin", f"{IMAGES}/brightness", "lensai-edge/brightness@1"),
        ("imgstats/kll_channel_mean_0-2.bin", f"{IMAGES}/mean/0", "lensai-edge/mean@1"),
        ("imgstats/kll_channel_pixels_1-2.bin", f"{IMAGES}/pixel/1", "lensai-edge/pixel@1"),
        ("imgstats/kll_snr-2.bin", f"{IMAGES}/noise", "lensai-edge/noise@1"),
        ("customstats/mean_1.bin", f"{IMAGES}/mean/1", "lensai-edge/mean@1"),
        ("customstats/my_measure.bin", "custom/my_measure", "lensai-edge/custom@1"),
        ("custom/tilt.bin", "custom/tilt", "lensai-edge/custom@1"),
        ("modelstats/net_3.bin", "outputs/softmax/3", "lensai/softmax@1"),
        ("modelstats/net3.bin", "outputs/softmax/3", "lensai/softmax@1"),
        ("modelstats/net_cat.bin", "outputs/softmax/cat", "lensai/softmax@1"),
        ("modelstats/embeddings.bin", "modelstats/component/all", "lensai-edge/component@1"),
        ("modelstats/cat_embedding.bin", "modelstats/component/cat", "lensai-edge/component@1"),
        ("samples/entropyconfidence.bin", "outputs/entropy_confidence", "lensai/entropy_confidence@1"),
        ("trackingstats/quaternion_drift.bin", "tracking/quaternion_drift", "lensai-edge/tracking@1"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "./", "reference/", "camera/1719393854/"])
def test_every_name_in_every_layout(file, stream, definition, prefix, tmp_path):
    content = {f"{prefix}{file}": sketch_of([0.25, 0.5, 0.75])}
    folder = edge.read_stats(stored(tmp_path / "device", content))
    archive = edge.read_stats(archive_of(tmp_path / "upload.tar.gz", content))
    for profile in (folder, archive):
        (group,) = profile.groups
        name = stream.removeprefix(f"{group}/")
        assert bank(profile, stream).quantiles([0, 0.5, 1])[0].tolist() == [0.25, 0.5, 0.75]
        assert profile.groups[group].definition_of(name) == definition
        assert profile.warnings == []
    assert archive.source == {"reference/": "reference", "camera/1719393854/": "camera"}.get(prefix, "upload")


def test_junk_is_listed_and_the_rest_is_read(tmp_path):
    good = sketch_of(range(50))
    contents = {
        "imgstats/brightness.bin": good,
        "imgstats/noise.bin": b"",
        "imgstats/sharpness.bin": good[:-5],
        "imgstats/mean_0.bin": sketch_of([]),
        "imgstats/mean_1.bin": sketch_of([1.0, float("inf")]),
        "imgstats/mean_2.bin": b"x" * (members.MAX_SKETCH_BYTES + 1),
        "imgstats/._brightness.bin": b"junk",
        "imgstats/unknown.bin": good,
        "imgstats/nested/brightness.bin": good,
        ".DS_Store": b"junk",
        "samples/image.jpg": b"\xff\xd8",
    }
    for source in (stored(tmp_path / "a", contents), archive_of(tmp_path / "b.tar", contents, "w")):
        profile = edge.read_stats(source)
        assert list(profile.groups[IMAGES].apart) == ["brightness"]
        told = "\n".join(profile.warnings)
        for name, why in (
            ("noise", "empty"), ("sharpness", "announces"), ("mean_0", "no values"), ("mean_1", "infinite"),
            ("mean_2", "more than"),
        ):  # fmt: skip
            assert f"imgstats/{name}.bin was not read" in told
            assert why in told
        ignored = "\n".join(profile.info["ignored"])
        assert all(name in ignored for name in ("._brightness", "unknown.bin", "nested", ".DS_Store", "image.jpg"))


def test_infinite_noise_is_no_noise(tmp_path):
    values = [3.0, 5.0, float("inf"), float("inf")]
    profile = edge.read_stats(stored(tmp_path, {"imgstats/noise.bin": sketch_of(values)}))
    own = bank(profile, f"{IMAGES}/noise")
    assert own.quantiles([0, 0.5, 0.75, 1])[0].tolist() == [3.0, 5.0, NO_NOISE, NO_NOISE]
    assert profile.warnings == []
    (path,) = edge.write_stats(profile, tmp_path / "again")
    assert kll_floats_sketch.deserialize(path.read_bytes()).get_max_value() == np.inf
    everything = edge.read_stats(stored(tmp_path / "all", {"imgstats/noise.bin": sketch_of([np.inf] * 900)}))
    assert bank(everything, f"{IMAGES}/noise").min == bank(everything, f"{IMAGES}/noise").max == NO_NOISE


def test_files_of_one_folder_differ_in_n_and_still_merge(tmp_path):
    rng = np.random.default_rng(0)
    first = {"imgstats/noise.bin": sketch_of(rng.normal(size=700)), "imgstats/mean_0.bin": sketch_of(range(3))}
    second = {"imgstats/noise.bin": sketch_of(rng.normal(size=5)), "samples/ratioconfidence.bin": sketch_of([0.5])}
    stored(tmp_path / "a" / "1719393854", first)
    stored(tmp_path / "b" / "1719393855", second)
    whole = edge.read_stats(tmp_path)
    assert [bank(whole, s).n for s in (f"{IMAGES}/noise", f"{IMAGES}/mean/0", "outputs/ratio_confidence")] == [
        705,
        3,
        1,
    ]
    assert whole.info["timestamps"] == [1719393854, 1719393855]


def test_several_models_stay_apart(tmp_path):
    content = {f"modelstats/{model}_{c}.bin": sketch_of([0.5]) for model in ("cars", "dogs") for c in (0, 1)}
    profile = edge.read_stats(stored(tmp_path, content))
    assert list(profile.groups) == ["outputs/cars", "outputs/dogs"]
    written = edge.write_stats(profile, tmp_path / "again")
    assert {path.name for path in written} == {Path(name).name for name in content}


@pytest.mark.parametrize("name", ["../imgstats/noise.bin", "/../imgstats/noise.bin", "a/../imgstats/noise.bin"])
def test_paths_that_lead_out_are_refused(name, tmp_path):
    content = {name: sketch_of([1.0]), "imgstats/mean_0.bin": sketch_of([2.0])}
    profile = edge.read_stats(archive_of(tmp_path / "upload.tar.gz", content))
    assert list(profile.groups[IMAGES].apart) == ["mean/0"]
    assert "leads out of the folder" in profile.warnings[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["upload.tar.gz"]


def test_a_slash_before_a_name_is_left_out_as_tar_does(tmp_path):
    content = {"/imgstats/noise.bin": sketch_of([1.0]), "//imgstats/mean_0.bin": sketch_of([2.0])}
    profile = edge.read_stats(archive_of(tmp_path / "upload.tar.gz", content))
    assert sorted(profile.groups[IMAGES].apart) == ["mean/0", "noise"]
    assert profile.warnings == []


def test_an_archive_cut_between_two_files_is_not_read_as_a_part(tmp_path):
    content = {f"imgstats/mean_{number}.bin": sketch_of([2.0]) for number in range(3)}
    whole = archive_of(tmp_path / "upload.tar", content, "w").read_bytes()
    for files in range(1, 4):
        (tmp_path / "cut.tar").write_bytes(whole[: files * 1024])
        with pytest.raises(FormatError, match=r"cut\.tar is cut short: .*send or copy it again"):
            edge.read_stats(tmp_path / "cut.tar")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_special_members_are_passed_over(kind, tmp_path):
    path = tmp_path / "upload.tar"
    with tarfile.open(path, "w") as archive:
        special = tarfile.TarInfo("imgstats/noise.bin")
        special.type, special.linkname = kind, "/etc/passwd"
        archive.addfile(special)
        member = tarfile.TarInfo("imgstats/mean_0.bin")
        member.size = len(content := sketch_of([2.0]))
        archive.addfile(member, io.BytesIO(content))
    assert "special member" in edge.read_stats(path).warnings[0]


def test_links_of_a_folder_are_not_followed(tmp_path):
    outside = stored(tmp_path / "outside", {"noise.bin": sketch_of([1.0])})
    device = stored(tmp_path / "device", {"imgstats/mean_0.bin": sketch_of([2.0])})
    (device / "imgstats" / "noise.bin").symlink_to(outside / "noise.bin")
    (device / "imagestats").symlink_to(outside)
    profile = edge.read_stats(device)
    assert list(profile.groups[IMAGES].apart) == ["mean/0"]
    assert sum("not followed" in warning for warning in profile.warnings) == 2


def test_bombs_are_refused(tmp_path, monkeypatch):
    bomb = archive_of(tmp_path / "bomb.tar.gz", {"samples/image.png": bytes(4 * 2**20)})
    assert bomb.stat().st_size < 20_000
    monkeypatch.setattr(members, "MAX_ARCHIVE_BYTES", 2**20)
    with pytest.raises(FormatError, match="unpacks to more than"):
        edge.read_stats(bomb)
    monkeypatch.setattr(members, "MAX_MEMBERS", 3)
    many = archive_of(tmp_path / "many.tar", {f"imgstats/mean_{i}.bin": b"" for i in range(9)}, "w")
    with pytest.raises(FormatError, match="more than 3 files"):
        edge.read_stats(many)
    monkeypatch.setattr(members, "MAX_SKETCHES_BYTES", 10)
    with pytest.raises(FormatError, match="more than the 10 bytes"):
        edge.read_stats(stored(tmp_path / "large", {"imgstats/noise.bin": sketch_of([1.0, 2.0])}))


def test_archives_cut_short_or_damaged_are_refused(tmp_path):
    whole = archive_of(tmp_path / "a.tar.gz", {"imgstats/noise.bin": sketch_of(range(500))}).read_bytes()
    for cut in (0, 1, 5, 30, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        (tmp_path / "cut.tar.gz").write_bytes(whole[:cut])
        with pytest.raises(FormatError):
            edge.read_stats(tmp_path / "cut.tar.gz")
    wrong = bytearray(whole)
    wrong[-6] ^= 255  # in gzip's checksum
    for content in (bytes(wrong), b"no archive" * 200, gzip.compress(b"no archive" * 200)):
        (tmp_path / "cut.tar.gz").write_bytes(content)
        with pytest.raises(FormatError):
            edge.read_stats(tmp_path / "cut.tar.gz")


def test_damaged_headers_give_a_profile_or_a_format_error(tmp_path):
    """Bytes of headers are replaced, and the checksums made good again, so that the damage is met further inside."""
    content = {name: sketch_of(range(9)) for name in ("imgstats/noise.bin", f"imgstats/{'x' * 150}.bin")}
    whole = archive_of(tmp_path / "a.tar", content, "w").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(100):
        data = bytearray(whole)
        for place in rng.integers(0, 2560, 3):
            data[place] = rng.integers(256)
        for start in range(0, len(data), 512):
            if data[start + 257 : start + 262] == b"ustar":
                data[start + 148 : start + 156] = b" " * 8
                data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
        (tmp_path / "damaged.tar").write_bytes(data)
        with contextlib.suppress(FormatError):
            assert edge.read_stats(tmp_path / "damaged.tar").groups


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        edge.read_stats(tmp_path / "nowhere")
    with pytest.raises(FormatError, match=r"no \.bin file"):
        edge.read_stats(tmp_path)
    stored(tmp_path, {"imgstats/noise.bin": b""})
    with pytest.raises(FormatError, match="disk full"):
        edge.read_stats(tmp_path)


def test_groups_count_rows_not_pixels():
    group = Group(IMAGES, sketches={"bank/pixel/0": Rows(9), "bank/component/all": Rows(8), "bank/noise": Rows(3)})
    assert group.n == 3


class Rows:
    def __init__(self, n):
        self.n = n
