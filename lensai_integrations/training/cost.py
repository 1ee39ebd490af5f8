"""What profiling a batch costs, against the step that it is part of, and how rarely batches are profiled for that.

Compared are two spans of one clock: what profiling a batch takes, and the step from the batch's beginning to that of
the next one. On an accelerator the clock is that of its queue: marks are recorded into it, and read once it has got
there, some steps later, so that nobody waits. Where the queue is behind the host, the time between two marks is that of
the operations between them; where it is idle it waits for the host as well, and the marks are as far apart as the host
takes to launch them. Either way it is what the step is longer by. Comparing whole steps with and without profiling
would tell the same with all the noise of loaders and networks in it.

The first batches are left out: there kernels are compiled and decisions taken.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final, Protocol

#: Profiled batches at the beginning that tell nothing: kernels are compiled, and decisions taken.
WARM_UP: Final = 4
#: How many profiled batches are measured before it is decided anew.
FEWEST: Final = 8
#: How many the cost is the mean of. Sketches work on several batches at once, so batches cost unequally.
WINDOW: Final = 64
#: From how many on the most expensive one is left out: a program was compiled in it, or something else ran.
ENOUGH: Final = 16
#: More batches are profiled if the share then stays below this share of what is asked for.
MARGIN: Final = 0.8
#: The largest factor. With it a share of 1% is held even where profiling a batch takes ten times as long as its step;
#: and more rarely than that, nothing would come together in an epoch that a distribution could be read from.
MOST: Final = 1024


class Clock(Protocol):
    """Takes times, on the host or on an accelerator.

    Attributes:
        runs_ahead: Whether marks are made while earlier steps are still computed, so that only several steps together
            tell how long one takes.
    """

    runs_ahead: bool

    def mark(self) -> Any:
        """This moment in the queue of work."""
        ...

    def between(self, first: Any, second: Any) -> float | None:
        """Seconds from one mark to another; None while that is not known yet. Waits for nothing."""
        ...


class HostClock:
    """The clock of this process.

    Args:
        runs_ahead: Whether steps are still computed when they return.

    Example:
        >>> clock = HostClock()
        >>> clock.between(clock.mark(), clock.mark()) >= 0
        True
    """

    def __init__(self, *, runs_ahead: bool = False) -> None:
        self.runs_ahead = runs_ahead

    def mark(self) -> float:
        """Now, in seconds."""
        return time.perf_counter()

    def between(self, first: float, second: float) -> float:
        """The difference."""
        return second - first


@dataclass
class _Step:
    """A profiled batch and those after it, up to the end: what was marked of them, and how many there are.

    On a host that runs ahead it begins where a batch is measured, and may end before all of its call were.
    """

    begin: Any
    spans: list[tuple[Any, Any]] = field(default_factory=list)
    end: Any = None
    steps: int = 0
    profiled: int = 0


class Cost:
    """Measures what profiling costs and decides of how many batches one can be profiled for it.

    Where the share is above what is asked for, the factor becomes two or four times as large; where it would stay
    clearly below it all the same, half as large. After a change, `FEWEST` more batches are measured first.

    Args:
        most: The share of training time that may go into profiling.
        least: Of how many batches one is profiled with a factor of 1.

    Attributes:
        most: The same.
        factor: How many times as many batches are to be left out: a power of two.
    """

    def __init__(self, most: float, least: int = 1) -> None:
        self.most, self.factor, self._least = most, 1, least
        self._clock: Clock | None = None
        self._open: _Step | None = None
        self._waiting: deque[_Step] = deque(maxlen=WINDOW)
        self._costs: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self._plain: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self._unmeasured, self._since = WARM_UP, 0

    def pause(self) -> None:
        """The batch that comes does not follow the last one."""
        self._open = None

    def begins(self, clock: Callable[[], Clock] | None, *, profiled: bool) -> None:
        """A training batch begins.

        Args:
            clock: Makes the clock, the first time.
            profiled: Whether it is profiled; then it is measured.
        """
        if self._clock is None:
            self._clock = HostClock() if clock is None else clock()
        if self._open is not None:
            self._open.steps += 1
            self._open.profiled += profiled and self._clock.runs_ahead
        if not self._clock.runs_ahead and (profiled or self._open is not None):
            self._turn(self._clock.mark())
            self._open = self._open if profiled else None
        self._read()

    def _turn(self, now: Any) -> None:
        """What was open ends now, and another begins."""
        if self._open is not None:
            self._open.end = now
            self._waiting.append(self._open)
        assert self._clock is not None
        self._open = _Step(now, profiled=int(not self._clock.runs_ahead))

    @contextmanager
    def spending(self) -> Iterator[None]:
        """What is done in the block is profiling."""
        clock = self._clock
        if clock is None or (self._open is None and not clock.runs_ahead):
            yield
            return
        first = clock.mark()
        if clock.runs_ahead and (self._open is None or self._open.steps):
            self._turn(first)  # by now the batch was computed, whose values are measured
        step = self._open
        assert step is not None
        try:
            yield
        finally:
            step.spans.append((first, clock.mark()))

    @property
    def share(self) -> float | None:
        """The share of training time that profiling takes with this factor; None while that is not known."""
        return self._share_with(self.factor) if self._costs else None

    @property
    def is_above(self) -> bool:
        """Whether it is more than what was asked for, and cannot be less."""
        return self.factor >= MOST and self.share is not None and self.share > self.most

    def _share_with(self, factor: int) -> float:
        costs = sorted(self._costs)
        costs = costs[:-1] if len(costs) >= ENOUGH else costs
        cost = sum(seconds for seconds, _ in costs) / max(sum(profiled for _, profiled in costs), 1)
        spent = self._least * factor * self._plain_step() + cost
        return cost / spent if spent > 0 else 0.0

    def _plain_step(self) -> float:
        """How long a step takes without profiling. Of single steps the median, as a validation pass may come between
        two; on a host that runs ahead only sums are true."""
        if self._clock is not None and self._clock.runs_ahead:
            return sum(seconds for seconds, _ in self._plain) / sum(steps for _, steps in self._plain)
        return median(seconds / steps for seconds, steps in self._plain)

    def _read(self) -> None:
        """Take in what has been measured by now."""
        assert self._clock is not None
        while self._waiting:
            step = self._waiting[0]
            total = self._clock.between(step.begin, step.end)
            if total is None:
                return
            spans = [self._clock.between(*span) for span in step.spans]
            self._waiting.popleft()
            cost = sum(seconds or 0.0 for seconds in spans)
            self._add(step, cost, max(total - cost, 0.0))

    def _add(self, step: _Step, cost: float, plain: float) -> None:
        if self._unmeasured:
            self._unmeasured -= 1
            return
        self._costs.append((cost, step.profiled))
        self._plain.append((plain, step.steps))
        self._since += 1
        if self._since >= FEWEST:
            self._decide()

    def _decide(self) -> None:
        factor = self.factor
        if self._share_with(factor) > self.most:
            enough = (larger for larger in (2 * factor, 4 * factor) if self._share_with(larger) <= self.most)
            self.factor = min(next(enough, 4 * factor), MOST)
        elif factor > 1 and self._share_with(factor // 2) <= MARGIN * self.most:
            self.factor = factor // 2
        self._since = 0 if factor != self.factor else self._since
