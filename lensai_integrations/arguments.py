"""Arguments that come out of configuration files: lists and mappings of other kinds become lists and dicts.

Hydra hands over OmegaConf's `ListConfig` and `DictConfig`, which are sequences and mappings and neither lists nor
dicts, and puts dataclasses into them as such; what is noted of arguments goes into JSON and through pickle, where only
lists and dicts are at home.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any


def plain(value: Any) -> Any:
    """An argument with dicts and lists for all mappings and sequences in it but tuples and texts, which stay.

    Example:
        >>> from collections import UserDict, UserList
        >>> plain(UserDict(layers=UserList(["fc"]), mean=(0.5,), note="x"))
        {'layers': ['fc'], 'mean': (0.5,), 'note': 'x'}
    """
    omegaconf: Any = sys.modules.get("omegaconf")  # what was not imported has made nothing
    if omegaconf is not None and omegaconf.OmegaConf.is_config(value):
        return omegaconf.OmegaConf.to_object(value)
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | tuple):
        return [plain(each) for each in value]
    return value
