"""A uniform sample of rows, kept whole across groups, so that joint questions can be asked of it later.

Row number i of a sample gets a priority, a hash of the sample's seed and i; the rows of the `size` smallest priorities
are kept. So which rows are kept depends on how many were seen and on nothing else: not on the values, not on
how they were cut into batches. It is known on the host before the batch is touched, and the device is only told which
rows to copy where. Two samples merge by keeping the smallest priorities of both, which is again uniform.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from typing import Any, Final, Self, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.arrays.namespaces import (
    Array,
    is_numpy_array,
    local,
    namespace,
    send,
    to_host,
    together,
    unfilled,
)
from lensai_integrations.errors import InputError
from lensai_integrations.sketches.state import State, field, number, require
from lensai_integrations.storage.checked_json import from_json, to_json

#: More rows than this, or wider ones, are no sample: refused.
_LARGEST = 2**24
#: What SplitMix64 adds from one number to the next.
GOLDEN: Final = 0x9E3779B97F4A7C15
_MASK: Final = 2**64 - 1
#: The number of 64 bits that undoes a multiplication by it.
_OF_GOLDEN: Final = pow(GOLDEN, -1, 2**64)
Bits = TypeVar("Bits", int, NDArray[np.uint64])


class RowSample:
    """At most `size` rows of everything seen, each subset equally likely; values are kept as they come, NaN included.

    Args:
        size: Rows to keep.
        seed: Whole number from 0 to 2**64-1, or None for one from the operating system. Samples that will be merged
            need different seeds: with equal ones, rows of equal number are kept or dropped together.

    Attributes:
        size: Rows to keep.
        seed: The seed, also where none was given.
        n: Rows seen.
        widths: Name to d, fixed by the first batch; empty before.

    Raises:
        InputError: If `size` is not positive or the seed out of range.

    Example:
        >>> sample = RowSample(size=2, seed=0)
        >>> sample.update({"inputs": np.zeros((5, 3)), "labels": np.arange(5.0)})
        >>> sample.n, {name: rows.shape for name, rows in sample.data.items()}
        (5, {'inputs': (2, 3), 'labels': (2, 1)})
    """

    def __init__(self, size: int = 2000, seed: int | None = None) -> None:
        if not isinstance(size, int) or not 1 <= size <= _LARGEST:
            raise InputError(f"size is how many rows to keep, a whole number from 1 to 2**24, not {size!r}")
        self.size = size
        self.seed = secrets.randbits(64) if seed is None else seed
        if not 0 <= self.seed < 2**64:
            raise InputError(f"seed should be a whole number from 0 to 2**64-1, not {seed!r}")
        self.n = 0
        self.widths: dict[str, int] = {}
        self._priorities = np.zeros(0, np.uint64)  # of the rows kept, by their place in the buffers
        self._buffers: dict[str, Array] = {}

    def update(self, rows: Mapping[str, Array], n: int | None = None) -> None:
        """Take a batch: row i of all arrays is of the same image.

        Args:
            rows: By name `[n, d]`, or `[n]` for a single column; numpy or torch, each on a device of its own if need
                be. Kept as float32. The names and their d are fixed by the first batch.
            n: Rows in the batch, checked if given.

        Raises:
            InputError: If the arrays differ in n, or names or widths differ from those of earlier batches.
        """
        self._update({name: _as_matrix(name, local(array)) for name, array in rows.items()}, n)

    def _update(self, rows: dict[str, Array], n: int | None = None) -> None:
        lengths = {name: int(array.shape[0]) for name, array in rows.items()}
        if len({*lengths.values()} | ({n} - {None})) != 1 or not rows:
            raise InputError(f"rows should be arrays of the same number of rows, not {lengths} (n={n})")
        count = next(iter(lengths.values()))
        if count == 0:
            return
        self._fix({name: int(array.shape[1]) for name, array in rows.items()})
        chosen, places = self._choose(priorities(self.seed, self.n, count))
        self.n += count
        if not chosen.size:
            return
        moved = np.stack([chosen, places])
        sent: dict[str, Array] = {}  # which rows go where, once for each device
        for name, array in rows.items():
            sample, beside = _beside(self._buffers.get(name), self.size, array)
            device = "" if is_numpy_array(sample) else str(sample.device)
            if device not in sent:
                sent[device] = send(moved, sample)
            _write(sample, beside, sent[device])
            self._buffers[name] = sample

    def _fix(self, widths: dict[str, int]) -> None:
        self.widths = self.widths or widths
        if widths != self.widths:
            raise InputError(
                f"rows should have the names and widths of the first batch, {self.widths}, not {widths}: "
                "start a new sample where the layers or measures change"
            )

    def _choose(self, new: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which rows of a batch enter, and at which places: behind the rows kept so far, or instead of one of them."""
        old = self._priorities
        if old.size == self.size and not np.any(new < old.max()):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        both = np.concatenate([old, new])
        stays = np.zeros(both.size, bool)
        stays[np.argpartition(both, self.size - 1)[: self.size] if both.size > self.size else slice(None)] = True
        entering = np.flatnonzero(stays[old.size :])
        free = np.flatnonzero(~stays[: old.size])
        places = np.concatenate([free, np.arange(old.size, old.size + entering.size - free.size)])
        self._priorities = np.concatenate([old, np.zeros(entering.size - free.size, np.uint64)])
        self._priorities[places] = new[entering]
        return entering, places

    def merge(self, other: RowSample) -> None:
        """Make this a uniform sample of the rows of both; the other stays as it is. Associative and commutative.

        Raises:
            InputError: If the sizes, names or widths differ.
        """
        if other.size != self.size:
            raise InputError(f"cannot merge row samples of size {self.size} and of size {other.size}")
        if self.widths and other.widths and self.widths != other.widths:
            raise InputError(f"cannot merge row samples of {self.widths} and of {other.widths}")
        parts = [sample._ordered() for sample in (self, other) if sample.n]
        if parts:
            both = np.concatenate([order for order, _ in parts])
            keep = np.argsort(both, kind="stable")[: self.size]
            names = parts[0][1]
            self._hold(both[keep], {name: np.concatenate([data[name] for _, data in parts])[keep] for name in names})
        self.n += other.n

    def renamed(self, names: Mapping[str, str]) -> RowSample:
        """The same rows under other names, `names` by the old; what has none is left out. The arrays are shared.

        Example:
            >>> sample = RowSample(size=2, seed=0)
            >>> sample.update({"inputs": np.zeros((5, 3)), "labels": np.arange(5.0)})
            >>> sample.renamed({"inputs": "raw"}).widths
            {'raw': 3}
        """
        result = RowSample(self.size, self.seed)
        result.n, result._priorities = self.n, self._priorities
        result._buffers = {new: self._buffers[name] for name, new in names.items() if name in self._buffers}
        result.widths = {new: self.widths[name] for name, new in names.items() if name in self.widths}
        return result

    def _hold(self, kept: NDArray[np.uint64], data: Mapping[str, NDArray[np.float32]]) -> None:
        """Take these rows as the whole sample."""
        self._priorities, self._buffers = kept, dict(data)
        self.widths = {name: rows.shape[1] for name, rows in data.items()}

    def _ordered(self) -> tuple[NDArray[np.uint64], dict[str, NDArray[np.float32]]]:
        """Priorities ascending, and the rows in that order."""
        order = np.argsort(self._priorities)
        return self._priorities[order], {name: to_host(buffer)[order] for name, buffer in self._buffers.items()}

    @property
    def data(self) -> dict[str, NDArray[np.float32]]:
        """The rows kept, float32 `[min(n, size), d]` by name, aligned across names; waits for the accelerator.

        They are in the order of their priorities, which is random: the first m of them are a uniform sample as well.
        """
        return self._ordered()[1]

    @property
    def numbers(self) -> NDArray[np.uint64]:
        """The number of each row kept, in the order of `data`: rows that came one after another have successive ones.

        A priority tells it (`unmixed`), also after samples were merged. Numbers of a sample begin anywhere, so the last
        row of one and the first of another are no neighbours, unless that one follows (`follow`).

        Example:
            >>> sample = RowSample(size=4, seed=0)
            >>> sample.update({"inputs": np.arange(3.0)})
            >>> in_order = sample.data["inputs"][np.argsort(sample.numbers)]
            >>> in_order.ravel().tolist(), np.diff(np.sort(sample.numbers)).tolist()
            ([0.0, 1.0, 2.0], [1, 1])
        """
        return unmixed(np.sort(self._priorities)) * np.uint64(_OF_GOLDEN)

    def follow(self, other: RowSample) -> None:
        """Number the rows to come as those after the rows that another sample has seen; this one has seen none yet.

        Example:
            >>> first, then = RowSample(size=4, seed=0), RowSample(size=4)
            >>> first.update({"inputs": np.zeros(2)})
            >>> then.follow(first)
            >>> then.update({"inputs": np.ones(2)})
            >>> first.merge(then)
            >>> np.diff(np.sort(first.numbers)).tolist()
            [1, 1, 1]
        """
        after = mixed(np.array([other.seed], np.uint64)) + np.uint64(GOLDEN * other.n & _MASK)
        self.seed = int(unmixed(after)[0])

    def to_host(self) -> Self:
        """The same sample with its rows in host memory; itself if they are there. Waits for the accelerator."""
        if all(is_numpy_array(buffer) for buffer in self._buffers.values()):
            return self
        return self.copied()

    def copied(self) -> Self:
        """A copy with its rows in host memory, which goes on drawing as this one would."""
        result = type(self)(self.size, self.seed)
        result._hold(*self._ordered())
        result.n = self.n
        return result

    def state(self) -> State:
        """Plain host arrays: the kept rows of all names side by side, and what else `from_state` needs.

        `rows` float32 `[m, sum of d]`, `priorities` uint64 `[m]`, `widths` int64, `names` JSON as uint8, `seed` uint64,
        `size` and `n` int64.
        """
        kept, data = self._ordered()
        return {
            "rows": np.concatenate([*data.values(), np.zeros((kept.size, 0), np.float32)], axis=1),
            "priorities": kept,
            "widths": np.array(list(self.widths.values()), np.int64),
            "names": np.frombuffer(to_json([*self.widths], "the names of a row sample"), np.uint8),
            "seed": np.array(self.seed, np.uint64),
            "size": np.array(self.size, np.int64),
            "n": np.array(self.n, np.int64),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The sample of which `state` is the state. It goes on drawing as the original would.

        Raises:
            FormatError: If it is not a state of a row sample.
        """
        result = cls(number(state, "size", 1, _LARGEST), int(field(state, "seed", np.uint64, ())))
        result.n = number(state, "n")
        names = _read_names(field(state, "names", np.uint8, (None,)).tobytes())
        widths = field(state, "widths", np.int64, (len(names),))
        kept = field(state, "priorities", np.uint64, (min(result.n, result.size),))
        require(bool(np.all((widths >= 0) & (widths <= _LARGEST))), "a width is out of range")
        require(bool(np.all(kept[1:] >= kept[:-1])), "priorities out of order")
        require(bool(names) == bool(result.n), "rows without names, or names without rows")
        rows = field(state, "rows", np.float32, (kept.size, int(widths.sum())))
        ends = np.cumsum(widths)
        result._hold(kept, dict(zip(names, np.split(rows, ends[:-1], axis=1), strict=True)) if names else {})
        return result


def priorities(seed: int, start: int, count: int) -> NDArray[np.uint64]:
    """Priorities of the rows `start` to `start + count - 1`: uint64, all different for one seed.

    SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014), started at a hash of
    the seed so that neighbouring seeds have nothing in common.

    Example:
        >>> bool(np.all(priorities(1, 0, 5)[3:] == priorities(1, 3, 2)))
        True
    """
    steps = np.arange(start + 1, start + 1 + count, dtype=np.uint64)
    return mixed(mixed(np.array([seed], np.uint64)) + np.uint64(GOLDEN) * steps)


def mixed(bits: Bits) -> Bits:
    """SplitMix64's finalizer: another number of 64 bits for each, close ones having nothing in common.

    Args:
        bits: A whole number, of which the last 64 bits count, or uint64 of any shape.

    Example:
        >>> mixed(GOLDEN) == 0xE220A8397B1DCDAF == mixed(np.array([GOLDEN], np.uint64)).item()
        True
    """
    z: Any = bits & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return cast("Bits", z ^ (z >> 31))


def unmixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The numbers that `mixed` makes these of, uint64 of any shape: each of its steps undone, the last one first.

    Example:
        >>> numbers = np.array([1, 2, 2**64 - 1], np.uint64)
        >>> bool(np.all(unmixed(mixed(numbers)) == numbers))
        True
    """
    z = bits ^ (bits >> np.uint64(31)) ^ (bits >> np.uint64(62))
    z = z * np.uint64(0x319642B2D24D8EC3)
    z = z ^ (z >> np.uint64(27)) ^ (z >> np.uint64(54))
    z = z * np.uint64(0x96DE1B173F119089)
    numbers: NDArray[np.uint64] = z ^ (z >> np.uint64(30)) ^ (z >> np.uint64(60))
    return numbers


def _as_matrix(name: str, rows: Array) -> Array:
    if rows.ndim == 1:
        return rows[:, None]
    if rows.ndim != 2:
        raise InputError(f"rows of {name!r} should be [n, d] or [n], not {tuple(rows.shape)}")
    return rows


def _beside(buffer: Array | None, size: int, rows: Array) -> tuple[Array, Array]:
    """A buffer that can be written to, and the rows, on the device of whichever is on one."""
    if buffer is None:
        return unfilled((size, int(rows.shape[1])), "float32", rows), rows
    sample, rows = together(buffer, rows)
    if sample.shape[0] < size:  # the first rows since a state was read: from now on it stays
        first, sample = sample, unfilled((size, int(rows.shape[1])), "float32", sample)
        sample[: first.shape[0]] = first
    return sample, rows


def _write(sample: Array, rows: Array, index: Array) -> None:
    """Put `rows[index[0]]` at the places `index[1]`."""
    xp = namespace(sample)
    with np.errstate(over="ignore", invalid="ignore"):  # float64 beyond float32 becomes infinite, as on a device
        values = xp.astype(rows[index[0]], xp.float32)
    if is_numpy_array(sample) or not sys.modules["torch"].are_deterministic_algorithms_enabled():
        sample[index[1]] = values
        return
    # To write by index, deterministic algorithms read the places back, which waits: so every place looks for its row.
    goes_here = index[1] == xp.arange(sample.shape[0], device=sample.device)[:, None]
    sample.copy_(xp.where(goes_here.any(1)[:, None], values[goes_here.byte().argmax(1)], sample))


def _read_names(text: bytes) -> list[str]:
    names = from_json(text, "what a row sample says of its names")
    require(isinstance(names, list) and all(isinstance(name, str) for name in names), "names are not a list of strings")
    require(len(set(names)) == len(names), "a name twice")
    return list(names)
