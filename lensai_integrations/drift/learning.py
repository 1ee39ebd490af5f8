"""What clean windows look like: drawn from the baseline's own rows, and learned from clean windows of production.

Windows that are drawn are of independent rows. Real ones vary more: frames of one scene resemble each other, an hour
has its own mix of classes. So clean windows of production can be given, and for each stream, and each feature of whole
rows, it is found how many times as large their squared deviations from the baseline are as those of independent rows:
the inflation F of `dependence.py`. A few windows say little of one stream, so it is drawn towards the mean of its
block, as if that had been seen in `_PRIOR` more windows.

Consecutive windows are put together, 2, 4, 8, ..., as long as enough are left: frames of a scene average out over hours
then, and a mix of classes that lasts for a day does not.

At last the clean windows themselves are judged, a fifth of them at a time by what the others tell. Where the smallest
of their p-values is smaller than the smallest of as many should be, a factor makes all F of that size larger until it
is not: deviations may have heavier tails than those of a mean of independent rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

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
from lensai_integrations.drift.dependence import Inflation, distance_of_p, key_of, pooled
from lensai_integrations.drift.evidence import Side, compare_group
from lensai_integrations.drift.features import Distributions, Floats
from lensai_integrations.drift.max_t import Means, corrected, judged_blocks, judged_names, means_of
from lensai_integrations.errors import InputError
from lensai_integrations.profiles.conventions import paired
from lensai_integrations.profiles.profile import Baseline, Profile

#: Clean windows from which something can be learned.
FEWEST_WINDOWS: Final = 8
#: The mean of a block counts as much as so many windows.
_PRIOR = 10
#: An inflation is at most so many times what the squared deviations tell, to allow for their tails.
_MOST = 1000.0
_STEPS = 10
_FOLDS = 5


def calibrate(
    baseline: Baseline | Profile,
    *,
    clean_windows: Sequence[Profile] = (),
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
    whole = baseline if isinstance(baseline, Baseline) else Baseline(baseline)
    calibration = calibrated(whole.reference, sizes=SIZES, draws=draws, seed=seed, progress=progress)
    if len(clean_windows):
        calibration = taught(calibration, whole.reference, clean_windows)
    return replace(whole, calibration=to_state(calibration))


def with_clean_windows(baseline: Baseline | Profile, clean_windows: Sequence[Profile]) -> Baseline:
    """The baseline with what clean windows tell, calibrated as it is; what it learned before is forgotten.

    Args:
        baseline: A baseline, or a profile with a sample of its rows.
        clean_windows: As for `calibrate`.

    Raises:
        InputError: As `calibrate` does.
    """
    known = calibration_of(baseline)
    if known is None or not known.parts or not isinstance(baseline, Baseline):
        return calibrate(baseline, clean_windows=clean_windows)
    return replace(baseline, calibration=to_state(taught(known, baseline.reference, clean_windows)))


def taught(calibration: Calibration, reference: Profile, clean_windows: Sequence[Profile]) -> Calibration:
    """A calibration that has learned from clean windows how much they vary.

    Args:
        calibration: Of the baseline.
        reference: The baseline's profile.
        clean_windows: At least 8 profiles with rows of what the baseline has, the oldest first.

    Raises:
        InputError: If they are too few, or one is no such profile.
    """
    calibration = replace(calibration, parts=tuple(replace(p, inflation=None) for p in calibration.parts), learned=None)
    windows = _checked(clean_windows, reference, calibration)
    of_rows = _spreads(calibration, reference)
    lengths = []
    while len(windows) >= FEWEST_WINDOWS:
        lengths.append(_of_length(calibration, reference, windows, of_rows))
        windows = [before.merge(after) for before, after in zip(windows[::2], windows[1::2], strict=False)]
    parts = [
        replace(part, inflation=np.stack([each.blocks[key_of(part)] for _, each in lengths]))
        for part in calibration.parts
    ]
    streams = {name: tuple(each.streams.get(name, 1.0) for _, each in lengths) for name in lengths[0][1].streams}
    rows = tuple(float(m) for m, _ in lengths)
    return replace(calibration, parts=tuple(parts), learned=Learned(len(clean_windows), rows, streams))


def _checked(windows: Sequence[Profile], reference: Profile, calibration: Calibration) -> list[Profile]:
    """Clean windows, their groups named as the baseline's are."""
    if len(windows) < FEWEST_WINDOWS:
        raise InputError(f"clean_windows has {len(windows)} windows: pass {FEWEST_WINDOWS} at the least, better 30")
    found = []
    for number, window in enumerate(windows):
        if not isinstance(window, Profile):
            raise InputError(f"clean_windows[{number}] is a {type(window).__name__}: pass Profiles")
        found.append(paired(window, reference))
        if not means_of(calibration, found[-1], reference):
            raise InputError(
                f"clean_windows[{number}] has no rows of what the baseline has, {', '.join(reference.groups)}: "
                "leave it out, or profile with like=baseline"
            )
    return found


#: By part, the variance of each thing that has an inflation, and by what its squared deviations are weighed `[F]`.
_Spreads = dict[tuple[str, str], tuple[NDArray[np.float64], NDArray[np.float64]]]


def _spreads(calibration: Calibration, reference: Profile) -> _Spreads:
    kept, _ = finite_rows(reference)
    found = {}
    for part in calibration.parts:
        if isinstance(part.block, Distributions):
            _, weight = part.block._weights()
            variance = part.block.shares * (1 - part.block.shares)
        else:
            variance = part.block.features(kept[part.rows]).var(axis=0, dtype=np.float64)
            weight = np.divide(1.0, variance, out=np.zeros_like(variance), where=variance > 1e-9)
            if pooled(part) and part.block.kind == "kernel":
                weight = np.ones_like(variance)
        weight = np.asarray(weight, np.float64).ravel()
        found[key_of(part)] = np.asarray(variance, np.float64).ravel() * weight, weight
    return found


def _squares(part: Part, mean: Floats, spreads: _Spreads) -> NDArray[np.float64]:
    """Squared deviations of a window's means, in variances of a row: of each thing that has an inflation, `[U]`."""
    expected, weight = spreads[key_of(part)]
    squares = np.square(mean.astype(np.float64) - part.mean) * weight
    if isinstance(part.block, Distributions):
        squares, expected = (each.reshape(part.block.edges.shape).sum(axis=1) for each in (squares, expected))
    elif pooled(part):
        squares, expected = (np.full(len(each), each.sum()) for each in (squares, expected))
    return np.divide(squares, expected, out=np.zeros_like(squares), where=expected > 0)


def _of_length(
    calibration: Calibration, reference: Profile, windows: Sequence[Profile], spreads: _Spreads
) -> tuple[float, Inflation]:
    """What windows of one length tell: their rows in the mean, and the inflation."""
    present = [means_of(calibration, window, reference) for window in windows]
    rows = float(np.mean([max(m for _, (_, m, _) in of_window) for of_window in present]))
    seen = [{key_of(part): _inflation_in(part, means, spreads) for part, means in of_window} for of_window in present]
    found = Inflation(_blocks(calibration, seen), dict(_of_formulas(calibration, reference, windows)))
    factor = 1.0
    for fold in np.array_split(np.arange(len(windows)), _FOLDS):  # neighbours may be of one scene, and stay together
        others = Inflation(_blocks(calibration, [each for at, each in enumerate(seen) if at not in fold]))
        held_out = [present[at] for at in fold]
        factor = max(factor, _factor(calibration, held_out, others, math.log(0.5 / len(windows))))
    return rows, _times(found, factor)


def _inflation_in(part: Part, means: Means, spreads: _Spreads) -> NDArray[np.float64]:
    """What one window tells: squared deviations in those of independent rows, less the baseline's own, `[U]`."""
    mean, m, _ = means
    inflation: NDArray[np.float64] = np.minimum(m * (_squares(part, mean, spreads) - 1 / part.n), m)
    return inflation


def _blocks(
    calibration: Calibration, seen: Sequence[Mapping[tuple[str, str], NDArray[np.float64]]]
) -> dict[tuple[str, str], Floats]:
    """The inflations of blocks by what windows tell, each drawn towards the mean of its block; 1 at the least."""
    found: dict[tuple[str, str], Floats] = {}
    for part in calibration.parts:
        of_part = [of_window[key_of(part)] for of_window in seen if key_of(part) in of_window]
        each = np.mean(of_part, axis=0) if of_part else np.ones(units_of(part.block))
        drawn = (len(of_part) * each + _PRIOR * each.mean()) / (len(of_part) + _PRIOR)
        found[key_of(part)] = np.maximum(drawn, 1.0).astype(np.float32)
    return found


def _of_formulas(
    calibration: Calibration, reference: Profile, windows: Sequence[Profile]
) -> Iterator[tuple[str, float]]:
    """The inflation of streams that are judged by formulas: by how much further out their p-values are."""
    seen: dict[str, list[float]] = {}
    for window in windows:
        judged = judged_blocks(calibration, reference, window)
        for name, group in reference.groups.items():
            if name not in window.groups:
                continue
            found = compare_group(Side.of(group), Side.of(window.groups[name]), judged_names(name, judged, window))
            for stream in found.streams:
                if not math.isnan(stream.raw_p_value):
                    square = distance_of_p(stream.raw_p_value) ** 2
                    share = (1 / found.n_window + 1 / found.n_baseline) * found.n_window
                    seen.setdefault(stream.stream, []).append(1 + (square - 1) * share)
    for name, each in seen.items():
        yield name, max((sum(each) + _PRIOR) / (len(each) + _PRIOR), 1.0)


def _times(inflation: Inflation, factor: float) -> Inflation:
    blocks = {key: (each * factor).astype(np.float32) for key, each in inflation.blocks.items()}
    return replace(inflation, blocks=blocks, streams={key: each * factor for key, each in inflation.streams.items()})


def _factor(
    calibration: Calibration,
    present: Sequence[Sequence[tuple[Part, Means]]],
    inflation: Inflation,
    least: float,
) -> float:
    """By how much inflations have to be larger for no window to have a smaller p-value than one, of its logarithm."""
    low = 0.0

    def usual(of_window: Sequence[tuple[Part, Means]], log_factor: float) -> bool:
        judged = corrected(calibration, of_window, _times(inflation, math.exp(log_factor)))
        return min(float(block.log_p.min()) for block in judged) >= least

    for of_window in present:
        if usual(of_window, low):
            continue
        high = math.log(_MOST)
        for _ in range(_STEPS):
            between = (low + high) / 2
            low, high = (low, between) if usual(of_window, between) else (between, high)
        low = high
    return math.exp(low)
