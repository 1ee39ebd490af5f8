"""What the C++ example refuses: one line on stderr, exit code 2, and files as they were."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from datasketches import kll_floats_sketch
from device_images import made_up, python_profile, save_raw

from lensai_integrations import edge

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("BRIGHTNESS = -1,", "BRIGHTNESS = 40,", "BRIGHTNESS has a lower bound above -1"),
        ("NOISE = ", "NOISE = NaN ; ", "NOISE is NaN"),
        ("QUATERNION_DRIFT = true", "", "[tracker] has no QUATERNION_DRIFT"),
        ("SHARPNESS = -1,", "SHARPNESS = -1;", "SHARPNESS is neither lower,upper nor NaN"),
        ("SHARPNESS = -1,", "SHARPNESS = x,", "SHARPNESS has x, which is no number"),
        ("SHARPNESS", "SHARP", "[image] has no SHARPNESS"),
        ("[image]", "[image", "neither [section] nor key = value"),
    ],
)
def test_a_config_that_devices_stumble_over_is_refused(old, new, told, refused, tmp_path):
    images = made_up()[:1]
    config = edge.write_config(python_profile(images), tmp_path / "config.ini")
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    assert told in refused("check", "--config", config, *save_raw(images, tmp_path))


def test_images_of_another_size_are_refused_and_nothing_is_written(refused, tmp_path):
    given = save_raw(made_up()[:1] * 2, tmp_path)
    for content, told in ((b"\0" * 2303, "has 2303 bytes"), (b"\0" * 2305, "more than 2304"), (b"", "has 0 bytes")):
        (tmp_path / "1.raw").write_bytes(content)
        assert told in refused("sketch", "--out", tmp_path / "device", *given)
    (tmp_path / "1.raw").unlink()
    assert "cannot be read" in refused("sketch", "--out", tmp_path / "device", *given)
    assert "cannot be read" in refused("sketch", "--out", tmp_path / "device", *given[:-1], tmp_path)
    assert not (tmp_path / "device").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "usage: "),
        (["draw", "a"], "draw is not known; usage: "),
        (["quantiles"], "no files are given; usage: "),
        (["quantiles", "--k", "8", "a"], "--k is not known here"),
        (["sketch", "a"], "--width is not given"),
        (["sketch", "a", "--width"], "--width needs a value"),
        (["sketch", "--width", "0", "a"], "--width is 0, and not a whole number from 1 to 65535"),
        (["sketch", "--width", "3x", "a"], "--width is 3x"),
        (["sketch", "--width", "99999999999", "a"], "--width is 99999999999"),
        (["sketch", "--width", "3", "--height", "-1", "a"], "--height is -1"),
        (["sketch", "--width", "3", "--height", "3", "--channels", "2", "a"], "--channels is 2, and neither 1 nor 3"),
        (["sketch", "--width", "3", "--height", "3", "--channels", "3", "a"], "--out is not given"),
    ],
)
def test_arguments_that_say_nothing_are_refused(arguments, told, refused):
    assert told in refused(*arguments)


def test_damaged_sketches_are_refused(refused, binary, tmp_path):
    """Cut at every length, and with every byte of the header and the levels changed: no crash, no nonsense."""
    rng = np.random.default_rng(0)
    sketch = kll_floats_sketch(8)
    sketch.update(rng.normal(size=300).astype(np.float32))
    whole = sketch.serialize()
    damaged = [whole[:cut] for cut in range(len(whole))] + [whole + b"\0"]
    levels = slice(20, 20 + 4 * whole[18])
    changed = [bytearray(whole) for _ in range(levels.stop)]
    for position, content in enumerate(changed):
        content[position] ^= 0xFF
    path = tmp_path / "a.bin"
    for content in [
        *damaged,
        *(c for i, c in enumerate(changed) if i in (0, 1, 2, 6, *range(8, 16), 18)),
        *changed[20:],
    ]:
        path.write_bytes(content)
        done = subprocess.run([binary, "quantiles", path], capture_output=True, text=True, check=False)
        assert done.returncode == 2, (len(content), done)
    path.write_bytes(whole[:-4] + np.float32(np.nan).tobytes())
    assert "it holds NaN" in refused("quantiles", path)
    path.write_bytes(kll_floats_sketch(200).serialize())
    assert "it has seen no values" in refused("quantiles", path)
    assert "cannot be read" in refused("quantiles", tmp_path / "absent.bin")
    assert "cannot be read" in refused("quantiles", tmp_path)


def test_files_appear_whole_or_not_at_all(program, refused, binary, tmp_path):
    """A limit on file sizes stands for a full disk: the small sketches fit, those of pixels do not."""
    given = save_raw(made_up()[:1], tmp_path)
    program("sketch", "--out", tmp_path, *given)
    before = {path.name: path.read_bytes() for path in (tmp_path / "imgstats").iterdir()}
    assert max(map(len, before.values())) > 1024
    limited = ["bash", "-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "-", binary, "sketch", "--out", tmp_path, *given]
    done = subprocess.run([*map(str, limited)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "pixel_0.bin was not written: File too large" in done.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "imgstats").iterdir()} == before
    (tmp_path / "imgstats" / "noise.bin").write_bytes(b"")
    assert "noise.bin is no sketch" in refused("sketch", "--merge", "--out", tmp_path, *given)
    assert (tmp_path / "imgstats" / "brightness.bin").read_bytes() == before["brightness.bin"]
    (tmp_path / "file").touch()
    refused("sketch", "--out", tmp_path / "file", *given)


def test_output_that_cannot_be_written_is_said(binary, tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    program = [binary, "quantiles", *edge.write_stats(python_profile(made_up()[:1]), tmp_path)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "lensai_edge: the output cannot be written\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "DATASKETCHES_INCLUDE is not given"),
        (["-DDATASKETCHES_INCLUDE=/absent"], "DATASKETCHES_INCLUDE=/absent has"),
    ],
)
def test_cmake_says_what_is_missing(arguments, told, configure):
    done = configure(*arguments)
    assert done.returncode != 0
    assert told in " ".join(done.stderr.split())


@pytest.mark.parametrize("layout", ["DataSketches", "."])
def test_installed_headers_are_found(layout, configure, tmp_path):
    (tmp_path / layout).mkdir(exist_ok=True)
    (tmp_path / layout / "kll_sketch.hpp").touch()
    done = configure(f"-DDATASKETCHES_INCLUDE={tmp_path}")
    assert done.returncode == 0, done.stderr
