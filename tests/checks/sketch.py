"""What every sketch has to do, as one suite: `check_sketch(lambda: Extremes(WIDTH))` in a test of your own sketch.

    from checks.sketch import WIDTH, check_sketch

    def test_it_is_a_sketch():
        check_sketch(lambda: Extremes(WIDTH))

`CHECKS` has the single checks by name, to be run one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from libraries import LIBRARIES, maker
from numpy.typing import NDArray

from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.sketches.state import Sketch, State
from lensai_integrations.storage.npz import pack, unpack

#: Columns of the rows that sketches are given here, and channels of the pixels.
WIDTH = 5
#: Around what sketches do at once: the first rows of kernel means, blocks of moments and of banks.
SIZES = (0, 1, 15, 16, 255, 512, 5000)

Make = Callable[[], Sketch]


def values_for(sketch: Sketch, n: int, seed: int = 0) -> NDArray[Any]:
    """What a sketch takes, of n images."""
    rng = np.random.default_rng(seed)
    if sketch.takes == "pixels":
        return rng.integers(0, 256, (n, WIDTH, 3, 4), dtype=np.uint8)
    if sketch.takes == "categories":
        return rng.geometric(0.2, n)
    return (rng.normal(size=(n, WIDTH)) * 3 + 1).astype(np.float32)


def spoiled(sketch: Sketch, n: int, seed: int = 0) -> NDArray[Any]:
    """The same with every seventh row not finite, where there are such."""
    values = values_for(sketch, n, seed)
    if values.dtype.kind == "f":
        values[::7, 0] = np.nan
    return values


def seen(make: Make, *batches: NDArray[Any]) -> Any:
    """A new sketch that has seen some batches."""
    sketch = make()
    for batch in batches:
        sketch.update(batch)
    return sketch


def streams_of(sketch: Sketch) -> list[str]:
    """Names for its columns."""
    return [f"stream {column}" for column in range(getattr(sketch, "dim", WIDTH))]


def facts(sketch: Sketch) -> Any:
    """What is told of a sketch, which merging must get right: how many, and the ends of each stream."""
    told = sketch.summary(streams_of(sketch))
    kept = ("n", "invalid", "min", "max", "distinct", "top")
    return sketch.n, {
        stream: {key: repr(each[key]) for key in kept if key in each}  # NaN is NaN
        for stream, each in told.items()
    }


def assert_same(one: Sketch, other: Sketch, *, exactly: bool = True) -> None:
    """Two sketches have one state; or, of floating-point numbers, nearly."""
    mine, theirs = one.state(), other.state()
    assert {name: (a.dtype, a.shape) for name, a in mine.items()} == {
        name: (a.dtype, a.shape) for name, a in theirs.items()
    }
    for name, array in mine.items():
        if exactly or array.dtype.kind != "f":
            np.testing.assert_array_equal(array, theirs[name], err_msg=name)
        else:
            np.testing.assert_allclose(array, theirs[name], rtol=1e-5, atol=1e-5, err_msg=name)


def in_parts_as_at_once(make: Make) -> None:
    """How rows are cut into batches makes no difference."""
    for n in SIZES:
        values = values_for(make(), n)
        parts = np.array_split(values, sorted((min(n, 3), n // 3, n // 2)))
        assert_same(seen(make, values), seen(make, *parts), exactly=False)


def a_batch_may_be_overwritten(make: Make) -> None:
    """The caller may use the memory of a batch again."""
    values = values_for(make(), 40)
    sketch, expected = seen(make, values), seen(make, values.copy())
    values[...] = 0
    assert_same(sketch, expected)


def empty_is_neutral(make: Make) -> None:
    """An empty one has no rows, can be told and stored, and adds nothing to another."""
    empty = make()
    assert facts(empty)[0] == 0
    assert_same(empty.copied(), empty)
    for n in SIZES:
        sketch = seen(make, values_for(make(), n))
        fresh = sketch.empty()
        assert (type(fresh), fresh.n, getattr(fresh, "rows_seen", 0)) == (type(sketch), 0, 0)
        for one, other in ((sketch.copied(), fresh), (fresh, sketch)):
            one.merge(other)
            assert facts(one) == facts(sketch)


def merging_is_seeing_together(make: Make) -> None:
    """Merging is associative and commutative in counts and ends, and leaves the other as it is."""
    for sizes in ((0, 7, 30), (15, 16, 513), (1300, 20, 600)):
        batches = [values_for(make(), n, seed) for seed, n in enumerate(sizes)]
        a, b, c = (seen(make, batch) for batch in batches)
        whole, before = facts(seen(make, *batches)), c.state()
        first, last, turned = a.copied(), b.copied(), c.copied()
        first.merge(b)
        first.merge(c)
        last.merge(c)
        one = a.copied()
        one.merge(last)
        turned.merge(b)
        turned.merge(a)
        assert facts(first) == facts(one) == facts(turned) == whole
        assert_states(c.state(), before)
        first.update(batches[2])
        assert_states(c.state(), before)


def merging_with_itself(make: Make) -> None:
    """A sketch may be merged with itself: every row counts twice."""
    sketch = seen(make, values_for(make(), 600))
    sketch.merge(sketch)
    assert sketch.n == seen(make, *[values_for(make(), 600)] * 2).n


def assert_states(one: State, other: State) -> None:
    """Two states are the same to the byte."""
    assert list(one) == list(other)
    for name, array in one.items():
        assert (array.dtype, array.shape, array.tobytes()) == (
            other[name].dtype,
            other[name].shape,
            other[name].tobytes(),
        ), name


def stored_and_read_it_goes_on(make: Make) -> None:
    """A state is plain arrays with the same names whatever was seen; what is read from a file or copied goes on alike.

    It shares no memory with the sketch.
    """
    names = set(make().state())
    for n in SIZES:
        sketch = seen(make, spoiled(make(), n))
        state = sketch.state()
        assert set(state) == names
        assert all(type(array) is np.ndarray and array.dtype.kind in "iuf" for array in state.values())
        read, copied = type(sketch).from_state(unpack(pack(state), "a state")), sketch.copied()
        assert_states(read.state(), state)
        assert_states(copied.state(), state)
        read.update(values_for(sketch, 40, seed=1))
        assert_states(sketch.state(), state)
        for each in (sketch, copied):
            each.update(values_for(sketch, 40, seed=1))
            assert_states(read.state(), each.state())
        before = {name: array.copy() for name, array in sketch.state().items()}
        for array in sketch.state().values():
            if array.flags.writeable:
                array[...] = 0
        assert_states(sketch.state(), before)


def hostile_states_are_refused(make: Make) -> None:
    """What lacks an array or has one of another kind or shape raises our error; other numbers raise it, or give a
    sketch that can be told, stored and merged."""
    for n in (0, 10, 600):
        state = seen(make, values_for(make(), n)).state()
        kind = type(make())
        for broken in ({}, None, *({k: a for k, a in state.items() if k != name} for name in state)):
            with pytest.raises(FormatError):
                kind.from_state(broken)  # type: ignore[arg-type]
        for name, array in state.items():
            for other in (array.astype(np.complex64), array[None], array.tolist(), None):
                with pytest.raises(FormatError):
                    kind.from_state({**state, name: other})
            for other in _otherwise(array):
                _refused_or_sound(make, {**state, name: other})


def _otherwise(array: NDArray[Any]) -> list[NDArray[Any]]:
    """The array with other numbers, and with fewer or more of them."""
    least, most = (np.iinfo if array.dtype.kind in "iu" else np.finfo)(array.dtype).min, 2**62
    numbers = [0, 1, 2, 255, least, most if array.dtype.itemsize == 8 else 127]
    numbers += [np.nan, np.inf] if array.dtype.kind == "f" else []
    others = [np.full_like(array, number) for number in numbers if _fits(number, array.dtype)]
    if array.ndim:
        others += [array[:-1], np.concatenate([array, array[:1]]), array[::-1].copy()]
        for place in {0, array.size // 2, array.size - 1} if array.size else ():
            changed = array.copy()
            changed.flat[place] = changed.flat[place] + np.asarray(1, array.dtype)
            others.append(changed)
    return others


def _fits(number: float, dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" or np.iinfo(dtype).min <= number <= np.iinfo(dtype).max


def _refused_or_sound(make: Make, state: Mapping[str, Any]) -> None:
    try:
        sketch = type(make()).from_state(state)
    except FormatError:
        return
    facts(sketch)
    sketch.compared(sketch, streams_of(sketch))
    sketch.copied()
    sketch.empty().merge(sketch)


def rows_not_finite_are_left_out(make: Make) -> None:
    """A row with a number that is not finite is counted as invalid, and else as if it had not been there."""
    if make().takes not in ("rows", "vectors"):
        return
    rows = values_for(make(), 700)
    more = np.insert(rows, [0, 255, 256, 600], rows[:4], axis=0)
    for place, number in zip((0, 256, 258, 603), (np.nan, np.inf, -np.inf, np.nan), strict=True):
        more[place, place % WIDTH] = number
    sketch, clean = seen(make, more), seen(make, rows)
    assert (sketch.n, sketch.rows_seen, sketch.invalid) == (700, 704, 4)
    told, expected = facts(sketch)[1], facts(clean)[1]
    assert {each.pop("invalid") for each in told.values() if "invalid" in each} <= {"4"}
    assert {each.pop("invalid") for each in expected.values() if "invalid" in each} <= {"0"}
    assert told == expected
    nothing = seen(make, np.full((40, WIDTH), np.nan, np.float32))
    assert (facts(nothing)[0], nothing.rows_seen) == (0, 40)


def every_library_gives_the_same(make: Make) -> None:
    """Arrays of torch, JAX and TensorFlow in host memory make the same sketch as numpy's."""
    batches = [values_for(make(), n, seed) for seed, n in enumerate((10, 300, 600))]
    expected = seen(make, *batches)
    for library in LIBRARIES:
        assert_same(seen(make, *map(maker(library), batches)), expected, exactly=False)


def an_accelerator_is_never_waited_for(make: Make) -> None:
    """Batches on an accelerator are taken in without waiting for it, and host batches after them are sent there."""
    torch = pytest.importorskip("torch")
    from checks.accelerator import an_accelerator

    dtypes = {"pixels": [torch.uint8], "categories": [torch.int64, torch.int32]}
    sketch = make()
    with an_accelerator() as tensor:
        for dtype in dtypes.get(sketch.takes, [torch.float32, torch.float16, torch.bfloat16, torch.float64]):
            for n in (5, 5, 300, 600, 3):
                sketch.update(tensor((n, *values_for(sketch, 1).shape[1:]), dtype))
        sketch.update(values_for(sketch, 3))
    if hasattr(sketch, "rows_seen"):
        batches = len(dtypes.get(sketch.takes, range(4)))
        assert sketch.rows_seen == batches * 913 + 3


def other_shapes_are_refused_before_anything_is_counted(make: Make) -> None:
    """Rows of another width raise our error, and leave the sketch as it was."""
    if make().takes == "categories":
        return
    sketch = seen(make, values_for(make(), 20))
    before = sketch.state()
    for shape in ((3, WIDTH + 1), (WIDTH + 1,), (2, WIDTH + 1, 2)):
        with pytest.raises(InputError):
            sketch.update(np.zeros(shape, values_for(sketch, 1).dtype))
    assert_states(sketch.state(), before)


#: The single checks by name.
CHECKS: dict[str, Callable[[Make], None]] = {
    check.__name__: check
    for check in (
        in_parts_as_at_once,
        a_batch_may_be_overwritten,
        empty_is_neutral,
        merging_is_seeing_together,
        merging_with_itself,
        stored_and_read_it_goes_on,
        hostile_states_are_refused,
        rows_not_finite_are_left_out,
        every_library_gives_the_same,
        an_accelerator_is_never_waited_for,
        other_shapes_are_refused_before_anything_is_counted,
    )
}


def check_sketch(make: Make) -> None:
    """Hold a sketch against all that profiles rely on.

    Args:
        make: Makes an empty one for rows of `WIDTH` columns, or pixels of so many channels; always with the same seed.

    Raises:
        AssertionError: Where it does not hold.
    """
    for check in CHECKS.values():
        check(make)
