"""Custom measures of a group of images: a bank for each, so that what one of them leaves out is left out of no other.

A measure that fails for a batch has no rows there: its bank counts them as invalid, so that rows stay exact, the joint
sample has NaN, and the profile's warnings say what the error was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lensai_integrations.arrays import Array
from lensai_integrations.conventions import plain_name
from lensai_integrations.errors import InputError, told
from lensai_integrations.group import Group
from lensai_integrations.measures.batches import Found
from lensai_integrations.measures.custom import CustomMeasure, registered
from lensai_integrations.measures.custom_rows import custom_measurer
from lensai_integrations.measures.images import CONVENTIONS
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.sketches.bank import KLLBank

if TYPE_CHECKING:
    from lensai_integrations.profile import Profile
    from lensai_integrations.settings import Settings

_ROWS_AT_ONCE = 4096
NOT_DECLARED: Final = (
    "the custom measure {0!r} of the profile to be like is not declared in this process, so it is not measured: import"
    " the module with its @measure before making the Profiler, or pass measures=[...]"
)


def chosen_measures(
    measures: Sequence[CustomMeasure] | None, like: Profile | None
) -> tuple[tuple[CustomMeasure, ...], list[str]]:
    """The custom measures to use, and the ids of those that this process has not declared.

    Args:
        measures: Those that were asked for; None asks for those of `like`.
        like: A profile.

    Example:
        >>> chosen_measures(None, None)
        ((), [])
    """
    if measures is not None or like is None:
        return tuple(measures or ()), []
    apart = [each for group in like.groups.values() for each in group.apart.items()]
    ids = [group.definition_of(name) for name, group in apart]
    found = {id: registered(id) for id in ids if id.split("/")[0] not in CONVENTIONS}  # a device's are not custom
    return tuple(each for each in found.values() if each), [id for id, each in found.items() if each is None]


class CustomStreams:
    """The custom measures of one group.

    Args:
        group: The group of images, which is told which measures it has; it gets a bank for each that works.
        reader: How images are read, with nothing left to be decided.
        settings: How it is sketched.
        measures: What is measured.
    """

    def __init__(
        self, group: Group, reader: ImageInputs, settings: Settings, measures: tuple[CustomMeasure, ...]
    ) -> None:
        self._group, self._settings = group, settings
        self._measurer = custom_measurer(reader, measures)
        self._widths: dict[str, int] = {}
        self._errors: dict[str, Exception] = {}
        self._missed = dict.fromkeys((each.name for each in measures), 0)
        if measures:
            known = {each.name: asdict(each.definition) for each in measures}
            group.definitions |= {name: each["id"] for name, each in known.items()}
            group.info["measures"] = {name: {**each, "range": list(each["range"])} for name, each in known.items()}

    def measure(self, images: Found) -> dict[str, Array]:
        """Rows `[n, k]` by `"<group>/<measure>"`, of the measures that worked. Nothing is waited for."""
        if not self._missed or len(images) == 0:
            return {}
        rows = self._measurer(images)
        for name in self._missed:
            if name not in rows:
                self._fail(name, self._measurer.errors[name])
            elif (k := int(rows[name].shape[1])) != self._widths.setdefault(name, k):
                del rows[name]
                error = f"it returned {k} numbers per image, and {self._widths[name]} before: always return as many"
                self._fail(name, InputError(error))
        return {f"{self._group.name}/{name}": each for name, each in rows.items()}

    def take(self, rows: dict[str, Array], n: int) -> None:
        """Sketch what was measured of a batch of n images; what is not there, they count as invalid."""
        sketches: dict[str, Any] = self._group.sketches
        for name in self._missed:
            key, values = f"bank/{name}", rows.get(f"{self._group.name}/{name}")
            if values is None:
                self._missed[name] += n
                if key in sketches:
                    _skip(sketches[key], n)
                continue
            if key not in sketches:
                seed = self._settings.seed_of(f"{plain_name(self._group.name)}/{name}")
                sketches[key] = KLLBank(int(values.shape[1]), self._settings.k, seed=seed)
                _skip(sketches[key], self._missed[name])
            sketches[key].update(values)

    def warnings(self) -> list[str]:
        """What a reader of the profile should know: which measures failed, and why."""
        group, total = self._group.name, self._group.n + self._group.invalid
        return [
            f"{group}/{name} could not be measured in {self._missed[name]:,} of {total:,} rows: {told(error)}"
            for name, error in self._errors.items()
        ]

    def _fail(self, name: str, error: Exception) -> None:
        if name not in self._errors:
            self._errors[name] = error
            self._settings.on_custom_failure(f"{self._group.name}/{name}", error)


def _skip(bank: KLLBank, rows: int) -> None:
    """Give a bank rows that it counts as invalid."""
    for start in range(0, rows, _ROWS_AT_ONCE):
        bank.update(np.full((min(_ROWS_AT_ONCE, rows - start), bank.dim), np.nan, np.float32))
