"""Which Lightning a callback belongs to.

`pytorch_lightning` and `lightning.pytorch` are the same code twice, with two unrelated `Callback` classes, and a
trainer asks for its own. Import order says nothing: a sorted import block imports this package before either. So the
choice is made when a callback is constructed: it inherits from the `Callback` of each Lightning that is loaded by then.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from lensai_integrations.errors import MissingDependencyError
from lensai_integrations.lightning.spawned import is_spawned, named
from lensai_integrations.training.tracking import TrackedRun, active_run

if TYPE_CHECKING:
    from pytorch_lightning import Callback
else:
    Callback = object

PACKAGES = ("pytorch_lightning", "lightning.pytorch")


class LightningCallback(Callback):
    """Base of callbacks that work with either Lightning package.

    A copy starts fresh: it was asked for the same and has nothing of a fit. To other processes goes what was made, too.

    Example:
        >>> import pytorch_lightning
        >>> class Silent(LightningCallback):
        ...     pass
        >>> isinstance(Silent(), pytorch_lightning.Callback), type(Silent()).__name__
        (True, 'Silent')
    """

    #: Attributes that belong to a running fit, as they are before it.
    _of_a_fit: ClassVar[Mapping[str, Any]] = {}
    #: Attributes that hold what a fit has made, as they are before it.
    _made: ClassVar[Mapping[str, Any]] = {}

    _name: str
    _callers_run: TrackedRun | None = None

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """An instance of this class and of the `Callback` classes of the loaded Lightning packages."""
        own: Any = cls
        callback = cast(Self, object.__new__(_with_bases(own, callback_classes())))
        callback._name = named(callback)
        return callback

    def note_run(self) -> None:
        """Remember the MLflow run that is active, for the process that is about to be started, where none is."""
        self._callers_run = active_run()

    def _active(self, trainer: Any) -> TrackedRun | None:
        return active_run() or (self._callers_run if is_spawned(trainer) else None)

    def __reduce__(self) -> Any:
        self.note_run()
        return _restored, (self._own_class, self._state())

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return cast(Self, _restored(self._own_class, copy.deepcopy({**self._state(), **self._made}, memo)))

    def __copy__(self) -> Self:
        return cast(Self, _restored(self._own_class, {**self._state(), **self._made}))

    def _state(self) -> dict[str, Any]:
        """What is no part of a fit. Lightning hangs methods of the model on callbacks, and with them all of it."""
        own = {key: value for key, value in self.__dict__.items() if key not in ("log", "log_dict")}
        return {**own, **self._of_a_fit}

    @property
    def _own_class(self) -> Any:
        return next(c for c in type(self).__mro__ if not getattr(c, "_made_here", False))


def callback_classes() -> tuple[type, ...]:
    """The `Callback` class of every Lightning package that is loaded; if none is, the first that can be imported.

    Raises:
        MissingDependencyError: If no Lightning is installed.
    """
    loaded = [sys.modules[name] for name in PACKAGES if hasattr(sys.modules.get(name), "Callback")]
    return tuple(package.Callback for package in loaded or [_first_installed()])


def _first_installed() -> Any:
    for name in PACKAGES:
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in (name, name.split(".", maxsplit=1)[0]):
                raise
    raise MissingDependencyError("Lightning is not installed: pip install 'lensai-integrations[lightning]'")


@cache
def _with_bases(cls: Any, bases: tuple[type, ...]) -> Any:
    missing = tuple(base for base in bases if not issubclass(cls, base))
    if not missing:
        return cls
    same = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls, *missing), {**same, "_made_here": True})


def _restored(cls: type, state: dict[str, Any]) -> Any:
    callback: Any = LightningCallback.__new__(cls)
    callback.__dict__.update(state)
    callback._name = named(callback, state["_name"])
    return callback
