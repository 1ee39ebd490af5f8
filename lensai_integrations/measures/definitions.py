"""What a measure means, by name and version.

Two streams may be compared only if they were computed by the same formula, and formulas change over the years. So every
measure has an id such as `lensai/brightness@1`, which profiles carry: a formula that changes gets a new version, and
older profiles still say what they hold. Each module of measures declares its own table here.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from lensai_integrations.errors import DefinitionError

_ID = re.compile(r"[a-z][a-z0-9-]*/[A-Za-z0-9._-]+@[1-9][0-9]*")


@dataclass(frozen=True)
class Definition:
    """One version of one measure.

    Attributes:
        id: `"<convention>/<name>@<version>"`, e.g. `"lensai/brightness@1"`.
        name: The name people read, e.g. `"brightness"`.
        unit: Unit of the numbers, e.g. `"0-255"`, `"dB"`, `"degrees"`; `"1"` for a pure number.
        description: One sentence: what it tells about a row.
        formula: How it is computed, exactly enough to be computed again elsewhere.
        source: Where the formula comes from.
        range: Smallest and largest possible value; None where there is no bound.

    Raises:
        DefinitionError: If `id` is not of that form.

    Example:
        >>> Definition("custom/tilt@1", "tilt", "degrees", "How far the horizon leans.", "Hough", "us", (-90, 90)).unit
        'degrees'
    """

    id: str
    name: str
    unit: str
    description: str
    formula: str
    source: str
    range: tuple[float | None, float | None] = (None, None)

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise DefinitionError(f"id={self.id!r} is not of the form 'convention/name@version', e.g. 'custom/tilt@1'")


#: Every declared definition by its id.
DEFINITIONS: dict[str, Definition] = {}


def register(*definitions: Definition) -> None:
    """Declare definitions. Declaring the same one again is fine (a module may be reloaded); changing one is not.

    Raises:
        DefinitionError: If an id is already declared with another content.

    Example:
        >>> register(Definition("custom/doc@1", "doc", "1", "An example.", "1 + 1", "this docstring"))
        >>> DEFINITIONS["custom/doc@1"].name
        'doc'
    """
    for new in definitions:
        if DEFINITIONS.setdefault(new.id, new) != new:
            raise DefinitionError(
                f"{new.id!r} is already declared with another content; give the new one a new version"
            )


def definition(id: str) -> Definition:
    """The definition with this id.

    Raises:
        DefinitionError: If none is declared; the message names the nearest ids.

    Example:
        >>> from lensai_integrations.measures import images
        >>> definition("lensai/brightness@1").unit
        '0-255'
    """
    if id not in DEFINITIONS:
        nearest = ", ".join(difflib.get_close_matches(id, DEFINITIONS, n=3, cutoff=0.5)) or "none similar"
        raise DefinitionError(f"no measure is declared with id {id!r} (nearest: {nearest})")
    return DEFINITIONS[id]
