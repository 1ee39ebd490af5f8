"""What every measure of images has to do, as one suite: `check_measure(glare)` in a test of your own measure.

from checks.measure import check_measure

def test_it_is_a_measure():
    check_measure(glare)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from libraries import maker

from lensai_integrations import Profiler
from lensai_integrations.arrays.namespaces import Array
from lensai_integrations.measures.custom import CustomMeasure
from lensai_integrations.measures.definitions import DEFINITIONS


def check_measure(measure: CustomMeasure, *, libraries: Sequence[str] = ("numpy", "torch"), channels: int = 3) -> None:
    """Hold a measure against what profilers rely on.

    Args:
        measure: What `@measure(...)` made of a function.
        libraries: Whose arrays it is to take: of `numpy`, `torch`, `jax`, `tensorflow`. What is not installed skips.
        channels: Of the images it is made for: 3 for RGB, 1 for grey.

    Raises:
        AssertionError: With what is not so, in words.
    """
    _says_what_it_means(measure)
    images = _pictures(channels)
    rows = _rows_of(measure, images)
    _stays_in_its_range(measure, images, rows)
    _measures_each_image_by_itself(measure, images, rows)
    for library in libraries:
        _becomes_streams(measure, maker(library)(images.astype(np.uint8)), rows)


def _says_what_it_means(measure: CustomMeasure) -> None:
    told = measure.definition
    assert DEFINITIONS.get(told.id) == told, f"{told.id} is not declared: decorate the function with @measure"
    assert told.description, f"{told.id} says nothing about an image: give the function a docstring of one sentence"
    assert told.formula, f"{told.id} has no formula: its source could not be read"


def _pictures(channels: int) -> np.ndarray:
    """Float32 `[8, 12, 9, C]` on the 0-255 scale: photo-like, noise, and the constants that divide by zero."""
    rng = np.random.default_rng(0)
    slopes = np.linspace(0, 255, 12)[:, None, None] * np.linspace(0.2, 1, 9)[None, :, None]
    made = [slopes * scale for scale in (1, 0.5)] + [rng.uniform(0, 255, (12, 9, 1)) for _ in range(3)]
    made += [np.full((12, 9, 1), value) for value in (0, 128, 255)]
    tints = np.linspace(1, 0.6, channels)
    return np.stack([(picture * tints).round() for picture in made]).astype(np.float32)


def _rows_of(measure: CustomMeasure, images: np.ndarray) -> np.ndarray:
    before = images.copy()
    rows = np.asarray(measure(images))
    assert np.array_equal(before, images), f"{measure.name} changed the images it was given"
    assert rows.ndim in (1, 2), f"{measure.name} answered shape {rows.shape}: [n] or [n, k] is expected"
    assert len(rows) == len(images), f"{measure.name} answered {len(rows)} rows of {len(images)} images"
    return rows


def _stays_in_its_range(measure: CustomMeasure, images: np.ndarray, rows: np.ndarray) -> None:
    assert np.isfinite(rows).all(), (
        f"{measure.name} is not finite for {images[~np.isfinite(_flat(rows)).all(1)][0, 0, 0]}"
    )
    low, high = measure.definition.range
    assert low is None or rows.min() >= low, f"{measure.name} answered {rows.min()}, below its range from {low}"
    assert high is None or rows.max() <= high, f"{measure.name} answered {rows.max()}, above its range to {high}"


def _measures_each_image_by_itself(measure: CustomMeasure, images: np.ndarray, rows: np.ndarray) -> None:
    alone = np.concatenate([np.asarray(measure(images[i : i + 1])) for i in range(len(images))])
    assert alone.shape == rows.shape, f"{measure.name} has another number of streams for one image than for several"
    np.testing.assert_allclose(alone, rows, rtol=1e-4, atol=1e-4, err_msg=f"{measure.name} depends on the other images")


def _becomes_streams(measure: CustomMeasure, images: Array, rows: np.ndarray) -> None:
    profiler = Profiler(measures=[measure])
    profiler.update(inputs=images)
    profile = profiler.profile()
    assert not profile.warnings, f"{measure.name} in a profiler: {profile.warnings}"
    names = [measure.name] if rows.ndim == 1 else [f"{measure.name}/{i}" for i in range(rows.shape[1])]
    streams = {summary.stream: summary for summary in profile.summaries()}
    for name, column in zip(names, _flat(rows).T, strict=True):
        stream = streams[f"inputs/{name}"]
        assert (stream.n, stream.definition) == (len(images), measure.definition.id), f"{name} became {stream}"
        np.testing.assert_allclose([stream.min, stream.max], [column.min(), column.max()], rtol=1e-3, atol=1e-2)


def _flat(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(len(rows), -1)
