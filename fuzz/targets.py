"""What must hold of every input: it is refused with an error of this package, or it is as good as one made here.

Each target has two steps. `admitted` is Python's alone: it reads what it can without DataSketches and raises a
`LensAIError` for what is refused. `holds` hands what was admitted to DataSketches, merges it, asks it, writes it and
reads it again; it runs in a child, which damaged memory may end.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random
from typing import NamedTuple

import archives
import numpy as np
import sketch_bytes
from datasketches import kll_floats_sketch

from lensai_integrations import Baseline, Profile
from lensai_integrations.edge.uploads import merged, read_upload, rows_of
from lensai_integrations.errors import FormatError, LensAIError
from lensai_integrations.profiles.profile import from_bytes, to_bytes
from lensai_integrations.sketches import wire
from lensai_integrations.sketches.categories import Categories
from lensai_integrations.sketches.state import LARGEST_COUNT, State
from lensai_integrations.sketches.wire import check_distinct, check_frequent


class Target(NamedTuple):
    """A kind of input.

    Attributes:
        seeds: Good inputs.
        mutated: An input with something wrong.
        admitted: Raises `LensAIError` if it is refused.
        holds: Raises anything if it is not as good as one made here.
    """

    seeds: Callable[[], list[bytes]]
    mutated: Callable[[bytes, Random], bytes]
    admitted: Callable[[bytes], object]
    holds: Callable[[bytes], object]


def _made(make: Callable[[Random], bytes]) -> Callable[[], list[bytes]]:
    return cache(lambda: [make(Random(seed)) for seed in range(40)])


def _or_made(make: Callable[[Random], bytes], mutated: Callable[[bytes, Random], bytes]) -> Callable[..., bytes]:
    """Mutants of what was found before, and of what is made up anew, and some of that as it is."""

    def changed(data: bytes, rng: Random) -> bytes:
        chance = rng.random()
        data = make(rng) if chance < 0.4 else data
        return data if chance < 0.2 else mutated(data, rng)

    return changed


def _rows(data: bytes) -> int:
    n = int.from_bytes(data[: sketch_bytes.ROWS], "little")
    if len(data) < sketch_bytes.ROWS or n > LARGEST_COUNT:
        raise FormatError(f"n is {n}")
    return n


def _distinct_state(data: bytes) -> State:
    """With rows of which DataSketches has kept no name."""
    frequent = bytes.fromhex("01 01 0a 0c 03 05 00 00")
    return _state(frequent, data[sketch_bytes.ROWS :], 4096, _rows(data))


def _frequent_state(data: bytes) -> State:
    """With a distinct count of one, or of none."""
    blob, n = data[sketch_bytes.ROWS :], _rows(data)
    one = bytes.fromhex("02 01 07 0c 03 08 01 08 c7 84 9e 14") if n else bytes.fromhex("02 01 07 0c 03 0c 00 08")
    return _state(blob, one, 1 << max(3, min(blob[3], 16)), n)


def _state(frequent: bytes, distinct: bytes, size: int, n: int) -> State:
    arrays = {"frequent": np.frombuffer(frequent, np.uint8), "distinct": np.frombuffer(distinct, np.uint8)}
    return {**arrays, "max_map_size": np.array(size, np.int64), "n": np.array(n, np.int64)}


def _admit_frequent(data: bytes) -> None:
    n = _rows(data)
    if len(data) < sketch_bytes.ROWS + 4:
        raise FormatError("too short to say the size of its map")
    check_frequent(data[sketch_bytes.ROWS :], max(3, min(data[sketch_bytes.ROWS + 3], 16)), n)


@cache
def _others(size: int) -> list[State]:
    """Categories that are empty, a list, a set and registers; the last fill a small map more than once."""
    found = []
    for kinds in (0, 3, 100, 500):
        each = Categories(size)
        each.update(np.arange(kinds))
        found.append(each.state())
    return found


def categories_hold(state: State) -> None:
    """State, sketch and state are one; and it merges with another in both directions, again and again."""
    sketch = Categories.from_state(state)
    made = sketch.state()
    again = Categories.from_state(made).state()
    for key, array in made.items():
        assert np.array_equal(array, again[key]), key
        assert np.array_equal(np.sort(array, axis=None), np.sort(state[key], axis=None)), key
    other = Random(made["frequent"].tobytes() + made["distinct"].tobytes()).choice(_others(sketch.max_map_size))
    for one, two in ((state, other), (other, state)):
        _merges(Categories.from_state(one), Categories.from_state(two))


def _merges(whole: Categories, other: Categories) -> None:
    for _ in range(3):
        n = whole.n + other.n
        try:
            whole.merge(other)
        except LensAIError:  # too many rows
            return
        assert whole.n == n
        assert 0 <= whole.distinct <= whole.n
        assert whole.error >= 0
        assert len(whole.top(3)) <= 3
        whole = Categories.from_state(whole.state())
    if whole.n < LARGEST_COUNT - 3:
        whole.update(["more", "more", "most"])
    assert Categories.from_state(whole.state()).n == whole.n


@cache
def _sketches() -> list[bytes]:
    rng, found = np.random.default_rng(0), []
    for k in (8, 200, 65535):
        for n in (0, 1, 2, 9, 300, 5000):
            sketch = kll_floats_sketch(k)
            if n:
                sketch.update(rng.standard_normal(n).astype(np.float32))
            found.append(sketch.serialize())
    return found


def quantiles_hold(data: bytes) -> None:
    """DataSketches reads it, answers from it, writes it and merges it in both directions."""
    n = wire.read(data).n
    sketch = kll_floats_sketch.deserialize(data)
    assert sketch.n == n
    assert wire.read(sketch.serialize()).n == n
    if n:
        sketch.get_quantiles([0.0, 0.3, 1.0])
        sketch.get_pmf([-1.0, 0.0, 1.0])
    for other in Random(data).sample(_sketches(), 4):
        for one, two in ((data, other), (other, data)):
            _merges_quantiles(one, two)


def _merges_quantiles(one: bytes, two: bytes) -> None:
    whole, other = kll_floats_sketch.deserialize(one), kll_floats_sketch.deserialize(two)
    for _ in range(3):
        n = whole.n + other.n
        if n >= 2**61:
            return
        whole.merge(other)
        assert whole.n == n
        assert wire.read(whole.serialize()).n == n
    whole.update(np.arange(300, dtype=np.float32))
    assert wire.read(whole.serialize()).n == n + 300
    whole.get_quantile(0.5)


def profile_holds(data: bytes) -> None:
    """What was read is written and read the same, merges with itself, and says what is in it."""
    try:
        found = from_bytes(data)
    except LensAIError:
        return
    blob = to_bytes(found)
    assert to_bytes(from_bytes(blob)) == blob
    profile = found.reference if isinstance(found, Baseline) else found
    profile.summaries()
    try:
        both = to_bytes(Profile.merge(profile, profile))
        assert to_bytes(from_bytes(both)) == both
    except LensAIError:  # a file may say so large a count that two of them are too many
        return


def upload_holds(data: bytes) -> None:
    """What was read can be merged, and counted."""
    sketches = read_upload(data).sketches
    rows = rows_of(sketches)
    assert rows_of(merged([sketches, sketches, sketches])) == 3 * rows


TARGETS = {
    "distinct": Target(
        _made(sketch_bytes.distinct),
        _or_made(sketch_bytes.distinct, sketch_bytes.mutated_distinct),
        lambda data: check_distinct(data[sketch_bytes.ROWS :], _rows(data)),
        lambda data: categories_hold(_distinct_state(data)),
    ),
    "frequent": Target(
        _made(sketch_bytes.frequent),
        _or_made(sketch_bytes.frequent, sketch_bytes.mutated_frequent),
        _admit_frequent,
        lambda data: categories_hold(_frequent_state(data)),
    ),
    "quantiles": Target(
        _made(sketch_bytes.quantiles),
        _or_made(sketch_bytes.quantiles, sketch_bytes.mutated_quantiles),
        wire.read,
        quantiles_hold,
    ),
    # These hold distinct counts and are not read before the child does it.
    "profile": Target(archives.profiles, archives.mutated_profile, lambda data: None, profile_holds),
    "upload": Target(archives.uploads, archives.mutated_upload, read_upload, upload_holds),
}
