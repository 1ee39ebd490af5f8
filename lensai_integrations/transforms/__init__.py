"""torchvision: images profiled where a pipeline delivers them, before resizing and augmentation hide what they were.

from lensai_integrations.transforms import ProfileImages

pipeline = v2.Compose([ProfileImages(), v2.Resize(224), ...])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lensai_integrations.transforms.profile_images import ProfileImages

_HOME = {"ProfileImages": "profile_images"}

__all__ = ["ProfileImages"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
