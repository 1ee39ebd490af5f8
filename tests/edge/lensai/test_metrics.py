"""`Metrics` against OpenCV, on every library, dtype and layout it takes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from libraries import as_if_elsewhere, maker

from lensai_integrations import ImageInputs, Metrics, Sketches
from lensai_integrations.errors import InputError

NAMES = ("brightness", "sharpness", "mean", "noise", "pixel")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """RGB bytes `[4, 13, 10, 3]`."""
    return np.random.default_rng(7).integers(0, 256, (4, 13, 10, 3), np.uint8)


def as_the_device(image: np.ndarray) -> tuple[float, float, np.ndarray, float, np.ndarray]:
    """What LensAI's C++ code does with one RGB image, by OpenCV."""
    cv2 = pytest.importorskip("cv2", reason="opencv is not installed")
    bgr = image[..., ::-1].copy()
    gray = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    means = bgr.mean((0, 1))
    sharpness = cv2.Laplacian(gray, cv2.CV_64F, ksize=1, borderType=cv2.BORDER_REFLECT_101).std()
    noise = 20 * np.log10(gray.mean() / gray.std() + 1e-7)
    return float(means @ (0.299, 0.587, 0.114)), sharpness, means, noise, bgr.reshape(-1, 3)


def numbers(results: tuple) -> list[np.ndarray]:
    return [np.asarray(each.cpu() if hasattr(each, "cpu") and callable(each.cpu) else each) for each in results]


def test_the_numbers_are_the_devices(images: np.ndarray) -> None:
    found = numbers(Metrics("tf").process_batch(images))
    expected = [np.stack(each) for each in zip(*map(as_the_device, images), strict=True)]
    for name, each, wanted in zip(NAMES, found, expected, strict=True):
        assert each.shape == wanted.shape, name
        np.testing.assert_allclose(each, wanted, rtol=2e-5, err_msg=name)


@pytest.mark.parametrize(
    ("framework", "library", "dtype"),
    [
        (framework, library, dtype)
        for framework, own in (("tf", "tensorflow"), ("pt", "torch"))
        for library in (own, "numpy")
        for dtype in ("uint8", "float32", "unit", "float16", "bfloat16")
        if (library, dtype) != ("numpy", "bfloat16")  # which numpy has not
    ],
)
def test_frameworks_layouts_and_dtypes_agree(images: np.ndarray, framework: str, library: str, dtype: str) -> None:
    make = maker(library)
    batch = images if framework == "tf" else images.transpose(0, 3, 1, 2)
    if dtype == "bfloat16":
        module = sys.modules[library]
        given = module.cast(batch, "bfloat16") if library == "tensorflow" else make(batch).to(module.bfloat16)
    else:
        scaled = (batch / 255).astype(np.float32) if dtype == "unit" else batch.astype(dtype)
        given = make(scaled)
    results = Metrics(framework).process_batch(given)
    assert {type(each).__module__.split(".")[0] for each in results} == {type(given).__module__.split(".")[0]}
    wanted = numbers(Metrics("tf").process_batch(images))
    coarse = dtype == "bfloat16"  # which keeps 8 bits: a byte above 128 moves by up to half
    for name, each, exact in zip(NAMES, numbers(results), wanted, strict=True):
        if coarse:
            np.testing.assert_allclose(each.astype(float), exact, atol=1.0, rtol=0.02, err_msg=name)
        else:
            np.testing.assert_allclose(each, exact, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("framework", ["tf", "pt"])
def test_one_channel(framework: str) -> None:
    grey = np.random.default_rng(1).integers(0, 256, (3, 9, 8), np.uint8)
    make = maker("tensorflow" if framework == "tf" else "torch")
    results = numbers(Metrics(framework).process_batch(make(grey[..., None] if framework == "tf" else grey[:, None])))
    assert [each.shape for each in results] == [(3,), (3,), (3, 1), (3,), (3, 72, 1)]
    np.testing.assert_allclose(results[0], grey.mean((1, 2)), rtol=1e-6)
    np.testing.assert_array_equal(results[4][..., 0], grey.reshape(3, -1))


def test_tensors_with_a_gradient(images: np.ndarray) -> None:
    batch = maker("torch")((images / 255).astype(np.float32).transpose(0, 3, 1, 2)).requires_grad_()
    results = Metrics("pt").process_batch(batch)
    assert not any(each.requires_grad for each in results)
    np.testing.assert_allclose(results[0], numbers(Metrics("tf").process_batch(images))[0], rtol=1e-5)


@pytest.mark.slow
def test_inside_a_dataset_that_is_mapped(images: np.ndarray) -> None:
    make = maker("tensorflow")
    import tensorflow as tf

    metrics, wanted = Metrics("tf"), numbers(Metrics("tf").process_batch(images))
    data = tf.data.Dataset.from_tensor_slices(make(images.astype(np.float32))).batch(2)
    found = [numbers(each) for each in data.map(metrics.process_batch, num_parallel_calls=tf.data.AUTOTUNE)]
    for place, name in enumerate(NAMES):
        np.testing.assert_allclose(
            np.concatenate([each[place] for each in found]), wanted[place], rtol=1e-5, err_msg=name
        )


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(("framework", "library"), [("tf", "tensorflow"), ("pt", "torch")])
def test_on_an_accelerator(
    images: np.ndarray, framework: str, library: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code that runs there, without one: tensors are measured by their own library, and none becomes numpy."""
    make, wanted = maker(library), numbers(Metrics("tf").process_batch(images))
    as_if_elsewhere(monkeypatch)
    for module in ("measures.batches", "edge.lensai"):
        monkeypatch.setattr(f"lensai_integrations.{module}.local", lambda tensor: tensor)
    batch = make((images if framework == "tf" else images.transpose(0, 3, 1, 2)).astype(dtype))
    results = Metrics(framework).process_batch(batch)
    assert {type(each).__module__.split(".")[0] for each in results} == {library}
    for name, each, exact in zip(NAMES, numbers(results), wanted, strict=True):
        np.testing.assert_allclose(each, exact, rtol=1e-4, err_msg=name)
    sketches = Sketches()
    sketches.register_metric("mean", num_channels=3)
    sketches.register_metric("pixel", num_channels=3)
    sketches.update_sketches(mean=results[2], pixel=results[4])
    registry = sketches.sketch_registry
    assert [sketch.n for sketch in registry["mean"] + registry["pixel"]] == [4] * 3 + [4 * 130] * 3


def test_an_image_that_is_not_finite_is_nan_and_its_pixels_are_left_out(images: np.ndarray) -> None:
    batch = images.astype(np.float32)
    batch[1, 0, 0, 0] = np.nan
    brightness, _, _, noise, pixel = Metrics("tf").process_batch(batch)
    assert np.isnan(brightness).tolist() == np.isnan(noise).tolist() == [False, True, False, False]
    assert pixel.shape == (3, 130, 3)


def test_normalised_images_need_and_take_their_normalisation(images: np.ndarray) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    normalised = ((images / 255 - mean) / std).astype(np.float32)
    with pytest.raises(InputError, match="mean= and std= they were normalised with"):
        Metrics("tf").process_batch(normalised)
    found = numbers(Metrics("tf", ImageInputs(mean=mean, std=std)).process_batch(normalised))
    assert np.isfinite(found[3]).all()
    np.testing.assert_allclose(found[3], numbers(Metrics("tf").process_batch(images))[3], rtol=1e-4)


@pytest.mark.slow
def test_no_framework_is_imported() -> None:
    code = """
import sys, numpy, lensai_integrations as lensai
sketches = lensai.Sketches()
sketches.register_metric("mean", num_channels=3)
sketches.update_sketches(mean=lensai.Metrics("tf").process_batch(numpy.zeros((2, 8, 8, 3), numpy.uint8))[2])
print(sketches.compute_thresholds(), [name for name in ("torch", "tensorflow", "keras", "jax") if name in sys.modules])
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == "{'mean': {0: (0.0, 0.0), 1: (0.0, 0.0), 2: (0.0, 0.0)}} []\n"


def test_constant_images_have_finite_noise() -> None:
    noise = Metrics("tf").process_batch(np.full((2, 8, 8, 3), 90, np.uint8))[3]
    assert noise.tolist() == [200.0, 200.0]


def test_this_packages_own_convention(images: np.ndarray) -> None:
    brightness, _, mean, _, pixel = Metrics("tf", convention="lensai").process_batch(images)
    np.testing.assert_allclose(mean, images.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(brightness, images.mean((1, 2)) @ (0.299, 0.587, 0.114), rtol=1e-5)
    np.testing.assert_array_equal(pixel, images.reshape(4, -1, 3))


@pytest.mark.parametrize("wrong", [{"framework": "jax"}, {"convention": "mine"}])
def test_unknown_names_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(InputError, match="is unknown; pass one of"):
        Metrics(**wrong)


@pytest.mark.parametrize("framework", ["tf", "pt"])
def test_a_black_batch_settles_nothing(images: np.ndarray, framework: str) -> None:
    batch = (images if framework == "tf" else images.transpose(0, 3, 1, 2)).astype(np.float32)
    metrics = Metrics(framework)
    assert metrics.process_batch(np.zeros_like(batch))[0].tolist() == [0.0] * len(batch)
    for found, expected in zip(metrics.process_batch(batch), Metrics(framework).process_batch(batch), strict=True):
        np.testing.assert_array_equal(found, expected)
