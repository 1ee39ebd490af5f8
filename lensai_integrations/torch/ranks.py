"""Several processes, one profile: who has seen what, what was seen twice, and how it comes together.

Every rank profiles its own share. At the end of a pass the profiles are gathered as bytes and merged on the first rank,
before checkpoints are written there. A distributed sampler repeats samples to give every rank equally many; each rank
knows how many of its own are repeats, and that they come last.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data.distributed import DistributedSampler

from lensai_integrations.errors import LensAIError
from lensai_integrations.problems import Problems
from lensai_integrations.profiles.profile import Profile, from_bytes, to_bytes


def padding_of(loader: Any) -> tuple[int, int]:
    """How many rows of this rank's share of a loader are its own, and how many repeat others' at the end.

    Example:
        >>> sampler = DistributedSampler(range(251), num_replicas=2, rank=1, shuffle=False)
        >>> padding_of(torch.utils.data.DataLoader(range(251), sampler=sampler))
        (125, 1)
    """
    for owner in (loader, getattr(loader, "batch_sampler", None)):
        sampler = getattr(owner, "sampler", None)
        if isinstance(sampler, DistributedSampler):
            own = -((sampler.rank - len(sampler.dataset)) // sampler.num_replicas)  # type: ignore[arg-type]
            own = min(max(own, 0), len(sampler))
            return own, len(sampler) - own
    return 0, 0


def gathered(profile: Profile | None, world_size: int, problems: Problems) -> Profile | None:
    """All ranks' profiles of one pass, merged; on the first rank only, None on the others.

    A collective: every rank has to call it, also with nothing to give.

    Args:
        profile: This rank's, or None if it could not be made.
        world_size: Number of ranks; with 1 the profile is returned as it is.
        problems: Where it is reported if a rank's profile is missing.
    """
    if world_size == 1:
        return profile
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        problems.note("ranks", "the processes are not connected by torch.distributed: each counts for itself")
        return profile
    blob = b""
    with problems.caught("ranks"):
        blob = to_bytes(profile) if profile is not None else b""
    blobs: list[Any] = [b""] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(blobs, blob)
    if torch.distributed.get_rank() != 0:
        return None
    return merged(blobs, problems)


def merged(blobs: list[bytes], problems: Problems) -> Profile | None:
    """The profiles in these byte strings as one; what cannot be merged is left out and reported."""
    result: Profile | None = None
    left_out = 0
    for rank, blob in enumerate(blobs):
        if not blob:
            problems.note("ranks", f"the rows of rank {rank} are missing: it has no profile")
            continue
        try:
            profile = from_bytes(blob)
            assert isinstance(profile, Profile)
            left_out += int(profile.info.get("padding_left_out", 0))
            result = profile if result is None else result.merge(profile)
        except LensAIError as error:
            problems.note("ranks", f"the rows of rank {rank} are missing: {error}")
    if result is not None:
        result.info |= {"ranks": len(blobs), "padding_left_out": left_out}
    return result
