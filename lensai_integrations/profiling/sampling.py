"""Which delivered images are measured where measuring all would take too long: a share of them, drawn by their number.

A loader's worker has so much time. It may spend a part of it on measuring, its budget; what that comes to as a share of
the images, 1, 1/2, 1/4 ... 1/64, is decided once, from the times of the first images, and holds for all processes.

Which images these are has nothing to do with time. An image has a number: it is the i-th that its worker delivers, in
this generation of rows. A hash of that number is its level: half of all images have level 0, a quarter level 1, and so
on. A share of 1/2^m is made of the images of level m and above. So a smaller share is a part of a larger one, the same
images are measured again by as many workers, and profiles of one share merge without bias.

The first images are measured whatever their level, for windows and small data sets are to stay whole and nobody knows
how many are to come. What a profile holds (`chosen`) is thus

* all images, as long as no more than `WHOLE` were delivered;
* those of the share and no other, once there are `FEWEST` of them: each image counts as much as any other;
* in between those of the share, and the first `WHOLE`, which count for more than the others.

"The first" are as many of each worker, `WHOLE` in all: `ceil(WHOLE / workers)` each, whichever worker is faster. What
else was measured, because one worker had more to deliver than others while there were few of all, is left out again.
"""

from __future__ import annotations

import math
import sys
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from time import get_clock_info, perf_counter, thread_time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.errors import InputError
from lensai_integrations.sketches.rows import GOLDEN, mixed

if TYPE_CHECKING:
    from lensai_integrations.profiles.profile import Profile

#: Share of a worker's time that measuring may take, if nothing else is said.
BUDGET: Final = 0.05
#: Images of a generation that are all measured, and images of a share that make a profile by themselves.
WHOLE, FEWEST = 2000, 500
#: Levels of images, and so of shares: 1 to 1/64.
LEVELS: Final = 7
#: The group's info about it, and the file of a ledger that has the decision.
SAMPLED, SHARE = "sampled", "share"
#: Times that are kept, those at the start that are not (libraries load, caches fill), and as many as make a decision.
_KEPT, _WARMING, _ENOUGH = 256, 8, 16
#: Of the longest times, one in so many is left out: a pause, a batch that is put together or waits to be fetched.
_OUTLIERS: Final = 20
#: How much longer it takes to measure an image now and then than many in a row, as at first: what that needs has left
#: the processor's caches by then. 1.13 on an idle machine, more where two workers share it with the training.
_ONE_BY_ONE: Final = 1.25
#: Processor time: neither a worker that waits for the training nor a busy machine makes measuring look cheaper than it
#: is. Where it is too coarse (Windows), the clock.
_CLOCK: Final = thread_time if get_clock_info("thread_time").resolution < 1e-4 else perf_counter


@dataclass(frozen=True)
class Sampling:
    """How much may be measured.

    Args:
        budget: Share of a worker's time.
        seed: Of the draw.
        whole: Images of a generation that are all measured.
        fewest: Images of a share that make a profile by themselves.
    """

    budget: float
    seed: int = 0
    whole: int = WHOLE
    fewest: int = FEWEST


class Turn(NamedTuple):
    """What is to be done with what was delivered at once.

    Attributes:
        measured: Whether it is measured.
        slab: Its class, see `slab_of`.
        generation: In which it was counted.
        began: When, for `Pace`; None where nobody asks.
    """

    measured: bool
    slab: int
    generation: int
    began: float | None = None


#: What is not measured.
LEFT_OUT: Final = Turn(measured=False, slab=0, generation=-1)


def checked_budget(budget: Any) -> float | None:
    """A budget, if it is one.

    Raises:
        InputError: If it is not.

    Example:
        >>> checked_budget(0.05), checked_budget(None)
        (0.05, None)
    """
    if budget is None:
        return None
    if isinstance(budget, bool) or not isinstance(budget, Real) or not 0 < float(budget) < 1:
        raise InputError(
            f"budget={budget!r} should be a number between 0 and 1, the share of a worker's time that measuring may"
            f" take, e.g. {BUDGET}; or None to measure every image"
        )
    return float(budget)


def key_of(seed: int, generation: int, worker: int) -> int:
    """What the numbers of a worker are hashed with, in one generation.

    Example:
        >>> key_of(0, 0, 1) == key_of(0, 0, 1), key_of(0, 0, 1) == key_of(0, 1, 1)
        (True, False)
    """
    return int(np.random.SeedSequence([seed, generation, worker]).generate_state(1, np.uint64)[0])


def level_of(key: int, number: int) -> int:
    """The level of an image, 0 to `LEVELS` - 1: how many zeros the hash of its number, from `key` on, begins with.

    Example:
        >>> levels = [level_of(0, number) for number in range(6400)]
        >>> [sum(level >= least for level in levels) for least in (0, 1, 6)]
        [6400, 3218, 114]
    """
    return min(LEVELS - 1, 64 - mixed(key + GOLDEN * (number + 1)).bit_length())


def slab_of(level: int, *, is_first: bool) -> int:
    """The class of an image in one number: its level, and whether it is among the first of its worker.

    Example:
        >>> slab_of(2, is_first=True), slab_of(2, is_first=False)
        (2, 9)
    """
    return level if is_first else level + LEVELS


def chosen(slabs: NDArray[np.integer[Any]], level: int, *, with_first: bool) -> NDArray[np.bool_]:
    """Of images by their class, those that a share has.

    Args:
        slabs: Their classes.
        level: Of the share.
        with_first: Whether the first belong to it whatever their level.

    Example:
        >>> chosen(np.array([0, 2, 7, 9]), 2, with_first=True).tolist()
        [True, True, False, True]
    """
    inside = slabs % LEVELS >= level
    return inside | (slabs < LEVELS) if with_first else inside


def level_within(budget: float, measuring: float, between: float) -> int:
    """The level of the largest share that stays within a budget, or of the smallest there is.

    Args:
        budget: Share of the time.
        measuring: What it takes to measure an image.
        between: What a worker takes for all else of an image, in the same unit.

    Example:
        >>> level_within(0.05, measuring=4.5, between=6.8), level_within(0.5, measuring=1, between=2)
        (4, 0)
    """
    share = budget / (1 - budget) * between / measuring if measuring > 0 else 1.0
    return min(LEVELS - 1, max(0, math.ceil(-math.log2(share)))) if share > 0 else LEVELS - 1


class Pace:
    """How long a process measures, and how long it does other things between two images.

    Example:
        >>> ticks = iter(range(1000))
        >>> pace = Pace(lambda: float(next(ticks)))
        >>> for _ in range(40):
        ...     pace.end(pace.now())
        >>> pace.level(0.05)
        5
    """

    def __init__(self, clock: Any = _CLOCK) -> None:
        self.now = clock
        self._times: deque[tuple[float, float]] = deque(maxlen=_KEPT)
        self._warming = _WARMING
        self._thread = threading.local()  # a new thread's clock begins anew, though it may have the number of another

    def end(self, began: float) -> None:
        """Something was measured from `began` until now."""
        now = self.now()
        before, self._thread.ended = getattr(self._thread, "ended", None), now
        if self._warming > 0:
            self._warming -= 1
        elif before is not None:
            self._times.append((now - began, began - before))

    def level(self, budget: float) -> int | None:
        """The level of the share that stays within a budget; None while too little was measured to tell."""
        if len(self._times) < _ENOUGH:
            return None
        measuring, between = zip(*self._times, strict=True)
        return level_within(budget, _ONE_BY_ONE * _typical(measuring), _typical(between))


def _typical(times: tuple[float, ...]) -> float:
    """The mean without the longest."""
    kept = sorted(times)[: len(times) - max(1, len(times) // _OUTLIERS)]
    return sum(kept) / len(kept)


def worker() -> tuple[int, int]:
    """Which of how many torch loader workers this process is, from 1 on; (0, 1) if it is none.

    Example:
        >>> worker()
        (0, 1)
    """
    torch = sys.modules.get("torch")
    info = torch.utils.data.get_worker_info() if torch is not None else None
    return (0, 1) if info is None else (int(info.id) + 1, int(info.num_workers))


def first_of(workers: int, whole: int = WHOLE) -> int:
    """How many images of each worker are among the first.

    Example:
        >>> first_of(1), first_of(3)
        (2000, 667)
    """
    return -(-whole // workers)


def levels_of_files(n: int, seed: int) -> NDArray[np.int64]:
    """The levels of so many files, in their order.

    Example:
        >>> levels_of_files(5, seed=0).tolist()
        [5, 1, 2, 0, 0]
    """
    key = key_of(seed, 0, 0)
    return np.array([level_of(key, number) for number in range(n)], np.int64)


def level_of_files(levels: NDArray[np.int64], budget: float, measuring: float, between: float) -> int:
    """The level of the largest share of files that stays within a budget, but of one that has `WHOLE` of them: it is
    known how many there are.

    Args:
        levels: Of the files.
        budget: Share of the time.
        measuring: What it takes to measure an image.
        between: What it takes to read one.

    Example:
        >>> level_of_files(levels_of_files(10_000, seed=0), 0.05, measuring=4.5, between=6.8)
        2
    """
    level = level_within(budget, measuring, between)
    while level and int((levels >= level).sum()) < WHOLE:
        level -= 1
    return level


def about(seen: int, measured: int, level: int, budget: float, first: int = 0) -> dict[str, Any]:
    """What a group's info says of a share.

    Args:
        seen: Images that were delivered.
        measured: Those of them that are in the profile.
        level: Of the share.
        budget: Share of a worker's time.
        first: How many of the first are in it whatever their level.

    Example:
        >>> about(50_000, 3125, 4, 0.05)
        {'seen': 50000, 'measured': 3125, 'share': 0.0625, 'budget': 0.05}
    """
    about_first = {"first": first} if first else {}
    return {"seen": seen, "measured": measured, "share": 0.5**level, "budget": budget, **about_first}


def in_words(sampled: Mapping[str, Any]) -> str:
    """What an info says of a share, for people.

    Example:
        >>> in_words(about(50_000, 3125, 4, 0.05))
        '3,125 of 50,000 images were measured (a share of 1/16, budget 0.05)'
        >>> in_words({"seen": 9, "measured": 3})
        '3 of 9 images were measured'
    """
    share, budget = sampled.get("share"), sampled.get("budget")
    how = [] if not share else [f"a share of 1/{round(1 / share)}"]
    if how and sampled.get("first"):
        how = [f"the first {sampled['first']:,}, of the others {how[0]}"]
    how += [f"budget {budget:g}"] if budget else []
    brackets = f" ({', '.join(how)})" if how else ""
    return f"{sampled['measured']:,} of {sampled['seen']:,} images were measured{brackets}"


def measured_lines(profile: Profile) -> list[str]:
    """A line for each group of which not all images were measured.

    Example:
        >>> from lensai_integrations.profiles.groups import Group
        >>> from lensai_integrations.profiles.profile import Profile
        >>> group = Group("raw", info={"sampled": {"seen": 50_000, "measured": 3125, "share": 0.0625}})
        >>> measured_lines(Profile({"raw": group}))
        ['raw: 3,125 of 50,000 images were measured (a share of 1/16)']
    """
    groups = [(name, group.info.get(SAMPLED)) for name, group in profile.groups.items()]
    return [f"{name}: {in_words(sampled)}" for name, sampled in groups if sampled]


def too_few(name: str, sampled: Mapping[str, Any]) -> list[str]:
    """What is to be said where the first images count for more than the others.

    Args:
        name: Of the group.
        sampled: What its info says.

    Example:
        >>> too_few("raw", about(50_000, 3125, 4, 0.05))
        []
    """
    if not sampled.get("first"):
        return []
    share = f"1/{round(1 / sampled['share'])}"
    return [
        f"{name}: of {sampled['seen']:,} images the first {sampled['first']:,} were measured and {share} of the others,"
        f" since {share} of all would be too few: where the order of the images means something, the first count for"
        " too much; budget=None measures all"
    ]
