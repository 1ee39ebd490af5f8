"""`Sketches` of LensAI's Python profiler: quantile sketches by name, in a device's folders and files.

Floats go into a `KLLBank` per channel, bytes (every pixel of every image) are counted exactly by `PixelCounts`; a file
is made of both. What is read from outside goes through `wire`, which believes nothing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from datasketches import kll_floats_sketch

from lensai_integrations.arrays.namespaces import Array, dtype_name, is_immutable, local, namespace, to_host
from lensai_integrations.errors import InputError
from lensai_integrations.lensai import files
from lensai_integrations.lensai.publish import publish_folder
from lensai_integrations.problems import Problems
from lensai_integrations.sketches.bank import KLLBank
from lensai_integrations.sketches.counts import PixelCounts

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
        wanted = set(files.names(metric_name, num_channels))
        for other, channels in self.metrics.items():
            if other != metric_name and wanted & set(files.names(other, channels)):
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
        columns = {name: _columns(name, each, self.metrics[name]) for name, each in values.items() if self._knows(name)}
        for name, each in columns.items():
            for channel, stream in enumerate(self._streams[name]):
                stream.update(each[:, channel])

    def _knows(self, name: str) -> bool:
        if name not in self.metrics:
            problem = f"no sketch is registered for {name!r}, its values are left out: call register_metric first"
            self._problems.remark(problem)
        return name in self.metrics

    @property
    def invalid(self) -> dict[str, int]:
        """How many values of each metric were left out because they were not finite; metrics without such have none."""
        found = {name: sum(each.floats.invalid for each in streams) for name, streams in self._streams.items()}
        return {name: count for name, count in found.items() if count}

    @property
    def sketch_registry(self) -> Mapping[str, Any]:
        """The sketches as `datasketches.kll_floats_sketch`, or a list of them for several channels: copies."""
        made = {name: [kll_floats_sketch.deserialize(b) for b in self._blobs(name)] for name in self.metrics}
        return MappingProxyType({name: each[0] if len(each) == 1 else each for name, each in made.items()})

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
            files.write(Path(base_path), name, dict(zip(files.names(name, channels), self._blobs(name), strict=True)))

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
        found = {
            name: [_Stream(KLLBank.from_bytes([blob])) for blob in blobs]
            for name, blobs in files.read(Path(base_path), set(self.metrics)).items()
        }
        for name, streams in found.items():
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
        found = {name: [_ends(name, each, ranks) for each in streams] for name, streams in self._streams.items()}
        return {name: ends[0] if len(ends) == 1 else dict(enumerate(ends)) for name, ends in found.items()}

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
        publish_folder(Path(folder_path), endpoint_url, sensor_id, token=token, timeout=timeout)


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
