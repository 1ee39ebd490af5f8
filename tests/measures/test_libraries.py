"""The same numbers through every library, in host memory and on what is treated as an accelerator.

In host memory JAX's and TensorFlow's arrays are viewed as numpy, so the rows are equal bit for bit. On an accelerator
sums are taken in another order: rows differ by 2e-5 of their size at most, and hue (an angle, ill-conditioned where the
mean colour is nearly grey) by 1e-2 degrees. Pixel counts are always equal.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from libraries import IMMUTABLE, LIBRARIES, as_if_elsewhere, maker, traced

from lensai_integrations.arrays.namespaces import is_immutable, to_host
from lensai_integrations.errors import InputError
from lensai_integrations.measures.batches import find_images
from lensai_integrations.measures.embeddings import RandomProjection, reduce_embedding
from lensai_integrations.measures.images import (
    CONVENTIONS,
    image_measures,
    measure_by_conventions,
    measure_images,
    measure_images_and_bytes,
    measure_images_and_counts,
)
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.measures.outputs import measure_outputs, resolve
from lensai_integrations.sketches.counts import PixelCounts, count_images

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
RNG = np.random.default_rng(0)
PLACES = pytest.mark.parametrize("elsewhere", [False, True], ids=["host", "elsewhere"])
LIBRARY = pytest.mark.parametrize("library", LIBRARIES)
TRACING = pytest.mark.parametrize("library", IMMUTABLE)
CONVENTION = pytest.mark.parametrize("convention", CONVENTIONS)


def pictures(height, width, channels):
    """Noise, shades, a constant image, a black and a white one: uint8 `[7, H, W, C]`."""
    images = RNG.integers(0, 256, (7, height, width, channels), dtype=np.uint8)
    images[1] //= 4
    images[2] = np.linspace(0, 255, width, dtype=np.uint8)[None, :, None]
    images[3], images[4], images[5] = 128, 0, 255
    return images


KINDS = {
    "uint8": lambda bytes: bytes,
    "unit": lambda bytes: (bytes / 255).astype(np.float32),
    "half": lambda bytes: (bytes / 255).astype(np.float16),
    "full": lambda bytes: bytes.astype(np.float32),
    "normalised": lambda bytes: ((bytes / np.float32(255) - MEAN[: bytes.shape[-1]]) / STD[: bytes.shape[-1]]).astype(
        np.float32
    ),
}
SIZES = [(23, 17, 3), (1, 5, 3), (16, 15, 1)]


def reader_of(kind, channels):
    if kind != "normalised":
        return {}
    return {"mean": tuple(MEAN[:channels].tolist()), "std": tuple(STD[:channels].tolist())}


def assert_same_rows(found, expected, names, *, exact):
    found, expected = to_host(found), to_host(expected)
    assert found.dtype == expected.dtype == np.float32
    assert found.shape == expected.shape
    if exact:
        np.testing.assert_array_equal(found, expected)
        return
    for column, name in enumerate(names):
        absolute = {"hue": 1e-2}.get(name, 1e-3)
        np.testing.assert_allclose(found[:, column], expected[:, column], rtol=2e-5, atol=absolute, err_msg=name)


@PLACES
@LIBRARY
@CONVENTION
@pytest.mark.parametrize("kind", KINDS)
def test_every_image_measure_and_the_pixel_counts(library, convention, kind, elsewhere, monkeypatch):
    make = maker(library)
    if elsewhere:
        as_if_elsewhere(monkeypatch)
    for (height, width, channels), layout in itertools.product(SIZES, ("NHWC", "NCHW")):
        batch = KINDS[kind](pictures(height, width, channels))
        batch = batch if layout == "NHWC" else np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
        inputs = ImageInputs(layout=layout, **reader_of(kind, channels)).resolve(batch)
        names, expected, bytes = measure_images_and_bytes(inputs.read(batch), convention)
        counts = PixelCounts(channels)
        counts.update(bytes)

        array = make(batch)
        images = inputs.read({"image": (array, 0)})
        found_names, rows, found = measure_images_and_counts(images, convention)

        assert inputs == ImageInputs(layout=layout, **reader_of(kind, channels)).resolve(array)
        assert is_immutable(rows) == is_immutable(found) == (elsewhere and library in IMMUTABLE)
        assert found_names == names == tuple(image_measures(channels, convention))
        assert_same_rows(rows, expected, names, exact=not is_immutable(rows))
        assert np.array_equal(to_host(found), counts.counts)


@TRACING
@CONVENTION
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_an_image_is_waited_for(library, convention, kind, monkeypatch):
    """A function that is traced has no values to wait for."""
    as_if_elsewhere(monkeypatch)
    batch = KINDS[kind](pictures(23, 17, 3))
    inputs = ImageInputs(**reader_of(kind, 3)).resolve(batch)
    names, expected, counts = measure_images_and_counts(inputs.read(batch), convention)

    rows, found = traced(
        library, lambda array: measure_images_and_counts(inputs.read(array), convention)[1:], maker(library)(batch)
    )

    assert is_immutable(rows)
    assert_same_rows(rows, expected, names, exact=False)
    assert np.array_equal(to_host(found), counts)


@TRACING
def test_many_images_are_measured_in_a_few_blocks(library, monkeypatch):
    as_if_elsewhere(monkeypatch)
    monkeypatch.setattr("lensai_integrations.measures.pixels._DEVICE_PIXELS", 1)
    batch = RNG.integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
    names, expected, counts = measure_images_and_counts(ImageInputs().read(batch))
    _, rows, found = measure_images_and_counts(ImageInputs().read(maker(library)(batch)))
    assert_same_rows(rows, expected, names, exact=False)
    assert np.array_equal(to_host(found), counts)


@PLACES
@LIBRARY
def test_no_images_are_no_rows(library, elsewhere, monkeypatch):
    if elsewhere:
        as_if_elsewhere(monkeypatch)
    images = ImageInputs().read(maker(library)(np.zeros((0, 6, 5, 3), np.uint8)))
    names, rows, counts = measure_images_and_counts(images)
    assert to_host(rows).shape == (0, len(names))
    assert not to_host(counts).any()


@PLACES
@TRACING
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 7.0])
def test_only_the_image_with_a_bad_pixel_becomes_nan(library, elsewhere, bad, monkeypatch):
    if elsewhere:
        as_if_elsewhere(monkeypatch)
    batch = KINDS["unit"](pictures(9, 8, 3))
    batch[2, 1, 1, 0] = bad
    _, rows = measure_images(ImageInputs(scale=255).read(maker(library)(batch)))
    assert np.isnan(to_host(rows)).all(axis=1).tolist() == [i == 2 for i in range(7)]
    assert np.isfinite(to_host(rows)[[0, 1, 3]]).all()


@PLACES
@TRACING
@CONVENTION
@pytest.mark.parametrize("bad", [np.nan, np.inf, 7.0])
def test_pixels_of_the_image_with_a_bad_one_are_counted_nowhere(library, elsewhere, convention, bad, monkeypatch):
    if elsewhere:
        as_if_elsewhere(monkeypatch)
    monkeypatch.setattr("lensai_integrations.measures.pixels._DEVICE_PIXELS", 9 * 8 * 3)  # several blocks
    batch = KINDS["unit"](pictures(9, 8, 3))
    batch[2, 1, 1, 0] = bad
    inputs = ImageInputs(scale=255)
    _, _, expected, n = measure_by_conventions(inputs.read(batch), (convention,))
    _, _, counts, counted = measure_by_conventions(inputs.read(maker(library)(batch)), (convention,))
    assert n == int(to_host(counted)) == len(batch) - 1
    assert np.array_equal(to_host(counts), expected)
    assert expected.sum() == 9 * 8 * 3 * n


@TRACING
def test_in_host_memory_nothing_is_copied(library):
    array = maker(library)(pictures(8, 6, 3))
    assert np.shares_memory(ImageInputs().read(array).pixels, ImageInputs().read((array, 1)).pixels)


def test_what_is_no_dense_tensor_is_refused():
    maker("tensorflow")
    import tensorflow as tf

    with pytest.raises(InputError, match=r"got a tf.RaggedTensor: pass batch.to_tensor"):
        find_images({"image": tf.ragged.constant([[1.0], [2.0, 3.0]])})
    with pytest.raises(InputError, match=r"got a tf.SparseTensor: pass tf.sparse.to_dense"):
        find_images((tf.sparse.from_dense([[1.0, 0.0]]), 0))
    with pytest.raises(InputError, match="expected an array of numbers"):
        ImageInputs(layout="NHW").read(tf.constant([[["a"]]]))


LOGITS = RNG.normal(0, 4, (40, 6)).astype(np.float32)
LOGITS[3, 2], LOGITS[5] = np.nan, [60, -60, 0, 0, 0, 0]
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
PROBABILITIES[7, 0] = -1
OUTPUTS = {
    "logits": LOGITS,
    "probabilities": PROBABILITIES,
    "values": LOGITS,
    "one logit": LOGITS[:, 0],
    "one probability": 1 / (1 + np.exp(-LOGITS[:, :1, None])),
    "half": LOGITS.astype(np.float16),
}


def kind_of(name):
    return {"one logit": "logits", "one probability": "probabilities", "half": "logits"}.get(name, name)


@pytest.mark.parametrize("how", ["host", "elsewhere", "traced"])
@LIBRARY
@pytest.mark.parametrize("name", OUTPUTS)
def test_every_measure_of_outputs(library, name, how, monkeypatch):
    if how == "traced" and library not in IMMUTABLE:
        pytest.skip("numpy and torch trace nothing")
    if how != "host":
        as_if_elsewhere(monkeypatch)
    outputs, kind = OUTPUTS[name], kind_of(name)
    expected = measure_outputs(outputs, kind=kind)

    def measured(array):
        found = measure_outputs(array, kind=kind)
        assert found.names == expected.names
        return (found.rows,) if found.top_class is None else (found.rows, found.top_class)

    array = maker(library)(outputs)
    rows, *top = traced(library, measured, array) if how == "traced" else measured(array)

    assert is_immutable(rows) == (how != "host" and library in IMMUTABLE)
    np.testing.assert_allclose(to_host(rows), expected.rows, rtol=2e-5, atol=1e-6)
    assert to_host(rows).dtype == np.float32
    if top:
        np.testing.assert_array_equal(to_host(top[0]), expected.top_class)
        assert to_host(top[0]).dtype.kind == "i"


@PLACES
@LIBRARY
def test_what_outputs_hold_is_decided_alike(library, elsewhere, monkeypatch):
    make = maker(library)
    if elsewhere:
        as_if_elsewhere(monkeypatch)
    for name in ("logits", "probabilities"):
        assert resolve(make(OUTPUTS[name][10:])) == name
    assert resolve(make(LOGITS[:, 0])) == "values"
    with pytest.raises(InputError, match="are int"):
        measure_outputs(make(np.eye(3, dtype=np.int32)), kind="logits")


MAPS = RNG.normal(size=(6, 5, 4, 3)).astype(np.float32)
EMBEDDINGS = [
    (MAPS, "mean", False),
    (MAPS, "mean", True),
    (MAPS, "max", True),
    (MAPS, "flatten", False),
    (MAPS.astype(np.float16), "mean", True),
    (MAPS[:, :, 0], "mean", False),
    (MAPS[:, :, 0], "cls", False),
    (MAPS[:, 0, 0], "mean", False),
    (MAPS[:, 0, 0, 0], "mean", False),
]


@pytest.mark.parametrize("how", ["host", "elsewhere", "traced"])
@LIBRARY
@pytest.mark.parametrize(("maps", "reduce", "last"), EMBEDDINGS)
def test_every_reduction(library, maps, reduce, last, how, monkeypatch):
    if how == "traced" and library not in IMMUTABLE:
        pytest.skip("numpy and torch trace nothing")
    if how != "host":
        as_if_elsewhere(monkeypatch)
    array = maker(library)(maps)

    def reduced(array):
        return reduce_embedding(array, reduce, channels_last=last)

    found = traced(library, reduced, array) if how == "traced" else reduced(array)
    np.testing.assert_allclose(to_host(found), reduced(maps), rtol=2e-6, atol=1e-6)
    assert to_host(found).dtype == np.float32


@pytest.mark.parametrize("how", ["host", "elsewhere", "traced"])
@LIBRARY
def test_the_same_projection(library, how, monkeypatch):
    if how == "traced" and library not in IMMUTABLE:
        pytest.skip("numpy and torch trace nothing")
    if how != "host":
        as_if_elsewhere(monkeypatch)
    monkeypatch.setattr("lensai_integrations.measures.embeddings._CHUNK", 1000)  # in three parts
    rows, projection = RNG.normal(size=(30, 100)).astype(np.float32), RandomProjection(100, 18)
    array = maker(library)(rows)
    found = traced(library, projection.project, array) if how == "traced" else projection.project(array)
    np.testing.assert_allclose(to_host(found), projection.project(rows), rtol=1e-5, atol=1e-5)


@TRACING
def test_a_reduction_of_the_users_own_gets_the_librarys_array(library, monkeypatch):
    as_if_elsewhere(monkeypatch)
    seen = []

    def corner(maps):
        seen.append(maps)
        return maps[:, 0, 0, :]

    found = reduce_embedding(maker(library)(MAPS), corner)
    assert is_immutable(seen[0])
    np.testing.assert_array_equal(to_host(found), MAPS[:, 0, 0])


def test_tensorflow_may_leave_the_number_of_rows_open():
    maker("tensorflow")
    import tensorflow as tf

    def of_any_length(function, shape, array):
        return tf.function(function, input_signature=[tf.TensorSpec(shape)], autograph=False)(array)

    maps, projection = tf.constant(MAPS), RandomProjection(3, 2)
    inputs = ImageInputs(layout="NHWC", scale=255)
    unit = KINDS["unit"](pictures(9, 8, 3))
    for last in (False, True):
        found = of_any_length(lambda x, last=last: reduce_embedding(x, channels_last=last), (None, 5, 4, 3), maps)
        np.testing.assert_allclose(found, reduce_embedding(MAPS, channels_last=last), rtol=2e-6, atol=1e-6)
    found = of_any_length(lambda x: reduce_embedding(x, channels_last=True), (None, None, None, 3), maps)
    np.testing.assert_allclose(found, reduce_embedding(MAPS, channels_last=True), rtol=2e-6, atol=1e-6)
    found = of_any_length(projection.project, (None, 3), MAPS[:, 0, 0])
    np.testing.assert_allclose(found, projection.project(MAPS[:, 0, 0]), rtol=2e-6, atol=1e-6)
    found = of_any_length(lambda x: measure_outputs(x, kind="logits").rows, (None, 6), LOGITS)
    np.testing.assert_allclose(found, measure_outputs(LOGITS, kind="logits").rows, rtol=2e-5, atol=1e-6)
    names, expected, counts = measure_images_and_counts(inputs.read(unit))
    rows, found = of_any_length(lambda x: measure_images_and_counts(inputs.read(x))[1:], (None, 9, 8, 3), unit)
    assert_same_rows(rows, expected, names, exact=False)
    assert np.array_equal(found, counts)


@pytest.mark.parametrize("library", ["torch", *IMMUTABLE])
@PLACES
def test_pixels_are_counted_alike_wherever_they_are(library, elsewhere, monkeypatch):
    if elsewhere:
        as_if_elsewhere(monkeypatch)
    values = pictures(9, 7, 3).transpose(0, 3, 1, 2)
    expected, found = PixelCounts(3), PixelCounts(3)
    expected.update(values)
    found.update(maker(library)(values))
    assert np.array_equal(found.counts, expected.counts)
    assert np.array_equal(count_images(values), expected.counts)
    found.add(expected.counts.astype(np.int32), 7)
    assert (found.n, found.counts.sum()) == (14, 2 * values.size)
    with pytest.raises(InputError, match=r"counts should be \[3, 256\]"):
        found.add(expected.counts[:1], 7)
