"""Which consecutive rows make a window: tumbling or sliding, by rows or by time.

Rows are profiled in panes, the largest pieces of which all windows are made up: as many rows, or as long, as the
greatest common divisor of window and stride. A window is so many panes, merged. For sliding windows two stacks keep
merged profiles (Tangwongsan, Hirzel, Schneider, Wu: General incremental sliding-window aggregation, VLDB 2015, there
called the two-stacks algorithm), so a step costs about three merges, however many panes a window has.

A sliding window can be full before production has sent its first image: the rows that are missing are profiled from
the row sample that the baseline keeps, and every image takes the place of one of them. They lie in the reference that
the window is held against as well, so until all have slid out the verdict is more careful than asked for, never less.
Pixel counts and text labels are not in the row sample; a window has them once it is production's alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.errors import InputError
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.profiling.builder import feed, source_of
from lensai_integrations.sketches.rows import RowSample
from lensai_integrations.sketches.state import Sketch


@dataclass(frozen=True)
class Plan:
    """How windows are laid out.

    Attributes:
        pane: Rows of a pane, or its microseconds.
        window: Panes of a window.
        stride: Panes from the end of one window to the end of the next.
        by_time: Whether panes are pieces of time; these begin at multiples of their length since 1970 (UTC), so that
            a restarted monitor goes on with the same ones.

    Example:
        >>> plan_windows(200, 50)
        Plan(pane=50, window=4, stride=1, by_time=False)
    """

    pane: int
    window: int
    stride: int
    by_time: bool = False

    def pane_at(self, seconds: float) -> int:
        """The number of the pane of a time in seconds since 1970; only by time."""
        return int(seconds * 1e6) // self.pane

    def next_end(self, number: int) -> int:
        """The first pane from this on with which a window ends; only by time.

        Example:
            >>> plan = Plan(60_000_000, 4, 2, by_time=True)
            >>> [plan.next_end(number) for number in (10, 11, 12)]
            [11, 11, 13]
        """
        return -(-(number + 1) // self.stride) * self.stride - 1

    def ends(self, number: int) -> bool:
        """Whether a window ends with the pane of this number."""
        if self.by_time:
            return (number + 1) % self.stride == 0
        return number + 1 >= self.window and (number + 1 - self.window) % self.stride == 0


def plan_windows(window: Any, stride: Any = None, every: Any = None) -> Plan:
    """Lay out windows of so many rows, or so long.

    Args:
        window: Rows, or a `timedelta`.
        stride: Rows from one window to the next; None for windows that do not overlap.
        every: The same of windows by time, a `timedelta`.

    Raises:
        InputError: If one is not positive, of the wrong kind, or longer than the window.

    Example:
        >>> plan_windows(timedelta(hours=1), every=timedelta(minutes=15)).window
        4
    """
    if isinstance(window, timedelta):
        if stride is not None:
            raise InputError(
                f"stride={stride!r} counts rows, and window={window!r} is a time: pass every=timedelta(...)"
            )
        size, step = _microseconds("window", window), window if every is None else every
        return _plan(size, _microseconds("every", step), "every", by_time=True)
    if every is not None:
        raise InputError(f"every={every!r} is for windows by time: pass window=timedelta(...), or stride= in rows")
    size = _rows("window", window)
    return _plan(size, size if stride is None else _rows("stride", stride), "stride")


def seconds_late(late: Any, plan: Plan) -> float:
    """How long windows wait for late rows, in seconds.

    Raises:
        InputError: If it is no time, or windows are by rows, which wait for none.

    Example:
        >>> seconds_late(timedelta(minutes=5), plan_windows(timedelta(hours=1)))
        300.0
    """
    if late is None:
        return 0.0
    if not isinstance(late, timedelta) or late < timedelta(0):
        raise InputError(f"late={late!r} should be a datetime.timedelta, not negative")
    if not plan.by_time:
        raise InputError(f"late={late!r} is for windows by time: pass window=timedelta(...), or leave it out")
    return late.total_seconds()


def _plan(size: int, step: int, name: str, *, by_time: bool = False) -> Plan:
    if step > size:
        raise InputError(f"{name} is longer than the window, so that rows in between would be judged by none")
    pane = math.gcd(size, step)
    return Plan(pane, size // pane, step // pane, by_time)


def _rows(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name}={value!r} should be a number of rows, 1 or more, or window a datetime.timedelta")
    return value


def _microseconds(name: str, value: Any) -> int:
    if not isinstance(value, timedelta) or value <= timedelta(0):
        raise InputError(f"{name}={value!r} should be a positive datetime.timedelta, like window")
    return value // timedelta(microseconds=1)


@dataclass(frozen=True)
class Pane:
    """Consecutive rows, profiled.

    Attributes:
        number: From 0; by time, its place since 1970.
        rows: How many.
        opened: The earliest time of a row, seconds since 1970.
        closed: The latest.
        profile: Of its rows; None once it is in a merged one.
        warm: How many rows are the baseline's own.
        file: Where it is kept on disk; empty if it is not.
    """

    number: int
    rows: int
    opened: float
    closed: float
    profile: Profile | None = None
    warm: int = 0
    file: str = ""


@dataclass
class Panes:
    """The closed panes that windows to come may need, oldest first, and their profiles merged where that saves work.

    Example:
        >>> panes = Panes(plan_windows(4, 2))
        >>> panes.push(Pane(0, 2, 0.0, 1.0, Profile()))
        >>> panes.push(Pane(1, 2, 2.0, 3.0, Profile()))
        >>> sum(pane.rows for pane in panes.window(1))
        4
    """

    plan: Plan
    kept: list[Pane] = field(default_factory=list)
    _front: list[tuple[int, Profile]] = field(default_factory=list)
    _back: list[tuple[int, Profile]] = field(default_factory=list)
    _newest: Profile | None = None  # all of _back, merged

    def push(self, pane: Pane) -> None:
        """Add the newest pane, and let go of those that no window can have any more."""
        assert pane.profile is not None
        self._back.append((pane.number, pane.profile))
        self._newest = pane.profile if self._newest is None else self._newest.merge(pane.profile)
        self.kept.append(pane)
        self._forget(pane.number - self.plan.window + 1)

    def window(self, last: int, *, partial: bool = False) -> list[Pane]:
        """The panes of the window that ends with pane `last`; by rows none unless all are there, or `partial`."""
        panes = [pane for pane in self.kept if last - self.plan.window < pane.number <= last]
        return panes if self.plan.by_time or partial or len(panes) == self.plan.window else []

    def merged(self, last: int) -> Profile:
        """The profile of that window, which holds the newest pane. Older ones are forgotten."""
        self._forget(last - self.plan.window + 1)
        if not self._front:
            self._turn()
        oldest = self._front[-1][1]
        return oldest if self._newest is None else oldest.merge(self._newest)

    def judged(self, last: int) -> None:
        """The window that ends with pane `last` was judged: let go of panes that the next one has not."""
        self._forget(last + self.plan.stride - self.plan.window + 1)

    def _turn(self) -> None:
        """Move all to the front: each merged with all that are newer, the oldest on top."""
        merged: Profile | None = None
        for number, profile in reversed(self._back):
            merged = profile if merged is None else profile.merge(merged)
            self._front.append((number, merged))
        self._back, self._newest = [], None

    def _forget(self, oldest: int) -> None:
        self.kept = [pane for pane in self.kept if pane.number >= oldest]
        if self._back and self._back[0][0] < oldest:
            self._turn_older(oldest)
        while self._front and self._front[-1][0] < oldest:
            self._front.pop()

    def _turn_older(self, oldest: int) -> None:
        """Panes that are too old are in the back: only those that are not may come to the front."""
        self._front = []
        self._back = [(number, profile) for number, profile in self._back if number >= oldest]
        self._turn()

    def amend(self, pane: Pane, late: Profile) -> None:
        """Rows came late to a pane that is closed.

        Args:
            pane: With these rows.
            late: Of them alone.
        """
        self.kept = sorted([p for p in self.kept if p.number != pane.number] + [pane], key=lambda p: p.number)
        if self._front and pane.number <= self._front[0][0]:
            self._front = _amended(self._front, pane.number, late)
            return
        self._back = _added(self._back, pane.number, late)
        self._newest = late if self._newest is None else self._newest.merge(late)

    def settle(self, number: int, file: str) -> None:
        """Note where a pane is kept on disk, so that its own profile need not stay in memory."""
        self.kept = [replace(p, file=file, profile=None) if p.number == number else p for p in self.kept]


def _amended(front: list[tuple[int, Profile]], number: int, late: Profile) -> list[tuple[int, Profile]]:
    """The front of two stacks: each entry is merged with all that are newer, so older ones have a late pane as well."""
    newer = [entry for entry in front if entry[0] > number]
    own = [(number, newer[-1][1])] if newer and all(entry[0] != number for entry in front) else []
    older = [*own, *(entry for entry in front if entry[0] <= number)]
    return [*newer, *((n, profile.merge(late)) for n, profile in older)]


def _added(back: list[tuple[int, Profile]], number: int, late: Profile) -> list[tuple[int, Profile]]:
    """The back of two stacks: each entry is a pane alone, the oldest first."""
    if any(n == number for n, _ in back):
        return [(n, profile.merge(late) if n == number else profile) for n, profile in back]
    return sorted([*back, (number, late)], key=lambda entry: entry[0])


def boundaries(plan: Plan, last: int, now: int) -> Iterator[int]:
    """Numbers of panes with which windows have ended since pane `last` was open, now that pane `now` is.

    Windows that would hold no row any more are left out, so a long silence costs nothing.

    Example:
        >>> list(boundaries(Plan(60_000_000, 2, 1, by_time=True), 10, 1000))
        [10, 11]
    """
    yield from (number for number in range(last, min(now, last + plan.window)) if plan.ends(number))


Rows = Mapping[str, NDArray[np.float32]]


def kept_rows(reference: Profile, count: int) -> dict[str, NDArray[np.float32]]:
    """The first rows of a profile's sample, by name `[count, D]`: these are a uniform sample as well.

    Raises:
        InputError: If it keeps fewer.
    """
    data = {} if reference.rows is None else reference.rows.data
    kept = min((len(rows) for rows in data.values()), default=0)
    if kept < count:
        raise InputError(
            f"warm_start=True needs {count} rows of the baseline, but it keeps {kept}: pass a smaller window, or make "
            "the baseline with more rows"
        )
    return {name: rows[:count] for name, rows in data.items()}


def profile_of_rows(rows: Rows, like: Profile, *, size: int = 2000) -> Profile:
    """A profile that has seen these rows, sketched as `like` was.

    Args:
        rows: By name of the row sample, float32 `[n, D]`.
        like: The profile they were taken from.
        size: Rows that the new profile keeps.

    Example:
        >>> from lensai_integrations import Profiler
        >>> profiler = Profiler()
        >>> profiler.update(outputs=np.random.default_rng(0).normal(size=(50, 3)))
        >>> reference = profiler.profile()
        >>> profile_of_rows(kept_rows(reference, 20), reference).groups["outputs"].n
        20
    """
    groups = {}
    for name, group in like.groups.items():
        if sketches := _sketches(group, rows):
            groups[name] = Group(name, group.streams, dict(group.definitions), sketches, dict(group.info))
    sample = RowSample(size)
    sample.update({name: np.array(values) for name, values in rows.items()})
    return Profile(groups, sample, {"source": like.source})


def _sketches(group: Group, rows: Rows) -> dict[str, Sketch]:
    """Sketches like those of a group, of the rows that there are of them."""
    parts: dict[str, Any] = {}
    for key, sketch in group.sketches.items():
        _, _, stream = key.partition("/")
        values = rows.get(f"{group.name}/{stream}" if stream else group.name)
        if values is not None and sketch.takes != "pixels":
            parts[source_of(key, sketch)] = _classes(values) if sketch.takes == "categories" else values
    sketches = {key: sketch.empty() for key, sketch in group.sketches.items() if source_of(key, sketch) in parts}
    feed(sketches, parts)
    return sketches


def _classes(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Classes from their column; a negative one stands for a row that is not valid."""
    column = values[:, 0]
    return column[np.isfinite(column) & (column >= 0)].astype(np.int64)
