"""What a model's preprocessing does to pixels, as numbers that undo it: Keras's own, or any function of one pixel."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.arrays.namespaces import to_host
from lensai_integrations.errors import InputError
from lensai_integrations.problems import pass_on

#: `mean`, `std`, `scale` and `channels` of `ImageInputs`.
Undone: TypeAlias = tuple[tuple[float, ...] | None, tuple[float, ...] | None, float, str]

#: The modes of `keras.applications.imagenet_utils.preprocess_input`.
MODES: Final[dict[str, Undone]] = {
    "tf": ((127.5,), (127.5,), 1.0, "auto"),
    "caffe": ((103.939, 116.779, 123.68), (1.0, 1.0, 1.0), 1.0, "BGR"),
    "torch": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 255.0, "auto"),
}

#: Black, red, green, blue, white, and one to see whether what lies between is on a line.
_PROBE: Final = np.array(
    [[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [50, 150, 200]], np.float64
)
_AMONG_OTHERS: Final = np.concatenate([_PROBE, np.full((3, 3), 200.0)])  # which a function of one pixel does not see
_EXACT = 1e-5  # of the range: what float32 leaves


def preprocessing_of(preprocess: Any) -> Undone:
    """What takes the pixels back to 0-255: `(x * std + mean) * scale`, and the order of the channels.

    Args:
        preprocess: The name of one of `MODES`; a module with a function `preprocess_input`, as those of
            `keras.applications`; or a function from RGB images 0-255 `[n, H, W, 3]`.

    Raises:
        InputError: If it is none of these, or the function does more than scale and shift each channel.

    Example:
        >>> preprocessing_of("tf")
        ((127.5,), (127.5,), 1.0, 'auto')
        >>> preprocessing_of(lambda images: images / 255)
        (None, None, 255.0, 'auto')
    """
    if isinstance(preprocess, str):
        if preprocess not in MODES:
            raise InputError(
                f"preprocess={preprocess!r} is unknown; pass one of {', '.join(map(repr, MODES))}, a module of"
                " keras.applications, or the function that is applied"
            )
        return MODES[preprocess]
    function = getattr(preprocess, "preprocess_input", preprocess)
    if not callable(function):
        raise InputError(
            f"preprocess={preprocess!r} should be one of {', '.join(map(repr, MODES))}, a module of keras.applications,"
            " or a function"
        )
    made, beside_others = (_tried(function, probe)[: len(_PROBE)] for probe in (_PROBE, _AMONG_OTHERS))
    return _undone(made if np.array_equal(made, beside_others) else made * math.nan)


def _tried(function: Callable[..., Any], probe: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a function makes of a few pixels."""
    try:
        named = "data_format" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        named = False
    try:
        answer = function(probe.reshape(1, 1, -1, 3).copy(), **({"data_format": "channels_last"} if named else {}))
        return to_host(answer).astype(np.float64).reshape(probe.shape)
    except Exception as error:
        pass_on(error)
        raise InputError(
            f"preprocess={function!r} should make an image [n, H, W, 3] of one, but of a few pixels it made: {error!r}."
            " Pass mean=, std= and scale= instead"
        ) from error


def _undone(made: NDArray[np.float64]) -> Undone:
    black, white = made[0], made[4]
    sources = np.abs(made[1:4] - black)
    order = sources.argmax(axis=0)  # which of red, green and blue each channel is made of
    gain = (white - black) / 255
    between = _PROBE[5][order] * gain + black
    near = _EXACT * np.abs(white - black).max()
    clean = np.sort(sources, axis=0)[:2].max() <= near and np.abs(between - made[5]).max() <= near
    if not (np.isfinite(made).all() and clean and sorted(order) == [0, 1, 2] and gain.min() > 0):
        raise InputError(
            "preprocess= should scale and shift each channel by itself, but this function does something else: profile"
            " the images before it, or pass mean=, std= and scale= if that comes close"
        )
    channels = "".join("RGB"[each] for each in order)
    for mode in MODES.values():
        if _is(mode, gain, black, channels):
            return mode
    std, mean = (_plain(values) for values in (1 / gain, -black / gain))
    if not np.any(black):
        return (
            (None, None, std[0], "auto" if channels == "RGB" else channels)
            if len(std) == 1
            else _of(mean, std, channels)
        )
    return _of(mean, std, channels)


def _of(mean: tuple[float, ...], std: tuple[float, ...], channels: str) -> Undone:
    n = max(len(mean), len(std))
    mean, std = (values * (n // len(values)) for values in (mean, std))
    return mean, std, 1.0, "auto" if channels == "RGB" else channels


def _is(mode: Undone, gain: NDArray[np.float64], black: NDArray[np.float64], channels: str) -> bool:
    mean, std, scale, order = mode
    assert mean is not None
    assert std is not None
    same = np.allclose(1 / gain, np.array(std) * scale, rtol=_EXACT)
    return bool(same and np.allclose(-black / gain, np.array(mean) * scale, rtol=_EXACT)) and order in (
        "auto",
        channels,
    )


def _plain(values: NDArray[np.float64]) -> tuple[float, ...]:
    """As few numbers, of as few digits, as they are."""
    numbers = tuple(float(f"{value:.7g}") for value in values)
    return numbers[:1] if len(set(numbers)) == 1 else numbers
