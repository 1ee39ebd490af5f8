"""Custom measures of a group of images: a bank for each, so that what one of them leaves out is left out of no other.

A measure that fails for a batch has no rows there: its bank counts them as invalid, so that rows stay exact, the joint
sample has NaN, and the profile's warnings say what the error was.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from lensai_integrations.arrays.namespaces import Array
from lensai_integrations.builder import feed, make
from lensai_integrations.errors import InputError, told
from lensai_integrations.measures.batches import Found
from lensai_integrations.measures.custom import CustomMeasure, custom_measurer
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.profiles.conventions import plain_name
from lensai_integrations.profiles.groups import Group
from lensai_integrations.settings import ProfilerSettings

_ROWS_AT_ONCE = 4096


class CustomStreams:
    """The custom measures of one group.

    Args:
        group: The group of images, which is told which measures it has; it gets a bank for each that works.
        reader: How images are read, with nothing left to be decided.
        settings: How it is sketched.
        measures: What is measured.
    """

    def __init__(
        self, group: Group, reader: ImageInputs, settings: ProfilerSettings, measures: tuple[CustomMeasure, ...]
    ) -> None:
        self._group, self._settings = group, settings
        self._measurer = custom_measurer(reader, measures)
        self._widths: dict[str, int] = {}
        self._sketched: set[str] = set()
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
        for name in self._missed:
            values, source = rows.get(f"{self._group.name}/{name}"), f"rows/{name}"
            if values is None:
                self._missed[name] += n
                self._skip(name, n)
                continue
            if name not in self._sketched:
                self._sketched.add(name)
                seed = self._settings.seed_of(f"{plain_name(self._group.name)}/{name}")
                self._group.sketches |= make({source: int(values.shape[1])}, k=self._settings.k, seed=seed)
                self._skip(name, self._missed[name])
            feed(self._group.sketches, {source: values})

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

    def _skip(self, name: str, rows: int) -> None:
        """Give a measure's sketches rows that they count as invalid, if it has some already."""
        for start in range(0, rows if name in self._sketched else 0, _ROWS_AT_ONCE):
            missing = np.full((min(_ROWS_AT_ONCE, rows - start), self._widths[name]), np.nan, np.float32)
            feed(self._group.sketches, {f"rows/{name}": missing})
