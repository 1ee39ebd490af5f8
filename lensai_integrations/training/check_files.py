"""A dry run of images on disk: how would they be read?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.errors import InputError, MissingDependencyError
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.problems import Problems, pass_on
from lensai_integrations.profiling.image_files import images_in
from lensai_integrations.training.check import Check, run_check
from lensai_integrations.training.fit import Preparer
from lensai_integrations.training.options import Profiling

#: Images of a folder that are looked at, evenly from all of it.
MOST_IMAGES: Final = 64


def check_path(
    path: Path, *, layout: str = "auto", scale: str = "auto", mean: str | None = None, std: str | None = None
) -> Check:
    """Look at images as a profiler would: of a folder, one file, or a batch in a `.npy` or `.npz` file.

    Args:
        path: Folder (with folders in it), image, or array; a `.npz` may have labels beside the images.
        layout: As in `ImageInputs`.
        scale: A number as text, or `"auto"`.
        mean: A number, or one per channel with commas between.
        std: Likewise.

    Raises:
        InputError: If there is nothing to look at, or an option is no number.
        MissingDependencyError: If images are to be read and Pillow is not installed.
    """
    inputs = ImageInputs(layout=layout, scale=_scale(scale), mean=_numbers("mean", mean), std=_numbers("std", std))
    batch, notes = _arrays(path) if path.suffix.lower() in (".npy", ".npz") else _images(path)
    options = Profiling(layers=None, inputs=inputs, outputs=None, rows=0)
    return run_check(Preparer(options, Problems(quiet=True)), batch, {}, notes=notes)


def _scale(text: str) -> float | str:
    if text == "auto":
        return text
    (number,) = _numbers("scale", text) or (1.0,)
    return number


def _numbers(name: str, text: str | None) -> tuple[float, ...] | None:
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{name}={text!r} should be numbers with commas between, e.g. 0.485,0.456,0.406") from error


def _arrays(path: Path) -> tuple[Any, list[str]]:
    """The batch in a file of numpy arrays. Nothing in it is unpickled."""
    try:
        loaded = np.load(path, allow_pickle=False)
        batch = loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except Exception as error:  # damaged headers make numpy raise TokenError, TypeError, MemoryError and more
        pass_on(error)
        raise InputError(f"{path} holds no plain numpy arrays: {error}") from error
    return (next(iter(batch.values())) if isinstance(batch, dict) and len(batch) == 1 else batch), []


def _images(path: Path) -> tuple[NDArray[np.uint8], list[str]]:
    """The images of the commonest size as `[n, H, W, 3]` or `[n, H, W]`, and what was left out."""
    files = list(_spread(images_in(path)[1]))
    by_shape: dict[tuple[int, ...], list[NDArray[np.uint8]]] = defaultdict(list)
    broken: list[str] = []
    for file in files:
        try:
            image = _read(file)
        except (OSError, ValueError) as error:
            pass_on(error)
            broken.append(f"{file.name} could not be read: {error}")
        else:
            by_shape[image.shape].append(image)
    if not by_shape:
        raise InputError(f"{path} has no images that can be read: {broken[0]}")
    largest = max(by_shape.values(), key=len)
    left = sum(map(len, by_shape.values())) - len(largest)
    if left:
        broken.append(f"{left} of {len(files)} images are of other sizes and were left out: a batch has one size")
    return np.stack(largest), broken


def _spread(files: list[Path]) -> Iterator[Path]:
    """At most `MOST_IMAGES`, evenly from the whole list."""
    step = max(1, -(-len(files) // MOST_IMAGES))
    yield from files[::step]


def _read(file: Path) -> NDArray[np.uint8]:
    try:
        pillow: Any = import_module("PIL.Image")
    except ImportError as error:
        raise MissingDependencyError("reading images needs Pillow: pip install pillow") from error
    with pillow.open(file) as image:
        return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"), np.uint8)
