"""What one fit keeps: the passes that are recorded, the profiles that are complete, and what is missing."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from itertools import combinations
from typing import Any, Final, Generic, Protocol, TypeVar

from lensai_integrations.errors import FormatError
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.measures.wrapped import class_names_of
from lensai_integrations.problems import Problems
from lensai_integrations.profiles.conventions import inputs_of, is_images
from lensai_integrations.profiles.coverage import BATCHES, coverage_text
from lensai_integrations.profiles.names import LABEL
from lensai_integrations.profiles.profile import Baseline, Profile, from_bytes, to_bytes
from lensai_integrations.profiling.batch_reading import BatchReader, Reader, image_inputs, without_key
from lensai_integrations.profiling.labels import Chosen, Place
from lensai_integrations.profiling.profiler import Profiler
from lensai_integrations.training.chosen import ChosenBatches
from lensai_integrations.training.delivered import RawImages
from lensai_integrations.training.options import SOURCES, Options, Profiling, Reading
from lensai_integrations.training.recording import Measurer

VALIDATION, TRAINING, TEST, PREDICTION = SOURCES
NO_HELD_OUT = (
    "there was no {} pass, so the reference is the training data: augmented, seen with dropout on and while the weights"
    " changed; clean production data may look drifted against it. To settle it, give `fit` validation data"
)
NO_ROWS = (
    "no row of the {} pass was handed to the callback: had it batches, and does a subclass of the callback that"
    " overrides a hook call super() in it?"
)

#: What training batches are noted under, where not all are profiled.
_BATCHES: Final = "training batches"
_WHOLE: Final = (
    "{} is not followed: the training data is the reference, or may have to be it, and a reference is of all batches"
)
_PARTIAL: Final = "the reference is of training data, and of {}: no whole validation pass was profiled"
_NONE_PROFILED: Final = (
    "of a pass over training data none was profiled ({}), so the training profile is that of an earlier pass, if there"
    " is one: pass a smaller every="
)

#: What of a reader says which values the model sees.
_READING = ("layout", "scale", "mean", "std", "kind", "channels")
_READ_OTHERWISE = (
    "those of {0} are read as {2}, those of {1} as {3}, so the model sees other values in the one than in the other,"
    " unless it makes them alike itself: is a rescale or a normalisation missing? If it is meant, say so with"
    " inputs={{{0!r}: ImageInputs(...), {1!r}: ImageInputs(...)}}"
)
_OTHER_INPUTS = (
    "{0} feeds the model {2}, {1} {3}: only groups of the same name are held against one another. Say which are read"
    " with inputs={{{0!r}: ..., {1!r}: ...}}, each ImageInputs(key=...) or several of these by name"
)

#: Given the first pass's loader, the reader of its batches and what measures them.
Prepare = Callable[[Any], tuple[Reader, Measurer]]


class Pass(Protocol):
    """What ends with a profile."""

    def finish(self, **info: Any) -> Profile:
        """End the pass."""
        ...


P = TypeVar("P", bound=Pass)


class Preparer:
    """Makes what reads and what measures the batches of a model's passes.

    What the first batch shows of labels holds for all of them.

    Args:
        options: What was asked for: `Profiling`, unless a subclass makes what measures.
        problems: Where it is reported what cannot be read or measured.
        rank: Which of several processes this is.
        reader: Given the first pass's loader, makes the reader of its batches; by default, one of batches that are
            images, or tuples and dicts with images and labels in them.

    Attributes:
        options: What was asked for.
        problems: What went wrong or is missing.
        raw: Images as they were delivered, where the data's transforms profile them.
    """

    def __init__(
        self,
        options: Reading,
        problems: Problems,
        *,
        rank: int = 0,
        reader: Callable[[Any], Reader] | None = None,
    ) -> None:
        self.options, self.problems = options, problems
        self._rank, self._make_reader = rank, reader
        self.begin()

    def begin(self) -> None:
        """Begin anew."""
        self.raw = RawImages(self.problems)
        self._chosen = Chosen()
        self._first_profiler: Profiler | None = None

    def prepare(self, source: str) -> Prepare:
        """What makes the reader and the profiler of a source."""
        return lambda loader: self._prepared(source, loader)

    @property
    def known_labels(self) -> Sequence[Place]:
        """Where the labels are, as far as a baseline tells."""
        return ()

    def _reader_of(self, source: str, loader: Any) -> Reader:
        if self._make_reader is not None:
            return self._make_reader(loader)
        options = self.options
        return BatchReader(
            image_inputs(options.inputs_of(source), loader, self.problems),
            options.target_of(source),
            self.problems,
            None if options.segment_by == LABEL else options.segment_by,
            source=source,
            chosen=self._chosen,
            class_names=class_names_of(loader),
            known=self.known_labels,
            several=isinstance(options.inputs_of(source), str),
        )

    def _prepared(self, source: str, loader: Any) -> tuple[Reader, Measurer]:
        options = self.options
        assert isinstance(options, Profiling)
        self.raw.find(source, loader)
        reader = self._reader_of(source, loader)
        inputs, asked = reader.inputs, options.inputs_of(source)
        if isinstance(asked, ImageInputs | Mapping):  # a reader may serve all passes
            inputs = without_key(asked)
        profiler = Profiler(
            inputs=inputs,
            convention=options.convention,
            measures=options.measures,
            task=options.task,  # type: ignore[arg-type]
            k=options.k,
            rows=options.rows,
            max_dim=options.max_dim,
            seed=[options.seed, self._rank, zlib.crc32(source.encode())],
            source=source,
            segment_by=options.segment_by,
            max_segments=options.max_segments,
            on_error=lambda group, error: self.problems.note(f"{group} of {source}", error, listed=False),
            on_note=lambda note: self.problems.note("images", note, listed=False),
        )
        if self._first_profiler is None:
            self._first_profiler = profiler
        profiler.share_labels(self._first_profiler)
        return reader, profiler

    def finished(self, source: str, recording: Pass, **info: Any) -> Profile | None:
        """The profile of a pass that has ended, with its delivered images; None if there is none.

        Args:
            source: Whose pass.
            recording: The pass.
            info: JSON values for the profile's info.
        """
        profile = None
        with self.problems.caught(f"the end of {source}"):
            profile = recording.finish(**info)
        with self.problems.caught(f"delivered images of {source}"):
            if profile is not None:
                self.raw.join(source, profile)
        return profile

    def reading_difference(self, profiles: Mapping[str, Profile]) -> str:
        """What is to be said if the images of two passes are not read alike: then the model sees other values.

        Args:
            profiles: By source.
        """
        by_pass = self.options.inputs if isinstance(self.options.inputs, Mapping) and self.options.by_pass else {}
        for one, two in combinations(sorted(profiles), 2):
            meant = all(isinstance(by_pass.get(source), ImageInputs | Mapping) for source in (one, two))
            difference = "" if meant else different_readings(profiles, one, two)
            if difference:
                return difference
        return ""


class Fit(Preparer, Generic[P]):
    """The state of a callback from the start of a fit on.

    Args:
        options: What was asked for.
        rank: Which of several processes this is; the first one keeps the profiles.
        gather: Merges the profiles that the processes made of one pass (a collective).
        reader: As for `Preparer`.

    Attributes:
        profiles: The latest complete profile by source; on the first rank only.
        recordings: By source, the passes that are recorded.
        reference: The source of the reference profile.
    """

    def __init__(
        self,
        options: Reading,
        *,
        rank: int = 0,
        gather: Callable[[Profile | None, Problems], Profile | None] = lambda profile, _: profile,
        reader: Callable[[Any], Reader] | None = None,
    ) -> None:
        self._gather = gather
        super().__init__(options, Problems(quiet=rank != 0), rank=rank, reader=reader)

    def begin(self) -> None:
        """Begin anew: forget profiles, recordings and problems."""
        self.problems.clear()
        super().begin()
        self.profiles: dict[str, Profile] = {}
        self.recordings: dict[str, P] = {}
        self.reference = self.options.reference_source
        self._cache = StateCache()

    def use_training_as_reference(self) -> None:
        """Nothing is held out: what training saw has to do."""
        self.problems.note("reference", NO_HELD_OUT.format(self.options.reference_source))
        self.reference = TRAINING

    def chosen(self, source: str, *, as_reference: bool) -> ChosenBatches | None:
        """Which batches of a source are to be profiled; None for all.

        Args:
            source: Whose passes.
            as_reference: Whether they are the reference, or may turn out to be; then all are.
        """
        options = self.options
        if source != TRAINING or not isinstance(options, Options) or not options.thins:
            return None
        if as_reference:
            self.problems.note(_BATCHES, _WHOLE.format(options.thinning))
            return None
        return ChosenBatches(options.every, cost=options.cost, seed=options.seed)

    def complete(self, source: str, *, whole: bool = True, **info: Any) -> None:
        """End a pass: its profile, merged over ranks, becomes the latest. A collective.

        Args:
            source: Whose pass.
            whole: False if it was cut short; it then only counts if there is no other.
            info: JSON values for the profile's info.
        """
        if source not in self.recordings:
            return
        profile = self.finished(source, self.recordings[source], **info)
        with self.problems.caught(f"merging {source} over ranks"):
            merged = self._gather(profile, self.problems)
            if merged is not None and _is_unseen(merged):
                self.problems.note(_BATCHES, _NONE_PROFILED.format(coverage_text(merged.info)))
                return
            if merged is not None and (whole or source not in self.profiles):
                if not whole:
                    merged.info["warnings"] = [*merged.warnings, f"the profile is of a part of a {source} epoch"]
                self.profiles[source] = merged
                with self.problems.caught("comparing how images are read"):
                    if difference := self.reading_difference(self.profiles):
                        self.problems.note("how images are read", difference)

    def baseline(self, profiles: Mapping[str, Profile]) -> Baseline | None:
        """The baseline that these profiles make, or None if there is nothing to hold a model against."""
        with self.problems.caught("delivered images"):
            self.raw.say_strays()
        training = profiles.get(TRAINING)
        reference = profiles.get(self.reference)
        if reference is None and self.options.reference_source == VALIDATION and training is not None:
            self.use_training_as_reference()
            reference = training
        if reference is None:
            return None
        if not any(group.n + group.invalid for group in reference.groups.values()) and not reference.warnings:
            self.problems.note("reference", NO_ROWS.format(self.reference))
        if reference is training and (of := coverage_text(reference.info)):
            self.problems.note(_BATCHES, _PARTIAL.format(of))
        return Baseline(reference, training if training is not reference else None)

    def state(self) -> dict[str, Any]:
        """The complete profiles as bytes, for a checkpoint; empty on all ranks but the first."""
        with self.problems.caught("checkpoint"):
            return dict(self._cache.state(self.profiles))
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over the profiles of a checkpoint; on the first rank only, or they would be merged several times."""
        with self.problems.caught("checkpoint"):
            if self._rank == 0:
                self.profiles = profiles_of(state)


def _is_unseen(profile: Profile) -> bool:
    """Whether a pass had batches, and none of those that were to be profiled."""
    batches = profile.info.get(BATCHES)
    return isinstance(batches, Mapping) and not batches["profiled"] and bool(batches["of"])


def different_readings(profiles: Mapping[str, Profile], one: str, two: str) -> str:
    """What is to be said if the images of two sources are not read alike, else nothing.

    Example:
        >>> different_readings({"training": Profile(), "validation": Profile()}, "training", "validation")
        ''
    """
    names = [inputs_of(profiles[source]) for source in (one, two)]
    if all(names) and set(names[0]) != set(names[1]):
        return _OTHER_INPUTS.format(one, two, *map(_input_names, names))
    for name in filter(is_images, profiles[one].groups.keys() & profiles[two].groups.keys()):
        infos = [profiles[source].groups[name].info for source in (one, two)]
        first, second = (info.get("reader") for info in infos)
        if first and second and any(first.get(key) != second.get(key) for key in _READING):
            return _READ_OTHERWISE.format(one, two, *(_reader_text(info) for info in infos))
    return ""


def _input_names(names: Sequence[str]) -> str:
    return "one image input" if names == ("",) else f"the image inputs {' and '.join(map(repr, names))}"


def _reader_text(info: Mapping[str, Any]) -> str:
    mean, std = (info["reader"].get(key) for key in ("mean", "std"))
    return f"{info['note']} with mean={mean} and std={std}" if mean else str(info["note"])


# -- profiles in checkpoints, as plain bytes by source


class StateCache:
    """Encodes profiles for checkpoints, each only once, by whatever names it is kept.

    A profile of a pass that has ended changes no more but for its `info`, to which may be added which file has its
    weights: then it is encoded anew.

    Example:
        >>> cache = StateCache()
        >>> list(cache.state({"validation": Profile(), "training": None}))
        ['validation']
    """

    def __init__(self) -> None:
        self._encoded: list[tuple[Profile, dict[str, Any], bytes]] = []

    def state(self, profiles: Mapping[str, Profile | None]) -> dict[str, bytes]:
        """The profiles that there are, as bytes, by name."""
        wanted = {name: profile for name, profile in profiles.items() if profile is not None}
        self._encoded = [entry for entry in self._encoded if any(entry[0] is profile for profile in wanted.values())]
        return {name: self._bytes(profile) for name, profile in wanted.items()}

    def _bytes(self, profile: Profile) -> bytes:
        for encoded, info, blob in self._encoded:
            if encoded is profile and info == profile.info:
                return blob
        self._encoded = [entry for entry in self._encoded if entry[0] is not profile]
        self._encoded.append((profile, deepcopy(profile.info), to_bytes(profile)))
        return self._encoded[-1][-1]


def profiles_of(state: Mapping[str, Any]) -> dict[str, Profile]:
    """The profiles in a callback's state, by name.

    Raises:
        FormatError: If it is damaged or of another format.
        DefinitionError: If a definition id means something else here than where it was written.
    """
    return {str(name): _profile(name, blob) for name, blob in state.items()}


def _profile(name: str, blob: Any) -> Profile:
    if not isinstance(blob, bytes):
        raise FormatError(
            f"the callback's state has a {type(blob).__name__} under {name!r}: it is not of this callback"
        )
    profile = from_bytes(blob)
    if not isinstance(profile, Profile):
        raise FormatError(f"the callback's state has a whole baseline under {name!r}, not a profile")
    return profile
