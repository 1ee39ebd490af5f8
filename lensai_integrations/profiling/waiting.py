"""What was measured of batches and waits to be sketched: batches that are alike are taken together.

On an accelerator every operation costs the host the same time, whatever it is done to, and a sketch has dozens of them
for a batch. So what was measured there, a few numbers per row, waits until there are some hundred rows, and each sketch
takes these at once. Outputs wait as the model gave them, and are measured when they are taken. What JAX or TensorFlow
have measured on an accelerator has to come to the host before it is taken, and is given the time of further batches to
do so.

How rows wait decides nothing of what is made of them: they are taken in the order in which they came.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from lensai_integrations.profiling.measuring import Measured, Rows, joined_values

if TYPE_CHECKING:
    from lensai_integrations.profiling.recorders import Recorder

#: Rows from which on all that wait are taken.
ENOUGH_ROWS: Final = 1024
#: Bytes of batches that were not measured yet from which on they are: of a thousand rows of 30,000 numbers in half.
ENOUGH_BYTES: Final = 64 << 20
#: Batches on their way to the host that wait at the most. When there are more, all but the newest are taken: one wait,
#: if any, for so many of them, since TensorFlow's copies wait for whatever the device was asked to do before.
MOST_IN_FLIGHT: Final = 8

#: What batches that can be taken together have in common.
Kind: TypeAlias = Hashable


@dataclass(frozen=True)
class LookedGroup:
    """What was measured of a batch for one group.

    Attributes:
        recorder: Of the group.
        measured: By it.
    """

    recorder: Recorder
    measured: Measured


@dataclass(frozen=True)
class Looked:
    """What `Profiler.look` has measured of a batch of images, for the `update` that counts it. Of the pixels themselves
    nothing is kept. It is as long as the batch.

    Attributes:
        groups: By name; of those that could not be measured, why.
        begun: What the rows are of: the profiler as it was since it last began anew.
    """

    groups: Mapping[str, LookedGroup | Exception]
    begun: object

    def __len__(self) -> int:
        sizes = (group.measured.n for group in self.groups.values() if isinstance(group, LookedGroup))
        return max(sizes, default=0)


@dataclass(frozen=True)
class Batch:
    """One batch that waits.

    Attributes:
        measured: What waits of it, by group.
        joint: The rows of all its groups, for the joint sample.
    """

    measured: Mapping[str, Measured]
    joint: Rows

    @property
    def kind(self) -> Kind:
        """What it has in common with batches that it can be taken together with."""
        joint = tuple(self.joint), *(rows.shape[1:] for rows in self.joint.values() if isinstance(rows, np.ndarray))
        return joint, tuple((name, measured.kind) for name, measured in self.measured.items())

    @property
    def rows(self) -> int:
        """Rows of the group that has most."""
        return max(measured.n for measured in self.measured.values())

    @property
    def nbytes(self) -> int:
        """Bytes of what was not measured yet."""
        return sum(measured.nbytes for measured in self.measured.values())

    @property
    def is_in_flight(self) -> bool:
        """Whether some of it has to come to the host."""
        return any(measured.in_flight for measured in self.measured.values())


class Waiting:
    """Batches that wait, oldest first.

    Example:
        >>> waiting = Waiting()
        >>> for _ in range(2):
        ...     rows = np.zeros((600, 2), np.float32)
        ...     waiting.add(Batch({"outputs": Measured({"outputs": rows})}, {"outputs": rows}))
        >>> waiting.due, len(waiting.next(waiting.due)), waiting.due
        (2, 2, 0)
    """

    def __init__(self) -> None:
        self._batches: list[tuple[Kind, Batch]] = []
        self._rows = self._bytes = 0
        self._in_flight = False

    def __len__(self) -> int:
        return len(self._batches)

    def has(self, group: str) -> bool:
        """Whether rows of a group are among them."""
        return any(group in batch.measured for _, batch in self._batches)

    def add(self, batch: Batch) -> None:
        """One more. It must not lie in memory that is used again."""
        self._batches.append((batch.kind, batch))
        self._rows += batch.rows
        self._bytes += batch.nbytes
        self._in_flight = self._in_flight or batch.is_in_flight

    @property
    def groups(self) -> Collection[str]:
        """Of which the oldest one has rows."""
        return self._batches[0][1].measured.keys() if self._batches else ()

    @property
    def due(self) -> int:
        """How many of them are to be taken now."""
        n = len(self._batches)
        if self._in_flight:
            return n - 1 if n > MOST_IN_FLIGHT else 0
        return n if self._rows >= ENOUGH_ROWS or self._bytes >= ENOUGH_BYTES else 0

    def next(self, most: int) -> list[Batch]:
        """The oldest ones that are alike, which no longer wait.

        Args:
            most: How many at the most.
        """
        n, most = 0, min(most, len(self._batches))
        while n < most and self._batches[n][0] == self._batches[0][0]:
            n += 1
        run, self._batches = [batch for _, batch in self._batches[:n]], self._batches[n:]
        self._rows -= sum(batch.rows for batch in run)
        self._bytes -= sum(batch.nbytes for batch in run)
        self._in_flight = self._in_flight and bool(self._batches)
        return run


def joint_rows(run: list[Batch], taken: Mapping[str, Rows]) -> Rows:
    """The rows of all groups of batches that were taken together, for the joint sample.

    Args:
        run: The batches.
        taken: By group, the rows that its sketches took; none of a group that could not take them.
    """
    owners = {key: name for name, measured in run[0].measured.items() for key in measured.rows}
    rows: dict[str, Any] = {}
    for key in run[0].joint:
        if key not in owners:
            rows[key] = joined_values([batch.joint[key] for batch in run])
        elif key in taken[owners[key]]:
            rows[key] = taken[owners[key]][key]
    return rows
