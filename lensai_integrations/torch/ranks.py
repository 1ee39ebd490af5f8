"""Of the profiles that the processes of a training made of one pass, one.

Every rank profiles its own share. At the end of a pass a rank hands its profile to another, which merges the two and
hands them on, so that the first rank merges as many as the logarithm of their number, while others merge theirs. A
profile of some ten megabytes is no message for a process group of accelerators, which would send it through their
memory: it goes over connections of the hosts, a group of the gloo backend that is made at the first pass.

Nobody waits for ever. Before anything is sent all ranks tell each other, in the training's own group, what they have:
whoever is late is waited for there, as everywhere in the training. From then on each step has a time limit. A rank that
fails still hands on what it was handed, and a rank where the connections fail says so before the next pass, and from
then on all use the training's own group.

Some ranks are fed the same batches: those that hold parts of one model (tensor parallelism), or whose samplers say so.
All of these measure them, as the forward pass is one of them all, and the first one's count.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from weakref import WeakKeyDictionary

import torch
from torch import distributed
from torch.utils.data.distributed import DistributedSampler

from lensai_integrations.problems import Problems, pass_on
from lensai_integrations.profiles.profile import Profile, from_bytes, to_bytes

#: Of how many shares of the data one is, and which: what a `DistributedSampler` is told.
Share = tuple[int, int]

#: How long a rank waits for another when all have begun: shorter than an accelerator's group waits for it.
_PATIENCE: Final = timedelta(minutes=3)
_NOT_MADE: Final = "it has no profile"
#: How the hosts of a training are connected, by the group of all; None where that failed.
_CONNECTIONS: Final[WeakKeyDictionary[Any, Any]] = WeakKeyDictionary()


def sampler_of(loader: Any) -> DistributedSampler[Any] | None:
    """What gives each rank its share of a loader's samples; None if nothing does.

    Example:
        >>> sampler = DistributedSampler(range(251), num_replicas=2, rank=1, shuffle=False)
        >>> sampler_of(torch.utils.data.DataLoader(range(251), sampler=sampler)) is sampler
        True
    """
    for owner in (loader, getattr(loader, "batch_sampler", None)):
        sampler = getattr(owner, "sampler", None)
        if isinstance(sampler, DistributedSampler):
            return sampler
    return None


def share_of(loader: Any, strategy: Any = None) -> Share | None:
    """Of how many shares of the data a loader gives this rank which one.

    Args:
        loader: Of a pass.
        strategy: A trainer's, which knows how many shares there are if the loader does not tell.

    Returns:
        None if nothing tells: then each rank has its own.

    Example:
        >>> sampler = DistributedSampler(range(251), num_replicas=2, rank=1, shuffle=False)
        >>> share_of(torch.utils.data.DataLoader(range(251), sampler=sampler))
        (2, 1)
    """
    sampler = sampler_of(loader)
    if sampler is not None:
        return int(sampler.num_replicas), int(sampler.rank)
    told = getattr(strategy, "distributed_sampler_kwargs", None)
    return (int(told["num_replicas"]), int(told["rank"])) if told else None


@dataclass
class Merged:
    """Rows of some ranks.

    Attributes:
        profile: Of them all.
        ranks: Which.
        padding: How many rows were left out because the sampler repeats them.
        problem: Why it could not be merged with those of the first rank.
    """

    profile: Profile
    ranks: list[int]
    padding: int
    problem: str = ""

    @classmethod
    def of(cls, profile: Profile, rank: int) -> Merged:
        """What one rank has."""
        return cls(profile, [rank], int(profile.info.get("padding_left_out", 0)))


@dataclass
class Load:
    """What a rank hands to another: profiles that could be merged with one another are one by now.

    Attributes:
        parts: The profiles, that of the lowest rank first.
        problems: By rank, why its rows are in none of them.
    """

    parts: list[Merged] = field(default_factory=list)
    problems: dict[int, str] = field(default_factory=dict)

    def add(self, other: Load) -> None:
        """Take in what another rank handed over: each of its profiles goes to the first that it merges with."""
        self.problems |= other.problems
        for part in other.parts:
            self._add(part)

    def _add(self, part: Merged) -> None:
        for own in self.parts:
            try:
                profile = own.profile.merge(part.profile)
            except Exception as error:  # noqa: BLE001  whatever it is, the other ranks wait for what comes after it
                pass_on(error)
                part.problem = part.problem or str(error)
            else:
                own.profile, own.ranks = profile, [*own.ranks, *part.ranks]
                own.padding += part.padding
                return
        self.parts.append(part)

    def to_bytes(self) -> bytes:
        """For another process. A profile that cannot be written is left out, which is a problem of its ranks."""
        sent = []
        for part in self.parts:
            try:
                sent.append((to_bytes(part.profile), part.ranks, part.padding))
            except Exception as error:  # noqa: BLE001
                pass_on(error)
                self.problems |= dict.fromkeys(part.ranks, str(error))
        return pickle.dumps((sent, self.problems))

    @classmethod
    def from_bytes(cls, blob: bytes) -> Load:
        """What `to_bytes` wrote in a process of the same training."""
        received, problems = pickle.loads(blob)  # noqa: S301  our own
        load = cls([], problems)
        for content, ranks, padding in received:
            try:
                profile = from_bytes(content)
                assert isinstance(profile, Profile)
                load.parts.append(Merged(profile, ranks, padding))
            except Exception as error:  # noqa: BLE001
                pass_on(error)
                load.problems |= dict.fromkeys(ranks, str(error))
        return load

    def whole(self, ranks: Sequence[int], problems: Problems) -> Profile | None:
        """The profile of these ranks, which says of how many it is; what it lacks is reported."""
        missing = dict.fromkeys(ranks, _NOT_MADE) | self.problems
        missing |= {rank: part.problem for part in self.parts[1:] for rank in part.ranks}
        for rank in self.parts[0].ranks if self.parts else ():
            missing.pop(rank, None)
        if missing:
            said = [f"the rows of rank {rank} are missing: {missing[rank]}" for rank in sorted(missing)]
            problems.note("ranks", "; ".join(said))
        if not self.parts:
            return None
        result = self.parts[0].profile
        result.info |= {"ranks": len(ranks), "padding_left_out": self.parts[0].padding}
        return result


def gathered(
    profile: Profile | None, world_size: int, problems: Problems, share: Share | None = None
) -> Profile | None:
    """All ranks' profiles of one pass, merged; on the first rank only, None on the others.

    A collective: every rank has to call it, also with nothing to give. The same profiles give the same one.

    Args:
        profile: This rank's, or None if it could not be made.
        world_size: Number of ranks; with 1 the profile is returned as it is.
        problems: Where it is reported if a rank's profile is missing.
        share: Which share of the data this rank was fed; of ranks with the same share the first counts. None: its own.
    """
    if world_size == 1:
        return profile
    if not (distributed.is_available() and distributed.is_initialized()):
        problems.note("ranks", "the processes are not connected by torch.distributed: each counts for itself")
        return profile
    rank, world = distributed.get_rank(), distributed.group.WORLD
    share = share if share is not None and share[0] < distributed.get_world_size() else None
    status = None if world not in _CONNECTIONS else _CONNECTIONS[world] is not None
    facts = _told_all((profile is not None, share, status))
    counting = _counting([(made, share) for made, share, _ in facts])
    load = Load([Merged.of(profile, rank)] if profile is not None and rank in counting else [])
    group = _connections([status for *_, status in facts])
    try:
        load = _sent_up(load, rank, len(facts), group) if group is not None else _sent_at_once(load, rank, len(facts))
    except Exception:
        _CONNECTIONS[world] = None
        raise
    return load.whole(counting, problems) if rank == 0 else None


def _counting(facts: Sequence[tuple[bool, Share | None]]) -> list[int]:
    """The ranks whose rows count: of those with the same share, the first that has a profile.

    Example:
        >>> _counting([(True, (2, 0)), (True, (2, 0)), (False, (2, 1)), (True, (2, 1)), (False, None)])
        [0, 3, 4]
    """
    first: dict[Any, int] = {}
    for rank, (made, share) in enumerate(facts):
        key = ("rank", rank) if share is None else share
        if key not in first or (made and not facts[first[key]][0]):
            first[key] = rank
    return sorted(first.values())


def _told_all(fact: Any) -> list[Any]:
    """What each rank has to say, which is little. Waits for the last of them as long as the training does."""
    facts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(facts, fact)
    return facts


def _connections(statuses: Sequence[bool | None]) -> Any:
    """The group in which hosts talk to each other, made if there is none yet; None if it failed on any rank.

    Args:
        statuses: Of each rank, whether it has one that works; None before the first try.
    """
    world = distributed.group.WORLD
    if False in statuses:
        _CONNECTIONS[world] = None
    elif None in statuses:
        group = None
        try:
            group = distributed.new_group(backend="gloo", timeout=_PATIENCE)
        except Exception as error:  # noqa: BLE001  no gloo, no network between the hosts, ...
            pass_on(error)
        _CONNECTIONS[world] = group if all(_told_all(group is not None)) else None
    return _CONNECTIONS[world]


def _sent_up(load: Load, rank: int, size: int, group: Any) -> Load:
    """One load of all on the first rank: at each step every second rank that is left hands its own to the one before.

    A rank that cannot be heard is missing, and so is what it was handed. With gloo, who gives up waiting for one loses
    the connections to all: then those are missing, too, that had not handed over theirs by then.
    """
    step = 1
    while step < size and rank % (2 * step) == 0:
        if rank + step < size:
            try:
                load.add(Load.from_bytes(_receive(rank + step, group)))
            except Exception as error:  # noqa: BLE001
                pass_on(error)
                _CONNECTIONS[distributed.group.WORLD] = None
                lost = range(rank + step, min(rank + 2 * step, size))
                load.problems |= dict.fromkeys(lost, f"it could not be heard, {error!r}")
        step *= 2
    if rank:
        _send(load.to_bytes(), rank - step, group)
    return load


def _send(blob: bytes, to: int, group: Any) -> None:
    distributed.send(torch.tensor([len(blob)], device="cpu"), to, group)
    distributed.send(torch.frombuffer(bytearray(blob), dtype=torch.uint8), to, group)


def _receive(sender: int, group: Any) -> bytes:
    size = torch.zeros(1, dtype=torch.int64, device="cpu")
    distributed.recv(size, sender, group)
    content = torch.empty(int(size), dtype=torch.uint8, device="cpu")
    distributed.recv(content, sender, group)
    return content.numpy().tobytes()


def _sent_at_once(load: Load, rank: int, size: int) -> Load:
    """One load of all on the first rank, over the training's own group."""
    blobs: list[Any] | None = [b""] * size if rank == 0 else None
    distributed.gather_object(load.to_bytes() if rank else b"", blobs)
    for blob in blobs[1:] if blobs is not None else ():
        load.add(Load.from_bytes(blob))
    return load
