"""The C++ example against the Python package: the same files, the same numbers, both ways."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from datasketches import kll_floats_sketch
from device_images import made_up, photos, python_profile, save_raw

from lensai_integrations import Profiler, compare, edge

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "edge_cpp"
RANKS = [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99]
#: DataSketches' rank error for k=200 at 99% confidence.
RANK_ERROR = 0.0133

Program = Callable[..., str]


def sketches_in(folder: Path) -> dict[str, kll_floats_sketch]:
    files = sorted((folder / "imgstats").glob("*.bin"))
    return {file.stem: kll_floats_sketch.deserialize(file.read_bytes()) for file in files}


def table(text: str) -> dict[str, list[str]]:
    """The program's lines by file."""
    return {line.split("\t")[0]: line.split("\t")[1:] for line in text.splitlines()[1:]}


def assert_quantiles_agree(program: Program, files: list[Path]) -> None:
    lines = table(program("quantiles", *files))
    assert len(lines) == len(files)
    for file in files:
        sketch = kll_floats_sketch.deserialize(file.read_bytes())
        n, *values = lines[str(file)]
        expected = [sketch.get_min_value(), *sketch.get_quantiles(RANKS, True), sketch.get_max_value()]
        assert int(n) == sketch.n
        assert np.array_equal(np.float32(values), np.float32(expected)), file


def test_quantiles_of_a_baseline_are_those_python_reads(program, tmp_path):
    profiler = Profiler(convention="lensai-edge", source="validation", seed=0)
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (700, 8, 8, 3), dtype=np.uint8)
    images[0] = 7  # of one colour: its noise is +inf
    profiler.update(inputs=images, outputs=rng.normal(size=(700, 3)).astype(np.float32))
    files = list(edge.write_stats(profiler.profile(), tmp_path))
    assert len(files) == 3 + 3 + 3 + 3 + 4
    assert_quantiles_agree(program, files)
    assert "inf" in program("quantiles", tmp_path / "imgstats" / "noise.bin")


def test_every_real_file_is_read(program, data_dir):
    files = [file for file in sorted((data_dir / "lensai_edge").rglob("*.bin")) if not file.name.startswith("._")]
    if not files:
        pytest.skip(f"no real device files in {data_dir / 'lensai_edge'}")
    assert_quantiles_agree(program, files)


@pytest.mark.parametrize("number", range(11))
def test_an_image_measures_the_same(number, program, tmp_path):
    image = [*photos(), *made_up()][number]
    program("sketch", "--out", tmp_path / "device", *save_raw([image], tmp_path))
    edge.write_stats(python_profile([image]), tmp_path / "python")
    theirs, ours = sketches_in(tmp_path / "device"), sketches_in(tmp_path / "python")
    assert theirs.keys() == ours.keys() >= {"noise", "brightness", "sharpness", "mean_0", "pixel_0"}
    for name, sketch in theirs.items():
        assert (sketch.n, sketch.k) == (ours[name].n, 200)
        tolerance = 0 if name.startswith("pixel") else 2e-6
        for found, expected in ((sketch.get_min_value(), ours[name].get_min_value()),
                                (sketch.get_max_value(), ours[name].get_max_value())):  # fmt: skip
            assert found == pytest.approx(expected, rel=tolerance, abs=1e-6 if tolerance else 0), name
    for channel in range(image.shape[-1]):
        values = np.sort(image[..., image.shape[-1] - 1 - channel], axis=None).astype(np.float32)
        ranks = [theirs[f"pixel_{channel}"].get_rank(value, True) for value in np.unique(values)]
        exact = np.searchsorted(values, np.unique(values), side="right") / values.size
        assert ranks == pytest.approx(exact, abs=1e-9 if values.size <= 200 else RANK_ERROR)


def test_many_images_have_the_same_quantiles_and_no_drift(program, tmp_path):
    china = photos()[0]
    images = [china[y : y + 24, x : x + 32] for y in range(0, 400, 40) for x in range(0, 600, 40)]
    program("sketch", "--out", tmp_path, *save_raw(images, tmp_path))
    device, baseline = edge.read_stats(tmp_path), python_profile(images)
    assert (device.n, device.warnings) == (len(images), [])
    group = baseline.groups["inputs/lensai-edge"]
    exact = dict(zip(group.streams, group.bank.quantiles(RANKS), strict=True))
    for name in ("noise", "brightness", "sharpness", "mean/0", "mean/1", "mean/2"):
        found = device.groups["inputs/lensai-edge"].apart[name].bank.quantiles(RANKS)[0]
        assert found == pytest.approx(exact[name], rel=2e-6, abs=1e-6), name
    for report in (compare(baseline, device), compare(device, baseline)):
        assert not report.drift
        streams = {stream.stream: stream for each in report.groups for stream in each.streams}
        assert len(streams) == 3 + 3 + 3
        assert max(stream.effect for stream in streams.values()) < 2 * RANK_ERROR
    dark = [image // 2 for image in images]
    program("sketch", "--out", tmp_path / "dark", *save_raw(dark, tmp_path))
    assert compare(baseline, edge.read_stats(tmp_path / "dark")).drift


def test_files_are_the_same_for_both_libraries(program, tmp_path):
    """What C++ wrote comes out of Python's DataSketches byte for byte, and merges with what Python wrote."""
    images = made_up()[:1] * 3
    program("sketch", "--out", tmp_path, *(given := save_raw(images, tmp_path)))
    files = sorted((tmp_path / "imgstats").iterdir())
    assert len(files) == 3 + 3 + 3
    for file in files:
        assert kll_floats_sketch.deserialize(file.read_bytes()).serialize() == file.read_bytes()
    edge.write_stats(edge.read_stats(tmp_path), tmp_path / "again")
    edge.write_stats(python_profile([image // 2 for image in images]), tmp_path / "again")
    program("sketch", "--merge", "--out", tmp_path / "again", *given)
    merged = sketches_in(tmp_path / "again")
    assert [merged[name].n for name in ("noise", "mean_2", "pixel_1")] == [6, 6, 6 * 32 * 24]
    assert merged["brightness"].get_min_value() < 0.6 * merged["brightness"].get_max_value()
    program("sketch", "--out", tmp_path / "again", *given)
    assert sketches_in(tmp_path / "again")["noise"].n == 3


def thresholds(text: str) -> dict[str, tuple[float, float]]:
    """The ranges of `[image]`, read as text."""
    lines = text.split("[image]")[1].split("[")[0].splitlines()
    pairs = [line.split(" = ") for line in lines if "," in line and not line.startswith("filepath")]
    return {key.lower(): tuple(map(float, value.split(","))) for key, value in pairs}


def test_a_config_says_which_images_are_saved(program, tmp_path):
    china = photos()[0]
    images = [china[y : y + 24, x : x + 32] for y in range(0, 400, 80) for x in range(0, 600, 80)]
    images[3] = np.full_like(images[3], 9)
    config = edge.write_config(python_profile(images[4:]), tmp_path / "config.ini", percentiles=(0.1, 0.8))
    config.write_text(config.read_text().replace("\nBRIGHTNESS", "\n; a comment\nBRIGHTNESS") + "[own]\nA = 1 ; b\n")
    lines = table(program("check", "--config", config, *save_raw(images, tmp_path)))
    ranges = thresholds(config.read_text())
    assert ranges.keys() == {"noise", "brightness", "sharpness"}
    saved = 0
    for number, image in enumerate(images):
        group = python_profile([image]).groups["inputs/lensai-edge"]
        values = dict(zip(group.streams, group.bank.min.tolist(), strict=True))
        reasons = [name for name, (low, high) in ranges.items() if not low <= values[name] <= high]
        assert lines[str(tmp_path / f"{number}.raw")] == ["yes" if reasons else "no", ",".join(reasons)]
        saved += bool(reasons)
    assert lines[str(tmp_path / "3.raw")] == ["yes", "noise"]
    assert 5 < saved < len(images) - 5


def test_the_commands_of_its_readme_run(binary, tmp_path):
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "lensai_edge").symlink_to(binary)
    (tmp_path / "frames").mkdir()
    images = [photos()[0][y : y + 24, :32] for y in (0, 100, 200)]
    save_raw(images, tmp_path / "frames")
    edge.write_config(python_profile(images), tmp_path / "config.ini", percentiles=(0.0, 1.0))
    commands = (EXAMPLE / "README.md").read_text().split("## Run")[1].split("```bash\n")[1].split("```")[0]
    done = subprocess.run(["bash", "-ec", commands], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split("\t")[:2] for line in done.stdout.splitlines()] == [
        ["file", "n"],
        ["device/imgstats/noise.bin", "3"],
        ["device/imgstats/pixel_0.bin", str(3 * 24 * 32)],
        ["file", "saved"],
        ["frames/0.raw", "no"],
        ["frames/1.raw", "no"],
    ]
    assert edge.read_stats(tmp_path / "device").n == 3
