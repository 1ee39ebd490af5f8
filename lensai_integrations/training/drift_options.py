"""The arguments of `DriftCallback` in every framework: documented, with their defaults, and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lensai_integrations.errors import InputError
from lensai_integrations.measures.arguments import documented, plain
from lensai_integrations.measures.embeddings import Reduce, check_reduce
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.monitoring.monitor import DriftMonitor
from lensai_integrations.monitoring.sinks.base import Sink
from lensai_integrations.profiles.conventions import chosen_readers, is_images, readers_by_name
from lensai_integrations.profiles.names import LABEL, OUTPUTS
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.profiling.labels import Place
from lensai_integrations.training.fit import TEST
from lensai_integrations.training.layers import KnownLayer, known_layers, known_output
from lensai_integrations.training.options import Reading, as_place

#: Arguments of the monitor that are no arguments of the callback by name.
_SETTINGS = ("every", "warm_start", "recover", "remind", "min_effect", "against", "measures", "rows", "clock")


@documented(DriftMonitor, only=("window", "stride", "warn", "alarm", "sinks", "state", "name", "inputs"))
@dataclass(frozen=True, kw_only=True)
class DriftOptions:
    """What a `DriftCallback` is asked for.

    Args:
        baseline: A `Baseline`, its folder, or `runs:/<run_id>`, `models:/<name>/<version>` and the like. None with
            `monitor`.
        layers: Whose answers are embeddings, by their names in the baseline; None for all that it has. Where they are
            called otherwise in this model, a dict from these names to those here: `{"net.pool": "backbone.pool"}`.
        outputs: True for what the baseline's outputs are of: the layer of its name, if the model has it, else what the
            model answers; the name of a layer; or False.
        reduce: From a layer's answer to `[n, D]`, for all layers or by name; None for as in the baseline.
        target: Key or place of the labels; `"auto"`: the usual ones. None: no labels.
        flush: Whether rows that do not fill a window are judged at the end of a pass, or wait for the next.
        log_to_mlflow: Whether windows go to MLflow.
        monitor: A monitor to use instead of making one; it is not closed here, and all above about monitors is its own.
        settings: Other arguments of `DriftMonitor`: `every`, `recover`, `remind`, `min_effect`, `against`, `measures`,
            `rows`, `warm_start`, `clock`.

    Raises:
        InputError: If an argument is not one of those accepted.
        LensAIError: If the baseline cannot be loaded.
    """

    baseline: Any = None
    window: Any = 200
    stride: int | None = None
    warn: float | None = 0.05
    alarm: float = 0.01
    sinks: Sequence[Sink | Callable[..., Any]] = ()
    state: str | Path | None = None
    name: str = "production"
    layers: Sequence[str] | Mapping[str, str] | None = None
    outputs: str | bool = True
    reduce: Reduce | Mapping[str, Reduce] | None = None
    inputs: ImageInputs | Mapping[str, ImageInputs] | None = None
    target: Place | None = "auto"
    flush: bool = True
    log_to_mlflow: bool = True
    monitor: DriftMonitor | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    reference: Profile = field(init=False)
    known: list[KnownLayer] = field(init=False)

    def __post_init__(self) -> None:
        for name in ("layers", "reduce", "inputs", "target", "sinks", "settings"):
            object.__setattr__(self, name, plain(getattr(self, name)))
        object.__setattr__(self, "target", as_place(self.target))
        unknown = sorted(self.settings.keys() - set(_SETTINGS))
        if unknown:
            raise InputError(f"DriftCallback takes no {', '.join(unknown)}; of DriftMonitor's it takes {_SETTINGS}")
        if not isinstance(self.outputs, str | bool):
            raise InputError(f"outputs={self.outputs!r} should be True, False, or the name of a layer")
        readers_by_name(self.inputs)
        for reduce in self.reduce.values() if isinstance(self.reduce, Mapping) else [self.reduce]:
            if reduce is not None:
                check_reduce(reduce)
        if self.monitor is not None and not isinstance(self.monitor, DriftMonitor):
            raise InputError(f"monitor is a {type(self.monitor).__name__}: pass a DriftMonitor, or None")
        if self.monitor is None:
            object.__setattr__(self, "baseline", _loaded(self.baseline))
        reference = (self.monitor or self.new_monitor()).reference
        object.__setattr__(self, "reference", reference)
        object.__setattr__(self, "known", known_layers(reference, self.layers, self.reduce))

    def __reduce__(self) -> Any:
        if self.monitor is not None:
            raise InputError(
                "a callback with monitor=... cannot be copied or sent to another process, since a monitor has"
                " threads, files and a lock: give it the baseline and the monitor's arguments instead, and each process"
                " makes one"
            )
        given = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
        return _again, (given,)

    def new_monitor(
        self, sinks: Sequence[Sink] = (), *, state: str | Path | None = None, name: str | None = None
    ) -> DriftMonitor:
        """A monitor as asked for.

        Args:
            sinks: More of them.
            state: Its folder.
            name: Its name.

        Raises:
            InputError: If an argument is wrong, or the state is in use.
        """
        return DriftMonitor(
            self.baseline,
            self.window,
            stride=self.stride,
            warn=self.warn,
            alarm=self.alarm,
            sinks=[*self.sinks, *sinks] if isinstance(self.sinks, list | tuple) else self.sinks,
            state=state,
            name=name or self.name,
            inputs=self.inputs,
            **self.settings,
        )

    def reading(self) -> Reading:
        """How batches and layers are read, in the words of a baseline's options."""
        groups = self.reference.groups
        readers = chosen_readers(self.inputs, self.reference)
        segment_by = self.reference.info.get("segment_by")
        return Reading(
            layers=[layer.name for layer in self.known],
            inputs=readers.get("", readers) if any(map(is_images, groups)) else None,
            outputs=(known_output(self.reference) or "auto") if OUTPUTS in groups and self.outputs else None,
            target=self.target if any(name.split("/")[0] == "labels" for name in groups) else None,
            reference=TEST,
            reduce={layer.name: layer.reduce for layer in self.known},
            segment_by=None if segment_by == LABEL else segment_by,
        )


def _again(given: dict[str, Any]) -> DriftOptions:
    return DriftOptions(**given)


def _loaded(baseline: Any) -> Baseline | Profile:
    if isinstance(baseline, Baseline | Profile):
        return baseline
    if not isinstance(baseline, str | Path):
        raise InputError(
            f"baseline is a {type(baseline).__name__}: pass a Baseline, a folder, 'runs:/<run_id>' or"
            " 'models:/<name>/<version>'"
        )
    from lensai_integrations.mlflow import load_baseline

    return load_baseline(baseline)
