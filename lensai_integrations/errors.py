"""Every error this package raises on purpose derives from `LensAIError`.

Each message says what was wrong, where, and what to do. The subclasses also derive from the built-in
error a caller would expect, so `except ValueError` keeps working for people who have never heard of us.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class LensAIError(Exception):
    """Base of all errors raised by lensai_integrations.

    Example:
        >>> issubclass(InputError, LensAIError) and issubclass(InputError, ValueError)
        True
    """


class InputError(LensAIError, ValueError):
    """An argument or a batch is not what the function takes; the message names it and says what to pass."""


class InUseError(InputError):
    """A folder belongs to another process, or to another monitor of this one."""


class FormatError(LensAIError, ValueError):
    """A file or byte string is truncated, corrupted, too large, or not of the format it should be."""


class DefinitionError(LensAIError, ValueError):
    """Two streams were measured by different definitions, so they cannot be merged or compared."""


class MissingDependencyError(LensAIError, ImportError):
    """An optional package is needed and not installed; the message names the extra that brings it."""


class TrackingError(LensAIError, RuntimeError):
    """A tracking server could not be reached, refused, or did not answer in time."""


def told(error: Exception) -> str:
    """An error as a sentence for people: with its kind, unless it is one of these that say all themselves.

    Example:
        >>> told(InputError("k=0 is too small")), told(KeyError("site"))
        ('k=0 is too small', "KeyError: 'site'")
    """
    return str(error) if isinstance(error, LensAIError) else f"{type(error).__name__}: {error}"


def saying_what_to_install(load: Callable[[str], Any], **frameworks: str) -> Callable[[str], Any]:
    """A package's `__getattr__`, that names the extra where the package's framework is not installed.

    Args:
        load: The `__getattr__`, which imports a module of the package.
        frameworks: By the name that is imported: what to give pip.

    Example:
        >>> def load(name):
        ...     raise ModuleNotFoundError(name="torch")
        >>> saying_what_to_install(load, torch="torch")("watch")
        Traceback (most recent call last):
        ...
        lensai_integrations.errors.MissingDependencyError: torch is not installed: pip install torch
    """

    def load_or_say(name: str) -> Any:
        try:
            return load(name)
        except ModuleNotFoundError as error:
            if error.name not in frameworks:
                raise
            raise MissingDependencyError(
                f"{error.name} is not installed: pip install {shlex.quote(frameworks[error.name])}"
            ) from None

    return load_or_say
