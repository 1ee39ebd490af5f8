"""The passes of a Keras model that are monitored: its steps are listened to as in a fit, and a monitor is told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import keras

from lensai_integrations.arrays.namespaces import to_host
from lensai_integrations.errors import InputError
from lensai_integrations.keras.answer import Answer
from lensai_integrations.keras.fit import KerasFit, together
from lensai_integrations.keras.layers import Layer, find_layer, layer_again
from lensai_integrations.keras.taps import Feeding, Tap, Taps
from lensai_integrations.problems import Problems
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.names import OUTPUTS, head_of, is_labels
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.training.drift_options import DriftOptions
from lensai_integrations.training.drift_passes import Monitored, Passes
from lensai_integrations.training.layers import KnownLayer, SeveralAlikeError, known_output, not_in
from lensai_integrations.training.recording import LAYER, Recording


class KerasDriftFit(Monitored, KerasFit):
    """A model whose passes are monitored, one after the other.

    Args:
        passes: The monitor.
        model: The model.
        say: Tells the user.
    """

    def __init__(self, passes: Passes, model: Any, say: Callable[[str], None]) -> None:
        self.passes, self.say = passes, say
        super().__init__(replace(passes.options.reading(), segment_by=None), model, _labels_known(passes.options))

    def _attached(self, model: Any, problems: Problems) -> Taps:
        return attach_known(model, self.passes.options, problems, self._steps.place)

    def complete(self, source: str, *, whole: bool = True, **info: Any) -> None:
        """End a pass; if it was cut short, by the exception that is handled now."""
        super().complete(source, whole=whole, error=None if whole else sys.exception())

    def _begins(self, kind: str, arguments: Sequence[Any]) -> None:
        """A monitor keeps no profile that says of which weights it is."""

    def _measure(self, recording: Recording, seen: Mapping[str, Any]) -> None:
        """On the host: a window cuts batches to all sizes, and each would be compiled for JAX and TensorFlow."""
        batch = {key: together(values) for key, values in seen.items()}
        if keras.backend.backend() != "torch":
            batch = {key: to_host(values) for key, values in batch.items()}
        super()._measure(recording, batch)


def _labels_known(options: DriftOptions) -> dict[str, int | str]:
    """Where in `y` the labels of the baseline were, by head, if it was made in Keras: elsewhere places are others."""
    made_by = options.baseline.info.get("made_by", {}) if isinstance(options.baseline, Baseline) else {}
    places = {
        head_of(name): group.info.get("read_from")
        for name, group in options.reference.groups.items()
        if is_labels(name)
    }
    return {head: place for head, place in places.items() if isinstance(place, int | str)} if "keras" in made_by else {}


def attach_known(
    model: Any, options: DriftOptions, problems: Problems, place: Callable[[], Any] = lambda: None
) -> Taps:
    """Taps on the layers that the baseline knows, and on the one that its outputs are of.

    What the baseline's callback found by itself is found here in the same way, whatever its layers are called by now. A
    layer that the model does not have is a problem, and the others are read; without the layer of the outputs, what
    the model itself answers is read.
    """
    reference = options.reference
    taps, found = [], [known for known in options.known if known.auto]
    for known in options.known:
        if not known.auto:
            with problems.caught(LAYER + known.name):
                layer, note = _found(model, reference, known)
                taps.append(Tap(LAYER + known.name, layer, known.reduce))
                if note := note or not_in(reference, known):
                    problems.note(LAYER + known.name, note)
    groups = reference.groups
    heads = [name for name in groups if name.split("/")[0] == OUTPUTS] if options.outputs is True else []
    auto = bool(heads) and all(groups[name].info.get("auto", False) for name in heads)
    if OUTPUTS in heads and not auto:
        taps.append(Tap(OUTPUTS, _output(model, reference)))
    if isinstance(options.outputs, str):
        with problems.caught(OUTPUTS):
            taps.append(Tap(OUTPUTS, find_layer(model, options.outputs)))
    answer = Answer(model, problems, outputs=auto or (bool(heads) and OUTPUTS not in heads), layers=bool(found))
    reduces = {known.name: known.reduce for known in found}
    feeding = Feeding(lambda name: reduces.get(name, "mean"), [known.name for known in found], heads)
    _say_if_fewer(answer, found, problems)
    _say_if_activated(answer, groups, problems)
    return Taps(taps, problems, place, answer, feeding)


def _say_if_fewer(answer: Answer, found: Sequence[KnownLayer], problems: Problems) -> None:
    if found and answer.settled and len(answer.embeddings) != len(found):
        problems.note(
            "layers",
            f"the baseline has the embeddings {', '.join(each.name for each in found)}, but {len(answer.embeddings)}"
            " are found in this model: pass layers={...}, from these names to those of the layers here",
        )


def _say_if_activated(answer: Answer, groups: Mapping[str, Group], problems: Problems) -> None:
    """Behind a softmax or a sigmoid the same columns mean something else than the logits of the baseline."""
    for name, how in answer.heads.items() if answer.outputs else ():  # else a layer is read that the baseline names
        group = answer.group_of(name)
        info = groups[group].info if group in groups else {}
        kind, ended_so = info.get("kind"), info.get("activation") == how.activation
        if kind in ("logits", "multilabel_logits") and how.activation in ("softmax", "sigmoid") and not ended_so:
            problems.note(
                f"{group} activated",
                f"{group} of the baseline are {kind}, but this model ends in a {how.activation}: they differ by that"
                " alone. Make the baseline with this model, by model.predict(..., callbacks=[BaselineCallback()])",
            )


def _found(model: Any, reference: Profile, known: KnownLayer) -> tuple[Layer, str]:
    """A layer by its place or path in the model of the baseline, or else by its name there; and what is to be said."""
    if known.named:
        return find_layer(model, known.path), ""
    settle = f"pass layers={{{known.name!r}: '...'}} with the name of the layer here that is meant"
    place = reference.groups[LAYER + known.name].info.get("place") if LAYER + known.name in reference.groups else None
    try:
        layer, note = layer_again(model, known.path, place)
    except SeveralAlikeError as error:
        raise InputError(f"{error}: {settle}") from None
    except InputError as error:
        with suppress(InputError):
            return find_layer(model, known.name), ""
        raise InputError(f"{error}; {settle}") from None
    return layer, note and f"{note}; else {settle}"


def _output(model: Any, reference: Profile) -> Layer:
    path = known_output(reference)
    if path is not None:
        with suppress(InputError):
            layer, note = layer_again(model, path, reference.groups[OUTPUTS].info.get("place"))
            if not note:
                return layer
    return Layer(model.name, model)
