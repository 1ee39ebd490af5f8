"""Measures of the user's own: a function and a decorator, and there is one more stream.

A profile says what its streams mean, so the decorator makes a `Definition` of the function: its name, unit and version,
and as the formula its source. Whoever changes what the function computes gives it a new version. Profiles that other
programs have made by a function of the same id are read anywhere; to measure alike, the program has to import it.

`CustomMeasurer` takes a batch of images to the numbers of such measures. What one of them does wrong costs the others
nothing. Each works on torch tensors as on numpy arrays: numpy and JAX take the mean of a comparison, torch refuses,
`(images >= 245).mean((1, 2, 3))`. So measures of torch batches are handed a subclass of `torch.Tensor` that knows the
means of booleans; everything else is torch's own. Torch is never imported here: whoever has one of its tensors has
loaded it.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import math
import operator
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, update_wrapper
from typing import Any, Final

import numpy as np
from array_api_compat import is_jax_array, is_torch_array

from lensai_integrations.arrays.namespaces import (
    Array,
    Compiled,
    dtype_name,
    is_immutable,
    local,
    namespace,
    send,
    shape_of,
    to_host,
)
from lensai_integrations.arrays.tensorflow import is_tensorflow_array
from lensai_integrations.errors import DefinitionError, InputError
from lensai_integrations.measures import definitions
from lensai_integrations.measures.definitions import Definition
from lensai_integrations.measures.images import CONVENTIONS
from lensai_integrations.measures.inputs import ImageInputs, Images
from lensai_integrations.measures.layouts import by_shape, in_order
from lensai_integrations.measures.pixels import as_float32, planes
from lensai_integrations.problems import Failures, pass_on

#: A longer source is cut, and told apart from others of the same beginning by its hash.
MAX_FORMULA: Final = 2000
#: What `Definition.source` says of a formula.
PYTHON, WITHOUT_SOURCE = "Python source", "docstring; the Python source was not to be had"

_TAKEN = {"pixel", "invalid", *CONVENTIONS} | {  # `inputs/lensai-edge` is a group
    m.definition.name for convention in CONVENTIONS.values() for m in convention.measures
}
_REGISTERED: dict[str, CustomMeasure] = {}


class CustomMeasure:
    """A function of images with a definition; called, it does what the function does. Made by `measure`.

    It is pickled as its function is: by reference to the module that has it at its top, and by cloudpickle of any kind.

    Attributes:
        definition: What it means, as profiles carry it.
        function: The function.

    Example:
        >>> @measure("darkest", unit="0-255")
        ... def darkest(images):
        ...     return images.min((1, 2, 3))
        >>> darkest.definition.id
        'custom/darkest@1'
    """

    def __init__(self, function: Callable[[Array], Array], definition: Definition) -> None:
        update_wrapper(self, function)
        self.function, self.definition = function, definition

    @property
    def name(self) -> str:
        """The name of its stream, or what its streams' names begin with."""
        return self.definition.name

    def __call__(self, images: Array) -> Array:
        """What the function answers for images `[n, H, W, C]`."""
        return self.function(images)

    def __repr__(self) -> str:
        return f"<measure {self.definition.id}>"

    def __reduce__(self) -> Any:
        owner: Any = sys.modules.get(str(self.__dict__.get("__module__")))
        with suppress(AttributeError):
            if operator.attrgetter(self.__dict__.get("__qualname__", ""))(owner) is self:
                # Its function is no longer found by its own name, which is the measure's; here it is.
                self.function.__qualname__ = f"{self.__dict__['__qualname__']}.function"
        return _arrived, (self.function, self.definition)


def measure(
    name: str,
    *,
    unit: str = "1",
    version: int = 1,
    description: str = "",
    range: tuple[float | None, float | None] = (None, None),
    convention: str = "custom",
) -> Callable[[Callable[[Array], Array]], CustomMeasure]:
    """Decorate a function of images, so that profilers and callbacks take it: `Profiler(measures=[glare])`.

    The function takes float32 images `[n, H, W, C]` on the 0-255 scale, C = 3 (RGB) or 1 (grey), whatever the batch was
    (uint8 too): comparisons, differences and means mean the same everywhere. They are of the library of the batch:
    numpy; torch, on its device, where means of comparisons work as in numpy; JAX, traced on an accelerator. Those of
    TensorFlow come as numpy arrays from host memory, and on an accelerator as tensors in a traced function, which have
    no methods such as `.mean`: `tf.reduce_mean(tf.cast(images >= 245, tf.float32), (1, 2, 3))` runs in both places.
    Each image is to be measured by itself: a large batch may come in parts.

    It returns `[n]`, the stream `inputs/<name>`, or `[n, k]`, the streams `inputs/<name>/0` to `k - 1`, always of the
    same k. A value that is not finite, an error or another shape leave out this measure's rows and nothing else.

    Args:
        name: Letters, digits, `.`, `_` and `-`; none of this package's own measures.
        unit: Of the numbers: `"%"`, `"0-255"`; `"1"` for a pure number.
        version: To be raised whenever the function computes something else, in what it calls, too.
        description: One sentence: what it tells about an image. By default the first line of the docstring.
        range: Smallest and largest possible value; None where there is no bound.
        convention: First part of the definition's id, `<convention>/<name>@<version>`.

    Raises:
        InputError: If an argument is not one of these.
        DefinitionError: If in this process another function is declared under the same id.

    Example:
        >>> import numpy as np
        >>> @measure("overexposed", unit="%", range=(0, 100))
        ... def overexposed(images):
        ...     return (images >= 245).mean((1, 2, 3)) * 100
        >>> overexposed(np.full((2, 8, 8, 3), 250, np.float32)).tolist()
        [100.0, 100.0]
    """
    if not isinstance(name, str) or name in _TAKEN:
        raise InputError(f"name={name!r} is a measure of this package, or no name: pass another")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise InputError(f"version={version!r} should be a whole number from 1")
    if convention in CONVENTIONS:
        raise InputError(f"convention={convention!r} is this package's own: pass another, such as 'custom'")
    if not isinstance(range, tuple | list) or len(range) != 2:
        raise InputError(f"range={range!r} should be the smallest and the largest possible value, or None for either")
    try:
        empty = Definition(f"{convention}/{name}@{version}", name, unit, description, "", "", (range[0], range[1]))
    except DefinitionError as error:
        raise InputError(f"name={name!r} and convention={convention!r} cannot be: {error}") from error

    def decorate(function: Callable[[Array], Array]) -> CustomMeasure:
        if not callable(function):
            raise InputError(f"@measure({name!r}) decorates a function of images, not {function!r}")
        formula, source = _formula(function)
        first_line = (inspect.getdoc(function) or "").partition("\n")[0]
        definition = replace(empty, description=description or first_line, formula=formula, source=source)
        return _register(CustomMeasure(function, definition))

    return decorate


def _register(new: CustomMeasure) -> CustomMeasure:
    id = new.definition.id
    earlier = definitions.DEFINITIONS.get(id)
    if earlier is not None and earlier != new.definition:
        raise DefinitionError(
            f"{id!r} is already declared in this process, and this is another function, unit, description or range:"
            f" pass version={int(id.rpartition('@')[2]) + 1} to @measure"
        )
    definitions.DEFINITIONS[id], _REGISTERED[id] = new.definition, new
    return new


def _arrived(function: Callable[[Array], Array], definition: Definition) -> CustomMeasure:
    """What another process has sent: the measure that this one has declared under the id, or else a new one.

    Raises:
        DefinitionError: If this process has declared another function under the id.
    """
    earlier = _REGISTERED.get(definition.id)
    if earlier is not None and earlier.definition == definition:
        return earlier
    return _register(CustomMeasure(function, definition))


def _formula(function: Any) -> tuple[str, str]:
    """The source without decorators, bounded, and that it is one; else the docstring or the name."""
    try:
        text = _undecorated(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError) as error:
        pass_on(error)
        name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__name__)}"
        text, source = inspect.getdoc(function) or name, WITHOUT_SOURCE
    else:
        source = PYTHON
    text = "\n".join(line.rstrip() for line in text.strip().splitlines())
    if len(text) > MAX_FORMULA:
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        text = f"{text[:MAX_FORMULA]}\n... {len(text):,} characters, sha256 {digest}"
    return text, source


def _undecorated(source: str) -> str:
    try:
        (first, *_) = ast.parse(source).body
    except (SyntaxError, ValueError):  # a lambda in the middle of an expression
        return source
    return "\n".join(source.splitlines()[first.lineno - 1 :])


def registered(id: str) -> CustomMeasure | None:
    """The measure that this process has declared under an id, or None.

    Example:
        >>> registered("custom/never-declared@1") is None
        True
    """
    return _REGISTERED.get(id)


def checked_measures(measures: Any) -> tuple[CustomMeasure, ...]:
    """The measures, if they are some, no two of one name.

    Raises:
        InputError: If they are not.

    Example:
        >>> checked_measures([])
        ()
    """
    if isinstance(measures, CustomMeasure) or not isinstance(measures, Iterable):
        raise InputError(f"measures={measures!r} should be a list of functions decorated with @measure(...)")
    chosen = tuple(measures)
    for chosen_measure in chosen:
        if not isinstance(chosen_measure, CustomMeasure):
            raise InputError(
                f"measures has {chosen_measure!r}, which is not decorated: write @measure('name', unit='%') above the"
                " function"
            )
    names = [chosen_measure.name for chosen_measure in chosen]
    if len(set(names)) < len(names):
        raise InputError(f"measures={list(chosen)!r} has two of one name: leave one out")
    return chosen


def same_formula(first: Any, second: Any) -> bool:
    """Whether two definitions, as profiles carry them, compute the same, as far as that is known.

    Where a program could not read its own source, only the id is known.

    Args:
        first: The JSON values of one, a mapping with `formula` and `source`.
        second: Those of the other.

    Example:
        >>> same_formula({"formula": "x", "source": PYTHON}, {"formula": "y", "source": PYTHON})
        False
    """
    unknown = WITHOUT_SOURCE in (first.get("source"), second.get("source"))
    return unknown or first.get("formula") == second.get("formula")


#: Pixels that a function is handed at once: as float32 RGB 96 MB.
MOST_PIXELS: Final = 1 << 23
#: Numbers of one image that a measure may give.
MOST_COLUMNS: Final = 4096


class CustomMeasurer:
    """Measures batches by functions of the user's own.

    Args:
        reader: How images are read, with nothing left to be decided.
        measures: What is measured.

    Attributes:
        errors: By name, what a measure did wrong last.

    Example:
        >>> from lensai_integrations import measure
        >>> @measure("lightest")
        ... def lightest(images):
        ...     return images.max((1, 2, 3))
        >>> measurer = CustomMeasurer(ImageInputs(layout="NHW", scale=1), (lightest,))
        >>> measurer(np.full((2, 8, 8), 7, np.uint8))
        {'lightest': array([[7.],
               [7.]], dtype=float32)}
    """

    def __init__(self, reader: ImageInputs, measures: Sequence[CustomMeasure]) -> None:
        self._reader, self._measures = reader, tuple(measures)
        self._compiled = Compiled(self._measured)
        self.errors = Failures()

    def __call__(self, batch: Any) -> dict[str, Array]:
        """Float32 rows `[n, k]` by name, of the measures that worked, on the device of the images."""
        parts = [(places, self._compiled(array)) for places, array in by_shape(self._reader.find(batch))]
        names = [name for name in parts[0][1] if all(name in rows for _, rows in parts)]
        return {name: in_order([(places, rows[name]) for places, rows in parts]) for name in names}

    def _measured(self, array: Array) -> dict[str, Array]:
        return self.of(self._reader.read(array), array)

    def of(self, images: Images, array: Array) -> dict[str, Array]:
        """The same of images that have been read already, from this array."""
        parts: dict[str, list[Array]] = {measure.name: [] for measure in self._measures}
        failed: set[str] = set()
        for pixels in _pieces(images):
            values, valid = _values(pixels, images)
            for measure in self._measures:
                if measure.name in failed:
                    continue
                handed = _handed(values, array, copied=len(self._measures) > 1)
                try:
                    parts[measure.name].append(_rows(measure, handed, valid))
                except Exception as error:  # noqa: BLE001  whatever the user's function may raise
                    pass_on(error)
                    failed.add(measure.name)
                    self.errors[measure.name] = _explained(error, handed)
        return {name: _together(rows) for name, rows in parts.items() if name not in failed and rows}


@lru_cache(maxsize=16)
def custom_measurer(reader: ImageInputs, measures: tuple[CustomMeasure, ...]) -> CustomMeasurer:
    """The measurer of these measures, made once in a process, so that JAX and TensorFlow trace them once.

    Example:
        >>> custom_measurer(ImageInputs(layout="NHW", scale=1), ())(np.zeros((2, 8, 8), np.uint8))
        {}
    """
    return CustomMeasurer(reader, measures)


def _pieces(images: Images) -> Iterator[Array]:
    """The pixels, a part of the batch at a time where the batch is large; all at once in a function that is traced."""
    if images.n < 0 or is_immutable(images.pixels):
        yield images.pixels
        return
    step = max(1, MOST_PIXELS // (images.height * images.width))
    for start in range(0, images.n, step):
        yield images.pixels[start : start + step]


def _values(pixels: Array, images: Images) -> tuple[Array, Array | None]:
    """Float32 `[n, H, W, C]` on the 0-255 scale, and which images are valid, if not all."""
    with np.errstate(over="ignore", invalid="ignore"):
        read = planes(pixels, images.gain, images.offset, whole=images.whole)
    return read.xp.permute_dims(as_float32(read.values, read.xp), (0, 2, 3, 1)), read.valid


def _handed(values: Array, batch: Array, *, copied: bool) -> Array:
    """The values in the batch's own library; with other measures beside, a copy, for a function may work in place."""
    if is_immutable(values):
        return values
    if isinstance(values, np.ndarray):
        values = values.copy() if copied else values
        if is_jax_array(batch):
            return sys.modules["jax"].numpy.asarray(values)
        return as_images(sys.modules["torch"].from_numpy(values)) if is_torch_array(batch) else values
    return as_images(values.clone() if copied else values)


def _rows(measure: CustomMeasure, images: Array, valid: Array | None) -> Array:
    """What a measure gives for images, as float32 `[n, k]`; NaN for images that are not valid.

    Raises:
        InputError: If it gives something else.
    """
    with np.errstate(all="ignore"):
        answer = local(as_tensor(measure.function(images)))
        xp, shape, n = namespace(answer), shape_of(answer), shape_of(images)[0]
        if (
            len(shape) not in (1, 2)
            or shape[0] not in (n, -1)
            or (len(shape) == 2 and not 1 <= shape[1] <= MOST_COLUMNS)
        ):
            raise InputError(
                f"it returned shape {shape} for images of shape {shape_of(images)}: return a number per image, [n], or"
                " [n, k], e.g. a mean over the axes (1, 2, 3)"
            )
        if not xp.isdtype(answer.dtype, ("bool", "integral", "real floating")):
            raise InputError(f"it returned {dtype_name(answer)}: return real numbers")
        rows = xp.reshape(xp.astype(answer, xp.float32), (-1, shape[1] if len(shape) == 2 else 1))
    if valid is None:
        return rows
    rows, valid = _beside(rows, valid)
    return namespace(rows).where(valid[:, None], rows, math.nan)


def _beside(rows: Array, valid: Array) -> tuple[Array, Array]:
    """Both on the device of the images, wherever the function has put its answer."""
    if isinstance(valid, np.ndarray):
        return to_host(rows), valid
    return (send(rows, valid) if isinstance(rows, np.ndarray) else rows), valid


def _together(rows: list[Array]) -> Array:
    return rows[0] if len(rows) == 1 else namespace(rows[0]).concat(rows)


def _explained(error: Exception, images: Array) -> Exception:
    if isinstance(error, AttributeError) and is_tensorflow_array(images):
        return InputError(
            f"{error}: images on an accelerator are TensorFlow tensors, so write tf.reduce_mean(tf.cast(images >= 245,"
            " tf.float32), (1, 2, 3)) instead of methods"
        )
    return error


def as_images(tensor: Array) -> Array:
    """The tensor, without a copy, as one that knows the means of booleans, and so does all that is computed from it.

    Example:
        >>> import torch
        >>> (as_images(torch.tensor([[250.0, 3.0]])) >= 245).mean(1).tolist()
        [0.5]
    """
    return tensor.as_subclass(_image_tensor())


def as_tensor(values: Any) -> Any:
    """A plain tensor where it is one of ours, else what it is.

    Example:
        >>> import torch
        >>> type(as_tensor(as_images(torch.zeros(2)))).__name__
        'Tensor'
    """
    torch = sys.modules.get("torch")
    return values.as_subclass(torch.Tensor) if torch is not None and isinstance(values, torch.Tensor) else values


@lru_cache(maxsize=1)
def _image_tensor() -> Any:
    torch: Any = sys.modules["torch"]
    averages = {getattr(owner, name) for owner in (torch, torch.Tensor) for name in ("mean", "std", "var")}

    class ImageTensor(torch.Tensor):  # type: ignore[misc]
        @classmethod
        def __torch_function__(
            cls, function: Any, types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
        ) -> Any:
            if function in averages and arguments and arguments[0].dtype == torch.bool:
                arguments = (arguments[0].to(torch.float32), *arguments[1:])
            return super().__torch_function__(function, types, arguments, named or {})

    return ImageTensor
