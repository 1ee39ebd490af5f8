"""A device's `config.ini`, with thresholds from a baseline.

A device saves an image or a prediction whose measure is outside `lower,upper`. Its parser has defects that a file must
not meet, so three things are always as they are here: the lower bound of an image measure is never above -1 (else every
image is saved), NOISE is never NaN (it is read out of range), and QUATERNION_DRIFT is always there. Brightness and
sharpness cannot be negative, so of images only a brightness or sharpness that is too high can be asked for.

Bounds may also follow from how much a device is to save: a share of all images, not of each measure alone. Of measures
that go together (sharp images are noisy ones) the same images are beyond, so such bounds are found in whole rows: each
image has the rank it has in the measure where it stands out most, and the bounds are where the share of such ranks is
what was asked for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.edge.layout import INPUTS, SAMPLES, TRACKED
from lensai_integrations.edge.writing import Stream, profile_of, streams_of, write_file
from lensai_integrations.errors import InputError
from lensai_integrations.measures.edge import NO_NOISE
from lensai_integrations.profiles.profile import Baseline, Profile

_LOWEST: Final = -1.0
_IMAGES: Final = ("noise", "brightness", "sharpness")
#: What NOISE is where the baseline does not know it: nothing is outside, but an image without noise.
_ANY_NOISE: Final = (-1000.0, 1000.0)
#: Thresholds have six digits, rounded outwards: else a device would save what is exactly on one.
_OUTWARDS: Final = (Context(prec=6, rounding=ROUND_FLOOR), Context(prec=6, rounding=ROUND_CEILING))
_TEXT: Final = re.compile(r"[^\s,;=#\[\]\"'][^\n\r,;#\[\]\"']*")


def write_config(
    baseline: Baseline | Profile,
    path: str | Path,
    *,
    percentiles: tuple[float, float] = (0.01, 0.99),
    save_rate: float | None = None,
    stats_dir: str = "stats",
    data_dir: str = "data",
    endpoint: str = "http://localhost:8080/upload/",
    token: str = "none",  # noqa: S107
    sensor_id: str = "sensor",
    upload_interval: int = 3600,
) -> Path:
    """Write a `config.ini` for LensAI's C++ profiler.

    Image measures get the baseline's quantiles: `BRIGHTNESS = -1,upper`, `SHARPNESS = -1,upper`, `NOISE = lower,upper`
    with a lower bound of -1 at most, for a higher one makes devices save every image. Sampling scores get `0,upper`:
    only predictions that are less sure than that are worth saving. What the baseline does not know is `NaN`, which
    means compute only.

    Quantiles are of each measure alone: with five measures and 0.99, up to 5% of the images are saved. `save_rate` is
    the share of images, and that of predictions, of which any measure is outside.

    Args:
        baseline: Made with `convention="lensai-edge"`, alone or among others, or read from a device.
        path: The file; replaced in one step.
        percentiles: Lower and upper one as fractions, e.g. 0.01 and 0.99.
        save_rate: Instead of percentiles: the share of images like the baseline's that a device is to save, and of
            predictions. Found in the baseline's joint rows; without rows, at most this share is saved.
        stats_dir: Where the device keeps its sketches.
        data_dir: Where it keeps images worth saving.
        endpoint: URL of the server's `/upload/`.
        token: Bearer token for it. The file holds it as it is.
        sensor_id: The device's name.
        upload_interval: Seconds between uploads.

    Returns:
        The file.

    Raises:
        InputError: If the percentiles are not ascending fractions, `save_rate` is no share, a text holds what the
            parser takes for its own (commas, semicolons, quotes, brackets, line ends), or the baseline has no threshold
            to give.
        DefinitionError: If the baseline's image measures are not those of devices.

    Example:
        >>> import tempfile
        >>> from lensai_integrations import Profiler
        >>> profiler = Profiler(convention="lensai-edge")
        >>> profiler.update(inputs=np.full((4, 8, 8, 3), 200, np.uint8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     lines = write_config(profiler.profile(), Path(folder, "config.ini")).read_text().splitlines()
        >>> [line for line in lines if line.startswith("BRIGHTNESS")]
        ['BRIGHTNESS = -1,200']
    """
    percentiles = _checked_percentiles(percentiles)
    texts = {"stats_dir": stats_dir, "data_dir": data_dir, "endpoint": endpoint, "token": token, "sensor_id": sensor_id}
    _check_texts(texts)
    if isinstance(upload_interval, bool) or not isinstance(upload_interval, int) or upload_interval < 1:
        raise InputError(f"upload_interval={upload_interval!r} should be whole seconds, 1 or more")
    profile = profile_of(baseline, "baseline")
    streams = list(streams_of(profile))
    wanted = [stream for stream in streams if _is_wanted(stream)]
    if save_rate is None:
        ranges = {stream.name: _ends(stream, *percentiles) for stream in wanted}
    else:
        ranges = _ends_by_rate(profile, wanted, checked_rate(save_rate))
    if not ranges:
        raise InputError(
            f"baseline has neither image measures nor sampling scores; its groups are {sorted(profile.groups)}"
        )
    channels = sum(s.name.startswith("mean/") and s.group.name == INPUTS for s in streams) or 3
    title = f"; Thresholds: {_rule(percentiles, save_rate)} of {profile.n} images and predictions."
    sections = _sections(ranges, channels, texts, upload_interval)
    lines = [title, *(line for name, values in sections.items() for line in _section(name, values))]
    write_file(Path(path), ("\n".join(lines) + "\n").encode())
    return Path(path)


def _checked_percentiles(percentiles: tuple[float, float]) -> tuple[float, float]:
    try:
        low, high = map(float, percentiles)
    except (TypeError, ValueError):
        low = high = math.nan
    if not 0 <= low < high <= 1:
        raise InputError(f"percentiles={percentiles!r} should be two ascending fractions, e.g. (0.01, 0.99)")
    return low, high


def _check_texts(texts: Mapping[str, object]) -> None:
    for name, text in texts.items():
        if not isinstance(text, str) or not _TEXT.fullmatch(text) or text != text.strip():
            shown = "a text" if name == "token" else repr(text)
            raise InputError(
                f"{name}={shown} cannot be in a config.ini: pass text without commas, semicolons, quotes, brackets,"
                " number signs and line ends, not empty"
            )


def _is_wanted(stream: Stream) -> bool:
    images = stream.group.name == INPUTS and stream.name in _IMAGES
    return images or (stream.group.name == "outputs" and stream.name in SAMPLES)


def _ends(stream: Stream, low: float, high: float) -> tuple[float, float]:
    lower, upper = stream.quantiles(np.array([low, high])).tolist()
    if stream.name in SAMPLES:
        return 0.0, upper
    return min(lower, _LOWEST), min(upper, NO_NOISE) if stream.name == "noise" else upper


def _ends_by_rate(profile: Profile, wanted: Sequence[Stream], rate: float) -> dict[str, tuple[float, float]]:
    """No lower bounds: they can hardly be asked for, see the module."""
    ranges: dict[str, tuple[float, float]] = {}
    for scores in (False, True):
        streams = [stream for stream in wanted if (stream.name in SAMPLES) is scores]
        for stream, upper in zip(streams, upper_bounds(profile, streams, rate), strict=True):
            lower = 0.0 if scores else _ANY_NOISE[0] if stream.name == "noise" else _LOWEST
            ranges[stream.name] = lower, min(upper, NO_NOISE) if stream.name == "noise" else upper
    return ranges


def _rule(percentiles: tuple[float, float], save_rate: float | None) -> str:
    low, high = percentiles
    return f"the quantiles {low:g} and {high:g}" if save_rate is None else f"to save {save_rate:g}"


def _range(ranges: Mapping[str, tuple[float, float]], name: str) -> str:
    if name not in ranges:
        return "NaN"
    rounded = [context.create_decimal_from_float(end) for context, end in zip(_OUTWARDS, ranges[name], strict=True)]
    return ",".join(f"{float(end):.6g}" for end in rounded)


def _sections(
    ranges: Mapping[str, tuple[float, float]], channels: int, texts: Mapping[str, str], interval: int
) -> dict[str, dict[str, object]]:
    """Every section the parser knows with every key it reads: what is missing is not defined there."""
    filepath = f"{texts['stats_dir']},{texts['data_dir']}"
    image = {"CHANNELS": channels, **{name.upper(): _range(ranges, name) for name in _IMAGES}}
    if "noise" not in ranges:
        image["NOISE"] = "{:g},{:g}".format(*_ANY_NOISE)
    upload = {"http_endpoint": texts["endpoint"], "token": texts["token"], "sensorId": texts["sensor_id"]}
    upload |= {"upload_interval": str(interval)}
    return {
        "sampling": {**{name.upper(): _range(ranges, score) for score, name in SAMPLES.items()}, "filepath": filepath},
        "image": {**image, "MEAN": "NaN", "HISTOGRAM": "NaN", "filepath": filepath},
        "tracker": {**dict.fromkeys(["DETECTION_CONFIDENCE", *map(str.upper, TRACKED)], "true"), "filepath": filepath},
        "custom": {"filepath": filepath},
        "model": {"filepath": filepath},
        "generic": {"maxdatastorage": 10},
        "data_uploader": {**upload, "folderPath": texts["data_dir"], "fileType": "data", "deletedata": "true"},
        "stats_uploader": {**upload, "folderPath": texts["stats_dir"], "fileType": "stats", "deletedata": "false"},
    }


def _section(name: str, values: Mapping[str, object]) -> list[str]:
    return ["", f"[{name}]", *(f"{key} = {value}" for key, value in values.items())]


def checked_rate(rate: float) -> float:
    """The share of images to save.

    Raises:
        InputError: If it is no share.

    Example:
        >>> checked_rate(0.01)
        0.01
    """
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 1:
        raise InputError(f"save_rate={rate!r} should be a share of the images, above 0 and below 1, e.g. 0.01")
    return float(rate)


def upper_bounds(profile: Profile, streams: Sequence[Stream], rate: float) -> list[float]:
    """Bounds of which at least one is exceeded by a share of the rows.

    Args:
        profile: Of the streams.
        streams: Of one group.
        rate: The share, above 0 and below 1.

    Returns:
        A bound for each stream. Without joint rows, quantiles at which the share is that at most (Bonferroni).

    Example:
        >>> upper_bounds(Profile(), [], 0.1)
        []
    """
    if not streams:
        return []
    rows = _rows(profile, streams)
    if rows is not None:
        return [float(bound) for bound in row_bounds(rows, rate)]
    rank = 1 - rate / len(streams)
    return [float(stream.quantiles([rank])[0]) for stream in streams]


def row_bounds(rows: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    """Bounds of columns `[d]`, equally rare in each, of which a share of the rows exceeds at least one.

    Args:
        rows: Finite numbers `[n, d]`, both 1 or more.
        rate: The share; of the rows, as many as can be without going over it. Rows that are equal stay together.

    Example:
        >>> row_bounds(np.array([[1.0, 9.0], [2.0, 8.0], [3.0, 6.0], [4.0, 7.0]]), 0.5).tolist()
        [3.0, 8.0]
    """
    n = len(rows)
    ordered = np.sort(rows, axis=0)
    columns = zip(ordered.T, rows.T, strict=True)
    ranks = np.stack([np.searchsorted(column, values, side="right") for column, values in columns], axis=1)
    most = np.sort(ranks.max(axis=1))
    limit = most[n - 1 - min(math.floor(rate * n), n - 1)]
    inside: NDArray[np.float64] = np.where(ranks <= limit, rows, -np.inf).max(axis=0)
    return inside


def _rows(profile: Profile, streams: Sequence[Stream]) -> NDArray[np.float64] | None:
    """The joint rows that have a value of every stream; None where there are none."""
    group = streams[0].group
    if profile.rows is None or group.name not in profile.rows.data:
        return None
    kept = np.asarray(profile.rows.data[group.name], np.float64)
    columns = list(group.streams)
    if kept.shape[1] != len(columns) or any(stream.name not in columns for stream in streams):
        return None
    chosen = kept[:, [columns.index(stream.name) for stream in streams]]
    chosen = chosen[np.isfinite(chosen).all(axis=1)]
    return chosen if len(chosen) else None
