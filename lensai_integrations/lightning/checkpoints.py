"""Whose weights the reference is of: the best checkpoint's, those that fit leaves, or no one's, and then that is said.

Weights are told apart by their digests, taken at a pass's first batch, from the checkpoint's file, and from the model
when all callbacks are through with it. Averaging, swapping, restoring and freezing need no rules then. Where digests
cannot be compared (sharded checkpoints, a `state_dict` with other names) the steps decide, and that is said, too.

Lightning's checkpoints, which carry the baseline as plain bytes under the callback's state.

At the end of a fit the best one is asked for its weights and for the baseline that it carries. Its file may hold
gigabytes of weights and objects of any class, so only the pickled skeleton is read, and of each weight the few elements
that `Weights` looks at: nothing but containers, numbers, text and bytes is made of the pickle; all else becomes an
empty stand-in.
"""

from __future__ import annotations

import math
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.errors import FormatError
from lensai_integrations.lightning.fit import LightningFit
from lensai_integrations.problems import pass_on
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.torch.layers import SampledWeights
from lensai_integrations.training.fit import TRAINING, profiles_of
from lensai_integrations.training.options import FINAL
from lensai_integrations.training.weights import (
    ASK_FINAL,
    CHANGING,
    LEFT_BY_FIT,
    NO_PASS,
    NOBODYS,
    NOT_THE_CHECKPOINTS,
    OLDER,
    WEIGHTS,
    Weights,
    moment,
    sampled,
)

#: Where a sharded checkpoint keeps what is not sharded.
_SHARDED = "meta.pt"
#: Of the storages in a checkpoint, dtype and bytes of an element.
_KINDS: Final = {
    "DoubleStorage": ("float64", 8),
    "FloatStorage": ("float32", 4),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
    "ComplexFloatStorage": ("complex64", 8),
    "ComplexDoubleStorage": ("complex128", 16),
}
#: The fixed part of a file's own header in a zip file: 26 bytes on come the lengths of what is between it and the file.
_HEADER, _LENGTHS = 30, slice(26, 30)
#: Elements of the largest tensor that is believed.
_MOST: Final = 2**48


class CheckpointFile:
    """What a checkpoint file or folder says of itself. No foreign code is run.

    Args:
        path: Of the file, or of a sharded checkpoint's folder.

    Attributes:
        path: The same.
        step: The optimizer steps that were made; None if it does not say.
        epoch: Counted from 0; None if it does not say.

    Raises:
        FormatError: If it is no checkpoint.
        OSError: If it cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        skeleton = _skeleton(self.path / _SHARDED if self.path.is_dir() else self.path)
        self._content: dict[Any, Any] = skeleton if isinstance(skeleton, dict) else {}
        self.step, self.epoch = (_whole(self._content.get(key)) for key in ("global_step", "epoch"))

    def state(self, state_key: str) -> dict[str, Any]:
        """The state of one callback.

        Raises:
            FormatError: If there is none under this key.
        """
        callbacks = self._content.get("callbacks")
        state = callbacks.get(state_key) if isinstance(callbacks, dict) else None
        if not isinstance(state, dict):
            raise FormatError(
                f"checkpoint {self.path} has no baseline: it was saved without one or with save_weights_only=True"
            )
        return state

    def weights(self, names: Sequence[str]) -> Weights | None:
        """The digest of the tensors of these names.

        Returns:
            None if it cannot be told: not all are there, or not as plain tensors.
        """
        stored = self._content.get("state_dict")
        found = [stored.get(name) for name in names] if isinstance(stored, dict) else []
        tensors = [each for each in found if isinstance(each, _Tensor)]
        if not tensors or len(tensors) < len(found):
            return None
        try:
            with self.path.open("rb") as file, zipfile.ZipFile(file) as archive:
                return Weights.of(_samples(file, archive, tensors))
        except (OSError, zipfile.BadZipFile, KeyError, ValueError, OverflowError, struct.error) as error:
            pass_on(error)
            return None  # damaged, of a machine of the other byte order, or gone


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _skeleton(path: Path) -> Any:
    with path.open("rb") as checkpoint:
        try:
            with zipfile.ZipFile(checkpoint) as archive:
                entry = next(each for each in archive.infolist() if each.filename.endswith("/data.pkl"))
                if entry.compress_type != zipfile.ZIP_STORED:  # torch compresses nothing, and a bomb would
                    raise FormatError("its data.pkl is compressed")
                with archive.open(entry) as file:
                    return _Skeleton(file).load()
        except Exception as error:  # a damaged pickle may raise anything
            pass_on(error)
            raise FormatError(f"{path} cannot be read as a torch checkpoint: {error!r}") from error


def _samples(
    file: BinaryIO, archive: zipfile.ZipFile, tensors: Sequence[_Tensor]
) -> Iterator[tuple[str, tuple[int, ...], NDArray[np.uint8]]]:
    """Of each tensor dtype, shape, and the bytes of the elements that are looked at."""
    folder = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder").decode() != sys.byteorder:
        raise ValueError("bytes are in the other order")
    for tensor in tensors:
        dtype, item = _KINDS[tensor.storage.kind]
        entry = archive.getinfo(f"{folder}data/{tensor.storage.key}")
        places = tensor.places()
        if entry.compress_type != zipfile.ZIP_STORED or (places.size and places.max() >= entry.file_size // item):
            raise ValueError("the storage is not as large as the tensor")
        start = _start(file, entry)
        runs = np.split(places, np.flatnonzero(np.diff(places) != 1) + 1)
        parts = [_read_file(file, start + int(run[0]) * item, run.size * item) for run in runs if run.size]
        yield dtype, tensor.size, np.frombuffer(b"".join(parts), np.uint8)


def _start(file: BinaryIO, entry: zipfile.ZipInfo) -> int:
    """Where an entry's own bytes begin."""
    name, extra = struct.unpack("<HH", _read_file(file, entry.header_offset, _HEADER)[_LENGTHS])
    return int(entry.header_offset + _HEADER + name + extra)


def _read_file(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    read = file.read(size)
    if len(read) < size:
        raise ValueError("the file ends within a tensor")
    return read


@dataclass(frozen=True)
class _Storage:
    kind: str
    key: str


@dataclass(frozen=True)
class _Tensor:
    """Where a tensor lies in a checkpoint: in which storage, and how it is laid out there."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def places(self) -> NDArray[np.int64]:
        """Of the elements that are looked at, where they are in the storage.

        Raises:
            ValueError: If they are nowhere.
        """
        numel = math.prod(self.size)
        if max(numel, self.offset, *self.stride, 0) > _MOST:
            raise ValueError("a tensor is larger than any file")
        looked_at = sampled(numel)
        elements = np.unravel_index(looked_at, self.size) if self.size else ()
        places = np.full(looked_at.size, self.offset, np.int64)
        for index, step in zip(elements, self.stride, strict=True):
            places += index * step
        if places.size and places.min() < 0:
            raise ValueError("a tensor lies before its storage")
        return places


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
    """How torch's pickles spell a tensor."""
    whole = (offset, *size, *stride) if isinstance(size, tuple) and isinstance(stride, tuple) else (None,)
    if not (isinstance(storage, _Storage) and all(_whole(each) is not None and each >= 0 for each in whole)):
        return _StandIn()
    return _Tensor(storage, offset, size, stride)


def _parameter(data: Any, *_: Any) -> Any:
    """How torch's pickles spell a parameter."""
    return data


class _StandIn:
    """Takes whatever a pickle does to an object, and keeps nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _StandIn:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> _StandIn:
        return self

    def __setstate__(self, _: Any) -> None:
        pass

    def __setitem__(self, _: Any, __: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        """Accept an item."""

    def extend(self, _: Any) -> None:
        """Accept items."""


def _bytes_of(text: str, _: str) -> bytes:
    """How torch's pickles spell bytes."""
    return text.encode("latin1")


_SAFE = {
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _bytes_of,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{("torch", name): name for name in _KINDS},
}


class _Skeleton(pickle.Unpickler):
    """Reads a pickle without importing anything."""

    def find_class(self, module: str, name: str) -> Any:
        return _SAFE.get((module, name), _StandIn)

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) >= 3 and pid[0] == "storage" and isinstance(pid[1], str):
            return _Storage(pid[1], str(pid[2]))
        return None


_VALIDATE = "Trainer(callbacks=[BaselineCallback(...)]).validate(model, loader{})"
_BY_STEP = (
    "the weights in {name} cannot be compared with those of the reference (a sharded checkpoint, or a state_dict with"
    " other names); that both are {at} is all that is known: weights that a callback averages or swaps would be others."
    " {how} settles it"
)
_UNKNOWN = "not known: it was made {at}"
_OTHER_TENSORS = (
    "the weights that fit leaves, those {left}, cannot be compared with those of the reference, made {at}: the model's"
    " tensors are others now (pruned, wrapped, converted), or the reference is of a profile without a digest"
)
_EARLIER = (
    "ModelCheckpoint still names {name}, of an earlier fit of this trainer, so the baseline is not that checkpoint's;"
    " a Trainer of its own for each fit keeps them apart, and its baseline is made by {how}"
)
_FIT_LEAVES_OTHERS = (
    'Baseline: it is of {whose}; fit leaves other weights, those {left}, and reference="final" makes that of these.'
)
_UNREADABLE = (
    "{path} cannot be read from here ({error}), so whether the reference is of its weights is not known; the baseline"
    " of that checkpoint is made by {how}"
)
_CHANGED = (
    "{path} was loaded, but the weights at the first batch were others: a callback or a hook of the model has changed"
    " them, and the reference is of those"
)


@dataclass(frozen=True)
class Belonging:
    """Which profiles make the baseline, and whose weights its reference is of.

    Attributes:
        profiles: By source.
        whose: In words.
        checkpoint: Name of the checkpoint, if it is one's.
        note: What else to tell, if anything.
    """

    profiles: Mapping[str, Profile]
    whose: str
    checkpoint: str | None = None
    note: str = ""


@dataclass(frozen=True)
class _KeptWeights:
    """Weights that are kept: in a checkpoint, or in the model when fit has ended."""

    weights: Weights | None
    step: int | None
    epoch: int | None = None
    path: str = ""
    stored: Mapping[str, Profile] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return Path(self.path).name

    @property
    def at(self) -> str:
        return moment(self.step, self.epoch)

    def compared(self, profile: Profile) -> bool | None:
        """Whether a profile was made with these weights; None if they cannot be compared."""
        weights = Weights.from_json(profile.info.get(WEIGHTS))
        return None if weights is None or self.weights is None else weights.same_as(self.weights)

    def are_of(self, profile: Profile) -> bool:
        """Whether a profile was made with these weights, as far as can be told."""
        same = self.compared(profile)
        return same if same is not None else self.step is not None and self.step == profile.info.get("step")


def best_checkpoint(trainer: Any) -> str:
    """Path of the best checkpoint: of the first callback that monitors something, else of the first; or empty."""
    best = _best_callback(trainer)
    return "" if best is None else str(best.best_model_path)


def _best_callback(trainer: Any) -> Any:
    found = [c for c in trainer.checkpoint_callbacks if getattr(c, "best_model_path", "")]
    found.sort(key=lambda callback: getattr(callback, "monitor", None) is None)
    return found[0] if found else None


def identity(trainer: Any) -> Any:
    """What tells the best checkpoint from one saved earlier or later under the same name; None if there is none."""
    path = best_checkpoint(trainer)
    if not path:
        return None
    try:
        state = Path(path).stat()
    except OSError as error:
        pass_on(error)
        return path
    return path, state.st_mtime_ns, state.st_size


def keep_for_best(fit: LightningFit, source: str, trainer: Any, *, before: bool = False) -> None:
    """Keep the latest profile for the best checkpoint, if that is of its weights and does not carry it.

    Args:
        fit: The fit.
        source: Of the reference.
        trainer: The trainer.
        before: Whether another profile is about to replace it: then the checkpoint may be one of weights only. Else the
            pass has just ended: then it may have been saved just before the pass, with the profile before this one.
    """
    best = _best_callback(trainer)
    profile = fit.profiles.get(source)
    if best is None or profile is None or identity(trainer) == fit.best_seen[0]:
        return
    saved_now = getattr(best, "_last_global_step_saved", None) == trainer.global_step
    if getattr(best, "save_weights_only", False) if before else saved_now:
        kept = _best(fit, trainer, "", quiet=True)
        if kept is not None and kept.are_of(profile):
            fit.best_seen = identity(trainer), dict(fit.profiles)


def of_fit(fit: LightningFit, trainer: Any, state_key: str, *, interrupted: bool = False) -> Belonging:
    """Whose weights the reference of a fit is of, and what is to be said of it.

    Args:
        fit: The fit that has ended.
        trainer: Its trainer.
        state_key: Of the callback, in checkpoints.
        interrupted: By an exception.
    """
    left = weights_left(fit, trainer)
    best = _best(fit, trainer, state_key)
    source = fit.reference
    candidates = _candidates(fit, best, trainer)
    if source == TRAINING or not any(source in profiles for profiles in candidates):
        profiles: Mapping[str, Profile] = {**fit.profiles, **(best.stored if best is not None else {})}
        training = profiles.get(TRAINING)
        if source != TRAINING and fit.options.reference != FINAL and not interrupted:
            fit.problems.note("weights", NO_PASS)
        return Belonging(profiles, CHANGING.format(at=_at(training)) if training is not None else "")
    if best is not None:
        for profiles in candidates:
            if source in profiles and best.are_of(profiles[source]):
                return _of_best(fit, best, left, profiles, source)
    profiles = candidates[-1] if source in candidates[-1] else candidates[0]
    reference = profiles[source]
    both = best is not None and left.weights is not None and best.weights == left.weights
    said = [_not_the_best(best, reference)] if best is not None and not (both or fit.whole_final) else []
    same, at = left.compared(reference), _at(reference)
    if same:
        whose = LEFT_BY_FIT.format(at=at)
    else:
        settles = f"{_VALIDATE.format('')} makes that of the weights as they are"
        if not interrupted and fit.options.reference != FINAL:
            settles = f"To settle it, {ASK_FINAL}"
        kept = f"{left.at}, as in the best checkpoint {best.name}" if both and best is not None else left.at
        whose = (_UNKNOWN if same is None else NOBODYS).format(at=at)
        said.insert(0, f"{(_OTHER_TENSORS if same is None else OLDER).format(at=at, left=kept)}. {settles}")
    if said:
        fit.problems.note("weights", "; ".join(said))
    return Belonging(profiles, whose)


def of_pass(fit: LightningFit, source: str, trainer: Any) -> Belonging:
    """Whose weights the reference is of that `trainer.validate`, `test` or `predict` has made."""
    reference, profiles = fit.profiles.get(source), dict(fit.profiles)
    if reference is None:
        return Belonging(profiles, "")
    loaded = str(trainer.ckpt_path or "")
    kept = _read(fit, trainer, loaded, "", quiet=True) if loaded else _best(fit, trainer, "", quiet=True)
    same = kept.compared(reference) if kept is not None else None
    if loaded and same is None:
        whose = f"checkpoint {Path(loaded).name}, which the trainer loaded; its file cannot be compared"
        reference.info |= {"step": kept and kept.step, "epoch": kept and kept.epoch}
        return Belonging(profiles, whose, Path(loaded).name)
    if loaded and not same:
        fit.problems.note("weights", _CHANGED.format(path=loaded))
        return Belonging(profiles, f"other weights than those of {Path(loaded).name}, which was loaded")
    if kept is not None and same:
        reference.info |= {"step": kept.step, "epoch": kept.epoch}
        return Belonging(profiles, f"checkpoint {kept.name}, {kept.at}", kept.name)
    if fit.left is not None and _KeptWeights(fit.left, None).are_of(reference):
        return Belonging(profiles, LEFT_BY_FIT.format(at=_at(reference)))
    return Belonging(profiles, f"the model as it was given for {source}")


def _of_best(
    fit: LightningFit, best: _KeptWeights, left: _KeptWeights, profiles: Mapping[str, Profile], source: str
) -> Belonging:
    """The baseline of the best checkpoint; what it lacks, because it was saved too early, is the latest."""
    missing = fit.profiles.keys() - profiles.keys()
    if missing:
        fit.problems.note(
            "best checkpoint",
            f"it was saved before a first whole {' and '.join(sorted(missing))} pass, so that is a later one",
        )
    if best.compared(profiles[source]) is None:
        how = _VALIDATE.format(f", ckpt_path={best.path!r}")
        fit.problems.note("weights", _BY_STEP.format(name=best.name, at=best.at, how=how))
    whose = f"checkpoint {best.name}, {_at(profiles[source])}"
    others = left.compared(profiles[source]) is False
    note = _FIT_LEAVES_OTHERS.format(whose=whose, left=left.at) if others else ""
    return Belonging({**fit.profiles, **profiles}, whose, best.name, note)


def _candidates(fit: LightningFit, best: _KeptWeights | None, trainer: Any) -> list[Mapping[str, Profile]]:
    """Profiles that may be of the best checkpoint's weights, the latest of the fit last."""
    if fit.whole_final or best is None:
        return [fit.profiles]
    known, seen = fit.best_seen
    return [best.stored, *([seen] if known == identity(trainer) else []), fit.profiles]


def _not_the_best(best: _KeptWeights, reference: Profile) -> str:
    how = _VALIDATE.format(f", ckpt_path={best.path!r}")
    return NOT_THE_CHECKPOINTS.format(checkpoint=f"the best checkpoint {best.name}", held=best.at, at=_at(reference),
                                      how=how)  # fmt: skip


def _at(profile: Profile) -> str:
    return moment(profile.info.get("step"), profile.info.get("epoch"))


def weights_left(fit: LightningFit, trainer: Any) -> _KeptWeights:
    """The weights that the model has when its fit has ended."""
    with fit.problems.caught("weights"):
        fit.left = SampledWeights(trainer.lightning_module).weights()
    return _KeptWeights(fit.left, trainer.global_step, fit.epoch)


def _best(fit: LightningFit, trainer: Any, state_key: str, *, quiet: bool = False) -> _KeptWeights | None:
    """What the best checkpoint holds; None if there is none, of this fit, that can be read."""
    path = best_checkpoint(trainer)
    if not path:
        return None
    if fit.best_before is not None and identity(trainer) == fit.best_before:
        if not quiet:
            how = _VALIDATE.format(f", ckpt_path={path!r}")
            fit.problems.note("best checkpoint", _EARLIER.format(name=Path(path).name, how=how))
        return None
    return _read(fit, trainer, path, state_key, quiet=quiet)


def _read(fit: LightningFit, trainer: Any, path: str, state_key: str, *, quiet: bool = False) -> _KeptWeights | None:
    """What a checkpoint holds: its weights' digest, and the profiles in it if a key is given."""
    try:
        file = CheckpointFile(path)
        weights = file.weights(SampledWeights(trainer.lightning_module).names)
    except (OSError, FormatError) as error:
        pass_on(error)
        if not quiet:
            how = _VALIDATE.format(f", ckpt_path={path!r}")
            fit.problems.note("best checkpoint", _UNREADABLE.format(path=path, error=error, how=how))
        return None
    return _KeptWeights(weights, file.step, file.epoch, path, _stored(fit, file, state_key) if state_key else {})


def _stored(fit: LightningFit, file: CheckpointFile, state_key: str) -> dict[str, Profile]:
    """The profiles in a checkpoint; none in one of weights only."""
    try:
        state = file.state(state_key)
    except FormatError:
        return {}
    with fit.problems.caught("best checkpoint"):
        return profiles_of(state)
    return {}
