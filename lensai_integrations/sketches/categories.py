"""Labels and predicted classes: the most frequent ones with their counts, and how many different ones there are.

Both questions are answered by Apache DataSketches' own sketches, so that any of its readers can go on from our bytes.
With fewer categories than the map holds (3,072 by default) the counts are exact, not estimates. A batch is reduced to
its different values first: one call into the sketches per category, not per row.

Class numbers on an accelerator stay there, as a list of batches; when the list has grown long, it is reduced on the
device to a table of values and weights of fixed size, by sorting, so that nothing is ever waited for. Rows that are
told to be none have the weight 0 there: the host leaves out the same ones, and learns at the end how many they were.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from array_api_compat import is_torch_array
from datasketches import frequent_items_error_type, frequent_strings_sketch, hll_sketch, hll_union, tgt_hll_type
from numpy.typing import NDArray

from lensai_integrations.arrays.namespaces import Array, is_array, is_host, local, namespace, to_host, together
from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.sketches.state import LARGEST_COUNT, Sketch, State, field, number, require
from lensai_integrations.sketches.wire import LG_REGISTERS, check_distinct, check_frequent

#: A few bytes of a file make a map of this size, 42 bytes a place.
_LARGEST_MAP = 1 << 16
#: No category has this name, so its upper bound is the sketch's error.
_ABSENT = "\0absent\0"
#: Bytes before the weights of frequent items.
_HEAD = 32
#: Mode of a distinct count that is a set of hashes, and bytes before them.
_SET, _SET_HEAD = 1, 12
#: Nobody's names do that by chance.
_COLLIDING = "their names were chosen to fall on one place of the sketch's map"
#: Rows that wait on an accelerator, 16 bytes each, before they are reduced to a table.
_PENDING_ROWS = 1 << 18
#: Different values in that table; the rows of any further ones (the largest numbers) count as lost.
_TABLE = 1 << 16


class Categories(Sketch):
    """Heavy hitters and number of distinct values of a stream of categories.

    Args:
        max_map_size: Size of the map of counts, a power of two from 8 to 65,536; up to three quarters of it different
            categories are counted exactly.

    Attributes:
        max_map_size: As given.

    Raises:
        InputError: If `max_map_size` is not such a power of two.

    Example:
        >>> labels = Categories()
        >>> labels.update([3, 1, 3])
        >>> labels.update(["cat"])
        >>> labels.n, labels.top(2), labels.distinct, labels.error
        (4, [('3', 2), ('1', 1)], 3.0, 0)
    """

    takes = "categories"
    in_segments = True

    def __init__(self, max_map_size: int = 4096) -> None:
        if not isinstance(max_map_size, int) or max_map_size.bit_count() != 1 or not 8 <= max_map_size <= _LARGEST_MAP:
            raise InputError(f"max_map_size should be a power of two from 8 to {_LARGEST_MAP}, not {max_map_size!r}")
        self.max_map_size = max_map_size
        self._n = 0
        self._frequent = frequent_strings_sketch(max_map_size.bit_length() - 1)
        self._distinct = _empty_distinct()
        self._pending: list[tuple[Array, Array]] = []
        self._pending_rows = 0
        self._table: tuple[Array, Array] | None = None  # of batches that waited for long
        self._left_out: Array | None = None  # rows of the table's batches that were told to be none
        self._told = False  # whether rows of the batches that wait were
        self._on: Array | None = None  # how often each of several was on, where the batches were

    @classmethod
    def new(cls, width: int, *, k: int = 200, seed: int | None = None, like: Sketch | None = None) -> Self:
        """One of the usual size."""
        return cls()

    def empty(self) -> Self:
        """Another of the same size."""
        return type(self)(self.max_map_size)

    @property
    def n(self) -> int:
        """Categories counted, one for each row or, of several at once, for each that was on.

        Waits for an accelerator where several are on at once there, or rows may be none.
        """
        if self._on is not None or self._told:
            self._settle()
        return self._n

    @property
    def rows_seen(self) -> int:
        """As many as `n`, or more by the rows that are none, where these lie on an accelerator. Waits for `n` of
        several at once.
        """
        return self.n if self._on is not None else self._n

    def update(self, values: Array | Iterable[str] | tuple[Array, Array]) -> None:
        """Count a batch of categories.

        Args:
            values: `[n]` whole numbers, booleans or strings; a number counts as its decimal string, a boolean as 0
                or 1. Or bool `[n, k]`, which of k categories called `0` to `k - 1` are on. Numbers may be a torch
                tensor on any device. Or a pair of arrays, the second bool `[n]`, beside the first: which rows count.

        Raises:
            InputError: If the values are of another kind or shape.

        Example:
            >>> labels = Categories()
            >>> labels.update((np.array([3, -1, 3]), np.array([True, False, True])))
            >>> labels.n, labels.top(2)
            (2, [('3', 2)])
        """
        valid: Array | None = None
        if isinstance(values, tuple) and len(values) == 2 and all(map(is_array, values)):
            values, valid = values
            _check_valid(values, valid)
        on_host = not is_torch_array(values) or is_host(values)
        if valid is not None and on_host:
            values, valid = np.asarray(local(values))[np.asarray(local(valid))], None
        if len(getattr(values, "shape", ())) == 2 and self._took_several(local(values), valid):
            return
        if not on_host:
            self._put_off(local(values), valid)
            return
        self.add({str(value): count for value, count in Counter(_host_values(values).tolist()).items()})

    def _took_several(self, values: Array, valid: Array | None) -> bool:
        """Count which of several are on, `[n, k]`, where they are; whether they say so, which is as booleans."""
        xp = namespace(values)
        if not xp.isdtype(values.dtype, "bool"):
            return False
        if valid is not None:
            values = values & valid[:, None]
        counts = xp.count_nonzero(values, axis=0)
        if self._on is not None:
            if self._on.shape != counts.shape:
                raise InputError(f"categories are {counts.shape[0]} at once here, and {self._on.shape[0]} before")
            so_far, counts = (self._on, counts) if type(self._on) is type(counts) else together(self._on, counts)
            counts = so_far + counts
        self._on = counts
        return True

    def add(self, counts: Mapping[str, int]) -> None:
        """Count categories that were counted already.

        Raises:
            InputError: If a name cannot be written as UTF-8, or a count is negative; nothing is counted then. If names
                were chosen so that the sketch cannot hold them together; those before them are counted.

        Example:
            >>> labels = Categories()
            >>> labels.add({"cat": 2})
            >>> labels.n
            2
        """
        try:
            "".join(counts).encode()
        except UnicodeEncodeError as error:
            raise InputError(f"a category's name cannot be written as UTF-8: {error}") from error
        if min(counts.values(), default=0) < 0:
            raise InputError(f"a category's count is negative: {min(counts.values())}")
        self._n = self._more(sum(counts.values()))
        self._count({name: count for name, count in counts.items() if count})

    def _more(self, rows: int) -> int:
        """Rows with so many more, which a file says there were."""
        if self._n + rows > LARGEST_COUNT:
            raise InputError(f"{self._n} categories and {rows} more are too many to be counted")
        return self._n + rows

    def _count(self, counts: Mapping[str, int]) -> None:
        try:
            for name, count in counts.items():
                self._frequent.update(name, count)
                self._distinct.update(name)
        except RuntimeError as error:  # DataSketches gives up after a thousand names on one place of its map
            raise InputError(f"{len(counts)} categories cannot be counted, {_COLLIDING}: {error}") from error

    def _put_off(self, values: Array, valid: Array | None = None) -> None:
        """Keep a tensor of class numbers on its device; a copy, for the caller may write into it again."""
        xp = namespace(values)
        if not (xp.isdtype(values.dtype, ("integral", "bool")) and values.ndim == 1):
            raise InputError(
                f"categories on an accelerator are whole numbers [n], not {values.dtype} {tuple(values.shape)}: "
                "convert them to integers, e.g. labels.long().reshape(-1)"
            )
        values = xp.asarray(values, dtype=xp.int64, copy=True)
        self._pending.append((values, xp.ones_like(values) if valid is None else xp.astype(valid, xp.int64)))
        self._told = self._told or valid is not None
        self._pending_rows += values.shape[0]
        self._n += int(values.shape[0])
        if self._pending_rows >= _PENDING_ROWS:
            self._reduce()

    def _reduce(self) -> None:
        """Make one table of what waits and of the table that there is."""
        values, weights = _joined(self._pending)
        if self._told:
            xp = namespace(weights)
            left_out = self._pending_rows - xp.sum(weights)
            self._left_out = left_out if self._left_out is None else self._left_out + left_out
        table = [] if self._table is None else [self._table]
        self._table = tabulate(*_joined([*table, (values, weights)]), size=_TABLE)
        self._pending, self._pending_rows = [], 0

    def _settle(self) -> None:
        """Bring over what was put off; waits for the accelerator."""
        if self._on is not None:
            on, self._on = to_host(self._on), None
            self.add({str(number): count for number, count in enumerate(on.tolist()) if count})
        if self._left_out is not None:
            self._n -= int(to_host(self._left_out))
        parts = [tuple(map(to_host, part)) for part in ([_joined(self._pending)] if self._pending else [])]
        if parts:
            self._n -= self._pending_rows - int(parts[0][1].sum())
        if self._table is not None:
            parts.append(tuple(map(to_host, self._table)))
        self._pending, self._pending_rows, self._table, self._left_out, self._told = [], 0, None, None, False
        if not parts:
            return
        values, weights = map(np.concatenate, zip(*parts, strict=True))
        kinds, places = np.unique(values[weights > 0], return_inverse=True)
        counts = np.zeros(kinds.size, np.int64)
        np.add.at(counts, places, weights[weights > 0])
        self._count(dict(zip(map(str, kinds.tolist()), counts.tolist(), strict=True)))

    def merge(self, other: Categories) -> None:
        """Add what another has seen; it stays as it is. Exact as long as `error` is 0.

        Raises:
            InputError: If it has another `max_map_size`, or names that were chosen so that no sketch can hold them
                together with these; some of its categories are counted then.
        """
        if other.max_map_size != self.max_map_size:
            raise InputError(f"cannot merge categories of max_map_size {self.max_map_size} and {other.max_map_size}")
        other._settle()
        self._settle()
        self._n = self._more(other.n)
        union = hll_union(LG_REGISTERS)
        union.update(self._distinct)
        union.update(hll_sketch.deserialize(_sorted(other._distinct)))
        self._distinct = union.get_result(tgt_hll_type.HLL_8)
        try:
            # In the order in which a saved one is read, so that it is the same whether or not the other was saved.
            self._frequent.merge(frequent_strings_sketch.deserialize(_in_order(other._frequent)))
        except RuntimeError as error:
            raise InputError(f"categories cannot be merged, {_COLLIDING}: {error}") from error

    def top(self, m: int) -> list[tuple[str, int]]:
        """The `m` most frequent categories with their counts, at most `error` off; ties by name.

        Waits for the accelerator if rows are there, as do the other results.

        Raises:
            InputError: If `m` is negative.
        """
        if m < 0:
            raise InputError(f"m is how many categories to name, not {m}")
        self._settle()
        items = self._frequent.get_frequent_items(frequent_items_error_type.NO_FALSE_NEGATIVES, 0)
        return sorted(((name, int(estimate)) for name, estimate, *_ in items), key=lambda item: (-item[1], item[0]))[:m]

    @property
    def error(self) -> int:
        """By how much a count may be off; categories less frequent than this may be missing. 0: all exact."""
        self._settle()
        return int(self._frequent.get_upper_bound(_ABSENT)) + self.n - int(self._frequent.total_weight)

    @property
    def distinct(self) -> float:
        """Number of different categories: exact while `error` is 0, else by HyperLogLog (standard error 1.6%).

        Never more than the rows, whatever a file says.
        """
        if self.error == 0:
            return float(self._frequent.num_active_items)
        return min(float(self._distinct.get_estimate()), float(self.n))

    def summary(self, streams: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Rows, distinct categories, and the ten most frequent."""
        return {streams[0]: {"kind": "categories", "n": self.n, "distinct": self.distinct, "top": self.top(10)}}

    def to_host(self) -> Self:
        """Itself, after all rows came over from the accelerator."""
        self._settle()
        return self

    def state(self) -> State:
        """Plain host arrays: DataSketches bytes `frequent` and `distinct` as uint8, `max_map_size` and `n` as int64."""
        self._settle()
        return {
            "frequent": np.frombuffer(_in_order(self._frequent), np.uint8),
            "distinct": np.frombuffer(_sorted(self._distinct), np.uint8),
            "max_map_size": np.array(self.max_map_size, np.int64),
            "n": np.array(self.n, np.int64),
        }

    def __reduce__(self) -> Any:
        return type(self).from_state, (self.state(),)  # DataSketches' own sketches cannot be pickled

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The categories of which `state` is the state.

        Raises:
            FormatError: If it is not a state of categories, or its bytes are not those of the two sketches.
        """
        size = number(state, "max_map_size", 8, _LARGEST_MAP)
        require(size.bit_count() == 1, f"max_map_size is {size}, no power of two")
        result = cls(size)
        result._n = number(state, "n")
        result._frequent = _read_frequent(field(state, "frequent", np.uint8, (None,)).tobytes(), size, result.n)
        result._distinct = _read_distinct(field(state, "distinct", np.uint8, (None,)).tobytes(), result.n)
        return result


def tabulate(values: Array, weights: Array, size: int) -> tuple[Array, Array]:
    """Different values with the sums of their weights, in `size` places, without asking how many there are.

    Args:
        values: int64 `[n]`, n at least 1.
        weights: int64 `[n]`.
        size: Places in the result. Values beyond the `size` smallest are dropped with their weights.

    Returns:
        Values and weights, int64 `[size]` each; places left over hold some value with weight 0.

    Example:
        >>> [a.tolist() for a in tabulate(np.array([5, 2, 5]), np.array([1, 1, 1]), size=3)]
        [[2, 5, 5], [1, 2, 0]]
    """
    xp = namespace(values)
    order = xp.argsort(values)
    ordered, upto = xp.take(values, order), xp.cumulative_sum(xp.take(weights, order))
    is_new = xp.astype(ordered[1:] != ordered[:-1], xp.int64)
    ranks = xp.concat([xp.zeros_like(ordered[:1]), xp.cumulative_sum(is_new)])
    wanted = xp.arange(size, dtype=xp.int64, device=getattr(values, "device", None))
    last = xp.searchsorted(ranks, wanted, side="right") - 1
    sums = xp.take(upto, last)
    return xp.take(ordered, last), sums - xp.concat([xp.zeros_like(sums[:1]), sums[:-1]])


def _host_values(values: Array | Iterable[str]) -> NDArray[Any]:
    """Values in host memory as a one-dimensional array of integers, booleans or strings."""
    if is_torch_array(values):
        values = local(values)
    array = np.asarray(values if hasattr(values, "dtype") else list(values))
    if array.dtype == object and all(isinstance(value, str) for value in array.ravel()):
        array = array.astype(np.dtypes.StringDType())
    if array.ndim != 1 or array.dtype.kind not in "biuUT":
        if array.size == 0 and array.ndim == 1:
            return np.zeros(0, np.int64)
        raise InputError(
            f"categories are whole numbers, booleans or strings [n], not {array.dtype} {array.shape}: "
            "convert float labels with .astype(int), and one-hot labels with .argmax(axis=1)"
        )
    return array.astype(np.int64) if array.dtype == np.bool_ else array


def _check_valid(values: Array, valid: Array) -> None:
    if tuple(valid.shape) != tuple(values.shape[:1]) or not namespace(valid).isdtype(valid.dtype, "bool"):
        raise InputError(
            f"which of {tuple(values.shape)} categories count is said by bool [n], not {valid.dtype}"
            f" {tuple(valid.shape)}"
        )


def _joined(pending: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """All values and all weights, each in one tensor."""
    values, weights = zip(*pending, strict=True)
    xp = namespace(values[0])
    return xp.concat(values), xp.concat(weights)


def _empty_distinct() -> hll_sketch:
    return hll_sketch(LG_REGISTERS, tgt_hll_type.HLL_8)


def _in_order(sketch: frequent_strings_sketch) -> bytes:
    """The bytes of a sketch with its items by name: DataSketches writes them as they lie in its map, in another order
    after every reading. Four longs, of the items, are followed by their weights, and these by their names.
    """
    blob: bytes = sketch.serialize()
    if len(blob) <= _HEAD:
        return blob
    n = int.from_bytes(blob[8:12], "little")
    names, at = [], _HEAD + 8 * n
    for _ in range(n):
        end = at + 4 + int.from_bytes(blob[at : at + 4], "little")
        names.append(blob[at:end])
        at = end
    order = sorted(range(n), key=lambda i: names[i][4:])
    weights = np.frombuffer(blob, np.int64, n, _HEAD)[order]
    return b"".join([blob[:_HEAD], weights.tobytes(), *(names[i] for i in order)])


def _sorted(sketch: hll_sketch) -> bytes:
    """The bytes of a distinct count; while it is a set of hashes, these by size, for the same reason."""
    blob: bytes = sketch.serialize_compact()
    if blob[7] & 3 != _SET:
        return blob
    return blob[:_SET_HEAD] + np.sort(np.frombuffer(blob, "<u4", offset=_SET_HEAD)).tobytes()


def _read_frequent(blob: bytes, max_map_size: int, n: int) -> frequent_strings_sketch:
    check_frequent(blob, max_map_size.bit_length() - 1, n)
    try:
        return frequent_strings_sketch.deserialize(blob)
    except (RuntimeError, MemoryError) as error:  # names that were chosen to fall on one place of the map
        raise FormatError(f"the state's frequent items cannot be read: {error}") from error


def _read_distinct(blob: bytes, n: int) -> hll_sketch:
    check_distinct(blob, n)
    return hll_sketch.deserialize(blob)
