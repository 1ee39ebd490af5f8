"""`Sketches` and `Metrics` of LensAI's Python profiler, and its two functions of histograms, by their old names.

Of `Sketches` floats go into a `KLLBank` per channel, bytes (every pixel of every image) are counted exactly by
`PixelCounts`; a file is made of both. What is read from outside goes through `wire`, which believes nothing.

A histogram is for looking at. Thresholds come from the sketch itself (`Sketches.compute_thresholds`): equal bins over a
skewed distribution put most of it into one bin.

The numbers of `Metrics` are those of `measures`, by one definition whatever the framework. LensAI's two implementations
differed from each other and from its devices, so that a baseline from training could not be held against a device's
files. The default here is what devices compute, since that is what these files are compared with.
"""

from __future__ import annotations

import logging
import math
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np
from datasketches import kll_floats_sketch

from lensai_integrations.arrays.namespaces import (
    Array,
    dtype_name,
    is_immutable,
    is_symbolic,
    local,
    namespace,
    shape_of,
    to_host,
)
from lensai_integrations.arrays.tensorflow import is_tensorflow_array
from lensai_integrations.edge.sending import Upload, archive, send, time_named
from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.measures.batches import find_images
from lensai_integrations.measures.edge import without_infinity
from lensai_integrations.measures.images import measure_images_and_bytes
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.measures.layouts import by_shape
from lensai_integrations.problems import Problems
from lensai_integrations.sketches import wire
from lensai_integrations.sketches.bank import KLLBank
from lensai_integrations.sketches.counts import PixelCounts
from lensai_integrations.storage.folders import replace_file
from lensai_integrations.storage.posting import checked_url

#: Folders that hold sketches. Some devices write `imagestats`, and C++ writes `custom` for `customstats`. Of files of
#: one name the first folder's is read: the old profiler left means and pixels in `customstats`.
FOLDERS: Final = ("imgstats", "imagestats", "modelstats", "customstats", "custom", "samples", "trackingstats")
#: A sketch with the largest k has less than 1 MB.
MAX_BYTES: Final = 1 << 24

_IMAGE: Final = ("brightness", "sharpness", "noise", "mean", "pixel")
_NUMBERED: Final = ("mean", "pixel")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]*")
_NUMBER: Final = re.compile(r"(.+)_(0|[1-9][0-9]{0,6})")


_LOG: Final = logging.getLogger(__name__)


class Sketches:
    """KLL sketches of named metrics.

    Attributes:
        metrics: Number of channels of each registered metric.

    Example:
        >>> sketches = Sketches()
        >>> sketches.register_metric("brightness")
        >>> sketches.update_sketches(brightness=np.arange(1.0, 101.0))
        >>> sketches.compute_thresholds(lower_percentile=0.1, upper_percentile=0.99)
        {'brightness': (10.0, 99.0)}
    """

    def __init__(self) -> None:
        self.metrics: dict[str, int] = {}
        self._streams: dict[str, list[_Stream]] = {}
        self._problems = Problems()

    def register_metric(self, metric_name: str, num_channels: int = 1) -> None:
        """Begin an empty sketch per channel. A metric that is registered again begins anew.

        Args:
            metric_name: What `update_sketches` calls it; becomes part of file names.
            num_channels: Length of the last axis of its values; 1 for values of any shape.

        Raises:
            InputError: If the name cannot be part of a file name, the number is not positive, or another metric has a
                file of the same name.
        """
        if not isinstance(num_channels, int | np.integer) or num_channels < 1:
            raise InputError(f"num_channels={num_channels!r} should be a positive whole number")
        wanted = set(names(metric_name, num_channels))
        for other, channels in self.metrics.items():
            if other != metric_name and wanted & set(names(other, channels)):
                raise InputError(
                    f"metric_name={metric_name!r} would have the same file as {other!r}: pass another name"
                )
        self.metrics[metric_name] = int(num_channels)
        self._streams[metric_name] = [_Stream() for _ in range(num_channels)]

    def update_sketches(self, **values: Array) -> None:
        """Add values, by metric. Either all of them are taken in or, where one is refused, none.

        A name that is not registered is left out, and logged once. A value that is not finite is left out and counted
        in `invalid`.

        Args:
            values: Arrays of any library, dtype and device. Of a metric of several channels, `[..., num_channels]`; of
                one channel, of any shape: all components of all embeddings are one sketch, as on devices.

        Raises:
            InputError: If values are no numbers, or of another number of channels.
        """
        columns = {
            name: _columns(name, array, self.metrics[name]) for name, array in values.items() if self._knows(name)
        }
        for name, array in columns.items():
            for channel, stream in enumerate(self._streams[name]):
                stream.update(array[:, channel])

    def _knows(self, name: str) -> bool:
        if name not in self.metrics:
            problem = f"no sketch is registered for {name!r}, its values are left out: call register_metric first"
            self._problems.remark(problem)
        return name in self.metrics

    @property
    def invalid(self) -> dict[str, int]:
        """How many values of each metric were left out because they were not finite; metrics without such have none."""
        counts = {name: sum(stream.floats.invalid for stream in streams) for name, streams in self._streams.items()}
        return {name: count for name, count in counts.items() if count}

    @property
    def sketch_registry(self) -> Mapping[str, Any]:
        """The sketches as `datasketches.kll_floats_sketch`, or a list of them for several channels: copies."""
        made = {name: [kll_floats_sketch.deserialize(b) for b in self._blobs(name)] for name in self.metrics}
        return MappingProxyType(
            {name: sketches[0] if len(sketches) == 1 else sketches for name, sketches in made.items()}
        )

    def _blobs(self, name: str) -> list[bytes]:
        return [stream.bank().to_bytes()[0] for stream in self._streams[name]]

    def save_sketches(self, base_path: str | Path) -> None:
        """Write a file per sketch, in Apache DataSketches' format.

        Image measures go to `imgstats/`, `embeddings` to `modelstats/`, others to `customstats/`; `{metric}.bin`, or
        `{metric}_{channel}.bin` for several channels and for `mean` and `pixel`.

        Args:
            base_path: Made if absent; files of the same names are replaced, each in one step.

        Raises:
            OSError: If the disk is full or the folder cannot be written.
        """
        for name, count in self.invalid.items():
            _LOG.warning("%d values of %r were not finite and are in no sketch", count, name)
        for name, channels in self.metrics.items():
            write(Path(base_path), name, dict(zip(names(name, channels), self._blobs(name), strict=True)))

    def load_sketches(self, base_path: str | Path) -> None:
        """Read what `save_sketches`, LensAI's Python profiler or a device wrote. What is registered is replaced.

        Files of one name and consecutive numbers from 0 are the channels of one metric, unless a name with its number
        is registered. Files whose names begin with a dot are passed over.

        Args:
            base_path: The folder that holds `imgstats`, `modelstats` and so on.

        Raises:
            InputError: If there is no sketch in it.
            FormatError: If a file is damaged; the message names it. Nothing is replaced then.
        """
        loaded = {
            name: [_Stream(KLLBank.from_bytes([blob])) for blob in blobs]
            for name, blobs in read(Path(base_path), set(self.metrics)).items()
        }
        for name, streams in loaded.items():
            self.metrics[name], self._streams[name] = len(streams), streams

    def compute_thresholds(
        self, lower_percentile: float = 0.1, upper_percentile: float = 0.99
    ) -> dict[str, tuple[float, float] | dict[int, tuple[float, float]]]:
        """The values at two percentiles of each sketch, read from the sketch itself: `KLLBank.quantiles`.

        Args:
            lower_percentile: Within 0 and 1.
            upper_percentile: Within 0 and 1.

        Returns:
            `{metric: (lower, upper)}`, and `{metric: {channel: (lower, upper)}}` for several channels.

        Raises:
            InputError: If a percentile is not within 0 and 1, or a sketch is empty.
        """
        ranks = (lower_percentile, upper_percentile)
        thresholds = {
            name: [_ends(name, stream, ranks) for stream in streams] for name, streams in self._streams.items()
        }
        return {name: ends[0] if len(ends) == 1 else dict(enumerate(ends)) for name, ends in thresholds.items()}

    def publish_sketches(
        self,
        folder_path: str | Path,
        endpoint_url: str,
        sensor_id: str = "reference",
        token: str | None = None,
        timeout: float = 30.0,
    ) -> None:
        """Send a saved folder to a LensAI server. When this returns, the server has it.

        A server takes one upload of each sensor and second. The time is the one that the folder is named by
        (`1719393854`), else now, or the next second of which the server has nothing.

        Args:
            folder_path: What `save_sketches` wrote. Only sketches are sent, nothing else that is in it.
            endpoint_url: `http://` or `https://`, with the path, such as `/upload/`.
            sensor_id: Whose sketches these are.
            token: Sent as `Authorization: Bearer`.
            timeout: Seconds to wait for the server.

        Raises:
            InputError: If there is no sketch in the folder, or the URL is of another kind.
            TrackingError: If the server could not be reached, refused, did not answer in time, or has something else
                of this sensor and the time that the folder is named by.
        """
        folder = Path(folder_path)
        checked_url("endpoint_url", endpoint_url)
        named = time_named(folder.resolve().name)
        contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths(folder)}
        if not contents:
            raise InputError(f"folder_path={str(folder)!r} has no sketches: pass the folder save_sketches wrote to")
        timestamp = int(time.time()) if named is None else named
        upload = Upload(endpoint_url, sensor_id, timestamp, archive(contents, timestamp), fresh=named is None)
        # both dialects: form fields and a token, as devices do, and the old Python profiler's headers
        send(upload, token=token, timeout=timeout, retries=0, older=True)


class _Stream:
    """The values of one channel."""

    def __init__(self, floats: KLLBank | None = None) -> None:
        self.floats = KLLBank(dim=1) if floats is None else floats
        self.bytes = PixelCounts(1)

    def update(self, values: Array) -> None:
        if dtype_name(values) == "uint8":
            self.bytes.update(values[None, None])
        else:
            self.floats.update(values[:, None])

    def bank(self) -> KLLBank:
        """Both in one bank."""
        if not self.bytes.n:
            return self.floats
        bank = KLLBank.from_bytes(self.bytes.to_bytes())
        bank.merge(self.floats)
        return bank


def _columns(name: str, values: Array, channels: int) -> Array:
    """Values `[..., channels]` as numpy or torch `[n, channels]`."""
    values = to_host(values) if is_immutable(values) else local(values)
    shape = tuple(values.shape)
    if channels > 1 and (len(shape) < 2 or shape[-1] != channels):
        raise InputError(
            f"{name} has {channels} channels, so its values should be [..., {channels}], not {list(shape)}"
        )
    return namespace(values).reshape(values, (math.prod(shape) // channels, channels))


def _ends(name: str, stream: _Stream, ranks: tuple[float, float]) -> tuple[float, float]:
    bank = stream.bank()
    if not bank.n:
        raise InputError(f"the sketch of {name!r} is empty: update it first, or do not register it")
    lower, upper = bank.quantiles(ranks)[0].tolist()
    return lower, upper


def folder_of(metric: str) -> str:
    """The folder a metric's sketches are written to.

    Example:
        >>> folder_of("pixel"), folder_of("embeddings"), folder_of("blur")
        ('imgstats', 'modelstats', 'customstats')
    """
    return "imgstats" if metric in _IMAGE else "modelstats" if metric == "embeddings" else "customstats"


def names(metric: str, channels: int) -> list[str]:
    """The names of a metric's files, one per channel; those of means and pixels have a number even for grey images.

    Raises:
        InputError: If the metric's name cannot be part of a file name.

    Example:
        >>> names("noise", 1), names("mean", 2)
        (['noise.bin'], ['mean_0.bin', 'mean_1.bin'])
    """
    if not isinstance(metric, str) or not _NAME.fullmatch(metric):
        raise InputError(f"metric_name={metric!r} should be letters, digits, '_', '-', '.' and spaces: it names a file")
    if channels == 1 and metric not in _NUMBERED:
        return [f"{metric}.bin"]
    return [f"{metric}_{channel}.bin" for channel in range(channels)]


def write(base: Path, metric: str, blobs: Mapping[str, bytes]) -> None:
    """Write a metric's files, each replaced in one step."""
    folder = base / folder_of(metric)
    folder.mkdir(parents=True, exist_ok=True)
    for name, blob in blobs.items():
        replace_file(folder / name, blob)


def paths(base: Path) -> Iterator[Path]:
    """The files of sketches below a folder, sorted within each folder; no links, and none that begin with a dot."""
    for folder in FOLDERS:
        for path in sorted((base / folder).glob("*.bin")):
            if not path.name.startswith(".") and path.is_file() and not path.is_symlink():
                yield path


def read(base: Path, registered: Set[str]) -> dict[str, list[bytes]]:
    """The sketches below a folder, as bytes that were checked, by metric and channel.

    Args:
        base: The folder that holds `imgstats` and so on.
        registered: Names that are metrics even where they look like a channel of one, such as `layer_1`.

    Raises:
        InputError: If there is none.
        FormatError: If a file is damaged or too large.
    """
    single: dict[str, bytes] = {}
    for path in paths(base):
        if path.stem not in single:
            single[path.stem] = _checked(path)
    if not single:
        raise InputError(f"base_path={str(base)!r} has no sketches: pass the folder that holds imgstats")
    channels: dict[str, dict[int, str]] = {}
    for name in single:
        numbered = _NUMBER.fullmatch(name) if name not in registered else None
        if numbered:
            channels.setdefault(numbered[1], {})[int(numbered[2])] = name
    result: dict[str, list[bytes]] = {}
    for metric, numbers in channels.items():
        consecutive = sorted(numbers) == list(range(len(numbers)))
        if consecutive and (len(numbers) > 1 or metric in _NUMBERED):
            result[metric] = [single.pop(numbers[channel]) for channel in range(len(numbers))]
    return {**{name: [blob] for name, blob in single.items()}, **result}


def _checked(path: Path) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise FormatError(f"{path} has {path.stat().st_size} bytes, more than the {MAX_BYTES} a sketch may have")
    blob = path.read_bytes()
    try:
        wire.read(blob)
        return without_infinity(blob) if path.stem == "noise" else blob
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error


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
        for name, value, choices in (("framework", framework, _LAYOUTS), ("convention", convention, _NOISE)):
            if value not in choices:
                raise InputError(f"{name}={value!r} is unknown; pass one of {', '.join(map(repr, choices))}")
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
    for per_image in (brightness, sharpness, noise):
        per_image.set_shape((None,))
    mean.set_shape((None, None))
    pixel.set_shape((None, None, None))
    return brightness, sharpness, mean, noise, pixel


#: Cumulative sums of decimal fractions miss a percentile by no more than this.
_ROUNDING = 1e-9


def calculate_percentiles(
    x: Sequence[float], probabilities: Sequence[float], lower_percentile: float = 0.01, upper_percentile: float = 0.99
) -> tuple[float, float]:
    """The smallest value at which the cumulative probability reaches each of two percentiles.

    Args:
        x: `[m]` values, in any order.
        probabilities: `[m]`, of each value; together 1.
        lower_percentile: Within 0 and 1.
        upper_percentile: Within 0 and 1.

    Returns:
        The value at the lower and at the upper percentile.

    Raises:
        InputError: If the lengths differ, the probabilities do not add up to 1, or a percentile is not within 0 and 1.

    Example:
        >>> calculate_percentiles([3, 1, 2], [0.2, 0.5, 0.3], 0.5, 0.9)
        (1.0, 3.0)
    """
    values, weights = np.asarray(x, np.float64), np.asarray(probabilities, np.float64)
    if values.ndim != 1 or values.shape != weights.shape or not len(values):
        raise InputError(f"x and probabilities should be lists of the same length, not {values.shape}, {weights.shape}")
    if not (weights >= 0).all() or not np.isclose(weights.sum(), 1):
        raise InputError(f"probabilities should be at least 0 and add up to 1, not to {weights.sum():g}")
    for name, value in (("lower_percentile", lower_percentile), ("upper_percentile", upper_percentile)):
        if not 0 <= value <= 1:
            raise InputError(f"{name}={value!r} should be a fraction within 0 and 1: pass 0.99 for the 99th percentile")
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    places = np.searchsorted(reached, np.array([lower_percentile, upper_percentile]) - _ROUNDING)
    lower, upper = values[order][np.minimum(places, len(values) - 1)]
    return float(lower), float(upper)


def get_histogram_sketch(sketch: Any, num_splits: int = 30) -> tuple[list[float], list[float]] | tuple[None, None]:
    """A histogram of a sketch over equal bins between its minimum and maximum.

    Args:
        sketch: A `datasketches.kll_floats_sketch`, such as one of `Sketches.sketch_registry`.
        num_splits: Number of bins.

    Returns:
        The `num_splits + 1` ends of the bins, and for each the fraction of values at or below it and above the one
        before. `(None, None)` of an empty sketch.

    Raises:
        InputError: If `num_splits` is not a positive whole number.

    Example:
        >>> from datasketches import kll_floats_sketch
        >>> sketch = kll_floats_sketch()
        >>> sketch.update(np.array([0, 1, 2, 2], np.float32))
        >>> get_histogram_sketch(sketch, 2)
        ([0.0, 1.0, 2.0], [0.25, 0.25, 0.5])
    """
    if not isinstance(num_splits, int | np.integer) or num_splits < 1:
        raise InputError(f"num_splits={num_splits!r} should be a positive whole number, the number of bins")
    if sketch.is_empty():
        return None, None
    bank = KLLBank.from_bytes([sketch.serialize()])
    ends = np.linspace(bank.min[0], bank.max[0], num_splits + 1, dtype=np.float32)
    return ends.tolist(), np.diff(bank.cdf(ends)[0], prepend=0.0).tolist()
