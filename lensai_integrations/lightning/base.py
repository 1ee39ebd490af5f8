"""Which Lightning a callback belongs to.

`pytorch_lightning` and `lightning.pytorch` are the same code twice, with two unrelated `Callback` classes, and a
trainer asks for its own. Import order says nothing: a sorted import block imports this package before either. So the
choice is made when a callback is constructed: it inherits from the `Callback` of each Lightning that is loaded by then.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self, cast

from lensai_integrations.errors import MissingDependencyError

if TYPE_CHECKING:
    from pytorch_lightning import Callback
else:
    Callback = object

PACKAGES = ("pytorch_lightning", "lightning.pytorch")


class LightningCallback(Callback):
    """Base of callbacks that work with either Lightning package.

    Example:
        >>> import pytorch_lightning
        >>> class Silent(LightningCallback):
        ...     pass
        >>> isinstance(Silent(), pytorch_lightning.Callback), type(Silent()).__name__
        (True, 'Silent')
    """

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """An instance of this class and of the `Callback` classes of the loaded Lightning packages."""
        own: Any = cls
        return cast(Self, object.__new__(_with_bases(own, callback_classes())))

    def __reduce__(self) -> Any:
        own = next(c for c in type(self).__mro__ if not getattr(c, "_made_here", False))
        return _restored, (own, dict(self.__dict__))


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
    return callback
