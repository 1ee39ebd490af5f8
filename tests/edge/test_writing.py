"""What is written is what devices read, whole, and reads back as it was."""

from __future__ import annotations

import configparser
from pathlib import Path

import numpy as np
import pytest
from datasketches import kll_floats_sketch
from hypothesis import given, settings
from hypothesis import strategies as st

from lensai_integrations import Baseline, Profile, Profiler, compare, edge
from lensai_integrations.edge import writing
from lensai_integrations.errors import DefinitionError, InputError
from lensai_integrations.profiles.groups import Group
from lensai_integrations.sketches.bank import KLLBank

IMAGES = "inputs/lensai-edge"
RANKS = np.linspace(0, 1, 21)[1:]


def images(n: int, seed: int, light: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    base = rng.uniform(40, 200, (n, 1, 1, 3)) + rng.normal(0, 20, (n, 8, 8, 3))
    return np.clip(base * light, 0, 255).astype(np.uint8)


def profile_of(n: int, seed: int, light: float = 1.0, convention: str = "lensai-edge") -> Profile:
    profiler = Profiler(convention=convention, seed=seed, source="validation")
    logits = np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)
    profiler.update(inputs=images(n, seed, light), outputs=logits)
    return profiler.profile()


@pytest.fixture(scope="module")
def baseline() -> Profile:
    return profile_of(500, 0)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.bin"))}


def test_a_round_trip_gives_the_same_bytes(baseline, tmp_path):
    written = edge.write_stats(baseline, tmp_path / "one")
    edge.write_stats(edge.read_stats(tmp_path / "one"), tmp_path / "two")
    one = contents(tmp_path / "one")
    assert one == contents(tmp_path / "two")
    assert len(one) == len(written) == 3 + 3 + 3 + 3 + 4
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".bin"]


def test_real_files_read_back_as_they_were(data_dir, tmp_path):
    source = data_dir / "lensai_edge" / "sensor1" / "1719393854"
    if not source.is_dir():
        pytest.skip(f"no real device files at {source}")
    edge.write_stats(edge.read_stats(source), tmp_path / "one")
    edge.write_stats(edge.read_stats(tmp_path / "one"), tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    for name, content in contents(tmp_path / "one").items():
        theirs = kll_floats_sketch.deserialize((source / name.replace("imgstats", "imagestats")).read_bytes())
        ours = kll_floats_sketch.deserialize(content)
        assert (ours.n, ours.k) == (theirs.n, theirs.k)
        assert ours.get_quantiles(RANKS) == theirs.get_quantiles(RANKS)


def test_datasketches_reads_what_was_written(baseline, tmp_path):
    edge.write_stats(baseline, tmp_path)
    noise = kll_floats_sketch.deserialize((tmp_path / "imgstats" / "noise.bin").read_bytes())
    column = baseline.groups[IMAGES].streams.index("noise")
    ours = baseline.groups[IMAGES].bank.compact().quantiles(RANKS)[column]
    assert (noise.n, noise.k) == (500, 200)
    assert noise.get_quantiles(RANKS, True) == ours.tolist()
    counts = baseline.groups[IMAGES].pixels
    pixel = kll_floats_sketch.deserialize((tmp_path / "imgstats" / "pixel_2.bin").read_bytes())
    assert pixel.n == counts.counts[2].sum() == 500 * 64
    points = [30.0, 100.0, 200.0]
    exact = [counts.counts[2][: int(point) + 1].sum() / pixel.n for point in points]
    assert [pixel.get_rank(point, True) for point in points] == pytest.approx(exact, abs=0.0133)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False), min_size=1, max_size=40),
    st.integers(1, 60),
)
def test_any_values_go_there_and_back(values, times):
    import tempfile

    bank = KLLBank(1, seed=0)
    bank.update(np.tile(np.array(values, np.float32), times)[:, None])
    profile = Profile({"custom": Group("custom", (), {"*": "lensai-edge/custom@1"}, {"bank/own": bank})})
    with tempfile.TemporaryDirectory() as folder:
        (path,) = edge.write_stats(profile, folder)
        again = edge.read_stats(folder).groups["custom"].apart["own"].bank
        assert again.n == bank.n
        assert again.to_bytes() == bank.to_bytes() == [path.read_bytes()]


@pytest.mark.parametrize("light", [1.0, 0.5])
def test_a_baseline_from_training_against_a_device(baseline, light, tmp_path):
    """Streams that share a bank, and counted pixels, against sketches of their own."""
    edge.write_stats(profile_of(400, 7, light), tmp_path)
    device = edge.read_stats(tmp_path)
    for report in (compare(Baseline(baseline), device), compare(device, baseline)):
        found = {stream.stream: stream for group in report.groups for stream in group.streams}
        assert {
            f"{IMAGES}/noise",
            f"{IMAGES}/mean/2",
            f"{IMAGES}/pixel/0",
            "outputs/entropy_confidence",
        } <= set(found)
        assert report.drift == (light < 1)
        assert np.isnan(found[f"{IMAGES}/pixel/0"].p_value)
        assert (found[f"{IMAGES}/pixel/0"].effect > 0.3) == (light < 1)
        notes = [note for group in report.groups for note in group.notes]
        assert any("contrast" in note for note in notes)
        assert not any("noise" in note for note in notes)


def test_a_calibrated_baseline_against_a_device(baseline, tmp_path):
    from lensai_integrations import calibrate

    edge.write_stats(profile_of(400, 7, 0.5), tmp_path)
    assert compare(calibrate(Baseline(baseline), draws=200), edge.read_stats(tmp_path)).drift


def test_other_conventions_are_refused(tmp_path):
    other = profile_of(20, 0, convention="lensai")
    with pytest.raises(DefinitionError, match="convention='lensai-edge'"):
        edge.write_stats(other, tmp_path)
    with pytest.raises(DefinitionError, match="convention='lensai-edge'"):
        edge.write_config(other, tmp_path / "config.ini")
    edge.write_stats(profile_of(20, 0), tmp_path)
    with pytest.raises(DefinitionError, match="lensai-edge/"):
        compare(other, edge.read_stats(tmp_path))
    assert not (tmp_path / "config.ini").exists()


@pytest.mark.parametrize("name", ["../../x", "a/b", "", ".hidden", "x\0"])
def test_names_that_are_no_files_are_refused(name, tmp_path):
    bank = KLLBank(1, seed=0)
    bank.update([[1.0]])
    profile = Profile({"custom": Group("custom", (), {}, {f"bank/{name}": bank})})
    with pytest.raises(InputError, match="profile"):
        edge.write_stats(profile, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        edge.write_stats(Profile(), tmp_path / "file")
    with pytest.raises(InputError, match="no stream"):
        edge.write_stats(Profile(), tmp_path / "new")
    with pytest.raises(InputError, match="is a dict"):
        edge.write_stats({}, tmp_path / "new")


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    writing.write_file(tmp_path / "a.bin", b"old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        writing.write_file(tmp_path / "a.bin", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"old"


def parsed(path: Path) -> configparser.ConfigParser:
    """As a C++ INI reader does: sections, `key = value`, `;` comments."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=(";",))
    parser.optionxform = str
    parser.read_string(path.read_text())
    return parser


def test_thresholds_are_the_baselines_quantiles(baseline, tmp_path):
    config = parsed(edge.write_config(Baseline(baseline), tmp_path / "config.ini", percentiles=(0.05, 0.9)))
    group = baseline.groups[IMAGES]
    low, high = group.bank.quantiles([0.05, 0.9])[group.streams.index("noise")]
    found = [*map(float, config["image"]["NOISE"].split(","))]
    assert found == pytest.approx([min(low, -1), high], rel=1e-5)
    high = group.bank.quantiles([0.9])[group.streams.index("brightness")][0]
    found = [*map(float, config["image"]["BRIGHTNESS"].split(","))]
    assert found == pytest.approx([-1, high], rel=1e-5)
    outputs = baseline.groups["outputs"]
    high = outputs.bank.quantiles([0.9])[outputs.streams.index("margin_confidence")][0]
    found = [*map(float, config["sampling"]["MARGINCONFIDENCE"].split(","))]
    assert found == pytest.approx([0, high], rel=1e-5)
    assert config["image"]["CHANNELS"] == "3"
    assert config["image"]["MEAN"] == config["image"]["HISTOGRAM"] == "NaN"


def test_thresholds_are_rounded_outwards(tmp_path):
    """Else every image of a scene that does not change would be saved, being above 127.333."""
    profiler = Profiler(convention="lensai-edge", seed=0)
    profiler.update(inputs=np.tile(np.array([127, 127, 128], np.uint8)[:, None], (4, 6, 4, 1)))
    image = parsed(edge.write_config(profiler.profile(), tmp_path / "config.ini"))["image"]
    group = profiler.profile().groups[IMAGES]
    for name in ("brightness", "sharpness", "noise"):
        exact = group.bank.max[group.streams.index(name)]
        assert exact <= float(image[name.upper()].split(",")[1]) <= exact * (1 + 1e-5)
    assert image["BRIGHTNESS"] == "-1,127.334"


def test_the_bugs_of_devices_are_not_met(baseline, tmp_path):
    scores = Profile({"outputs": baseline.groups["outputs"]})
    for number, profile in enumerate((baseline, scores)):
        config = parsed(edge.write_config(profile, tmp_path / f"{number}.ini", percentiles=(0.4, 0.6)))
        for name in ("NOISE", "BRIGHTNESS", "SHARPNESS"):
            value = config["image"][name]
            assert value == "NaN" or float(value.split(",")[0]) <= -1
        assert config["image"]["NOISE"].count(",") == 1
        assert config["tracker"]["QUATERNION_DRIFT"] == "true"
        assert all(config[name]["filepath"] == "stats,data" for name in ("sampling", "image", "tracker", "custom"))
        assert {"stats_uploader", "data_uploader", "model", "generic"} <= set(config)


@pytest.mark.parametrize("percentiles", [(0.9, 0.1), (0.5, 0.5), (-0.1, 0.9), (1, 99), (0.1,), 3, (np.nan, 1)])
def test_percentiles_are_fractions(baseline, percentiles, tmp_path):
    with pytest.raises(InputError, match="percentiles"):
        edge.write_config(baseline, tmp_path / "config.ini", percentiles=percentiles)


@pytest.mark.parametrize("text", ["", "a,b", "a;b", "a\nb = c", "[x]", " a", "a ", '"a"', 3])
@pytest.mark.parametrize("name", ["sensor_id", "token", "endpoint", "stats_dir"])
def test_texts_cannot_break_the_file(baseline, name, text, tmp_path):
    with pytest.raises(InputError, match=name) as caught:
        edge.write_config(baseline, tmp_path / "config.ini", **{name: text})
    assert name != "token" or not text or str(text) not in str(caught.value).split("=")[1].split(" cannot")[0][7:]
    assert not (tmp_path / "config.ini").exists()


def test_a_baseline_without_thresholds_is_refused(tmp_path):
    with pytest.raises(InputError, match="neither image measures nor sampling scores"):
        edge.write_config(Profile(), tmp_path / "config.ini")
    with pytest.raises(InputError, match="upload_interval"):
        edge.write_config(Profile(), tmp_path / "config.ini", upload_interval=0)
