"""Which Lightning a callback belongs to.

`pytorch_lightning` and `lightning.pytorch` are the same code twice, with two unrelated `Callback` classes, and a
trainer, a `LightningCLI` or a type checker asks for its own. Import order says nothing: a sorted import block imports
this package before either. So callbacks are of both, as far as both are installed: where one is imported the other
costs a tenth of a second, because what takes long, torch and its metrics, is there.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from lensai_integrations.errors import MissingDependencyError

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


if TYPE_CHECKING:
    from pytorch_lightning import Callback

    class LightningCallback(Callback):
        """A callback of either package."""

else:

    class LightningCallback(*callback_classes()):
        """Base of callbacks that work with either Lightning package.

        Example:
            >>> import lightning.pytorch, pytorch_lightning
            >>> class Silent(LightningCallback):
            ...     pass
            >>> issubclass(Silent, pytorch_lightning.Callback), issubclass(Silent, lightning.pytorch.Callback)
            (True, True)
        """
