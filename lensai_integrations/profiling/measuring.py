"""From a batch to what its sketches take: the measuring half of each recorder, free of state.

The functions here are made once for each way of measuring and kept in the process, so that JAX and TensorFlow trace
them, and wide embeddings draw their projection, once, and not again in every epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from typing import Any, Final, TypeAlias, cast

import numpy as np

from lensai_integrations.arrays.namespaces import (
    Array,
    Compiled,
    is_array,
    is_immutable,
    joined,
    local,
    namespace,
    shape_of,
    start_copy,
    strings,
    to_host,
)
from lensai_integrations.errors import InputError
from lensai_integrations.measures.batches import Key, find_images
from lensai_integrations.measures.embeddings import REDUCTIONS, RandomProjection, Reduce, reduce_embedding
from lensai_integrations.measures.images import in_order_of, measure_by_conventions
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.measures.layouts import Found, by_shape, in_order
from lensai_integrations.measures.meaning import label_rows
from lensai_integrations.measures.outputs import NO_CLASS, ON, SUM_TOLERANCE, Kind, flattened, measure_outputs
from lensai_integrations.problems import Failures
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.profile import Profile

#: Rows of one batch by name, for the joint sample.
Rows: TypeAlias = dict[str, Array]


#: What else was measured that is one number or table of a batch, and adds up.
_ADDED: Final = ("counts", "counted")


@dataclass(frozen=True)
class Measured:
    """What was measured of one batch of one group, or of several together.

    Attributes:
        rows: For the joint sample, by name.
        rest: What else the sketches take, by source (see `builder`): pixel `counts` of `counted` images; `rows` that
            are in no joint sample; `categories/<stream>`. And which rows are `odd`.
        views: Names and sources of what may lie in the memory of what was given, which the caller may use again.
        later: Where it was not measured yet, what measures it: all of `rows` are the batch itself.

    Example:
        >>> import numpy as np
        >>> Measured({"labels": np.zeros((3, 1), np.float32)}).in_flight
        False
    """

    rows: Rows
    rest: dict[str, Any] = field(default_factory=dict)
    views: tuple[str, ...] = ()
    later: Callable[[Any], Measured] | None = None

    def parts(self, group: str) -> dict[str, Any]:
        """What the group's sketches take, by source.

        Example:
            >>> import numpy as np
            >>> list(Measured({"outputs": np.zeros((3, 1))}, {"categories/top_class": np.arange(3)}).parts("outputs"))
            ['categories/top_class', 'rows', 'vectors']
        """
        parts = dict(self.rest)
        rows = self.rows.get(group, parts.get("rows"))
        if rows is not None:
            parts |= {"rows": rows, "vectors": rows}
        if "counts" in parts:
            parts["pixels"] = parts["counts"], parts["counted"] if "counted" in parts else len(self.rows[group])
        return parts

    @cached_property
    def n(self) -> int:
        """Rows of what has most of them.

        Example:
            >>> import numpy as np
            >>> Measured({"labels": np.zeros((3, 1), np.float32)}).n
            3
        """
        rest = (value for source, value in self.rest.items() if source not in _ADDED)
        return max((len(value) for value in (*self.rows.values(), *rest)), default=0)

    @cached_property
    def kind(self) -> Hashable:
        """What of several batches has to be the same for them to be put together: what there is, and of which form."""
        return self.later, *(_form(name, value) for of in (self.rows, self.rest) for name, value in of.items())

    @property
    def nbytes(self) -> int:
        """Bytes of memory that a batch holds which was not measured yet; 0 of one that was, which is small.

        Example:
            >>> import numpy as np
            >>> Measured({"outputs": np.zeros((3, 1))}, later=Measured).nbytes
            24
        """
        return 0 if self.later is None else int(self._batch.nbytes)

    @property
    def _batch(self) -> Any:
        """What is measured later."""
        return next(iter(self.rows.values()))

    @cached_property
    def on_host(self) -> bool:
        """Whether all of it lies in host memory."""
        return all(isinstance(value, np.ndarray | list | int) for value in (*self.rows.values(), *self.rest.values()))

    @cached_property
    def in_flight(self) -> bool:
        """Whether it is still on an accelerator of JAX or TensorFlow, and to come to the host before it is taken."""
        return any(map(is_immutable, (*self.rows.values(), *self.rest.values())))

    def kept(self) -> Measured:
        """The same, on its way to the host if it has to come there, and in no memory that the caller uses again."""
        if self.in_flight:
            return replace(self._each(start_copy), views=())
        if not self.views:
            return self
        if self.later is not None:
            return replace(self, rows=dict.fromkeys(self.rows, owned(self._batch)), views=())
        rows, rest = (
            {name: owned(value) if name in self.views else value for name, value in of.items()}
            for of in (self.rows, self.rest)
        )
        return Measured(rows, rest)

    def landed(self) -> Measured:
        """The same in host memory; waits for what is not there yet."""
        return self._each(lambda value: to_host(value) if is_immutable(value) else value) if self.in_flight else self

    def measured(self) -> Measured:
        """The same, measured if it was not yet.

        Example:
            >>> import numpy as np
            >>> batch = Measured({"outputs": np.ones((3, 1))}, later=lambda array: Measured({"outputs": 2 * array}))
            >>> batch.measured().rows["outputs"].tolist()
            [[2.0], [2.0], [2.0]]
        """
        return self if self.later is None else self.later(self._batch)

    def _each(self, function: Callable[[Any], Any]) -> Measured:
        rows = {name: function(value) for name, value in self.rows.items()}
        return replace(self, rows=rows, rest={name: function(value) for name, value in self.rest.items()})

    @classmethod
    def together(cls, batches: Sequence[Measured]) -> Measured:
        """Several batches of one `kind` as one.

        Example:
            >>> import numpy as np
            >>> one = Measured({"labels": np.zeros((3, 1), np.float32)}, {"odd": np.zeros(3, bool)})
            >>> Measured.together([one, one]).n
            6
        """
        first = batches[0]
        if len(batches) == 1:
            return first
        if first.later is not None:
            batch = joined_values([batch._batch for batch in batches])
            return cls(dict.fromkeys(first.rows, batch), later=first.later)
        rows = {name: joined_values([batch.rows[name] for batch in batches]) for name in first.rows}
        rest = {
            source: (_added if source in _ADDED else joined_values)([batch.rest[source] for batch in batches])
            for source in first.rest
        }
        return cls(rows, rest)


def joined_values(values: Sequence[Any]) -> Any:
    """Values per row of several batches, one behind the other: arrays of one form, or lists.

    Example:
        >>> import numpy as np
        >>> joined_values([np.zeros(1), np.ones(2)]).tolist(), joined_values([["cat"], ["dog"]])
        ([0.0, 1.0, 1.0], ['cat', 'dog'])
    """
    if isinstance(values[0], list):
        return [value for batch_values in values for value in batch_values]
    if isinstance(values[0], np.ndarray):
        return np.concatenate(values)
    return joined(list(values))


def _added(values: Sequence[Any]) -> Any:
    if isinstance(values[0], int):
        return sum(values)
    xp = namespace(values[0])
    return xp.sum(xp.stack(list(values)), axis=0, dtype=xp.int64)


def _form(name: str, value: Any) -> Hashable:
    if isinstance(value, list | int):
        return name, type(value)
    return name, value.dtype, tuple(value.shape[1:]), getattr(value, "device", None)


def owned(values: Any) -> Any:
    """The values in memory of their own.

    Example:
        >>> import numpy as np
        >>> labels = np.arange(3)
        >>> owned(labels) is labels
        False
    """
    if isinstance(values, list) or is_immutable(values):
        return values
    return namespace(values).asarray(values, copy=True)


class ImageMeasurer:
    """Measures arrays of images by one or several conventions; each array is read once.

    Args:
        reader: How images are read, with nothing left to be decided.
        conventions: What is measured.

    Attributes:
        errors: By convention, what failed in it last, which tracing does only once; it left the others as they are.
    """

    def __init__(self, reader: ImageInputs, conventions: tuple[str, ...]) -> None:
        self._reader, self._conventions = reader, conventions
        self._compiled = Compiled(self._measured)
        self.errors = Failures()

    def __reduce__(self) -> Any:
        return image_measurer, (self._reader, *self._conventions)

    def __call__(self, array: Array) -> dict[str, dict[str, Any]]:
        """By convention, `rows` and how often each value occurs in each channel, `counts` `[C, 256]`.

        `counted` are the images whose pixels these are, where that may be fewer; on an accelerator whole `[]` there.
        """
        measured: dict[str, dict[str, Any]] = self._compiled(array)
        return measured

    def _measured(self, array: Array) -> dict[str, dict[str, Any]]:
        rows, failed, counts, n = measure_by_conventions(self._reader.read(array), self._conventions)
        for name, error in failed.items():
            self.errors[name] = error
        counted = {} if n is None else {"counted": n}
        return {
            name: {"rows": rows_of_convention, "counts": in_order_of(name, counts, axis=0), **counted}
            for name, rows_of_convention in rows.items()
        }


@lru_cache(maxsize=16)
def image_measurer(reader: ImageInputs, *conventions: str) -> ImageMeasurer:
    """The measurer of these conventions, made once in a process.

    Example:
        >>> import numpy as np
        >>> measure = image_measurer(ImageInputs(layout="NHW", scale=1), "lensai")
        >>> {convention: list(found) for convention, found in measure(np.zeros((2, 8, 8), np.uint8)).items()}
        {'lensai': ['rows', 'counts', 'counted']}
    """
    return ImageMeasurer(reader, conventions)


class ImageBatch:
    """A batch that several groups are made of: whichever comes first measures it, for all of them.

    Args:
        batch: What `ImageInputs` can read.

    Example:
        >>> import numpy as np
        >>> batch, measure = ImageBatch(np.zeros((2, 8, 8), np.uint8)), image_measurer(ImageInputs("NHW", 1), "lensai")
        >>> batch.measured(measure, "lensai")["rows"].shape
        (2, 13)
    """

    def __init__(self, batch: Any) -> None:
        self.batch = batch
        self._images: Found = None
        self._found: dict[str, dict[str, Any]] | None = None

    @classmethod
    def of(cls, batch: Any) -> ImageBatch:
        """The batch, if it is not one already."""
        return batch if isinstance(batch, cls) else cls(batch)

    def images(self, key: Key = None, layout: str = "auto") -> Found:
        """The array of images, or a list of one each, with `key` their place in the batch; see `find_images`."""
        if self._images is None:
            self._images = find_images(self.batch, key, layout)
        return self._images

    def measured(
        self, measure: ImageMeasurer, convention: str, key: Key = None, layout: str = "auto"
    ) -> dict[str, Any]:
        """What was measured by one convention. Images of several sizes are measured one size at a time.

        Raises:
            Exception: Whatever failed in it.
        """
        if self._found is None:
            images = self.images(key, layout)
            parts = [(places, measure(array)) for places, array in by_shape(images)]
            self._found = parts[0][1] if len(parts) == 1 else _of_all(parts)
        if convention not in self._found:
            raise measure.errors[convention]
        return dict(self._found[convention])


def _of_all(parts: Sequence[tuple[list[int], dict[str, dict[str, Any]]]]) -> dict[str, dict[str, Any]]:
    """What was measured of images of several sizes, as of one batch: rows in order, pixels added up."""
    together: dict[str, dict[str, Any]] = {}
    for convention in parts[0][1]:
        by_size = [(places, measured[convention]) for places, measured in parts if convention in measured]
        if len(by_size) == len(parts):
            counts = [measured["counts"] for _, measured in by_size]
            counted = [measured.get("counted", len(places)) for places, measured in by_size]
            rows = in_order([(places, measured["rows"]) for places, measured in by_size])
            together[convention] = {"rows": rows, "counts": sum(counts[1:], counts[0]), "counted": sum(counted)}
    return together


@lru_cache(maxsize=16)
def output_measurer(kind: Kind, steps: bool = False) -> Compiled:
    """From outputs to `rows`, and of classes also `top_class` `[n]` and the same as a `column` of the joint sample.

    Args:
        kind: What they are.
        steps: Whether outputs are `[n, T, C]`, which makes T rows of each image.

    Example:
        >>> output_measurer("values")([[1.0, 2.0]])
        {'rows': array([[1., 2.]], dtype=float32)}
    """

    return Compiled(partial(_measured_outputs, kind=kind, steps=steps))


def _measured_outputs(array: Array, *, kind: Kind, steps: bool) -> dict[str, Array]:
    measured = measure_outputs(flattened(array) if steps else array, kind=kind)
    if measured.top_class is None:
        return {"rows": measured.rows}
    return {"rows": measured.rows, "top_class": measured.top_class, "column": column(measured.top_class)}


@lru_cache(maxsize=64)
def embedding_measurer(reduce: str, channels_last: bool, max_dim: int) -> Compiled:
    """From a layer's output, or rows reduced already, to rows `[n, D]`, D at most `max_dim`.

    Example:
        >>> import numpy as np
        >>> embedding_measurer("mean", True, 2)(np.ones((1, 4, 4, 3))).shape
        (1, 2)
    """

    return Compiled(partial(_measured_embeddings, reduce=reduce, channels_last=channels_last, max_dim=max_dim))


def _measured_embeddings(array: Array, *, reduce: str, channels_last: bool, max_dim: int) -> Array:
    rows = reduced(array, reduce, channels_last)
    width = int(rows.shape[1])
    return projection(width, max_dim).project(rows) if width > max_dim else rows


@lru_cache(maxsize=16)
def projection(dim_in: int, dim_out: int) -> RandomProjection:
    """The projection of embeddings of this width.

    Example:
        >>> projection(9, 4).seed
        0
    """
    return RandomProjection(dim_in, dim_out)


def reduced(batch: Array, reduce: str, channels_last: bool) -> Array:
    """Rows `[n, D]` of a layer's output, or as they are if it is these already.

    Raises:
        InputError: If they were reduced by a function of the user's own, whose name is all that is known of it.

    Example:
        >>> import numpy as np
        >>> reduced(np.ones((1, 4, 4, 3)), "mean", channels_last=True).shape
        (1, 3)
    """
    if len(batch.shape) == 2:
        return local(batch)
    if reduce not in REDUCTIONS:
        raise InputError(f"this embedding was reduced by the function {reduce}: pass its answers, [n, D]")
    return reduce_embedding(batch, cast(Reduce, reduce), channels_last=channels_last)


def with_rows(array: Any, name: str, like: Profile | None) -> Any:
    """One vector of outputs or embeddings as one row, and one layer's output without rows as one of one row.

    Args:
        array: What was given; all but arrays and lists of numbers is returned as it is.
        name: Of the group.
        like: The profile that knows how wide a row is.

    Raises:
        InputError: If a vector is not as long as a row.

    Example:
        >>> import numpy as np
        >>> from lensai_integrations import Profiler
        >>> profiler = Profiler()
        >>> profiler.update(outputs=np.eye(4))
        >>> with_rows(np.zeros(4), "outputs", profiler.profile()).shape
        (1, 4)
    """
    baseline = _known_rows(name, like)
    if baseline is None:
        return array
    array = from_list(array, name, like)
    if not is_array(array):
        return array
    shape, info, width = shape_of(array), baseline.info, _width(baseline)
    if len(shape) == 1 and width > 1:
        if shape[0] != width:
            raise InputError(
                f"{name} is a vector of {shape[0]} numbers, but a row of the baseline has {width}: pass one row"
                f" [{width}], or several [n, {width}]"
            )
        return array[None]
    return array[None] if len(shape) == 3 and info.get("axes") == 4 else array


def from_list(array: Any, name: str, like: Profile | None) -> Any:
    """A list of numbers, or of vectors that are as long as a row, as one array; all else as it is.

    Args:
        array: What was given of outputs or of a layer.
        name: Of the group.
        like: The profile that knows how wide a row is.

    Example:
        >>> import numpy as np
        >>> from lensai_integrations import Profiler
        >>> profiler = Profiler()
        >>> profiler.update(outputs=np.eye(4))
        >>> from_list([np.zeros(4), np.ones(4)], "outputs", profiler.profile()).shape
        (2, 4)
    """
    baseline = _known_rows(name, like)
    if baseline is None or not (isinstance(array, list | tuple) and array):
        return array
    vectors = _width(baseline) > 1 and all(
        is_array(vector) and shape_of(vector) == (_width(baseline),) for vector in array
    )
    return local(array) if vectors or all(isinstance(number, int | float) for number in array) else array


def _known_rows(name: str, like: Profile | None) -> Group | None:
    """What is known of outputs or embeddings of this name."""
    of_rows = name.split("/", maxsplit=1)[0] in ("outputs", "embeddings")
    return like.groups.get(name) if like is not None and of_rows else None


def _width(group: Group) -> int:
    """Numbers of a row; 0 if that is not known."""
    return int(group.info.get("columns") or group.info.get("projected_from") or group.info.get("width") or 0)


def class_labels(batch: Any, *, of_two: bool = False) -> tuple[Array | list[str], Array | None]:
    """Labels as a class per row, `[n]` integers or strings; and which rows are none, bool `[n]`, where that can be.

    Those are `NO_CLASS`. Rows of several columns are one-hot or soft: the largest is the class. Nothing is waited for.

    Args:
        batch: The labels.
        of_two: Whether there are two classes: of numbers between 0 and 1, as smoothing makes them, those above a half
            are the second. A half is none.

    Raises:
        InputError: If it is not one label, or one row of classes, per image.

    Example:
        >>> import numpy as np
        >>> class_labels(np.eye(3))[0].tolist(), class_labels(("cat", "dog"))[0], class_labels([2.0, 0.5])[0].tolist()
        ([0, 1, 2], ['cat', 'dog'], [2, -1])
        >>> class_labels([0.05, 0.95], of_two=True)[0].tolist()
        [0, 1]
    """
    texts = strings(batch)
    if texts is not None:
        return texts, None
    rows = label_rows(batch)
    xp = namespace(rows)
    whole = xp.isdtype(rows.dtype, ("integral", "bool"))
    if rows.shape[1] == 1:
        only = rows[:, 0]
        if whole:
            return only, None
        if of_two:
            tells = (only > 0.0) & (only < 1.0) & (only != ON)
            only = xp.where(tells, xp.astype(only > ON, only.dtype), only)
        odd = ~(only == xp.floor(only))
        return xp.astype(xp.where(odd, float(NO_CLASS), only), xp.int32), odd
    shares = xp.astype(rows, xp.float32)
    odd = ~(xp.all(shares >= 0.0, axis=1) & (xp.abs(xp.sum(shares, axis=1) - 1.0) <= SUM_TOLERANCE))
    return xp.where(odd, NO_CLASS, xp.argmax(shares, axis=1)), odd


def from_signs(batch: Any) -> Array:
    """Labels -1 and 1 as 0 and 1, float32 `[n, k]`; nothing is waited for, and what is neither is none of them.

    Example:
        >>> from_signs([-1, 1]).tolist()
        [[0.0], [1.0]]
    """
    rows = label_rows(batch)
    xp = namespace(rows)
    numbers = xp.astype(rows, xp.float32)
    return xp.where(xp.abs(numbers) == 1.0, (numbers + 1.0) / 2.0, math.nan)


def multi_hot_labels(batch: Any) -> dict[str, Array]:
    """Of labels `[n, k]` which are on, bool `labels`; how many, float32 `rows` `[n, 1]`; and `odd`, bool `[n]`.

    Odd rows are not inside [0, 1]: nothing is on there, and their number is NaN. Nothing is waited for.

    Raises:
        InputError: If it is not a row of labels per image.

    Example:
        >>> {name: found.tolist() for name, found in multi_hot_labels([[1.0, 0.0, 1.0]]).items()}
        {'labels': [[True, False, True]], 'rows': [[2.0]], 'odd': [False]}
    """
    rows = label_rows(batch)
    xp = namespace(rows)
    shares = xp.astype(rows, xp.float32)
    odd = ~xp.all((shares >= 0.0) & (shares <= 1.0), axis=1)
    on = (shares > ON) & ~odd[:, None]
    count = xp.sum(xp.astype(on, xp.float32), axis=1)
    return {"labels": on, "rows": xp.where(odd, math.nan, count)[:, None], "odd": odd}


def value_labels(batch: Any, columns: int) -> Array:
    """Labels that are numbers, float32 `[n, columns]`.

    Raises:
        InputError: If there are more or fewer to an image.

    Example:
        >>> value_labels([0.5, 2.0], 1).tolist()
        [[0.5], [2.0]]
    """
    rows = label_rows(batch)
    if rows.shape[1] != columns:
        raise InputError(f"labels are {rows.shape[1]} numbers per image, but {columns} in the first batch")
    xp = namespace(rows)
    return xp.astype(rows, xp.float32)


class Ones:
    """Counts what is true in batches, on the device they lie on.

    Example:
        >>> import numpy as np
        >>> ones = Ones()
        >>> ones.add(np.array([True, False, True]))
        >>> ones.total()
        2
    """

    def __init__(self) -> None:
        self._count: Array | None = None

    def add(self, true: Array) -> None:
        """Count a batch, bool `[n]`; nothing is waited for."""
        xp = namespace(true)
        count = xp.sum(xp.astype(true, xp.int64))
        self._count = count if self._count is None else self._count + count

    def total(self) -> int:
        """All of them. Waits for the device."""
        return 0 if self._count is None else int(to_host(self._count))


def column(values: Array, odd: Array | None = None) -> Array:
    """Classes `[n]` as float32 `[n, 1]`, NaN where a row is odd.

    Example:
        >>> import numpy as np
        >>> column(np.arange(2)).tolist()
        [[0.0], [1.0]]
    """
    xp = namespace(values)
    numbers = xp.astype(values, xp.float32)
    return (numbers if odd is None else xp.where(odd, math.nan, numbers))[:, None]
