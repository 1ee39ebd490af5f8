"""Calibrate a baseline, and read what a calibrated one knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lensai_integrations.drift.calibration import DRAWS, FEWEST_ROWS, SIZES, Calibration, calibrated, is_top_class
from lensai_integrations.drift.calibration_state import from_state, to_state
from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.profile import Baseline, Profile
from lensai_integrations.sketches.state import State


def calibrate(
    baseline: Baseline | Profile,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Baseline:
    """Find out what clean windows of a baseline look like, so that `compare` holds the false-alarm rate asked for.

    Windows of 5 to 1,000 rows are drawn from the rows the reference keeps, and every drift statistic is computed for
    each of them. Callbacks do this at the end of training.

    Args:
        baseline: A baseline, or a profile with a sample of its rows; at least 100 of them, better 2,000.
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
    given = baseline if isinstance(baseline, Baseline) else Baseline(baseline)
    found = calibrated(given.reference, sizes=SIZES, draws=draws, seed=seed, progress=progress)
    return replace(given, calibration=to_state(found))


__all__ = ["FEWEST_ROWS", "calibrate", "calibration_of"]


def calibration_of(baseline: Baseline | Profile) -> Calibration | None:
    """What a baseline knows of clean windows; None if it was not calibrated. Read once.

    Raises:
        FormatError: If it is damaged, or another baseline's.

    Example:
        >>> calibration_of(Baseline(Profile())) is None
        True
    """
    if not isinstance(baseline, Baseline) or baseline.calibration is None:
        return None
    state = baseline.calibration
    last = _LAST[0]  # taken once, for another thread may put another there
    if last is None or last[0] is not state:
        try:
            _LAST[0] = last = (state, _fitting(from_state(state), baseline.reference))
        except FormatError as error:
            raise FormatError(
                f"the baseline's calibration cannot be used: {error}; run `lensai calibrate` on the baseline, "
                "or compare with correction='holm'"
            ) from error
    return last[1]


def _fitting(calibration: Calibration, reference: Profile) -> Calibration:
    """The calibration, if it can be of this profile."""
    for part in calibration.parts:
        group = reference.groups.get(part.group)
        wanted = 1 if is_top_class(part.rows) else len(group.streams) if group is not None else None
        if part.block.columns != wanted:
            raise FormatError(f"it is of {part.block.columns} columns of {part.group!r}, which has {wanted}")
    return calibration


#: The calibration read last, and what of: a monitor asks for the same one again and again.
_LAST: list[tuple[State, Calibration] | None] = [None]
