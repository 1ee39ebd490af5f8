"""From rows to the sketches of a group: the one place that makes them and feeds them, whoever has the rows.

What there is of some rows comes by source: `rows`, `vectors`, `pixels`, as sketches take it (`Sketch.takes`), and
behind a stroke the stream if it is one of several, `categories/top_class`, or a measure by itself, `rows/noise`. A
sketch's key in its group ends like its source: `bank/noise` takes `rows/noise`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import numpy as np

from lensai_integrations.measures.outputs import NO_CLASS
from lensai_integrations.sketches.kinds import KINDS
from lensai_integrations.sketches.state import Sketch

#: What there is of some rows, by source.
BySource: TypeAlias = Mapping[str, Any]

_TOP_CLASS: Final = "categories/top_class"


def make(
    widths: Mapping[str, int],
    *,
    k: int = 200,
    seed: int | None = None,
    like: Mapping[str, Sketch] | None = None,
    segment: bool = False,
) -> dict[str, Sketch]:
    """Empty sketches of each kind that takes one of these sources, by key.

    Args:
        widths: Numbers of a row, or channels, by source.
        k: Size of KLL sketches.
        seed: Of random decisions; None draws one.
        like: The sketches of the baseline's group.
        segment: Whether they are of a segment, which keeps fewer.

    Example:
        >>> list(make({"rows": 2, "vectors": 2, "categories/top_class": 1}))
        ['bank', 'kernel_mean', 'moments', 'categories/top_class']
    """
    baseline = like or {}
    fitting = [
        (name + source.removeprefix(kind.takes), kind, width)
        for name, kind in KINDS.items()
        for source, width in widths.items()
        if source.partition("/")[0] == kind.takes and (kind.in_segments or not segment)
    ]
    return {key: kind.new(width, k=k, seed=seed, like=baseline.get(key)) for key, kind, width in fitting}


def source_of(key: str, sketch: Sketch) -> str:
    """What a sketch takes.

    Example:
        >>> source_of("bank/noise", KINDS["bank"].new(1))
        'rows/noise'
    """
    _, stroke, stream = key.partition("/")
    return sketch.takes + stroke + stream


def feed(sketches: Mapping[str, Sketch], parts: BySource) -> None:
    """Update the sketches of a group with what there is of some rows; those that take nothing of it stay as they are.

    Example:
        >>> sketches = make({"rows": 1, "categories/": 1})
        >>> feed(sketches, {"categories/": ["cat", "dog"]})
        >>> {key: sketch.n for key, sketch in sketches.items()}
        {'bank': 0, 'categories/': 2}
    """
    for key, sketch in sketches.items():
        source = source_of(key, sketch)
        if (values := parts.get(source)) is not None:
            if source == _TOP_CLASS:
                values = _classes(values, values != NO_CLASS)
            elif isinstance(values, tuple) and sketch.takes == "categories":
                values = _classes(*values)
            sketch.update(values)


def _classes(values: Any, valid: Any) -> Any:
    """Categories of the rows that are valid; on an accelerator, where leaving others out would wait, with which are."""
    return values[valid] if isinstance(values, np.ndarray) else (values, valid)


def rows_seen(sketch: Sketch) -> int:
    """Rows that a sketch was given, those left out included; nothing is waited for where it counts them."""
    return int(sketch.rows_seen if hasattr(sketch, "rows_seen") else sketch.n)
