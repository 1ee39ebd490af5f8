"""One fit of a Keras model: its passes, and the model's functions while they are exchanged for ours.

Profiles of complete epochs lie beside the backup of `keras.callbacks.BackupAndRestore`, in its own folder, which Keras
removes when a fit is done. An epoch that was cut short is trained again from its start, and profiled again from its
start: no row counts twice.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np

from lensai_integrations.arrays.namespaces import to_host
from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.keras.batches import KerasBatches, input_names_of
from lensai_integrations.keras.functions import Exchange, abandoned, steps
from lensai_integrations.keras.guard import class_names_in
from lensai_integrations.keras.taps import PREDICT, TEST, TRAIN, Taps, attach
from lensai_integrations.keras.weights import FILE, ModelWeights, SeenPass
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.problems import Problems
from lensai_integrations.profiles.coverage import BATCHES
from lensai_integrations.profiles.names import LABEL
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.storage.npz import pack, unpack
from lensai_integrations.training.chosen import ChosenBatches
from lensai_integrations.training.fit import PREDICTION, TRAINING, VALIDATION, Fit, StateCache, profiles_of
from lensai_integrations.training.options import Options, Reading
from lensai_integrations.training.recording import Recording, one_blas_thread
from lensai_integrations.training.weights import WEIGHTS, Weights

_EACH_ITS_OWN: Final = (
    "cost={cost:g} is measured by every process by itself, and {processes} train this model together: they would run"
    " other programs at the same step and wait for each other for ever; pass every=, which is the same in all"
)
_KINDS = (TRAIN, TEST, PREDICT)
_KIND_OF = {TRAINING: TRAIN, PREDICTION: PREDICT}


class KerasFit(Fit[Recording]):
    """The state of a callback from the start of a fit (or of an `evaluate` or `predict` on its own) on.

    Args:
        options: What was asked for.
        model: The model.
        locations: Where the labels of a baseline were, by head.

    Raises:
        InputError: If the model has no layer of a given name, or with a cost if several processes train it together.

    Attributes:
        batches: How many batches the pass that is running has handed out; of the last call of several at most too many.
        on_interruption: What is done when a step raises.
        begun: The sources of which a pass has begun.
        weights: By source, those that the latest complete profile was made with, unless they changed meanwhile.
    """

    def __init__(self, options: Reading, model: Any, locations: Mapping[str, int | str] | None = None) -> None:
        if options.segment_by not in (LABEL, None):
            raise InputError(f"segment_by={options.segment_by!r} is unknown in Keras; pass 'label' or None")
        super().__init__(options, reader=lambda _: self._reader)
        self._reader = reader_of(options, model, self.problems, locations)
        self._steps = steps()
        self._check_cost(model)
        self._taps = self._attached(model, self.problems)
        self._reader.answer = self._taps.answer
        self._model = weakref.ref(model)
        self._exchanges = {kind: self._exchange(model, kind) for kind in _KINDS}
        self._running: str | None = None
        self.on_interruption: Callable[[], None] = self.stop
        self._waiting: deque[dict[str, Any]] = deque()
        self.batches, self._batches_per_call, self._calls = 0, 1, 0

    def _check_cost(self, model: Any) -> None:
        cost = self.options.cost if isinstance(self.options, Options) else None
        if cost is not None and (processes := self._steps.processes(model)) > 1:
            raise InputError(_EACH_ITS_OWN.format(cost=cost, processes=processes))

    def begin(self) -> None:
        """Begin anew: forget profiles, recordings and problems."""
        super().begin()
        self.begun: set[str] = set()
        self.weights: dict[str, ModelWeights] = {}
        self._weights: ModelWeights | None = None
        self._begun = False
        self._choice: ChosenBatches | None = None

    def _attached(self, model: Any, problems: Problems) -> Taps:
        return attach(model, self.options, problems, self._steps.place)

    def _exchange(self, model: Any, kind: str) -> Exchange:
        def sink(handed_out: dict[str, Any]) -> None:
            self._seen(kind, handed_out)

        def begins(arguments: Sequence[Any]) -> bool:
            return self._begins(kind, arguments)

        def ended(profiled: bool) -> None:
            self._ended(kind, profiled=profiled)

        return Exchange(
            model, kind, self._taps, self._reader.pick, sink, self.problems, self._interrupted, begins, ended,
            self._spending,
        )  # fmt: skip

    def _interrupted(self) -> None:
        self.on_interruption()

    def renew(self, model: Any) -> bool:
        """Begin anew with the same model, so that what was traced is not traced again; False if it is not the same.

        Raises:
            InputError: If the model has no layer of a given name any more.
        """
        if self._model() is not model or not self._taps.same_as(self._attached(model, Problems(quiet=True))):
            return False
        self.stop()
        self.begin()
        self._taps.begin_again()  # what it has to say, it says of every fit
        return True

    def end_others(self, callbacks: Sequence[Any]) -> None:
        """End what was interrupted before and still has the model's functions; these callbacks are those that run."""
        fits = [getattr(callback, "_fit", None) for callback in callbacks]
        owners = [exchange for fit in fits if isinstance(fit, KerasFit) for exchange in fit._exchanges.values()]
        for kind in _KINDS:
            abandoned(self._model(), kind, owners)

    def record(self, source: str, *, everything: bool, as_reference: bool = True) -> None:
        """Record the passes of a source.

        Args:
            source: Whose passes.
            everything: Layers too, not only what the model is fed.
            as_reference: Whether they are the reference, or may turn out to be, so that all batches are profiled.
        """
        self._choice = self.chosen(source, as_reference=as_reference) if source == TRAINING else self._choice
        layers, known_layers = (self._taps.layers, []) if everything else ([], self._taps.layers)
        prepare = self.prepare(source)
        self.recordings[source] = Recording(source, prepare, layers, self.problems, aside=aside, known=known_layers)

    def name_classes(self, data: Sequence[Any]) -> None:
        """Take what data sets call their classes."""
        with self.problems.caught("class names"):
            self._reader.class_names = class_names_in(data)

    def listen(self, *kinds: str) -> None:
        """Exchange the model's functions for these kinds of steps."""
        for kind in kinds:
            self._exchanges[kind].exchange()

    def start(self, source: str, epoch: int = 0) -> None:
        """Begin a pass, if passes of its source are recorded.

        Args:
            source: Whose pass.
            epoch: Its number, by which other batches are chosen where not all are profiled.
        """
        self._settle(0)
        self.begun.add(source)
        self._running = source if source in self.recordings else None
        self.batches, self._batches_per_call = 0, _batches_per_call(self._model())
        self._weights, self._begun, self._calls = None, False, 0
        if self._choice is not None and source == TRAINING:
            self._choice.begin(epoch, together=int(getattr(self._model(), "steps_per_execution", 1)))
        if self._running is not None:
            self.recordings[source].start()

    def end(self, source: str, *, whole: bool = True, **info: Any) -> None:
        """End a pass: its profile becomes the latest of its source."""
        if self._running == source:
            self._settle(0)
            self._running = None
            weights, before = self._weights, self.profiles.get(source)
            digest = {} if weights is None else {WEIGHTS: weights.weights.to_json()}
            if self._choice is not None and source == TRAINING:
                info[BATCHES] = self._choice.counts()
                if complaint := self._choice.complaint():
                    self.problems.note("cost", complaint)
            self.complete(source, whole=whole, **info, **digest)
            if weights is not None and self.profiles.get(source) is not before:
                self.weights[source] = weights

    def _begins(self, kind: str, arguments: Sequence[Any]) -> bool:
        """Before every step: whether it is to be profiled."""
        choice = self._choice_in(kind)
        if choice is None:
            self._sample_weights(kind, arguments)
            return True
        with self.problems.caught("which batches are profiled"):
            return choice.takes(self._calls, lambda: self._steps.clock(self._model()))
        return False

    def _ended(self, kind: str, *, profiled: bool) -> None:
        """After every step. One that is profiled was handed out; in one that is not, what waits is there by now."""
        choice = self._choice_in(kind)
        if choice is None:
            return
        self._calls += 1
        choice.ended(profiled=profiled)
        if not profiled:
            self.batches += int(getattr(self._model(), "steps_per_execution", 1))
            self._settle(max(self._steps.lag() - 1, 0))

    def _choice_in(self, kind: str) -> ChosenBatches | None:
        """Which steps of the kind are profiled in the pass that is running; None for all."""
        return self._choice if kind == TRAIN and self._running == TRAINING else None

    def _spending(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._choice is None or self._running != TRAINING else self._choice.spending()

    def _sample_weights(self, kind: str, arguments: Sequence[Any]) -> None:
        """Before the first step of a pass that trains nothing: now the weights are in place that it is of."""
        source = self._running
        if self._begun or source in (None, TRAINING) or _KIND_OF.get(str(source), TEST) != kind:
            return
        self._begun = True
        with self.problems.caught("which weights the model has"):
            state = arguments[0] if keras.backend.backend() == "jax" else ()
            self._weights = ModelWeights.of(self._model(), state)

    @property
    def model(self) -> Any:
        """The model; None if it is gone."""
        return self._model()

    def left(self) -> ModelWeights | None:
        """The weights that the model has now; None if they cannot be read, as in a step that was interrupted."""
        with self.problems.caught("which weights the model has"):
            return ModelWeights.of(self._model())
        return None

    def seen(self, profiles: Mapping[str, Profile] | None = None) -> SeenPass:
        """The latest profiles, or others that were stored, and the weights that the reference was made with."""
        latest = dict(self.profiles if profiles is None else profiles)
        source = self.reference if self.reference in latest or self.reference != VALIDATION else TRAINING
        weights = self.weights.get(source) if profiles is None else None
        if weights is None and source in latest and (stored := Weights.from_json(latest[source].info.get(WEIGHTS))):
            weights = ModelWeights(stored)
        return SeenPass(latest, source, weights)

    def made(self, profiles: Mapping[str, Profile], info: Mapping[str, Any]) -> Baseline | None:
        """The baseline that these profiles make, or None if there is nothing to hold a model against.

        Args:
            profiles: By source.
            info: What it says of the weights.
        """
        profiles = {source: profile for source, profile in profiles.items() if profile.n}
        for profile in profiles.values():
            profile.info.pop(FILE, None)  # for resumed fits alone
        if TRAINING in profiles:
            profiles[TRAINING] = with_names(profiles[TRAINING], self._taps.renamed())
        baseline = self.baseline(profiles)
        if baseline is not None:
            baseline.info |= {
                "source": baseline.reference.source,
                **info,
                "model": type(self._model()).__name__,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "made_by": {"keras": keras.__version__, keras.backend.backend(): version(keras.backend.backend())},
                "warnings": list(self.problems.messages),
            }
        return baseline

    def stop(self) -> None:
        """Give the model its functions back, and end what is running; complete profiles stay."""
        for exchange in self._exchanges.values():
            exchange.restore()
        if self._running is not None:
            self.end(self._running, whole=False)
        self._waiting.clear()

    def _seen(self, kind: str, handed_out: dict[str, Any]) -> None:
        """Take what a step has handed out. It is looked at when that waits for nothing."""
        if self._running is not None and _KIND_OF.get(self._running, TEST) == kind:
            self.batches += self._batches_per_call
            self._waiting.append(handed_out)
            self._settle(self._steps.lag())

    def _settle(self, left: int) -> None:
        while len(self._waiting) > left:
            handed_out = self._waiting.popleft()
            if self._running is not None:
                with self.problems.caught(f"a batch of {self._running}"):
                    if self._choice is not None and self._running == TRAINING:
                        self._steps.arrived(handed_out)
                    with self._spending():
                        self._measure(self.recordings[self._running], handed_out)

    def _measure(self, recording: Recording, handed_out: dict[str, Any]) -> None:
        names = self._taps.renamed() if recording.source == TRAINING else {}
        batch = {names.get(key, key): together(values) for key, values in handed_out.items()}
        taken = recording.take(batch)
        layers = [layer.key for layer in recording.layers]  # in an order that does not depend on which answers first
        if taken is not None:
            recording.record(taken, lambda: {key: batch[key] for key in layers if key in batch})


def reader_of(
    options: Reading, model: Any, problems: Problems, locations: Mapping[str, int | str] | None = None
) -> KerasBatches:
    """What reads the batches of a model, in whatever pass; `locations` as for `KerasFit`."""
    wanted = options.inputs_of(options.reference)
    inputs = ImageInputs() if isinstance(wanted, str) else wanted
    target: Any = options.target_of(options.reference)
    reader = KerasBatches(inputs, target, problems, locations, several=isinstance(wanted, str))
    reader.input_names = input_names_of(model)
    return reader


def _batches_per_call(model: Any) -> int:
    """TensorFlow hands out the batches of several steps at once, the others one by one."""
    return int(model.steps_per_execution) if keras.backend.backend() == "tensorflow" else 1


def with_names(profile: Profile, names: Mapping[str, str]) -> Profile:
    """A profile whose groups have other names, `names` by the old; those whose name is empty are left out.

    Example:
        >>> from lensai_integrations.profiles.groups import Group
        >>> profile = Profile({name: Group(name) for name in ("inputs", "outputs/0", "outputs/1")})
        >>> list(with_names(profile, {"outputs/0": "outputs", "outputs/1": ""}).groups)
        ['inputs', 'outputs']
    """
    if not names.keys() & profile.groups.keys():
        return profile
    kept = {name: new for name in profile.groups if (new := names.get(name, name))}
    groups = {new: replace(profile.groups[name], name=new) for name, new in kept.items()}
    rows = profile.rows
    if rows is not None:
        columns = {
            name: name.replace(old, new, 1) for old, new in kept.items() for name in rows.widths if _is_of(name, old)
        }
        rows = rows.renamed(columns)
    said = [warning for warning in profile.warnings if not any(warning.startswith(f"{name}:") for name in names)]
    segments = {value: with_names(segment, names) for value, segment in profile.segments.items()}
    return Profile(groups, rows, profile.info | {"warnings": said}, segments)


def _is_of(column: str, group: str) -> bool:
    return column == group or column.startswith(f"{group}/")


def together(values: Any) -> Any:
    """What the replicas have seen as one batch; of one replica as it is."""
    if not isinstance(values, tuple):
        return values
    return values[0] if len(values) == 1 else np.concatenate([to_host(replica) for replica in values])


@contextmanager
def aside() -> Iterator[None]:
    """Apart from the training: without gradients, and off its threads' cores."""
    with ExitStack() as stack:
        if keras.backend.backend() == "torch":
            from torch import no_grad

            stack.enter_context(no_grad())
        stack.enter_context(one_blas_thread())
        yield


#: Which profiles a file holds: of the latest epoch, and of the best.
LATEST, BEST = "latest", "best"
_MOST_BYTES = 1 << 30


class Backup:
    """Keeps profiles in the folder of a fit's `BackupAndRestore`; without one, it does nothing.

    Args:
        siblings: The callbacks of a fit.
        name: Tells several of our callbacks apart.
    """

    def __init__(self, siblings: Sequence[Any], name: str) -> None:
        backup = next((sibling for sibling in siblings if isinstance(sibling, keras.callbacks.BackupAndRestore)), None)
        folder = None if backup is None or "://" in str(backup.backup_dir) else Path(backup.backup_dir)
        self._metadata = None if folder is None else folder / "training_metadata.json"
        self._path = None if folder is None else folder / f"lensai-{name.replace('/', '-')}.npz"
        self._cache = StateCache()

    def save(self, profiles: Mapping[str, Mapping[str, Profile]], *, create: bool = True) -> None:
        """Write the profiles, by `"latest"` and `"best"` and by source, in one step.

        Args:
            profiles: The profiles.
            create: Whether to make the folder; if not, and there is none, nothing is written.

        Raises:
            OSError: If that fails.
        """
        if self._path is None or not (create or self._path.parent.is_dir()):
            return
        named = {f"{which}:{source}": profile for which, of in profiles.items() for source, profile in of.items()}
        arrays = {name: np.frombuffer(blob, np.uint8) for name, blob in self._cache.state(named).items()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        partial.write_bytes(pack(arrays))
        partial.replace(self._path)

    def load(self) -> dict[str, dict[str, Profile]]:
        """The profiles of the fit that is resumed; empty if none is.

        Raises:
            FormatError: If the file is damaged.
            OSError: If it cannot be read.
        """
        loaded: dict[str, dict[str, Profile]] = {LATEST: {}, BEST: {}}
        if self._path is None or self._metadata is None or not (self._path.is_file() and self._metadata.is_file()):
            return loaded
        if self._path.stat().st_size > _MOST_BYTES:
            raise FormatError(f"{self._path} has {self._path.stat().st_size} bytes, more than the {_MOST_BYTES} read")
        for name, array in unpack(self._path.read_bytes()).items():
            which, _, source = name.partition(":")
            if which not in loaded:
                raise FormatError(f"{self._path} has {name!r}, which is no profile of ours")
            loaded[which] |= profiles_of({source: array.tobytes()})
        return loaded
