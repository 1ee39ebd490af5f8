"""Callbacks in processes that a trainer spawns or forks: what they make there comes back to the one the user holds.

`strategy="ddp_spawn"`, `"ddp_fork"` and `"ddp_notebook"` fit copies of the callbacks in other processes. Of the first
of these Lightning brings back the state of its trainer, through a pipe that nobody reads before the process has ended:
so what a callback has made waits in a file, as the weights do, and the state says where. When the state is unpickled,
it finds the callback by a name that its copies in other processes share.
"""

from __future__ import annotations

import logging
import os
import pickle
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

from lensai_integrations.problems import pass_on

_LOG: Final = logging.getLogger("lensai_integrations")
#: The callbacks of this process.
_HERE: Final[WeakValueDictionary[str, Any]] = WeakValueDictionary()


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
    return any(each.__name__ == "_MultiProcessingLauncher" for each in type(launcher).__mro__)


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
        _LOG.warning("what %s made in another process could not be brought back: %r", type(callback).__name__, error)
    shutil.rmtree(Path(path).parent, ignore_errors=True)
