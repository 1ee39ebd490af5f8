"""`Metrics` of LensAI's Python profiler: a batch of images in, five arrays of numbers out.

The numbers are those of `measures`, by one definition whatever the framework. LensAI's two implementations differed
from each other and from its devices, so that a baseline from training could not be held against a device's files. The
default here is what devices compute, since that is what these files are compared with.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any, Final, TypeAlias

import numpy as np

from lensai_integrations.arrays.namespaces import Array, is_symbolic, namespace, shape_of
from lensai_integrations.arrays.tensorflow import is_tensorflow_array
from lensai_integrations.errors import InputError
from lensai_integrations.measures.batches import by_shape, find_images
from lensai_integrations.measures.images import measure_images_and_bytes
from lensai_integrations.measures.inputs import ImageInputs

#: Brightness, sharpness, mean, noise and pixel.
Measured: TypeAlias = tuple[Array, Array, Array, Array, Array]

_LAYOUTS: Final = {"tf": "NHWC", "pt": "NCHW"}
_NOISE: Final = {"lensai-edge": "noise", "lensai": "snr"}


class Metrics:
    """Measures batches of images as LensAI's devices do.

    Args:
        framework: `"tf"`, whose batches are `[n, H, W, C]`, or `"pt"`, `[n, C, H, W]`. It is not imported.
        inputs: How images are read, needed for normalised ones. As it is, bytes, floats inside [0, 1] and floats inside
            [0, 255] are told apart by the first batch.
        convention: `"lensai-edge"`, what LensAI's devices compute, or `"lensai"`, this package's own; there noise is
            its signal-to-noise ratio and channel 0 is red.

    Raises:
        InputError: If the framework or the convention is unknown.

    Example:
        >>> brightness, sharpness, mean, noise, pixel = Metrics("tf").process_batch(np.full((2, 8, 8, 3), 90, np.uint8))
        >>> brightness.tolist(), mean.shape, pixel.shape
        ([90.0, 90.0], (2, 3), (2, 64, 3))
    """

    def __init__(
        self, framework: str = "tf", inputs: ImageInputs | None = None, convention: str = "lensai-edge"
    ) -> None:
        for name, value, known in (("framework", framework, _LAYOUTS), ("convention", convention, _NOISE)):
            if value not in known:
                raise InputError(f"{name}={value!r} is unknown; pass one of {', '.join(map(repr, known))}")
        inputs = inputs or ImageInputs()
        self.framework = framework
        self._convention = convention
        self._key = inputs.key
        self._inputs = replace(inputs, key=None)
        self._reader: ImageInputs | None = None

    def process_batch(self, images: Any) -> Measured:
        """Measure each image of a batch.

        Args:
            images: `[n, C, H, W]` or `[n, H, W, C]`, as the framework has it, or grey `[n, H, W]`; C is 1, 3 or 4
                (alpha is dropped), colours are RGB. Any real dtype, with or without a gradient. Tensors of the
                framework, inside `tf.data.Dataset.map` too, or numpy arrays.

        Returns:
            Arrays of the batch's library, on its device, of images on the 0-255 scale: float32 brightness `[n]`,
            sharpness `[n]`, mean of each channel `[n, C]` and noise in dB `[n]`, and uint8 pixel `[n, H * W, C]`.
            Channel 0 is blue, as on devices. The numbers of an image with a pixel that is not finite, or far outside
            the scale, are NaN, and in host memory its pixels are left out.

        Raises:
            InputError: If the images cannot be read without a guess; the message says what to pass as `inputs`.
        """
        (_, array), *others = by_shape(find_images(images, self._key))
        if others:
            raise InputError(
                "images is a list of several sizes, whose pixels have no common shape: pass one size at a time"
            )
        if is_tensorflow_array(array) and is_symbolic(array):
            return _when_run(self._measured, array)
        brightness, sharpness, mean, noise, pixel = self._measured(array)
        return (
            _like(array, brightness),
            _like(array, sharpness),
            _like(array, mean),
            _like(array, noise),
            _like(array, pixel),
        )

    def _measured(self, array: Array) -> Measured:
        images = self._resolved(array).read(array)
        names, rows, pixels = measure_images_and_bytes(images, self._convention)
        first, noise = names.index("mean/0"), names.index(_NOISE[self._convention])
        return (
            rows[:, names.index("brightness")],
            rows[:, names.index("sharpness")],
            rows[:, first : first + images.channels],
            rows[:, noise],
            _channels_last(pixels),
        )

    def _resolved(self, array: Array) -> ImageInputs:
        if self._reader is None:
            guess = self._inputs.layout == "auto" and len(array.shape) == 4
            inputs = replace(self._inputs, layout=_LAYOUTS[self.framework]) if guess else self._inputs
            reader = inputs.resolve(array)
            if bool(namespace(array).all(array == 0)):  # black says nothing of the scale of what follows
                return reader
            self._reader = reader
        return self._reader


def _channels_last(pixels: Array) -> Array:
    """`[n, C, H, W]` as `[n, H * W, C]`."""
    n, channels, height, width = shape_of(pixels)
    if isinstance(pixels, np.ndarray):  # plane by plane, five times as fast as copying the permuted array
        together = np.empty((n, height * width, channels), pixels.dtype)
        for channel in range(channels):
            together[..., channel] = pixels[:, channel].reshape(n, height * width)
        return together
    xp = namespace(pixels)
    return xp.reshape(xp.permute_dims(pixels, (0, 2, 3, 1)), (n, height * width, channels))


def _like(array: Array, values: Array) -> Array:
    """The values as an array of the other's library; what was measured on an accelerator is that already."""
    return namespace(array).asarray(np.ascontiguousarray(values)) if isinstance(values, np.ndarray) else values


def _when_run(measured: Any, array: Array) -> Measured:
    """The same inside a function that TensorFlow traces: measured once there are values, which the scale depends on."""
    tf = sys.modules["tensorflow"]
    brightness, sharpness, mean, noise, pixel = tf.py_function(measured, [array], [tf.float32] * 4 + [tf.uint8])
    for each in (brightness, sharpness, noise):
        each.set_shape((None,))
    mean.set_shape((None, None))
    pixel.set_shape((None, None, None))
    return brightness, sharpness, mean, noise, pixel
