"""The mean of a kernel's features over rows: two distributions compared by the distance of two vectors.

The maximum mean discrepancy (MMD) of two samples is the distance of their means in the space of a kernel. By random
Fourier features that is a space of 2 F numbers. For a frequency w drawn from a standard normal distribution,
cos(w(x - y)/s) is on average the Gaussian kernel of bandwidth s, exp(-|x - y|^2 / (2 s^2)); and it is the product of
(cos, sin)(wx/s) and (cos, sin)(wy/s). So F frequencies turn a row into 2 F numbers whose products approximate the
kernel (Rahimi and Recht, Random features for large-scale kernel machines, 2007), a sample of any size becomes the mean
of these, and means are merged and compared without keeping a row.

Profiles are made independently of each other and compared years later. So the frequencies follow from their seed by
arithmetic that does not change with releases of numpy, and bandwidths are powers of two. The first rows choose the one
nearest to their median distance, and its two neighbours are kept as well: profiles of similar data share at least two
of the three. An angle at half the bandwidth is twice the angle, so one more costs no further cosines. On an accelerator
the choice is made there, and the host does not learn of it before the end; everything there is computed in float64,
which neither mixed precision nor TF32 touches, and added up by one product of the rows' weights with their features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from functools import lru_cache
from typing import Any, Self

import numpy as np
from array_api_compat import is_numpy_array
from numpy.typing import NDArray

from lensai_integrations.arrays.namespaces import (
    Array,
    dtype_name,
    full_beside,
    joined,
    kept_beside,
    local,
    namespace,
    send,
    to_host,
    unfilled,
    zeros_beside,
)
from lensai_integrations.errors import DefinitionError, InputError
from lensai_integrations.sketches.state import Sketch, State, field, number, require

#: Seed of the frequencies. Profiles with other seeds cannot be compared.
SEED = 20071
#: Smallest and largest values of the parameters.
_LIMITS = {"dim": (1, 2**20), "frequencies": (2, 2**12), "seed": (0, 2**62)}
#: Most numbers in the frequencies of one, dim times F: a state says how many there are and brings none of them along.
_MOST_NUMBERS = 2**25
#: Rows that wait before the bandwidths are chosen, and rows looked at then.
_FIRST, _LOOKED_AT = 16, 256
#: Rows turned into features at a time, on a host and on an accelerator: what they take stays small for any batch.
_CHUNK, _DEVICE_CHUNK = 512, 2048
#: On a host, where they are computed in float32, larger products of rows and frequencies do not exist.
_LARGEST_ANGLE = float(np.finfo(np.float32).max)


class KernelMean(Sketch):
    """Mean of the features of the kernels exp(-|x - y|^2 / (2 s^2)) at up to three bandwidths s = 2**exponent.

    Args:
        dim: Columns D of the rows; times F at most 2**25.
        frequencies: Number F of random frequencies. The squared MMD has a standard error of 1 to 2 times itself
            over sqrt(F), see `squared_mmd_error`.
        seed: Seed of the frequencies; leave it alone to stay comparable with others' profiles.
        exponents: One to three consecutive whole numbers; None or none to choose them by the first 16 rows or more.

    Attributes:
        dim, frequencies, seed: As given.
        rows_seen: Rows given to `update`, those left out included; known without asking an accelerator.

    Raises:
        InputError: If an argument is out of range.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> baseline, window = KernelMean(8), KernelMean(8)
        >>> baseline.update(rng.normal(size=(500, 8)))
        >>> window.update(rng.normal(size=(500, 8)) + 1)
        >>> baseline.exponents, round(baseline.mmd(window), 1)
        ((1, 2, 3), 0.4)
    """

    takes = "vectors"
    dropped = "the kernel mean was dropped in merging, the rows are on very different scales"

    def __init__(
        self, dim: int, frequencies: int = 256, seed: int = SEED, exponents: Sequence[int] | None = None
    ) -> None:
        for (name, (low, high)), value in zip(_LIMITS.items(), (dim, frequencies, seed), strict=True):
            if not isinstance(value, int | np.integer) or not low <= value <= high:
                raise InputError(f"{name} should be a whole number from {low} to {high}, not {value!r}")
        if dim * frequencies > _MOST_NUMBERS:
            raise InputError(
                f"dim={dim} and frequencies={frequencies} make more than the {_MOST_NUMBERS} numbers there may be: pass"
                " fewer columns, e.g. with max_dim=2048"
            )
        self.dim, self.frequencies, self.seed = int(dim), int(frequencies), int(seed)
        self.rows_seen = 0
        self._n: Any = np.zeros(())
        self._sums: Any = np.zeros((0, 2 * self.frequencies))  # a row per bandwidth, narrow first
        self._top = 0  # the largest exponent
        self._device: _Device | None = None  # has what the three have on a host, once rows came from an accelerator
        self._pending: list[Array] = []
        if exponents is not None and len(exponents):
            self._fix(checked_exponents(exponents))

    @classmethod
    def new(cls, width: int, *, k: int = 200, seed: int | None = None, like: Sketch | None = None) -> Self:
        """One for rows of this width, at the baseline's bandwidths if that has some."""
        return cls(width, exponents=like.exponents if isinstance(like, KernelMean) else None)

    def empty(self) -> Self:
        """Another at the same bandwidths, if they are chosen yet."""
        return type(self)(self.dim, self.frequencies, self.seed, self.exponents)

    def _fix(self, exponents: Sequence[int]) -> None:
        self._top, self._sums = exponents[-1], np.zeros((len(exponents), 2 * self.frequencies))

    def update(self, rows: Array) -> None:
        """Take a batch of rows.

        Args:
            rows: `[n, D]`, numpy or torch. Rows with a value that is not finite, or so large that their features cannot
                be computed in float32, are left out and counted as invalid.

        Raises:
            InputError: If the shape is another.
        """
        self._update(local(rows))

    def _update(self, rows: Array) -> None:
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise InputError(f"rows should be [n, {self.dim}], not {tuple(rows.shape)}")
        self.rows_seen += int(rows.shape[0])
        if len(self._sums):
            self._add(rows)
            return
        enough = self.rows_seen >= _FIRST
        with np.errstate(over="ignore"):  # what waits is a copy, for the caller may write into the batch again
            self._pending.append(namespace(rows).astype(rows, namespace(rows).float32, copy=not enough))
        if enough:
            self._choose(joined(self._pending) if len(self._pending) > 1 else self._pending[0])

    def _choose(self, rows: Array) -> None:
        """Choose the bandwidths by the rows that have waited, and add these."""
        self._pending = []
        top = nearest_exponent(rows[:_LOOKED_AT]) + 1
        self._fix((-1, 0, 1))
        if is_numpy_array(rows):
            self._top = int(top)
        else:
            self._device = _Device(self, rows, top)
        self._add(rows)

    def _add(self, rows: Array) -> None:
        """Add features: in float32 on the host; in float64 on an accelerator."""
        if self._device is None and not is_numpy_array(rows):
            self._device = _Device(self, rows)
        if self._device is not None:
            rows = send(rows, self._device.totals) if is_numpy_array(rows) else rows
        add, chunk = (self._add_on_host, _CHUNK) if self._device is None else (self._device.add, _DEVICE_CHUNK)
        for start in range(0, int(rows.shape[0]), chunk):
            add(rows[start : start + chunk])

    def _add_on_host(self, rows: NDArray[Any]) -> None:
        frequencies = random_frequencies(self.dim, self.frequencies, self.seed)
        valid, bands = waves(rows, frequencies, self._top, len(self._sums))
        weights = valid.astype(frequencies.dtype)
        self._sums = self._sums + np.stack([np.concatenate([weights @ c, weights @ s]) for c, s in bands])
        self._n = self._n + np.sum(weights)

    def features(self, rows: Array, exponents: Sequence[int] | None = None) -> NDArray[np.float32]:
        """The features whose mean this is, one row at a time, e.g. to draw windows from kept rows.

        Args:
            rows: `[n, D]` in host memory.
            exponents: Bandwidths to use; None for its own.

        Returns:
            float32 `[n, bandwidths, 2 F]`, each of length 1 along the last axis; NaN for invalid rows.

        Raises:
            InputError: If the shape is another, or no bandwidths are given and none are chosen yet.
        """
        rows, chosen = to_host(rows), self.exponents if exponents is None else checked_exponents(exponents)
        if rows.ndim != 2 or rows.shape[1] != self.dim or not chosen:
            raise InputError(f"features need rows [n, {self.dim}] and exponents, not {rows.shape} and {chosen}")
        frequencies = random_frequencies(self.dim, self.frequencies, self.seed)
        valid, bands = waves(rows, frequencies, chosen[-1], len(chosen))
        result: NDArray[np.float32] = np.stack([np.concatenate(band, axis=1) for band in bands], axis=1)
        result /= self.frequencies**0.5
        result[~valid] = np.nan
        return result

    def merge(self, other: KernelMean) -> None:
        """Add the rows another has seen; it stays as it is. Only the bandwidths both have are kept.

        One that has seen too few rows to choose its bandwidths takes the other's.

        Raises:
            DefinitionError: If dim, frequencies or seed differ, or no bandwidth is shared.
        """
        self._check(other)
        mine, theirs = self.to_host(), other.to_host()
        if not len(mine._sums) and not len(theirs._sums):
            self.__dict__.update(mine._with_pending(theirs._pending).__dict__)
            return
        mine, theirs = mine._settled(theirs.exponents), theirs._settled(mine.exponents)
        result = KernelMean(self.dim, self.frequencies, self.seed, _shared(mine, theirs))
        result._sums = mine._sums_at(result.exponents) + theirs._sums_at(result.exponents)
        result._n = mine._n + theirs._n
        result.rows_seen = mine.rows_seen + theirs.rows_seen
        self.__dict__.update(result.__dict__)

    def _with_pending(self, rows: list[Array]) -> KernelMean:
        result = KernelMean(self.dim, self.frequencies, self.seed)
        for batch in [*self._pending, *rows]:
            result._update(batch)
        return result

    def _settled(self, exponents: Sequence[int] = ()) -> KernelMean:
        """On the host, with bandwidths: its own, else those given, else chosen by as few rows as there are, if any."""
        host = self.to_host()
        if len(host._sums) or not (exponents or host.rows_seen):
            return host
        result = KernelMean(self.dim, self.frequencies, self.seed, exponents)
        for rows in host._pending:
            result._update(rows)
        if result._pending:
            result._choose(joined(result._pending))
        return result

    def _sums_at(self, exponents: Sequence[int]) -> Any:
        first = exponents[0] - self.exponents[0]
        return self._sums[first : first + len(exponents)]

    def _check(self, other: KernelMean) -> None:
        mine, theirs = ((x.dim, x.frequencies, x.seed) for x in (self, other))
        if mine != theirs:
            raise DefinitionError(
                f"kernel means differ in (dim, frequencies, seed): {mine} and {theirs}; profile alike"
            )

    @property
    def n(self) -> int:
        """Valid rows. On an accelerator, where they are not yet told apart: `rows_seen`."""
        return int(self._settled()._n) if self._on_host else self.rows_seen

    @property
    def invalid(self) -> int:
        """Rows left out; 0 on an accelerator, where they are counted but not asked for."""
        return self.rows_seen - self.n

    @property
    def exponents(self) -> tuple[int, ...]:
        """Exponents of the bandwidths, ascending; empty before any rows. Waits for the accelerator, as does all below.

        Below 16 rows these are preliminary.
        """
        host = self._settled()
        return tuple(range(host._top - len(host._sums) + 1, host._top + 1))

    @property
    def bandwidths(self) -> tuple[float, ...]:
        """The bandwidths, in the units of the rows."""
        return tuple(2.0**exponent for exponent in self.exponents)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean features, float64 `[bandwidths, 2 F]`: F cosines, F sines. NaN without valid rows."""
        host = self._settled()
        return host._sums / (host._n or np.nan) / self.frequencies**0.5  # type: ignore[no-any-return]

    def mmd(self, other: KernelMean) -> float:
        """Maximum mean discrepancy: the distance of the means, its square averaged over the shared bandwidths.

        Its square is the biased estimate (V-statistic), about 1/n + 1/m for samples of one distribution.

        Raises:
            DefinitionError: If dim, frequencies or seed differ, or no bandwidth is shared.
            InputError: If one of the two has no valid rows.
        """
        return float(np.sqrt(self.squared_mmd(other, unbiased=False)))

    def squared_mmd(self, other: KernelMean, *, unbiased: bool = True) -> float:
        """Squared MMD, averaged over the shared bandwidths.

        Unbiased (Gretton et al., A kernel two-sample test, 2012, equation 3) it is 0 on average, at times negative,
        for samples of one distribution: a row's kernel with itself is 1 and is taken out of each square.

        Raises:
            DefinitionError, InputError: As `mmd`; the latter also for one valid row where unbiased.
        """
        (mine, n), (theirs, m) = self._means(other)
        squares = np.sum((mine - theirs) ** 2, axis=1)
        if unbiased:
            if min(n, m) < 2:
                raise InputError(f"an unbiased squared MMD needs two valid rows on both sides, not {n} and {m}")
            squares -= (1 - np.sum(mine**2, axis=1)) / (n - 1) + (1 - np.sum(theirs**2, axis=1)) / (m - 1)
        return float(squares.mean())

    def squared_mmd_error(self, other: KernelMean) -> float:
        """Standard error of `squared_mmd` from having F frequencies instead of all of them.

        The squared MMD is a mean over frequencies of the squared distance of two characteristic functions, so the
        error is their standard deviation over sqrt(F): as a rule 1 to 2 times the squared MMD over sqrt(F).

        Raises:
            DefinitionError, InputError: As `mmd`.
        """
        (mine, _), (theirs, _) = self._means(other)
        squares = self.frequencies * ((mine - theirs) ** 2).reshape(-1, 2, self.frequencies).sum(axis=1)
        return float(squares.mean(axis=0).std(ddof=1) / self.frequencies**0.5)

    def _means(self, other: KernelMean) -> tuple[tuple[Any, int], tuple[Any, int]]:
        """Means at the shared bandwidths and numbers of valid rows of both."""
        self._check(other)
        mine, theirs = self.to_host(), other.to_host()
        if not len(mine._sums) and not len(theirs._sums):
            mine = mine._settled(mine._with_pending(theirs._pending).exponents)
        mine, theirs = mine._settled(theirs.exponents), theirs._settled(mine.exponents)
        if not (mine.n and theirs.n):
            raise InputError(f"kernel means of {mine.n} and of {theirs.n} valid rows cannot be compared")
        shared, scale = _shared(mine, theirs), self.frequencies**-0.5
        return tuple((x._sums_at(shared) * scale / x.n, x.n) for x in (mine, theirs))  # type: ignore[return-value]

    @property
    def _on_host(self) -> bool:
        return self._device is None and all(map(is_numpy_array, self._pending))

    def to_host(self) -> Self:
        """The same kernel mean with numpy state; itself if it has that already. Waits for the accelerator."""
        if self._on_host:
            return self
        result = type(self)(self.dim, self.frequencies, self.seed)
        result.rows_seen, result._pending = self.rows_seen, [to_host(rows) for rows in self._pending]
        result._top, result._n, result._sums = self._top, self._n, self._sums
        if self._device is not None:
            result._top, result._n, result._sums = self._device.landed()
        return result

    def copied(self) -> Self:
        """A copy with numpy state. Arrays are shared: they are never written to."""
        result = copy(self.to_host())
        result._pending = [joined(result._pending)] if result._pending else []
        return result

    def state(self) -> State:
        """Plain host arrays: `sums` float64 `[bandwidths, 2 F]`, `pending` float32 `[p, D]` and int64 numbers."""
        host = self.to_host()
        numbers = {"n": int(host._n), "rows_seen": host.rows_seen, "dim": self.dim}
        numbers |= {"frequencies": self.frequencies, "seed": self.seed}
        return {
            "sums": host._sums.copy(),
            "exponents": np.array(host.exponents if len(host._sums) else (), np.int64),
            "pending": np.concatenate([np.zeros((0, self.dim)), *host._pending]).astype(np.float32),
            **{name: np.array(value, np.int64) for name, value in numbers.items()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The kernel mean of which `state` is the state.

        Raises:
            FormatError: If it is not a state of a kernel mean.
        """
        dim, count, seed = (number(state, name, *limits) for name, limits in _LIMITS.items())
        require(dim * count <= _MOST_NUMBERS, f"{dim} columns with {count} frequencies")
        exponents = field(state, "exponents", np.int64, (None,)).tolist()
        require(not exponents or are_exponents(exponents), f"exponents {exponents}")
        result = cls(dim, count, seed, exponents)
        result._sums = field(state, "sums", np.float64, (len(exponents), 2 * count))
        pending = field(state, "pending", np.float32, (None, dim))
        require(len(pending) < _FIRST and (not exponents or not len(pending)), f"{len(pending)} rows waiting")
        result.rows_seen = number(state, "rows_seen")
        require(bool(exponents) or result.rows_seen == len(pending), "rows without bandwidths that do not wait")
        n = number(state, "n", 0, result.rows_seen)
        require(bool(np.all(np.abs(result._sums) <= n * (1 + 1e-5))), "sums beyond what n rows add up to")
        result._n, result._pending = np.array(n, np.float64), [pending] if len(pending) else []
        return result


class _Device:
    """What a kernel mean has on an accelerator of torch; it goes on from what that has on the host.

    Args:
        mean: The kernel mean, its bandwidths fixed.
        like: An array that lies there.
        top: The largest exponent, a scalar there; None for the one that the host knows.

    Attributes:
        totals: float64 `[bandwidths 2 F + 1]`: sums of features, as on the host, and behind them the number of rows.
    """

    def __init__(self, mean: KernelMean, like: Array, top: Array | None = None) -> None:
        self._bands, self._columns = len(mean._sums), mean.frequencies
        if mean._n:
            self.totals = send(np.append(mean._sums, mean._n), like)
        else:
            self.totals = zeros_beside((mean._sums.size + 1,), "float64", like)
        self._minus_one, self._zero = full_beside((), -1.0, "float64", like), zeros_beside((), "float64", like)
        self._top: Array = mean._top if top is None else top
        self._scale = full_beside((), 2.0**-mean._top, "float64", like) if top is None else 2.0**-top
        key = ("frequencies", mean.dim, mean.frequencies, mean.seed)
        self._frequencies = kept_beside(key, lambda: random_frequencies(*key[1:]).astype(np.float64), like)

    def add(self, rows: Array) -> None:
        """Add rows `[n, D]` that lie here; nothing is waited for. A row is valid if it is on the host."""
        xp, columns = namespace(rows), self._columns
        angles = xp.astype(rows, self._frequencies.dtype) @ self._frequencies
        features = unfilled((len(rows), self.totals.shape[0]), dtype_name(self.totals), self.totals)
        weights, waves = features[:, -1], features[:, :-1].reshape(-1, self._bands, 2, columns)
        weights[...] = xp.linalg.vector_norm(angles, ord=np.inf, axis=1) <= _LARGEST_ANGLE
        angles.nan_to_num_(0.0, 0.0, 0.0).mul_(self._scale)
        xp.cos(angles, out=waves[:, -1, 0])
        xp.sin(angles, out=waves[:, -1, 1])
        for band in range(self._bands - 1, 0, -1):  # at twice the angle: 2 cos**2 - 1, and 2 sin cos
            cosines, sines = waves[:, band, 0], waves[:, band, 1]
            xp.addcmul(self._minus_one, cosines, cosines, value=2.0, out=waves[:, band - 1, 0])
            xp.addcmul(self._zero, sines, cosines, value=2.0, out=waves[:, band - 1, 1])
        self.totals.addmv_(features.T, weights)

    def landed(self) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
        """The largest exponent, the number of valid rows and the sums of features, on the host. Waits for this one."""
        totals: NDArray[np.float64] = to_host(self.totals).astype(np.float64)
        top = self._top if isinstance(self._top, int) else int(to_host(self._top))
        return top, totals[-1], totals[:-1].reshape(self._bands, -1)


def _shared(a: KernelMean, b: KernelMean) -> list[int]:
    shared = sorted(set(a.exponents) & set(b.exponents))
    if not shared:
        raise DefinitionError(
            f"kernel means at the bandwidths {a.bandwidths} and {b.bandwidths} share none: the rows differ in scale by "
            f"a factor of four or more; profile the second with exponents={a.exponents}"
        )
    return shared


def waves(rows: Array, frequencies: Array, top: Array | int, bands: int) -> tuple[Array, list[tuple[Array, Array]]]:
    """Cosines and sines of every row's angles, bandwidth by bandwidth, where the rows are.

    Args:
        rows: `[n, D]`.
        frequencies: `[D, F]`, beside the rows; its dtype is the one computed in.
        top: Exponent of the widest bandwidth, 2**top; a scalar beside the rows will do.
        bands: Number of bandwidths, each half of the next.

    Returns:
        Which rows are valid, bool `[n]`: those whose angles are finite; and cosines and sines, `[n, F]` each, for each
        bandwidth, the narrowest first. Those of an invalid row say nothing.

    Example:
        >>> valid, [(cosines, sines)] = waves(np.array([[0.5]]), np.array([[np.pi]]), top=0, bands=1)
        >>> valid.tolist(), sines.tolist()
        ([True], [[1.0]])
    """
    xp = namespace(rows)
    with np.errstate(over="ignore", invalid="ignore"):
        products = xp.astype(rows, frequencies.dtype) @ frequencies
    valid = xp.all(xp.isfinite(products), axis=1)
    angles = xp.where(valid[:, None], products, xp.zeros_like(products)) * 2.0**-top
    cosines, sines = xp.cos(angles), xp.sin(angles)
    result = [(cosines, sines)]
    for _ in range(bands - 1):
        cosines, sines = (cosines - sines) * (cosines + sines), 2.0 * sines * cosines
        result.insert(0, (cosines, sines))
    return valid, result


def nearest_exponent(rows: Array) -> Array:
    """The whole number nearest to log2 of the median distance of two rows, as a scalar where the rows are.

    Pairs at no distance and rows that are not finite are passed over; 0 if nothing is left.

    Args:
        rows: `[n, D]`, n up to a few hundred: all pairs are looked at.

    Example:
        >>> float(nearest_exponent(np.array([[0.0], [0.0], [7.0]])))
        3.0
    """
    xp = namespace(rows)
    rows = xp.astype(rows, xp.float32 if getattr(rows.device, "type", "") == "mps" else xp.float64)
    valid = xp.all(xp.abs(rows) <= float(np.finfo(np.float32).max), axis=1)
    rows = xp.where(valid[:, None], rows, xp.zeros_like(rows))
    squares = xp.sum(rows * rows, axis=1)
    both = squares[:, None] + squares[None, :]
    distances = both - 2.0 * (rows @ rows.T)
    apart = valid[:, None] & valid[None, :] & (distances > 4096 * xp.finfo(rows.dtype).eps * both)
    ordered = xp.sort(xp.reshape(xp.where(apart, distances, xp.full_like(distances, xp.inf)), (-1,)))
    pairs = xp.sum(xp.astype(apart, xp.int64))
    middle = (pairs - 1).clip(0) // 2  # the arrays' own: what array-api-compat had before 1.14 waits
    exponent = xp.round(0.5 * xp.log2(xp.take(ordered, xp.reshape(middle, (1,)))[0]))
    return xp.where(pairs > 0, exponent, xp.zeros_like(exponent)).clip(-LARGEST_EXPONENT, LARGEST_EXPONENT)


@lru_cache(maxsize=8)
def random_frequencies(dim: int, count: int, seed: int) -> NDArray[np.float32]:
    """Standard normal frequencies, float32 `[dim, count]`, the same on every machine and for every release of numpy.

    numpy promises this for the raw bits of its generators, not for its normal distribution; so these are made of raw
    bits by Box and Muller's formula (A note on the generation of random normal deviates, 1958).

    Example:
        >>> random_frequencies(2, 2, 0).shape
        (2, 2)
    """
    half = (dim * count + 1) // 2
    uniform = (np.random.PCG64([seed, dim, count]).random_raw(2 * half) >> np.uint64(11)) * 2.0**-53
    radius, turn = np.sqrt(-2.0 * np.log1p(-uniform[:half])), 2.0 * np.pi * uniform[half:]
    normal = np.concatenate([radius * np.cos(turn), radius * np.sin(turn)])[: dim * count].astype(np.float32)
    result = normal.reshape(dim, count)
    result.setflags(write=False)
    return result


#: Exponents outside this range say that something else is wrong with the rows.
LARGEST_EXPONENT = 40


def checked_exponents(exponents: Sequence[int]) -> tuple[int, ...]:
    """Exponents of bandwidths as a tuple, refused unless they are one to three consecutive whole numbers.

    Raises:
        InputError: Saying what was given.

    Example:
        >>> checked_exponents([2, 3, 4])
        (2, 3, 4)
    """
    result = tuple(int(exponent) for exponent in exponents)
    if not are_exponents(result):
        raise InputError(f"exponents should be one to three consecutive whole numbers within ±41, not {exponents!r}")
    return result


def are_exponents(exponents: Sequence[int]) -> bool:
    """Whether these are one to three consecutive whole numbers in range.

    Example:
        >>> are_exponents([1, 3])
        False
    """
    return 1 <= len(exponents) <= 3 and all(
        exponent == exponents[0] + index and abs(exponent) <= LARGEST_EXPONENT + 1
        for index, exponent in enumerate(exponents)
    )
