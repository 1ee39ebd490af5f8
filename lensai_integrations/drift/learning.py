"""What clean windows look like: drawn from the baseline's own rows, and learned from clean windows of production.

Windows that are drawn are of independent rows. Real ones vary more: frames of one scene resemble each other, an hour
has its own mix of classes. So clean windows of production can be given, and for each stream, and each feature of whole
rows, it is found how many times as large their squared deviations from the baseline are as those of independent rows:
the inflation F of `dependence.py`. A few windows say little of one stream, so it is drawn towards the mean of its
block, as if that had been seen in `_PRIOR` more windows.

Consecutive windows are put together, 2, 4, 8, ..., as long as enough are left: frames of a scene average out over hours
then, and a mix of classes that lasts for a day does not.

At last the clean windows themselves are judged, a fifth of them at a time by what the others tell. Where the smallest
of their p-values is smaller than the smallest of as many should be, a factor makes all F of that size larger, for
deviations may have heavier tails than those of a mean of independent rows. A few windows that lie further out than that
explains are hardly clean: they teach nothing, and the calibration's notes name them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.drift.calibration import (
    DRAWS,
    SIZES,
    Calibration,
    Learned,
    Part,
    calibrated,
    calibration_of,
    finite_rows,
    to_state,
    units_of,
)
from lensai_integrations.drift.dependence import Inflation, key_of
from lensai_integrations.drift.evidence import Side, category_counts, compare_group
from lensai_integrations.drift.features import Distributions, Floats, Kernel, Principal
from lensai_integrations.drift.max_t import Means, corrected, judged_names, means_of
from lensai_integrations.drift.result import StreamDrift
from lensai_integrations.drift.significance import chi_square_distance
from lensai_integrations.errors import InputError
from lensai_integrations.measures.outputs import PER_IMAGE
from lensai_integrations.profiles.conventions import paired
from lensai_integrations.profiles.profile import Baseline, Profile

#: Clean windows from which something can be learned.
FEWEST_WINDOWS: Final = 8
#: The mean of a block counts as much as so many windows.
_PRIOR = 10
#: An inflation is at most so many times what the squared deviations tell, to allow for their tails.
_MOST = 4.0
#: The mean of the square of Kolmogorov's distribution.
_KOLMOGOROV = math.pi**2 / 12
_STEPS = 8
#: How the note begins that names windows which are hardly clean.
_STRANGE = "of the clean windows, "
_FOLDS = 5


def calibrate(
    baseline: Baseline | Profile,
    *,
    clean_windows: Iterable[Profile] = (),
    draws: int = DRAWS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Baseline:
    """Find out what clean windows of a baseline look like, so that `compare` holds the false-alarm rate asked for.

    Windows of 5 to 1,000 rows are drawn from the rows the reference keeps, and every drift statistic is computed for
    each of them. Callbacks do this at the end of training.

    Args:
        baseline: A baseline, or a profile with a sample of its rows; at least 100 of them, better 2,000.
        clean_windows: Profiles of consecutive windows of production that are known to be clean, the oldest first; at
            least 8, better 30 or more. What they vary more than independent rows would is no drift any more.
        draws: Windows of each size, 100 to 100,000. The time grows in proportion.
        seed: Of the draws. The same baseline and seed give the same calibration.
        progress: Called with how much is done, and of how much.

    Returns:
        The baseline with its calibration; the one given is left as it was.

    Raises:
        InputError: If there are too few complete rows, or an argument is out of range.

    Example:
        >>> import numpy as np
        >>> from lensai_integrations import Profiler
        >>> profiler = Profiler(source="validation")
        >>> profiler.update(outputs=np.random.default_rng(0).normal(size=(200, 3)))
        >>> baseline = calibrate(profiler.profile(), draws=100)
        >>> calibration_of(baseline).sizes
        (5, 10, 25, 50, 100)
    """
    if not isinstance(draws, int) or not 100 <= draws <= 100_000:
        raise InputError(f"draws={draws!r} is how many windows of each size are drawn: pass 100 to 100,000")
    if not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed={seed!r} should be a whole number, 0 or more")
    if not isinstance(baseline, Baseline | Profile):
        raise InputError(f"baseline is a {type(baseline).__name__}: pass a Baseline or a Profile")
    windows = _listed(clean_windows, or_none=True)
    whole = baseline if isinstance(baseline, Baseline) else Baseline(baseline)
    calibration = calibrated(whole.reference, sizes=SIZES, draws=draws, seed=seed, progress=progress)
    if windows:
        calibration = taught(calibration, whole.reference, windows)
    return replace(whole, calibration=to_state(calibration))


def with_clean_windows(
    baseline: Baseline | Profile, clean_windows: Iterable[Profile], *, inside: bool = False
) -> Baseline:
    """The baseline with what clean windows tell, calibrated as it is; what it learned before is forgotten.

    Args:
        baseline: A baseline, or a profile with a sample of its rows.
        clean_windows: As for `calibrate`.
        inside: Whether the baseline is made of these windows.

    Raises:
        InputError: As `calibrate` does.
    """
    windows = _listed(clean_windows)
    whole = baseline if isinstance(baseline, Baseline) else Baseline(baseline)
    known = calibration_of(whole)
    if known is None or not known.parts:
        known = calibrated(whole.reference)
    return replace(whole, calibration=to_state(taught(known, whole.reference, windows, inside=inside)))


def taught(
    calibration: Calibration, reference: Profile, windows: Sequence[Profile], *, inside: bool = False
) -> Calibration:
    """A calibration that has learned from clean windows how much they vary.

    Args:
        calibration: Of the baseline.
        reference: The baseline's profile.
        windows: At least 8 profiles with rows of what the baseline has, the oldest first.
        inside: Whether the baseline is made of these windows.

    Raises:
        InputError: If one has no such rows.
    """
    parts = tuple(replace(part, inflation=None) for part in calibration.parts)
    learner = _Learner(replace(calibration, parts=parts, learned=None), reference, inside)
    left, lengths = _checked(windows, reference, calibration), list[Inflation]()
    strange: list[int] = []
    while len(left) >= FEWEST_WINDOWS:
        found, kept = learner.learn(left, lengths[-1] if lengths else None)
        if lengths and found.rows <= lengths[-1].rows:
            break
        strange = strange if lengths else sorted({*range(len(left))} - {*kept})
        lengths.append(found)
        left = [left[at] for at in kept]
        left = [before.merge(after) for before, after in zip(left[::2], left[1::2], strict=False)]
    taught_parts = [replace(p, inflation=np.stack([each.blocks[key_of(p)] for each in lengths])) for p in parts]
    named = dict.fromkeys(name for each in lengths for name in each.streams)
    streams = {name: _carried([each.streams.get(name) for each in lengths]) for name in named}
    rows = tuple(float(each.rows) for each in lengths)
    notes = tuple(note for note in calibration.notes if not note.startswith(_STRANGE))
    if strange:
        notes += (f"{_STRANGE}{', '.join(map(str, strange))} (from 0) are unlike the others and taught nothing",)
    known = Learned(len(windows), rows, streams, inside)
    return replace(calibration, parts=tuple(taught_parts), learned=known, notes=notes)


def _carried(known: Sequence[float | None]) -> tuple[float, ...]:
    """What is known at each length, and where it is not known what is at the one before, or at the first."""
    last = next(each for each in known if each is not None)
    carried = []
    for each in known:
        last = last if each is None else each
        carried.append(last)
    return tuple(carried)


def _listed(windows: Iterable[Profile], *, or_none: bool = False) -> list[Profile]:
    """Clean windows, enough of them."""
    if isinstance(windows, Profile | Baseline):
        raise InputError(f"clean_windows is a {type(windows).__name__}: pass a list of Profiles, one of each window")
    listed = list(windows)
    for number, window in enumerate(listed):
        if not isinstance(window, Profile):
            raise InputError(f"clean_windows[{number}] is a {type(window).__name__}: pass Profiles")
    if len(listed) < FEWEST_WINDOWS and not (or_none and not listed):
        raise InputError(f"clean_windows has {len(listed)} windows: pass {FEWEST_WINDOWS} at the least, better 30")
    return listed


def _checked(windows: Sequence[Profile], reference: Profile, calibration: Calibration) -> list[Profile]:
    """Clean windows, their groups named as the baseline's are."""
    found = []
    for number, window in enumerate(windows):
        found.append(paired(window, reference))
        if not means_of(calibration, found[-1], reference):
            raise InputError(
                f"clean_windows[{number}] has no rows of what the baseline has, {', '.join(reference.groups)}: "
                "leave it out, or profile with like=baseline"
            )
    return found


#: Of one window, or of several: by block the inflations of all that has one, `[U]`.
_Blocks = Mapping[tuple[str, str], NDArray[Any]]
_Present = Sequence[tuple[Part, Means]]


class _Learner:
    """Finds inflations of windows of one length.

    Args:
        calibration: Of the baseline, nothing learned.
        reference: The baseline's profile.
        inside: Whether the baseline is made of the windows.
    """

    def __init__(self, calibration: Calibration, reference: Profile, inside: bool) -> None:
        self._calibration, self._reference, self._inside = calibration, reference, inside
        kept, _ = finite_rows(reference)
        self._spreads = {key_of(part): _spreads_of(part, kept) for part in calibration.parts}
        self._most = _MOST  # the tails of longer windows are no heavier, and there are fewer of them to tell

    def learn(self, windows: Sequence[Profile], before: Inflation | None) -> tuple[Inflation, list[int]]:
        """The inflation, of so many rows as a window has in the mean, and which windows taught it.

        Args:
            windows: Of one length.
            before: What shorter ones told: of blocks that none of these has, as of layers of which rows were lost.
        """
        present = [means_of(self._calibration, window, self._reference) for window in windows]
        sizes = [max(m for _, (_, m, _) in each) for each in present]
        seen = [
            {key_of(part): self._in_window(part, means, m) for part, means in each}
            for each, m in zip(present, sizes, strict=True)
        ]
        kept = list(range(len(windows)))
        factors = self._factors(present, seen, kept, before)
        strange = [at for at, factor in factors.items() if factor > _MOST]
        if strange and len(strange) <= len(kept) // 10:
            kept = [at for at in kept if at not in strange]
            factors = self._factors(present, seen, kept, before)
        self._most = factor = min(max(factors.values()), self._most)
        rows = np.mean([sizes[at] for at in kept])
        known = {key for at in kept for key in seen[at]}
        blocks = {key: each * np.float32(factor if key in known else 1) for key, each in
                  self._blocks(seen, kept, before).items()}  # fmt: skip
        streams = {
            name: factor * each
            for name, each in self._of_formulas([windows[a] for a in kept], [present[a] for a in kept])
        }
        return Inflation(int(rows), blocks, streams, inside=self._inside), kept

    def _in_window(self, part: Part, means: Means, rows: int) -> NDArray[np.float64]:
        """What one window tells of a block: squared deviations in those of independent rows, `[U]`.

        Rows that are a sample of the window's depend on each other less, and it is told what all would have shown.
        """
        mean, m, _ = means
        expected, weight = self._spreads[key_of(part)]
        squares = np.square(mean.astype(np.float64) - part.mean) * weight
        if isinstance(part.block, Distributions):
            squares, expected = (each.reshape(part.block.edges.shape).sum(axis=1) for each in (squares, expected))
        elif not isinstance(part.block, Principal):  # waves, and classes that may be rare, tell little one by one
            squares, expected = (np.full(len(each), each.sum()) for each in (squares, expected))
        ratio = np.divide(squares, expected, out=np.zeros_like(squares), where=expected > 0)
        return np.clip(1 + (self._of_ratio(ratio, m, part.n) - 1) * rows / m, 0.0, rows)

    def _of_ratio(self, ratio: NDArray[np.float64] | float, m: int, n: int) -> NDArray[np.float64]:
        """The inflation, from squared deviations in variances of a row; the baseline is off as well, or has them."""
        own = max(1 / m - 1 / n, 1 / (2 * m)) if self._inside else 1 / m
        return np.asarray((ratio - (0.0 if self._inside else 1 / n)) / own, np.float64)

    def _blocks(self, seen: Sequence[_Blocks], which: Sequence[int], before: Inflation | None) -> dict[Any, Floats]:
        """The inflations by what some windows tell, each drawn towards the mean of its block; 1 at the least."""
        found: dict[Any, Floats] = {}
        for part in self._calibration.parts:
            key = key_of(part)
            of_part = [seen[at][key] for at in which if key in seen[at]]
            if not of_part:
                found[key] = np.ones(units_of(part.block), np.float32) if before is None else before.blocks[key]
                continue
            each = np.mean(of_part, axis=0)
            drawn = (len(of_part) * each + _PRIOR * each.mean()) / (len(of_part) + _PRIOR)
            found[key] = np.maximum(drawn, 1.0).astype(np.float32)
        return found

    def _factors(
        self, present: Sequence[_Present], seen: Sequence[_Blocks], which: Sequence[int], before: Inflation | None
    ) -> dict[int, float]:
        """By how much the inflations that others tell have to be larger for each window to be usual enough."""
        least, found = math.log(0.5 / len(which)), {}
        for fold in np.array_split(np.array(which), _FOLDS):  # neighbours may be of one scene, and stay together
            others = self._blocks(seen, [at for at in which if at not in fold], before)
            for at in fold.tolist():
                found[at] = self._factor(present[at], others, least)
        return found

    def _factor(self, window: _Present, blocks: _Blocks, least: float) -> float:
        """The smallest factor by which the window's p-value is at least one, of its logarithm; infinite beyond most."""
        rows = max(m for _, (_, m, _) in window)

        def usual(log_factor: float) -> bool:
            larger = {key: each * math.exp(log_factor) for key, each in blocks.items()}
            judged = corrected(self._calibration, window, Inflation(rows, larger, inside=self._inside))
            return min(float(block.log_p.min()) for block in judged) >= least

        low, high = 0.0, math.log(_MOST)
        if usual(low):
            return 1.0
        if not usual(high):
            return math.inf
        for _ in range(_STEPS):
            between = (low + high) / 2
            low, high = (low, between) if usual(between) else (between, high)
        return math.exp(high)

    def _of_formulas(self, windows: Sequence[Profile], present: Sequence[_Present]) -> Iterator[tuple[str, float]]:
        """The inflation of streams that are judged by formulas."""
        seen: dict[str, list[float]] = {}
        for window, of_window in zip(windows, present, strict=True):
            judged = corrected(self._calibration, of_window)
            for name in (name for name in self._reference.groups if name in window.groups):
                a, b = (Side.of(profile.groups[name]) for profile in (self._reference, window))
                for stream in compare_group(a, b, judged_names(name, judged, window)).streams:
                    if not math.isnan(stream.raw_p_value) and a.n and b.n:
                        ratio = squared_distance(stream, a, b)
                        if ratio is not None:
                            seen.setdefault(stream.stream, []).append(float(self._of_ratio(ratio, b.n, a.n)))
        yield from ((name, max(sum(each) / len(each), 1.0)) for name, each in seen.items())


def _spreads_of(part: Part, kept: Mapping[str, Floats]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The variance of each feature times the weight of its squared deviations, and that weight, `[F]` both."""
    if isinstance(part.block, Distributions):
        variance, (_, weight) = part.block.shares * (1 - part.block.shares), part.block.weighted
    else:
        variance = part.block.features(kept[part.rows]).var(axis=0, dtype=np.float64)
        alike = part.block.kind == Kernel.kind
        weight = np.ones_like(variance) if alike else np.where(variance > 1e-9, 1 / np.maximum(variance, 1e-9), 0.0)
    weight = np.asarray(weight, np.float64).ravel()
    return np.asarray(variance, np.float64).ravel() * weight, weight


def squared_distance(stream: StreamDrift, a: Side, b: Side) -> float | None:
    """The squared distance of a window in a stream that a formula judges, in variances of a row; None if it has none.

    Args:
        stream: What was found of it.
        a: The baseline's group.
        b: The window's.
    """
    if stream.kind == "numbers":
        return stream.effect**2 / _KOLMOGOROV
    if stream.kind == "invalid":
        _, one, other = stream.shares[0]
        share = (one * a.n + other * b.n) / (a.n + b.n)
        return (other - one) ** 2 / (share * (1 - share)) if 0 < share < 1 else None
    counted = stream.stream.removeprefix(a.group.name).removeprefix("/")
    if stream.kind != "categories" or counted not in a.group.categories:
        return None
    baseline, window = a.group.categories[counted], b.group.categories[counted]
    _, ours, theirs = category_counts(baseline, window)
    if PER_IMAGE in a.group.streams and PER_IMAGE in b.group.streams:  # several labels of a row, each by itself
        before, after, both = ours / a.n, theirs / b.n, (ours + theirs) / (a.n + b.n)
        varies = (both > 0) & (both < 1)
        return float(np.mean(np.square(after - before)[varies] / (both * (1 - both))[varies])) if varies.any() else None
    distance, freedom = chi_square_distance(ours, theirs, baseline.n, window.n)
    return distance / freedom if freedom else None
