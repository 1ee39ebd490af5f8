"""Past data for a monitor: a table of rows, or batches in any order, as what `update` takes.

Tables are those of pandas, polars and pyarrow, none of which is imported: each has columns by name that become numpy
arrays. A table is sorted by its times and cut into batches, so windows can be judged as they go by.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.arrays.namespaces import is_array, strings
from lensai_integrations.errors import InputError
from lensai_integrations.monitoring.times import seconds_of

#: A column, several of numbers that are one vector, or these by head.
Columns = str | Sequence[str] | Mapping[str, str | Sequence[str]] | None

#: Rows of a table that are measured at once.
_ROWS: Final = 1000
_TABLES: Final = ("pandas", "polars", "pyarrow")
#: What `update` takes, but for the timestamp.
_ARRAYS: Final = ("inputs", "outputs", "embeddings", "labels", "segments")


@dataclass(frozen=True)
class PastColumns:
    """The columns of a table, as `DriftMonitor.replay` takes them."""

    timestamp: str | None = None
    inputs: Columns = None
    outputs: Columns = None
    embeddings: Mapping[str, Columns] | None = None
    labels: Columns = None
    segments: str | None = None


@dataclass(frozen=True)
class PastBatch:
    """What `update` takes: arrays by argument, and when the rows came; None if that is not known."""

    arrays: Mapping[str, Any]
    timestamp: Any = None


def past_batches(past: Any, columns: PastColumns, *, need_times: bool) -> tuple[Iterable[PastBatch], bool]:
    """Batches of past data, and whether they come in the order of their times.

    Args:
        past: A table, or an iterable of dicts.
        columns: Of a table.
        need_times: Whether windows are by time.

    Raises:
        InputError: If it is neither, a column is missing, or there are no times.
    """
    if _is_table(past):
        times, parts = _of_table(past, columns, need_times)
        return _cut(times, parts), times is not None
    if columns != PastColumns():
        raise InputError("names of columns are for a table: leave them out, or pass a DataFrame or a pyarrow.Table")
    if isinstance(past, Mapping | str | bytes) or is_array(past) or not isinstance(past, Iterable):
        raise InputError(
            f"past is a {type(past).__name__}: pass a pandas or polars DataFrame, a pyarrow Table, or an iterable of"
            " dicts such as {'timestamp': ..., 'outputs': ...}"
        )
    return _of_dicts(past, need_times), False


def _is_table(past: Any) -> bool:
    library = type(past).__module__.partition(".")[0]
    if library == "polars" and hasattr(past, "collect"):
        raise InputError("past is a LazyFrame: pass past.collect()")
    return library in _TABLES and hasattr(past, "columns") and hasattr(past, "__getitem__")


def _of_dicts(past: Iterable[Any], need_times: bool) -> Iterator[PastBatch]:
    for number, given in enumerate(past):
        if not isinstance(given, Mapping):
            raise InputError(f"batch {number} is a {type(given).__name__}: pass dicts of what `update` takes")
        if unknown := given.keys() - {*_ARRAYS, "timestamp"}:
            raise InputError(
                f"batch {number} has {', '.join(sorted(map(str, unknown)))}, which `update` does not take: it takes"
                f" {', '.join(_ARRAYS)} and timestamp"
            )
        timestamp = given.get("timestamp")
        if need_times and timestamp is None:
            raise InputError(f"batch {number} has no timestamp, and windows are by time: say when its rows came")
        yield PastBatch({key: value for key, value in given.items() if key != "timestamp"}, timestamp)


def _of_table(table: Any, columns: PastColumns, need_times: bool) -> tuple[NDArray[np.float64] | None, dict[str, Any]]:
    """The times of a table's rows and its columns by argument, in the order of time."""
    names = _names(table)
    wanted = columns.timestamp or ("timestamp" if "timestamp" in names else None)
    if wanted is None and need_times:
        raise InputError(f"the table has no column timestamp among {_listed(names)}: pass timestamp='...'")
    n = len(table)
    times = None if wanted is None else seconds_of(_column(table, wanted), n)
    order = None if times is None else np.argsort(times, kind="stable")
    parts = {argument: _ordered(_read(table, names, chosen), order) for argument, chosen in _chosen(columns, names)}
    if not parts:
        raise InputError(
            f"the table has none of {', '.join(_ARRAYS)} among its columns {_listed(names)}: say which are what, such"
            " as outputs='logits'"
        )
    return (None if times is None or order is None else times[order]), parts


def _names(table: Any) -> list[str]:
    names = getattr(table, "column_names", None)  # of pyarrow, whose `columns` are arrays
    return [str(name) for name in (table.columns if names is None else names)]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "") or "none"


def _chosen(columns: PastColumns, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """What was asked for of each argument; else what is called as it is."""
    for argument in _ARRAYS:
        chosen = getattr(columns, argument)
        if chosen is None and argument in names and argument != "embeddings":
            chosen = argument
        elif chosen is None:
            below = [name for name in names if name.startswith(f"{argument}/")]
            if argument == "outputs":
                chosen = below or None
            elif argument == "embeddings":
                chosen = {name.removeprefix("embeddings/"): name for name in below} or None
        if chosen is not None:
            yield argument, chosen


def _read(table: Any, names: Sequence[str], chosen: Any) -> Any:
    """A column, several as one vector a row, or these by name, as arrays or lists of texts."""
    if isinstance(chosen, Mapping):
        return {str(name): _read(table, names, part) for name, part in chosen.items()}
    for name in [chosen] if isinstance(chosen, str) else chosen:
        if name not in names:
            raise InputError(f"the table has no column {name!r}: it has {_listed(names)}")
    if isinstance(chosen, str):
        return _values(_column(table, chosen))
    return np.stack([_values(_column(table, name)) for name in chosen], axis=1)


def _column(table: Any, name: str) -> NDArray[Any]:
    return np.asarray(table[name].to_numpy())


def _values(column: NDArray[Any]) -> Any:
    """The rows of a column: of lists and arrays one array, or a list of them where they are of several shapes."""
    if column.dtype.kind != "O" or not len(column):
        return column
    if (texts := strings(column)) is not None:
        return texts
    rows = [np.asarray(row) for row in column]
    return np.stack(rows) if len({row.shape for row in rows}) == 1 else rows


def _ordered(value: Any, order: NDArray[np.intp] | None) -> Any:
    if order is None:
        return value
    if isinstance(value, Mapping):
        return {name: _ordered(rows, order) for name, rows in value.items()}
    return [value[i] for i in order] if isinstance(value, list) else value[order]


def _cut(times: NDArray[np.float64] | None, parts: Mapping[str, Any]) -> Iterator[PastBatch]:
    n = max(map(_length, parts.values()))
    for start in range(0, n, _ROWS):
        stop = min(start + _ROWS, n)
        arrays = {argument: _part(value, start, stop) for argument, value in parts.items()}
        yield PastBatch(arrays, None if times is None else times[start:stop])


def _length(value: Any) -> int:
    return max(map(_length, value.values())) if isinstance(value, Mapping) else len(value)


def _part(value: Any, start: int, stop: int) -> Any:
    if isinstance(value, Mapping):
        return {name: _part(rows, start, stop) for name, rows in value.items()}
    return value[start:stop]
