"""Measures of the user's own: a function and a decorator, and there is one more stream.

A profile says what its streams mean, so the decorator makes a `Definition` of the function: its name, unit and version,
and as the formula its source. Whoever changes what the function computes gives it a new version. Profiles that other
programs have made by a function of the same id are read anywhere; to measure alike, the program has to import it.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import operator
import sys
import textwrap
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import update_wrapper
from typing import Any, Final

from lensai_integrations.arrays.namespaces import Array
from lensai_integrations.errors import DefinitionError, InputError
from lensai_integrations.measures import definitions
from lensai_integrations.measures.definitions import Definition
from lensai_integrations.measures.images import CONVENTIONS
from lensai_integrations.problems import pass_on

#: A longer source is cut, and told apart from others of the same beginning by its hash.
MAX_FORMULA: Final = 2000
#: What `Definition.source` says of a formula.
PYTHON, WITHOUT_SOURCE = "Python source", "docstring; the Python source was not to be had"

_TAKEN = {"pixel", "invalid", *CONVENTIONS} | {  # `inputs/lensai-edge` is a group
    m.definition.name for each in CONVENTIONS.values() for m in each.measures
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
        told = replace(empty, description=description or first_line, formula=formula, source=source)
        return _register(CustomMeasure(function, told))

    return decorate


def _register(new: CustomMeasure) -> CustomMeasure:
    id = new.definition.id
    known = definitions.DEFINITIONS.get(id)
    if known is not None and known != new.definition:
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
    known = _REGISTERED.get(definition.id)
    if known is not None and known.definition == definition:
        return known
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
    found = tuple(measures)
    for each in found:
        if not isinstance(each, CustomMeasure):
            raise InputError(
                f"measures has {each!r}, which is not decorated: write @measure('name', unit='%') above the function"
            )
    names = [each.name for each in found]
    if len(set(names)) < len(names):
        raise InputError(f"measures={list(found)!r} has two of one name: leave one out")
    return found


def same_formula(one: Any, two: Any) -> bool:
    """Whether two definitions, as profiles carry them, compute the same, as far as that is known.

    Where a program could not read its own source, only the id is known.

    Args:
        one: Their JSON values, mappings with `formula` and `source`.
        two: Likewise.

    Example:
        >>> same_formula({"formula": "x", "source": PYTHON}, {"formula": "y", "source": PYTHON})
        False
    """
    unknown = WITHOUT_SOURCE in (one.get("source"), two.get("source"))
    return unknown or one.get("formula") == two.get("formula")
