"""Which Lightning a callback belongs to.

`pytorch_lightning` and `lightning.pytorch` are the same code twice, with two unrelated `Callback` classes, and a
trainer, a `LightningCLI` or a type checker asks for its own. Import order says nothing: a sorted import block imports
this package before either. So callbacks are of both, as far as both are installed: where one is imported the other
costs a tenth of a second, because what takes long, torch and its metrics, is there.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from lensai_integrations.errors import MissingDependencyError
from lensai_integrations.lightning.spawned import is_spawned, named
from lensai_integrations.training.tracking import TrackedRun, active_run

PACKAGES = ("pytorch_lightning", "lightning.pytorch")


def callback_classes() -> tuple[type, ...]:
    """The `Callback` class of every Lightning package that is installed.

    Raises:
        MissingDependencyError: If there is none.
        Exception: What the import of the only one that is installed raises.
    """
    found, broken = [], []
    for name in PACKAGES:
        try:
            found.append(import_module(name).Callback)
        except Exception as error:  # noqa: BLE001  one that cannot be imported is nobody's trainer
            if not (isinstance(error, ModuleNotFoundError) and error.name in (name, name.partition(".")[0])):
                broken.append(error)
    if not found and broken:
        raise broken[0]
    if not found:
        raise MissingDependencyError("Lightning is not installed: pip install 'lensai-integrations[lightning]'")
    return tuple(dict.fromkeys(found))


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
        own = {key: value for key, value in self.__dict__.items() if key not in ("log", "log_dict")}
        return {**own, **self._of_a_fit}


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
