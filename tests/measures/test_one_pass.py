"""The compiled loop over images in host memory: the numbers of the formulas over planes, for everything they take."""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensai_integrations.measures import edge, images, one_pass
from lensai_integrations.measures.images import (
    CONVENTIONS,
    measure_by_conventions,
    measure_images,
    measure_images_and_bytes,
    pixel_bytes,
)
from lensai_integrations.measures.inputs import Images
from lensai_integrations.measures.one_pass import Added, add_up
from lensai_integrations.measures.pixels import blocks

pytest.importorskip("numba")

LAYOUTS = {
    "NCHW": lambda pixels: pixels,
    "NHWC": lambda pixels: np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "BGR": lambda pixels: np.ascontiguousarray(pixels[:, ::-1].transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)[:, ::-1],
    "RGBA": lambda pixels: np.ascontiguousarray(
        np.concatenate([pixels, pixels[:, :1]], axis=1).transpose(0, 2, 3, 1)
    ).transpose(0, 3, 1, 2)[:, :-1],
    "turned": lambda pixels: np.ascontiguousarray(pixels.transpose(3, 2, 1, 0)).transpose(3, 2, 1, 0),
    "mirrored": lambda pixels: pixels[..., ::-1].copy()[..., ::-1],
    "every other": lambda pixels: np.repeat(pixels, 2, axis=2)[:, :, ::2],
}
KINDS = ["noise", "nearly constant", "constant", "grey", "black and white", "ramp", "overshot"]
DTYPES = ["uint8", "int16", "float16", "float32", "float64"]


def picture(shape: tuple[int, int, int, int], kind: str, seed: int) -> np.ndarray:
    """Pixels on the 0-255 scale, whole numbers."""
    rng = np.random.default_rng(seed)
    n, channels, height, width = shape
    if kind == "nearly constant":
        return rng.integers(0, 254, (n, channels, 1, 1)) + rng.integers(0, 2, shape)
    if kind == "constant":
        return np.broadcast_to(rng.integers(0, 256, (n, channels, 1, 1)), shape).copy()
    if kind == "grey":
        return np.repeat(rng.integers(0, 256, (n, 1, height, width)), channels, axis=1)
    if kind == "black and white":
        return rng.integers(0, 2, shape) * 255
    if kind == "overshot":
        return rng.integers(-25, 281, shape)
    if kind == "ramp":
        ramp = np.linspace(0, 200, width)[None, :] + np.linspace(0, 50, height)[:, None]
        noisy = ramp * rng.uniform(0.2, 1, (n, channels, 1, 1)) + rng.normal(0, 1.5, shape)
        return noisy.clip(0, 255).astype(np.int64)
    return rng.integers(0, 256, shape)


def as_images(pixels: np.ndarray, dtype: str, layout: str, gain: float = 1.0, offset: float = 0.0) -> Images:
    """The same images, of another dtype, in another order in memory, and normalised by a gain and an offset."""
    channels = pixels.shape[1]
    if dtype == "uint8":
        pixels = pixels.clip(0, 255)
    elif dtype.startswith("float"):
        pixels = (pixels - offset) / gain
    else:
        gain, offset = 1.0, 0.0
    numbers = (1.0, 0.0) if dtype == "uint8" else (gain, offset)
    whole = dtype == "float16"
    return Images(LAYOUTS[layout](pixels.astype(dtype)), *((number,) * channels for number in numbers), "", whole)


def by_formulas(wanted: Images) -> tuple[Any, Any]:
    """What `over_pixels` of both conventions makes of the same images."""
    with np.errstate(all="ignore"):
        planes = list(blocks(wanted))
        return (
            images._joined([images.over_pixels(some) for some in planes], np),
            images._joined([edge.over_pixels(some) for some in planes], np),
        )


def added_up(wanted: Images, **what: bool) -> Added:
    added = add_up(wanted, **({"luma": True, "gray": True, "counts": True, "rounded": True} | what))
    assert added is not None
    return added


IMAGES = st.builds(
    lambda shape, kind, seed, *how: as_images(picture(shape, kind, seed), *how),
    st.tuples(st.integers(1, 3), st.sampled_from([1, 3]), st.integers(1, 23), st.integers(1, 23)),
    st.sampled_from(KINDS),
    st.integers(0, 2**32 - 1),
    st.sampled_from(DTYPES),
    st.sampled_from(sorted(LAYOUTS)),
    st.sampled_from([1.0, 58.4, 255.0]),
    st.sampled_from([0.0, 123.7]),
)


@given(IMAGES)
@settings(max_examples=400, deadline=None)
def test_the_sums_are_those_of_the_formulas(wanted: Images) -> None:
    added, (sums, gray) = added_up(wanted), by_formulas(wanted)
    assert added.valid.all()
    for fields, expected in ((added.of_luma(), sums), (added.of_gray(), gray)):
        for name, value in fields.items():
            reference = getattr(expected, name)
            if value is None or name == "size":
                assert value == reference
                continue
            assert (value.dtype, value.shape) == (np.float32, reference.shape)
            exact = name in ("shares", "gray_low", "gray_high")
            np.testing.assert_allclose(value, reference, rtol=0 if exact else 2e-5, atol=0 if exact else 1e-3)
    pixels = pixel_bytes(wanted)
    assert np.array_equal(added.rounded, pixels)
    assert added.counts.tolist() == [np.bincount(channel.ravel(), minlength=256).tolist() for channel in
                                     pixels.swapaxes(0, 1)]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS[:-1])
@pytest.mark.parametrize(
    "shape", [(1, 3, 224, 224), (2, 3, 301, 517), (1, 3, 1, 70001), (1, 3, 70001, 1), (1, 1, 2, 40000)]
)
def test_large_images_and_odd_ones(kind: str, shape: tuple[int, int, int, int]) -> None:
    pixels = as_images(picture(shape, kind, 0), "uint8", "NHWC")
    sums, gray = by_formulas(pixels)
    added = added_up(pixels)
    for fields, expected in ((added.of_luma(), sums), (added.of_gray(), gray)):
        for name, value in fields.items():
            if value is not None and name != "size":
                np.testing.assert_allclose(value, getattr(expected, name), rtol=2e-5, atol=1e-3, err_msg=name)


@given(
    st.tuples(st.just(1), st.just(3), st.integers(1, 90), st.integers(1, 90)),
    st.sampled_from(KINDS),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=100, deadline=None)
def test_variances_of_bytes_are_exact(shape: tuple[int, int, int, int], kind: str, seed: int) -> None:
    """To the last digit of float32: whole numbers, added up without rounding."""
    pixels = as_images(picture(shape, kind, seed), "uint8", "NCHW")
    sums = added_up(pixels).of_luma()
    whole = pixels.pixels[0].astype(np.int64)
    red, green, blue = whole
    n = red.size

    def variance(values: np.ndarray) -> float:
        return (n * int((values * values).sum()) - int(values.sum()) ** 2) / n**2  # of Python's whole numbers

    assert sums["mean"][0].tolist() == [np.float32(int(channel.sum()) / n) for channel in whole]
    np.testing.assert_allclose(sums["variance"][0], [variance(channel) for channel in whole], rtol=1.2e-7, atol=1e-12)
    luma = 299 * red + 587 * green + 114 * blue
    np.testing.assert_allclose(sums["luma_variance"][0], variance(luma) / 1e6, rtol=1.2e-7, atol=1e-11)
    opponents = variance(red - green) + variance(red + green - 2 * blue) / 4
    np.testing.assert_allclose(sums["opponents_variance"][0], opponents, rtol=1.2e-7, atol=1e-11)
    lines = [np.pad(luma, [(1, 1) if axis == side and size > 1 else (0, 0) for side, size in enumerate(luma.shape)],
                    mode="reflect") for axis in (0, 1)]  # fmt: skip
    second = [np.diff(line, n=2, axis=axis) if luma.shape[axis] > 1 else 0 * luma for axis, line in enumerate(lines)]
    np.testing.assert_allclose(sums["laplacian_variance"][0], variance(sum(second)) / 1e6, rtol=1.2e-7, atol=1e-9)


@given(
    st.lists(st.floats(0, 255, width=32), min_size=3, max_size=3), st.integers(1, 90), st.integers(1, 90),
    st.sampled_from(["uint8", "float32", "float64"]), st.booleans(),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_a_constant_image_has_no_spread_at_all(
    colour: list[float], height: int, width: int, dtype: str, grey: bool
) -> None:
    pixels = np.broadcast_to(
        np.reshape(colour[:1] if grey else colour, (1, -1, 1, 1)), (1, 1 if grey else 3, height, width)
    )
    names, rows = measure_images(as_images(pixels, dtype, "NCHW"))
    measured = dict(zip(names, rows[0].tolist(), strict=True))
    spread = ["contrast", "sharpness", "noise_sigma", "std/0", "entropy"]
    assert [measured[name] for name in spread] == [0] * 5
    assert measured["mean/0"] == (int(colour[0]) if dtype == "uint8" else np.float32(colour[0]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -25.6, 280.6, 1e38])
@pytest.mark.parametrize("place", [(1, 0, 0, 0), (1, 2, 8, 6), (0, 1, 4, 3), (2, 2, 8, 0)])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "RGBA"])
def test_an_image_out_of_range_is_invalid_and_counts_for_nothing(
    bad: float, place: tuple[int, ...], layout: str
) -> None:
    pixels = picture((3, 3, 9, 7), "noise", 0).astype(np.float32)
    pixels[place] = bad
    others = [i for i in range(3) if i != place[0]]
    added = added_up(as_images(pixels, "float32", layout))
    assert added.valid.tolist() == [i != place[0] for i in range(3)]
    expected = added_up(as_images(pixels[others], "float32", "NCHW"))
    assert np.array_equal(added.counts, expected.counts)
    assert np.array_equal(added.rounded, expected.rounded)
    assert np.array_equal(added.sums[others], expected.sums)
    by_name, _, counts, n = measure_by_conventions(as_images(pixels, "float32", layout), ("lensai",))
    rows = by_name["lensai"]
    assert np.isnan(rows).all(axis=1).tolist() == [i == place[0] for i in range(3)]
    assert (counts.sum(), n) == (2 * 3 * 9 * 7, 2)


def test_none_of_a_batch_may_be_valid() -> None:
    wanted = as_images(np.full((2, 3, 4, 4), np.nan), "float32", "NCHW")
    rows, failed, counts, n = measure_by_conventions(wanted, tuple(CONVENTIONS))
    assert all(np.isnan(values).all() for values in rows.values())
    assert (failed, counts.any(), n) == ({}, False, 0)
    assert measure_images_and_bytes(wanted)[2].shape == (0, 3, 4, 4)


@pytest.fixture
def _without_numba(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    one_pass._adder.cache_clear()
    monkeypatch.setitem(sys.modules, "numba", None)
    yield
    one_pass._adder.cache_clear()


@pytest.mark.usefixtures("_without_numba")
def test_without_numba_the_formulas_measure_the_same(caplog: pytest.LogCaptureFixture) -> None:
    wanted = as_images(picture((3, 3, 20, 30), "ramp", 0), "float32", "NHWC", 255.0)
    with caplog.at_level(logging.INFO, "lensai_integrations"):
        slow = measure_by_conventions(wanted, tuple(CONVENTIONS))
        assert measure_images(wanted)[1].shape == (3, 20)
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "pip install numba" in caplog.text
    sys.modules.pop("numba")
    one_pass._adder.cache_clear()
    fast = measure_by_conventions(wanted, tuple(CONVENTIONS))
    for convention, rows in fast[0].items():
        np.testing.assert_allclose(rows, slow[0][convention], rtol=2e-5, atol=1e-3)
    assert np.array_equal(fast[2], slow[2])
    assert (fast[3], slow[3]) == (3, 3)


def test_a_compiler_that_fails_costs_speed_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(dtype: str) -> None:
        raise OSError("no space left")

    one_pass._adder.cache_clear()
    monkeypatch.setattr(one_pass._kernel(), "adder", failing)
    try:
        wanted = as_images(picture((1, 3, 8, 8), "noise", 0), "uint8", "NCHW")
        assert np.isfinite(measure_images(wanted)[1]).all()
        assert "no space left" in caplog.text
    finally:
        one_pass._adder.cache_clear()


def test_a_loop_that_would_not_be_compiled_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    one_pass._adder.cache_clear()
    monkeypatch.setattr(importlib.import_module("numba").config, "DISABLE_JIT", 1)
    try:
        wanted = as_images(picture((1, 3, 8, 8), "noise", 0), "uint8", "NCHW")
        assert add_up(wanted, luma=True, gray=False) is None
        assert np.isfinite(measure_images(wanted)[1]).all()
    finally:
        one_pass._adder.cache_clear()


@pytest.mark.parametrize("error", [OSError("no space left"), EOFError("damaged"), RuntimeError("no folder")])
def test_what_is_kept_on_disk_may_be_damaged(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    numba, ways = importlib.import_module("numba"), []

    def njit(signatures: Any, *, cache: bool = False, **options: Any) -> Any:
        ways.append(cache)
        if cache:
            raise error
        return lambda function: "compiled"

    kernel = one_pass._kernel()
    kernel.adder.cache_clear()
    monkeypatch.setattr(numba, "njit", njit)
    try:
        assert kernel.adder("uint8") == "compiled"
        assert ways == [True, False]
    finally:
        kernel.adder.cache_clear()


def test_images_are_only_read() -> None:
    for dtype in DTYPES:
        wanted = as_images(picture((2, 3, 12, 9), "noise", 0), dtype, "NCHW")
        kept = wanted.pixels.copy()
        wanted.pixels.flags.writeable = False
        added_up(wanted)
        assert np.array_equal(wanted.pixels, kept)


def test_a_batch_is_the_sum_of_its_images() -> None:
    """Whatever numbers of them are made contiguous at a time."""
    for layout in LAYOUTS:
        wanted = as_images(picture((40, 3, 64, 48), "ramp", 0), "float64", layout, 255.0)
        alone = [added_up(replace(wanted, pixels=wanted.pixels[i : i + 1])) for i in range(40)]
        together = added_up(wanted)
        assert np.array_equal(together.sums, np.concatenate([added.sums for added in alone]))
        assert np.array_equal(together.counts, sum(added.counts for added in alone))
        assert np.array_equal(together.rounded, np.concatenate([added.rounded for added in alone]))


def test_a_convention_with_sums_of_its_own_takes_the_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    own = replace(CONVENTIONS["lensai"], over_pixels=partial(images.over_pixels))
    monkeypatch.setitem(CONVENTIONS, "own", own)
    wanted = as_images(picture((2, 3, 9, 9), "noise", 0), "uint8", "NCHW")
    monkeypatch.setattr(images, "add_up", None)
    assert "own" in measure_by_conventions(wanted, ("own", "lensai-edge"))[0]


@pytest.mark.slow
def test_numba_is_imported_for_the_first_image_and_a_folder_that_cannot_be_written_does_not_matter(
    tmp_path: Path,
) -> None:
    script = (
        "import sys, numpy as np\n"
        "from lensai_integrations.measures.images import measure_images\n"
        "from lensai_integrations.measures.inputs import ImageInputs\n"
        "assert 'numba' not in sys.modules\n"
        "names, rows = measure_images(ImageInputs().read(np.full((1, 8, 8, 3), 200, np.uint8)))\n"
        "assert 'numba' in sys.modules\n"
        "print(rows[0, 0])\n"
    )
    (tmp_path / "file").write_text("in the way")
    command = [sys.executable, "-W", "error", "-c", script]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(images.__file__).parents[2]),
                   "NUMBA_CACHE_DIR": str(tmp_path / "file")}  # fmt: skip
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert (result.stdout.strip(), result.stderr) == ("200.0", "")
