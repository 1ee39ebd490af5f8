"""When rows came, as whoever recorded them says: seconds since 1970, dates of Python's, numpy's or a table's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.arrays.namespaces import is_array, to_host
from lensai_integrations.errors import InputError

#: Seconds by which a timestamp may be ahead of the clock here; the receiver allows devices as much.
AHEAD: Final = 86_400.0
_WANTED: Final = (
    "pass seconds since 1970, a datetime with a time zone, a numpy.datetime64 (in UTC), or one of these a row"
)


def seconds_of(timestamp: Any, n: int) -> NDArray[np.float64]:
    """The times of rows in seconds since 1970, float64 `[n]`.

    Args:
        timestamp: One for all rows, or `[n]`: numbers, datetimes with a time zone, or `numpy.datetime64` in UTC.
        n: Rows.

    Raises:
        InputError: If there are not as many as rows, or one is no time, has no time zone, or is before 1970.

    Example:
        >>> seconds_of(np.datetime64("2026-09-21T00:00"), 2).tolist()
        [1789948800.0, 1789948800.0]
        >>> seconds_of([0, 1.5], 2).tolist()
        [0.0, 1.5]
    """
    values = _as_numpy(timestamp)
    if values.dtype.kind == "M":
        missing = np.isnat(values)
        since = values.astype("datetime64[us]").astype(np.int64) / 1e6
        seconds = np.where(missing, np.nan, since)
    elif values.dtype.kind == "O":
        seconds = np.array([_of_one(value) for value in values.reshape(-1)], np.float64).reshape(values.shape)
    elif values.dtype.kind in "iuf":
        seconds = values.astype(np.float64)
    else:
        raise InputError(f"timestamp is of {values.dtype}: {_WANTED}")
    if seconds.ndim > 1 or (seconds.ndim == 1 and len(seconds) != n):
        raise InputError(f"timestamp has the shape {seconds.shape}, and there are {n} rows: pass one, or one a row")
    if not (np.isfinite(seconds) & (seconds >= 0)).all():
        wrong = int((~np.isfinite(seconds) | (seconds < 0)).sum())
        raise InputError(f"{wrong} of the timestamps are missing, no number, or before 1970: {_WANTED}")
    return np.array(np.broadcast_to(seconds, (n,)))


def _as_numpy(timestamp: Any) -> NDArray[Any]:
    if isinstance(timestamp, np.ndarray | np.generic):
        return np.asarray(timestamp)
    if is_array(timestamp):
        return to_host(timestamp)
    if hasattr(timestamp, "to_numpy"):  # columns of pandas, polars and pyarrow, and pandas' own times
        return np.asarray(timestamp.to_numpy())
    if isinstance(timestamp, Sequence) and not isinstance(timestamp, str):
        return np.array(timestamp if timestamp else [], object if _holds_dates(timestamp) else None)
    return np.asarray(timestamp, object if isinstance(timestamp, datetime | str) else None)


def _holds_dates(values: Sequence[Any]) -> bool:
    return any(isinstance(value, datetime) for value in values)


def _of_one(value: Any) -> float:
    if isinstance(value, np.datetime64):
        return float(seconds_of(value, 1)[0])
    if not isinstance(value, datetime):
        raise InputError(f"timestamp has {value!r}: {_WANTED}")
    if value.tzinfo is None:
        raise InputError(
            f"timestamp has {value.isoformat()} without a time zone, so it is not known when that was: pass"
            " value.replace(tzinfo=timezone.utc), or that of the place where it was written down"
        )
    return float(value.timestamp())
