"""Profiles on their way through checkpoints, as plain bytes by source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lensai_integrations.errors import FormatError
from lensai_integrations.profiles.profile import Profile, from_bytes, to_bytes


class StateCache:
    """Encodes profiles for checkpoints, each only once.

    Example:
        >>> cache = StateCache()
        >>> list(cache.state({"validation": Profile(), "training": None}))
        ['validation']
    """

    def __init__(self) -> None:
        self._encoded: dict[str, tuple[Profile, bytes]] = {}

    def state(self, profiles: Mapping[str, Profile | None]) -> dict[str, bytes]:
        """The profiles that there are, as bytes, by name."""
        return {name: self._bytes(name, profile) for name, profile in profiles.items() if profile is not None}

    def _bytes(self, name: str, profile: Profile) -> bytes:
        known = self._encoded.get(name)
        if known is None or known[0] is not profile:
            known = self._encoded[name] = (profile, to_bytes(profile))
        return known[1]


def profiles_of(state: Mapping[str, Any]) -> dict[str, Profile]:
    """The profiles in a callback's state, by name.

    Raises:
        FormatError: If it is damaged or of another format.
        DefinitionError: If a definition id means something else here than where it was written.
    """
    return {str(name): _profile(name, blob) for name, blob in state.items()}


def _profile(name: str, blob: Any) -> Profile:
    if not isinstance(blob, bytes):
        raise FormatError(
            f"the callback's state has a {type(blob).__name__} under {name!r}: it is not of this callback"
        )
    profile = from_bytes(blob)
    if not isinstance(profile, Profile):
        raise FormatError(f"the callback's state has a whole baseline under {name!r}, not a profile")
    return profile
