"""Which rows `detection.py` compares with which: draws of the reference, and clean and shifted windows beside it.

Every method is given the same rows. They are kept as numbers of rows in one table that has all shifts one below the
other, so a window is a line of numbers whatever was done to its images, and the peers' processes get a single file.

For each draw 2,000 of the 5,000 images are the reference and windows come from the other 3,000. A mixed window takes
each row from a shift with a certain probability, so a window of 10 with 5% may have none: as in production.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

#: Groups of streams and their rows `[n, D]`, of a reference or a window.
Rows = dict[str, NDArray[np.float32]]
Numbers = NDArray[np.int64]

CLEAN: Final = "clean"
#: Shifts in which every image is changed.
IMAGES: Final = (
    "blur easy",
    "brightness easy",
    "noise 12",
    "pixelate",
    "motion blur",
    "blur weak",
    "brightness weak",
    "noise 6",
    "noise 2",
)
#: Mixtures: the shift some rows are of, and how probably a row is one of them.
MIXED: Final = {
    f"{share:.0%} {of}": (of, share) for of in ("blur easy", "brightness easy") for share in (0.05, 0.1, 0.25)
}
#: Shifts of the classes alone; the images are clean.
CLASSES: Final = ("class dropped", "classes 2:1", "classes Dirichlet")
SHIFTS: Final = (*IMAGES, *CLASSES, *MIXED)
#: Those that are to be found in at least 99% of windows of 50.
EASY: Final = ("blur easy", "brightness easy", "noise 12", "pixelate")


@dataclass(frozen=True)
class Windows:
    """All windows of one size.

    Attributes:
        size: Rows of each.
        shift: Name of the shift of each, `[W]`.
        reference: Number of the draw of the reference each belongs to, `[W]`.
        turn: Number of the window among those of its shift and reference, `[W]`; slow methods take the first few.
        rows: Row numbers in the table of all shifts, `[W, size]`.
    """

    size: int
    shift: NDArray[np.str_]
    reference: Numbers
    turn: Numbers
    rows: Numbers

    @property
    def clean(self) -> NDArray[np.bool_]:
        """Which are clean, `[W]`."""
        found: NDArray[np.bool_] = self.shift == CLEAN
        return found

    def first(self, clean: int, shifted: int) -> NDArray[np.bool_]:
        """Which are among the first so many clean and shifted ones of their reference, `[W]`."""
        chosen: NDArray[np.bool_] = self.turn < np.where(self.shift == CLEAN, clean, shifted)
        return chosen


@dataclass(frozen=True)
class Draws:
    """References and windows.

    Attributes:
        n: Images of the data set.
        names: Shifts in the order in which the table has them.
        references: Row numbers of the references, clean ones, `[R, rows]`.
        windows: By size.
    """

    n: int
    names: tuple[str, ...]
    references: Numbers
    windows: dict[int, Windows]


def table_of(features: Mapping[str, Mapping[str, NDArray[Any]]], key: str) -> NDArray[np.float32]:
    """The rows of all shifts one below the other, `[S n, D]`."""
    return np.concatenate([each[key] for each in features.values()])


def drawn(
    names: Sequence[str],
    labels: NDArray[Any],
    sizes: Sequence[int],
    *,
    references: int = 20,
    rows: int = 2000,
    clean: int = 50,
    shifted: int = 10,
    detect: int = 200,
) -> Draws:
    """Draw all that is compared.

    Args:
        names: Shifts in the order of the table, `"clean"` first.
        labels: Classes of the images `[n]`.
        sizes: Rows of windows.
        references: How many.
        rows: Of each reference.
        clean: Clean windows of a size for each reference.
        shifted: Windows of a size for each reference and shift.
        detect: No shifted windows above this size.
    """
    n = len(labels)
    orders = [np.random.default_rng([11, r]).permutation(n) for r in range(references)]
    windows = {}
    for size in sizes:
        kinds = {CLEAN: clean} | dict.fromkeys(SHIFTS if size <= detect else (), shifted)
        cells = [
            (shift, r, turn, _rows(names, labels, orders[r][rows:], shift, size, np.random.default_rng(seed)))
            for r in range(references)
            for kind, (shift, count) in enumerate(kinds.items())
            for turn in range(count)
            for seed in [[13, size, r, kind, turn]]
        ]
        shift, reference, turn, numbers = zip(*cells, strict=True)
        windows[size] = Windows(size, *map(np.array, (shift, reference, turn, numbers)))
    return Draws(n, tuple(names), np.stack([order[:rows] for order in orders]), windows)


def _rows(
    names: Sequence[str], labels: NDArray[Any], pool: Numbers, shift: str, size: int, rng: np.random.Generator
) -> Numbers:
    """Row numbers of one window."""
    weights = _weights(labels[pool], shift, rng) if shift in CLASSES else None
    chosen = rng.choice(pool, size, replace=False, p=weights)
    of, share = MIXED.get(shift, (CLEAN if shift in CLASSES else shift, 1.0))
    return np.where(rng.random(size) < share, names.index(of) * len(labels) + chosen, chosen)


def _weights(labels: NDArray[Any], shift: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """How probable each row is, where classes have other shares than in the reference."""
    classes = int(labels.max()) + 1
    if shift == "class dropped":
        share = np.ones(classes)
        share[rng.integers(classes)] = 0
    elif shift == "classes 2:1":
        share = rng.permutation(np.repeat([2.0, 1.0], [classes // 2, classes - classes // 2]))
    else:
        share = rng.dirichlet(np.ones(classes))
    weights = share[labels] / np.bincount(labels, minlength=classes)[labels]
    normalised: NDArray[np.float64] = weights / weights.sum()
    return normalised
