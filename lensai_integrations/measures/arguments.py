"""Arguments of public functions: documented once, checked once, and plain whatever file they come from.

What an argument means, and which values it may have, is written where it belongs; all who take the same argument take
the text over (`documented`), below signatures of their own, which editors and configuration tools read.

Hydra hands over OmegaConf's `ListConfig` and `DictConfig`, which are sequences and mappings and neither lists nor
dicts, and puts dataclasses into them as such; what is noted of arguments goes into JSON and through pickle, where only
lists and dicts are at home (`plain`).
"""

from __future__ import annotations

import inspect
import math
import re
import sys
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from numbers import Real
from typing import Any, Final, TypeVar

from lensai_integrations.errors import InputError

T = TypeVar("T")

#: What is said of arguments that profiles are made with everywhere.
COMMON: Final = {
    "measures": "Custom measures of images: functions decorated with `lensai_integrations.measure`.",
    "convention": '`"lensai"`, or `"lensai-edge"` for exactly what LensAI devices compute.',
    "task": 'What the outputs are for: `"auto"`, `"classification"` (classes that exclude each other), `"multilabel"`'
    ' (several labels of an image), `"regression"`; or what they are: `"logits"`, `"probabilities"`, `"values"`,'
    ' `"multilabel_logits"`, `"multilabel_probabilities"`. A dict by head where they differ:'
    ' `{"species": "classification", "age": "regression"}`.',
    "k": "Size of the KLL sketches; 200 means a rank error of 1.33% at 99% confidence.",
    "rows": "Rows that the joint sample keeps, which `calibrate` needs; 0 keeps none.",
    "max_dim": "Wider embeddings are projected to this width.",
    "seed": "Of everything random in here. Nothing else is touched.",
    "budget": "Share of a worker's time that measuring delivered images may take, or None to measure every image. The"
    " first 2,000 are all measured, so that windows and small data sets stay whole; of more a share of 1, 1/2 ... 1/64,"
    " drawn by the number of an image, which the times of the first images decide.",
    "max_segments": "How many values get a segment, first come, first served; the rows of others are in the segment"
    ' "other".',
}


def documented(source: Any, only: Collection[str] = ()) -> Callable[[T], T]:
    """Decorate a class or function: of an argument its docstring says what the source says, then what it says itself.

    Args:
        source: A class or function with a section `Args:` in its docstring, or texts by name.
        only: The arguments to take over; none for all of the source.

    Example:
        >>> @documented({"k": "Size of the sketches."})
        ... def sketch(values, k=200):
        ...     '''Sketch values.
        ...
        ...     Args:
        ...         values: Numbers.
        ...         k: Larger is better.
        ...     '''
        >>> print(sketch.__doc__)
        Sketch values.
        <BLANKLINE>
        Args:
            values: Numbers.
            k: Size of the sketches. Larger is better.
    """
    texts = source if isinstance(source, Mapping) else arguments_in(source.__doc__ or "")

    def decorate(target: T) -> T:
        documentation: str | None = target.__doc__
        if documentation is None:  # as with `python -OO`
            return target
        documentation, own_texts = inspect.cleandoc(documentation), arguments_in(documentation)
        lines = []
        for name in inspect.signature(target).parameters:  # type: ignore[arg-type]
            text = " ".join(filter(None, (texts.get(name) if name in (only or texts) else None, own_texts.get(name))))
            if text:
                lines.append(_entry(name, text))
        target.__doc__ = _ARGS.sub(lambda _: "\n".join(["Args:", *lines]), documentation, count=1)
        return target

    return decorate


#: A section of arguments, in a docstring without indentation.
_ARGS: Final = re.compile(r"^Args:$(?:\n {4}.*$)*", re.MULTILINE)


def arguments_in(documentation: str) -> dict[str, str]:
    """What a docstring says of each argument, as one line.

    Example:
        >>> arguments_in("Sketch.\\n\\nArgs:\\n    k: Its\\n        size.\\n\\nRaises:\\n    OSError: Never.")
        {'k': 'Its size.'}
    """
    section = _ARGS.search(inspect.cleandoc(documentation))
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section[0] if section else "", re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def _entry(name: str, text: str) -> str:
    return textwrap.fill(
        f"{name}: {text}", 116, initial_indent="    ", subsequent_indent=" " * 8, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


#: The smallest and largest value of arguments that are whole numbers.
_RANGES: Final[Mapping[str, tuple[int, int | None]]] = {
    "k": (8, 65535),
    "rows": (0, 2**24),
    "max_dim": (1, 2**24),
    "clean_windows": (0, 100_000),
    "seed": (0, 2**63 - 1),
    "dataloader_idx": (0, None),
    "num_workers": (0, 1024),
    "limit": (1, None),
    "every": (1, None),
}


def check_numbers(**values: Any) -> None:
    """Refuse what is no whole number in the range that an argument of this name has.

    Raises:
        InputError: If one is not.

    Example:
        >>> check_numbers(k=3)
        Traceback (most recent call last):
        lensai_integrations.errors.InputError: k=3 should be a whole number from 8 to 65535
    """
    for name, value in values.items():
        low, high = _RANGES[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
            upto = "" if high is None else f" to {high}"
            raise InputError(f"{name}={value!r} should be a whole number from {low}{upto}")


def check_seconds(name: str, value: Any) -> None:
    """Refuse what is no positive number of seconds.

    Raises:
        InputError: If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value) > 0:
        raise InputError(f"{name}={value!r} must be a positive number of seconds")


def numbers_per_channel(name: str, values: Any) -> tuple[float, ...]:
    """An argument that has a number for each channel, as floats.

    Raises:
        InputError: If they are none, or not finite.

    Example:
        >>> numbers_per_channel("mean", [0.5])
        (0.5,)
    """
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or not all(map(math.isfinite, numbers)):
        raise InputError(f"{name}={values!r} should be a finite number per channel, e.g. {name}=(0.5, 0.5, 0.5)")
    return numbers


def plain(value: Any) -> Any:
    """An argument with dicts and lists for all mappings and sequences in it but tuples and texts, which stay.

    Example:
        >>> from collections import UserDict, UserList
        >>> plain(UserDict(layers=UserList(["fc"]), mean=(0.5,), note="x"))
        {'layers': ['fc'], 'mean': (0.5,), 'note': 'x'}
    """
    omegaconf: Any = sys.modules.get("omegaconf")  # what was not imported has made nothing
    if omegaconf is not None and omegaconf.OmegaConf.is_config(value):
        return omegaconf.OmegaConf.to_object(value)
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | tuple):
        return [plain(inner) for inner in value]
    return value
