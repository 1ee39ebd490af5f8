"""What both callbacks stand on: the `Callback` of either Lightning, its way to other processes, and what trainers say.

`pytorch_lightning` and `lightning.pytorch` are the same code twice, with two unrelated `Callback` classes, and a
trainer, a `LightningCLI` or a type checker asks for its own. Import order says nothing: a sorted import block imports
this package before either. So callbacks are of both, as far as both are installed: where one is imported the other
costs a tenth of a second, because what takes long, torch and its metrics, is there.

`strategy="ddp_spawn"`, `"ddp_fork"` and `"ddp_notebook"` fit copies of the callbacks in other processes. Of the first
of these Lightning brings back the state of its trainer, through a pipe that nobody reads before the process has ended:
so what a callback has made waits in a file, as the weights do, and the state says where. When the state is unpickled,
it finds the callback by a name that its copies in other processes share.
"""

from __future__ import annotations

import copy
import os
import pickle
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, cast
from weakref import WeakValueDictionary

from lensai_integrations.errors import InputError, MissingDependencyError
from lensai_integrations.problems import log, pass_on
from lensai_integrations.training.fit import PREDICTION, TEST, VALIDATION
from lensai_integrations.training.tracking import TrackedRun, active_run

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

#: The callbacks of this process.
_HERE: Final[WeakValueDictionary[str, Any]] = WeakValueDictionary()


#: What a Lightning may be called.
PACKAGES: Final = ("pytorch_lightning", "lightning.pytorch")


def callback_classes() -> tuple[type, ...]:
    """The `Callback` class of every Lightning package that is installed.

    Raises:
        MissingDependencyError: If there is none.
        Exception: What the import of the only one that is installed raises.
    """
    callbacks, broken = [], []
    for name in PACKAGES:
        try:
            callbacks.append(import_module(name).Callback)
        except Exception as error:  # noqa: BLE001  one that cannot be imported is nobody's trainer
            if not (isinstance(error, ModuleNotFoundError) and error.name in (name, name.partition(".")[0])):
                broken.append(error)
    if not callbacks and broken:
        raise broken[0]
    if not callbacks:
        raise MissingDependencyError("Lightning is not installed: pip install 'lensai-integrations[lightning]'")
    return tuple(dict.fromkeys(callbacks))


class Travelling:
    """What a callback is in copies and in other processes.

    A copy starts fresh: it was asked for the same and has nothing of a fit. To other processes goes what was made, too.
    """

    #: Attributes that belong to a running fit, as they are before it.
    _of_a_fit: ClassVar[Mapping[str, Any]] = {}
    #: Attributes that hold what a fit has made, as they are before it.
    _made: ClassVar[Mapping[str, Any]] = {}

    _name: str
    _callers_run: TrackedRun | None = None

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """A callback with a name that finds it."""
        callback = super().__new__(cls)
        callback._name = named(callback)
        return callback

    def note_run(self) -> None:
        """Remember the MLflow run that is active, for the process that is about to be started, where none is."""
        self._callers_run = active_run()

    def _active(self, trainer: Any) -> TrackedRun | None:
        return active_run() or (self._callers_run if is_spawned(trainer) else None)

    def __reduce__(self) -> Any:
        self.note_run()
        return _restored, (type(self), self._state())

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return cast(Self, _restored(type(self), copy.deepcopy({**self._state(), **self._made}, memo)))

    def __copy__(self) -> Self:
        return cast(Self, _restored(type(self), {**self._state(), **self._made}))

    def _state(self) -> dict[str, Any]:
        """What is no part of a fit. Lightning hangs methods of the model on callbacks, and with them all of it."""
        state = {key: value for key, value in self.__dict__.items() if key not in ("log", "log_dict")}
        return {**state, **self._of_a_fit}


def _restored(cls: type[Travelling], state: dict[str, Any]) -> Any:
    callback = cls.__new__(cls)
    callback.__dict__.update(state)
    callback._name = named(callback, state["_name"])
    return callback


if TYPE_CHECKING:
    from pytorch_lightning import Callback

    class LightningCallback(Travelling, Callback):
        """A callback of either package."""

else:

    class LightningCallback(Travelling, *callback_classes()):
        """Base of callbacks that work with either Lightning package.

        Example:
            >>> import lightning.pytorch, pytorch_lightning
            >>> class Silent(LightningCallback):
            ...     pass
            >>> issubclass(Silent, pytorch_lightning.Callback), issubclass(Silent, lightning.pytorch.Callback)
            (True, True)
        """


# -- other processes


def named(callback: Any, name: str = "") -> str:
    """Give a callback a name that finds it; the one it has in another process, if no callback of this one has it."""
    if not name or name in _HERE:
        name = secrets.token_hex(8)
    _HERE[name] = callback
    return name


def _before_fork() -> None:
    for callback in list(_HERE.values()):
        callback.note_run()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)


def is_spawned(trainer: Any) -> bool:
    """Whether a trainer runs in a process that it has spawned or forked, and the user's objects are in another."""
    launcher = getattr(getattr(trainer, "strategy", None), "launcher", None)
    return any(kind.__name__ == "_MultiProcessingLauncher" for kind in type(launcher).__mro__)


def bring_back(trainer: Any, name: str, **values: Any) -> None:
    """Set these attributes of the callback of this name in the process that spawned this one; here nothing changes.

    Raises:
        Exception: If one cannot be pickled or written. Nothing is brought back then, and the trainer is not harmed.
    """
    if is_spawned(trainer):
        content = pickle.dumps(values)
        path = Path(tempfile.mkdtemp(prefix="lensai_")) / "values"  # nobody else may write there
        path.write_bytes(content)
        setattr(trainer.state, f"_lensai_{name}", _Parcel(name, str(path)))


class _Parcel:
    """Delivers when it is unpickled, and is nothing then."""

    def __init__(self, name: str, path: str) -> None:
        self._name, self._path = name, path

    def __reduce__(self) -> Any:
        return _deliver, (self._name, self._path)

    def __deepcopy__(self, memo: Any) -> _Parcel:
        return self  # Lightning copies the state before it sends it: that is no delivery


def _deliver(name: str, path: str) -> None:
    callback = _HERE.get(name)
    try:
        if callback is not None:
            callback.__dict__.update(pickle.loads(Path(path).read_bytes()))  # noqa: S301 - our own
    except Exception as error:  # noqa: BLE001 - the trainer that is being brought back must not fail
        pass_on(error)
        log.warning("what %s made in another process could not be brought back: %r", type(callback).__name__, error)
    shutil.rmtree(Path(path).parent, ignore_errors=True)


# -- what a trainer says


def is_fitting(trainer: Trainer) -> bool:
    """Whether a validation pass belongs to the fit: the sanity check and `trainer.validate` do not."""
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def has_validation(trainer: Trainer, index: int) -> bool:
    """Whether there will be validation batches of this loader, as far as is known at the start.

    Raises:
        InputError: If there are fewer validation loaders.
    """
    batches = list(trainer.num_val_batches)
    if batches and index >= len(batches):
        raise InputError(f"dataloader_idx={index}, but there are {len(batches)} validation loaders, counted from 0")
    return bool(trainer.enable_validation and (not batches or batches[index] > 0))


#: Where a trainer keeps the loaders of a pass.
_LOADERS: Final = {VALIDATION: "val_dataloaders", TEST: "test_dataloaders", PREDICTION: "predict_dataloaders"}
#: What the loaders are called that are not the reference's.
OTHER_LOADERS = "other validation loaders"


def other_loaders(loaders: Any, index: int) -> list[Any]:
    """All of them but that one.

    Example:
        >>> other_loaders(["day", "night"], 1), other_loaders("a loader", 0)
        (['day'], [])
    """
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if not isinstance(loaders, list | tuple):
        return []
    return [loader for i, loader in enumerate(loaders) if i != index]


def loaders_of(trainer: Trainer, source: str) -> Any:
    """The loaders of the pass that runs: `trainer.val_dataloaders` would be those of a fit before it."""
    if source == VALIDATION and trainer.state.fn == "validate":
        return trainer.validate_loop._combined_loader.iterables  # type: ignore[union-attr]
    return getattr(trainer, _LOADERS[source])


def one_loader(loaders: Any, index: int) -> Any:
    """One of a trainer's loaders, which are one loader, a list, or a dict.

    Raises:
        InputError: If there are fewer.

    Example:
        >>> one_loader({"day": "a loader", "night": "another"}, 1)
        'another'
    """
    several = list(loaders.values()) if isinstance(loaders, Mapping) else loaders
    several = list(several) if isinstance(several, list | tuple) else [several]
    if index >= len(several):
        raise InputError(f"dataloader_idx={index}, but the loaders of this pass are {len(several)}, counted from 0")
    return several[index]


def runs_of_loggers(trainer: Any) -> list[TrackedRun]:
    """The runs of the trainer's MLflow loggers, each once. On all ranks but the first they have none."""
    runs = []
    for logger in trainer.loggers:
        if any(kind.__name__ == "MLFlowLogger" for kind in type(logger).__mro__) and logger.run_id:
            runs.append(TrackedRun(str(logger.run_id), str(logger.experiment.tracking_uri)))
    return list(dict.fromkeys(runs))
