"""The pane that is being filled: rows are measured exactly as the baseline's were."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lensai_integrations.drift.batches import Batch, feeds
from lensai_integrations.errors import InputError
from lensai_integrations.measures.custom import CustomMeasure
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.profiles.alike import check_alike
from lensai_integrations.profiles.conventions import chosen_conventions, chosen_readers, with_conventions
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.profiling.profiler import Profiler
from lensai_integrations.profiling.settings import chosen_measures


class Measuring:
    """Makes profilers that measure as a baseline was measured.

    Args:
        baseline: A baseline, or a profile.
        against: `"reference"`, or `"training"` for the training profile of a baseline.
        inputs: How to read images, of several image inputs by name, see `conventions.chosen_readers`; None for how the
            baseline's were read.
        measures: Custom measures; None for the baseline's, as far as this process has declared them.
        rows: Rows that the sample of a window keeps.
        source: What the profiles say they are of.
        on_error: Told a group and an error when a group cannot take a batch.
        on_note: Told what a reader should know of how batches are read; of every window anew.

    Attributes:
        reference: The profile that windows are held against: of images measured by several conventions, the first.
        readers: Where images are in a batch, and how they are read, by the name of the image input; of the only one it
            is empty.
        source: What the profiles say they are of.

    Raises:
        InputError: If the baseline is none, or has no rows.
    """

    def __init__(
        self,
        baseline: Baseline | Profile,
        *,
        against: str = "reference",
        inputs: ImageInputs | Mapping[str, ImageInputs] | None = None,
        measures: Sequence[CustomMeasure] | None = None,
        rows: int = 2000,
        source: str = "production",
        on_error: Callable[[str, Exception], None] | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        whole = _reference(baseline, against)
        self.reference = with_conventions(whole, chosen_conventions(None, whole))
        self.readers = chosen_readers(inputs, whole)
        Profiler(like=self.reference, measures=measures, rows=rows)  # says once what of the baseline is not declared
        declared, _ = chosen_measures(measures, self.reference)
        info = self.reference.info
        segments = {key: info[key] for key in ("segment_by", "max_segments") if info.get(key) is not None}
        self._settings: dict[str, Any] = {"like": self.reference, "measures": declared, "source": source, **segments}
        self._settings["on_note"] = on_note
        self._rows, self._on_error, self.source = rows, on_error, source
        self._last: Profiler | None = None  # what its first images decided holds for the windows that follow

    def check(self, profile: Profile) -> None:
        """Refuse a profile of groups that were measured otherwise than the reference's, or have other streams.

        Raises:
            LensAIError: Naming the group.
        """
        for group in profile.groups.values():
            check_alike(group, self.reference)

    def profiler(self, rows: int | None = None) -> Profiler:
        """A profiler of images that were taken out of their batch.

        Args:
            rows: Rows that its sample keeps, if not as many as a window's.
        """
        decided = self._last.readers if self._last is not None else self.readers
        readers = {name: replace(reader, key=None) for name, reader in decided.items()}
        inputs = readers.get("", readers)
        if rows is None:
            self._last = Profiler(inputs=inputs, rows=self._rows, on_error=self._on_error, **self._settings)
            return self._last
        settings = {key: value for key, value in self._settings.items() if key not in ("segment_by", "max_segments")}
        return Profiler(inputs=inputs, rows=rows, **settings)


def _reference(baseline: Baseline | Profile, against: str) -> Profile:
    if not isinstance(baseline, Baseline | Profile):
        raise InputError(f"baseline is a {type(baseline).__name__}: pass a Baseline, e.g. Baseline.load(folder)")
    if against not in ("reference", "training"):
        raise InputError(f"against={against!r} is unknown: pass 'reference' or 'training'")
    profile = baseline if isinstance(baseline, Profile) else getattr(baseline, against)
    if profile is None or (isinstance(baseline, Profile) and against == "training"):
        raise InputError("against='training', but the baseline holds no training profile: leave `against` away")
    if not profile.n:
        raise InputError("the baseline has seen no rows: profile at least one batch before monitoring against it")
    if not feeds(profile):
        raise InputError(
            f"the baseline has {', '.join(profile.groups)}, and `update` can be given nothing of these: hold profiles"
            " against it with compare(baseline, window), or make one of images, outputs, layers or labels"
        )
    return profile


@dataclass
class OpenPane:
    """Rows on their way to a full pane.

    Attributes:
        number: Of the pane it will be.
        profiler: Measures them.
        earlier: The rows of before a restart.
        rows: How many so far.
        opened: When the first came, seconds since 1970.
        closed: When the last did.
        file: Where all of them are on disk; empty if that is not so.
    """

    number: int
    profiler: Profiler
    earlier: Profile | None = None
    rows: int = 0
    opened: float = 0.0
    closed: float = 0.0
    file: str = field(default="", compare=False)

    def take(self, batch: Batch, now: float) -> int:
        """Measure a batch. Groups that cannot be measured as the baseline's are left out.

        Returns:
            Rows that were measured: all, or none if no group of the baseline could take them.
        """
        taken = self._measure(batch)
        if taken:
            self.opened = self.opened if self.rows else now
            self.rows, self.closed, self.file = self.rows + taken, now, ""
        return taken

    def _measure(self, batch: Batch) -> int:
        self.profiler.update(
            inputs=batch.inputs,
            outputs=batch.outputs,
            embeddings=batch.embeddings,
            labels=batch.labels,
            segments=batch.segments,
        )
        return batch.n if self.profiler.held else 0

    def profile(self) -> Profile:
        """All its rows."""
        profile = self.profiler.profile()
        return profile if self.earlier is None else self.earlier.merge(profile) if profile.groups else self.earlier
