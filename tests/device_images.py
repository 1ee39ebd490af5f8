"""Images as devices see them, for the tests of LensAI's devices."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lensai_integrations import ImageInputs, Profile, Profiler


def photos() -> list[np.ndarray]:
    """Scikit-learn's two photos, and parts of them of every odd size."""
    from sklearn.datasets import load_sample_images

    whole = [np.asarray(photo) for photo in load_sample_images().images]
    return [*whole, whole[0][:33, 100:157], whole[1][200:201, :64], whole[1][50:114, 300:302]]


def made_up() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    noisy = rng.integers(0, 256, (32, 24, 3), dtype=np.uint8)
    nearly_flat = np.full((32, 24, 3), 250, np.uint8)
    nearly_flat[3, 4] = 251
    checks = np.indices((17, 2)).sum(0)[..., None].repeat(3, -1).astype(np.uint8) % 2 * 255
    colours = np.stack([np.full((9, 9), each, np.uint8) for each in (255, 128, 1)], -1)
    return [noisy, noisy[..., :1].copy(), nearly_flat, checks, colours, np.zeros((1, 1, 3), np.uint8)]


def save_raw(images: list[np.ndarray], folder: Path) -> list[object]:
    """Images of one shape as a camera gives them, and the arguments that say so."""
    height, width, channels = images[0].shape
    paths = [folder / f"{number}.raw" for number in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        path.write_bytes(np.ascontiguousarray(image[..., ::-1]).tobytes())
    return ["--width", width, "--height", height, "--channels", channels, *paths]


def python_profile(images: list[np.ndarray]) -> Profile:
    profiler = Profiler(convention="lensai-edge", source="validation", seed=0, inputs=ImageInputs(layout="NHWC"))
    profiler.update(inputs=np.stack(images))
    return profiler.profile()
