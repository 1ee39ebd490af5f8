"""Profiles of several ranks become one: in threads that stand for processes, and (slow) in processes with gloo."""

from __future__ import annotations

import multiprocessing
import queue
import threading
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from lensai_integrations import Profiler
from lensai_integrations.problems import Problems
from lensai_integrations.profiles.profile import to_bytes
from lensai_integrations.torch import ranks
from lensai_integrations.torch.ranks import Load, Merged, gathered, share_of


def profile(rank, n=20, left_out=0, convention="lensai"):
    rng = np.random.default_rng(rank)
    profiler = Profiler(seed=[0, rank], source="validation", convention=convention)
    profiler.update(
        inputs=rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8), embeddings={"fc": rng.normal(size=(n, 4))}
    )
    result = profiler.profile()
    result.info |= {"epoch": 3, "padding_left_out": left_out}
    return result


class Threads:
    """A process group whose processes are threads: what `torch.distributed` is asked for here.

    Args:
        size: How many.
        connected: By rank, whether a group of its own can be made there.
    """

    def __init__(self, size, connected=None):
        self.size, self.connected = size, connected or {}
        self._local, self._barrier = threading.local(), threading.Barrier(size)
        self._told = [None] * size
        self._sent = {(one, two): queue.Queue() for one in range(size) for two in range(size)}
        self.group = SimpleNamespace(WORLD=_Group())
        self.at_once, self.sends, self.deaf = 0, [], set()
        self.is_available = self.is_initialized = lambda: True
        self.get_world_size = lambda: size
        self.get_rank = lambda: self._local.rank

    def all_gather_object(self, told, fact):
        self._told[self._local.rank] = fact
        self._barrier.wait()
        told[:] = self._told
        self._barrier.wait()

    def new_group(self, *, backend, timeout):
        assert backend == "gloo"
        assert timeout < timedelta(minutes=10)
        if not self.connected.get(self._local.rank, True):
            raise RuntimeError("no network")
        return _Group()

    def send(self, tensor, to, group):
        if self._local.rank in self.deaf:
            raise RuntimeError("connection reset")
        assert tensor.device.type == "cpu"
        self.sends.append((self._local.rank, to))
        self._sent[self._local.rank, to].put(tensor)

    def recv(self, tensor, sender, group):
        if sender in self.deaf:
            raise RuntimeError("timed out")
        tensor.copy_(self._sent[sender, self._local.rank].get(timeout=20))

    def gather_object(self, blob, blobs):
        self.at_once += 1
        told = [None] * self.size
        self.all_gather_object(told, blob)
        if blobs is not None:
            blobs[:] = told

    def run(self, profiles, shares=None):
        """What each rank has, its problems, and what it raised, when all have gathered these profiles."""
        results = [None] * self.size
        shares = shares or [None] * self.size

        def rank_runs(rank):
            self._local.rank = rank
            problems, whole, raised = Problems(quiet=True), None, None
            try:
                whole = gathered(profiles[rank], self.size, problems, shares[rank])
            except RuntimeError as error:
                raised = error
            results[rank] = whole, problems.messages, raised

        threads = [threading.Thread(target=rank_runs, args=[rank]) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


class _Group:
    pass


@pytest.fixture
def world(monkeypatch):
    """`world(size, ...)`: threads that are processes of one training."""

    def make(*arguments, **named):
        threads = Threads(*arguments, **named)
        monkeypatch.setattr(ranks, "distributed", threads)
        return threads

    return make


def test_one_process_gathers_nothing():
    mine = profile(0)

    assert gathered(mine, 1, Problems()) is mine
    assert gathered(None, 1, Problems()) is None


def test_processes_that_are_not_connected_count_for_themselves():
    problems = Problems(quiet=True)
    mine = profile(0)

    assert gathered(mine, 4, problems) is mine
    assert "each counts for itself" in problems.messages[0]


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8])
def test_the_first_rank_has_all_rows_and_merges_few_profiles(size, world, monkeypatch):
    merges = []
    add = Load._add
    monkeypatch.setattr(Load, "_add", lambda self, part: merges.append(part.ranks) or add(self, part))
    threads = world(size)
    results = threads.run([profile(rank, n=20 + rank, left_out=rank % 2) for rank in range(size)])
    whole, said, _ = results[0]

    rows = sum(20 + rank for rank in range(size))
    assert (whole.n, whole.groups["embeddings/fc"].n, whole.rows.n) == (rows, rows, rows)
    assert whole.info["ranks"] == size
    assert whole.info["padding_left_out"] == size // 2
    assert (whole.info["epoch"], whole.source) == (3, "validation")
    assert not said
    assert all(result == (None, [], None) for result in results[1:])
    assert len([to for _, to in threads.sends if to == 0]) == 2 * int(np.ceil(np.log2(size)))  # its size, and itself
    assert len(merges) == size - 1
    assert not threads.at_once


def test_the_counts_are_those_of_merging_one_after_the_other_and_always_the_same(world):
    profiles = [profile(rank) for rank in range(5)]
    first, again = (world(5).run([profile(rank) for rank in range(5)])[0][0] for _ in range(2))
    folded = profiles[0]
    for other in profiles[1:]:
        folded = folded.merge(other)

    for result in (first, again):
        result.info.pop("created", None)
    assert to_bytes(first) == to_bytes(again)
    for name, group in folded.groups.items():
        same = first.groups[name]
        assert (same.n, same.invalid) == (group.n, group.invalid)
        for extreme in ("low", "high"):
            np.testing.assert_array_equal(same.bank.state()[extreme], group.bank.state()[extreme])
    np.testing.assert_array_equal(first.groups["inputs"].pixels.counts, folded.groups["inputs"].pixels.counts)
    np.testing.assert_allclose(first.groups["embeddings/fc"].moments.mean, folded.groups["embeddings/fc"].moments.mean)


@given(size=st.integers(2, 9), data=st.data())
@settings(max_examples=25, deadline=None)
def test_whoever_fails_or_differs_is_said_and_all_others_are_there(size, data):
    kinds = data.draw(st.lists(st.sampled_from(["good", "none", "other"]), min_size=size, max_size=size))
    profiles = [
        None if kind == "none" else profile(rank, convention="lensai-edge" if kind == "other" else "lensai")
        for rank, kind in enumerate(kinds)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "distributed", threads := Threads(size))
        whole, said, _ = threads.run(profiles)[0]

    first = next((kind for kind in kinds if kind != "none"), None)
    good = [rank for rank, kind in enumerate(kinds) if kind == first]
    missing = [rank for rank in range(size) if rank not in good]
    assert (0 if whole is None else whole.n) == (20 * len(good) if first else 0)
    assert [f"rank {rank} " in f"{said} " or f"rank {rank}:" in f"{said}" for rank in range(size)] == [
        rank in missing or first is None for rank in range(size)
    ]
    for rank in range(size):
        if kinds[rank] == "none":
            assert f"the rows of rank {rank} are missing: it has no profile" in said[0]
        elif rank in missing:
            assert f"the rows of rank {rank} are missing: the images were measured" in said[0]


def test_a_profile_that_cannot_be_written_is_missed(world):
    unwritable = profile(1)
    unwritable.info["site"] = object()
    whole, said, _ = world(3).run([profile(0), unwritable, profile(2)])[0]

    assert whole.n == 40
    assert said[0].startswith("ranks: the rows of rank 1 are missing: ")


@pytest.mark.parametrize("broken", [[0], [1], [2], [0, 1, 2]])
def test_without_connections_of_their_own_all_use_those_of_the_training(broken, world):
    threads = world(3, connected=dict.fromkeys(broken, False))

    for _ in range(2):
        assert threads.run([profile(rank) for rank in range(3)])[0][0].n == 60
    assert threads.at_once == 6


def test_a_rank_that_cannot_be_heard_is_missed_and_the_next_pass_is_whole(world):
    threads = world(4)
    assert threads.run([profile(rank) for rank in range(4)])[0][0].n == 80
    threads.deaf = {2}
    (whole, said, _), _, (_, _, raised), _ = threads.run([profile(rank) for rank in range(4)])

    assert whole.n == 40
    assert "rank 2 are missing: it could not be heard" in said[0]
    assert "rank 3 are missing: it could not be heard" in said[0]
    assert "connection reset" in str(raised)
    assert threads.run([profile(rank) for rank in range(4)])[0][0].n == 80
    assert threads.at_once == 4


def test_ranks_that_are_fed_the_same_count_once(world):
    shares = [(2, 0), (2, 0), (2, 1), (2, 1)]
    whole, said, _ = world(4).run([profile(rank // 2, n=10) for rank in range(4)], shares)[0]

    assert (whole.n, whole.info["ranks"], said) == (20, 2, [])


def test_of_ranks_that_are_fed_the_same_any_will_do(world):
    profiles = [None, profile(0), profile(1), None]
    whole, said, _ = world(4).run(profiles, [(2, 0), (2, 0), (2, 1), (2, 1)])[0]
    lost, said_of_it, _ = world(4).run([None, None, *profiles[1:3]], [(2, 0), (2, 0), (2, 1), (2, 1)])[0]

    assert (whole.n, said) == (40, [])
    assert lost.n == 20
    assert said_of_it == ["ranks: the rows of rank 0 are missing: it has no profile"]


def test_as_many_shares_as_ranks_are_different_ones(world):
    whole, *_ = world(2).run([profile(0), profile(1)], [(2, 0), (2, 0)])[0]

    assert whole.n == 40


def test_a_sampler_tells_the_share_and_else_the_strategy_does():
    strategy = SimpleNamespace(distributed_sampler_kwargs={"num_replicas": 2, "rank": 1})
    sampler = DistributedSampler(range(9), num_replicas=4, rank=3)

    assert share_of(DataLoader(range(9), sampler=sampler), strategy) == (4, 3)
    assert share_of(DataLoader(range(9)), strategy) == (2, 1)
    assert share_of(DataLoader(range(9))) is None
    assert share_of(None, SimpleNamespace()) is None


def test_a_load_survives_being_sent():
    load = Load([Merged.of(profile(0, left_out=2), 0), Merged.of(profile(1, convention="lensai-edge"), 1)], {2: "why"})
    received = Load.from_bytes(load.to_bytes())

    assert [(part.profile.n, part.ranks, part.padding) for part in received.parts] == [(20, [0], 2), (20, [1], 0)]
    assert received.problems == {2: "why"}


# -- processes


def process(rank, size, folder, answers):
    """One rank: gathers in several situations, and says what came of it."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    ranks._PATIENCE = timedelta(seconds=5)
    found = {}

    def gather(case, mine, share=None):
        problems = Problems(quiet=True)
        try:
            whole = gathered(mine, size, problems, share)
            found[case] = (None, problems.messages) if whole is None else (whole.n, problems.messages)
        except RuntimeError as error:
            found[case] = "raised", [str(error)]

    gather("all", profile(rank))
    gather("one without", None if rank == size - 1 else profile(rank))
    gather("same", profile(0), (1, 0))
    made = list(ranks._CONNECTIONS.values())
    found["connected"] = len(made) == 1 and made[0] is not None
    send, ranks._send = ranks._send, ranks._send
    if rank == 1:
        ranks._send = lambda *_: None  # as a process that has stopped
    gather("silent", profile(rank))
    ranks._send = send
    gather("after it", profile(rank))
    answers.put((rank, found))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3, 5])
def test_processes_with_gloo(size, tmp_path):
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    processes = [context.Process(target=process, args=(rank, size, tmp_path, answers)) for rank in range(size)]
    for started in processes:
        started.start()
    found = dict(answers.get(timeout=240) for _ in range(size))
    for started in processes:
        started.join(60)

    assert [started.exitcode for started in processes] == [0] * size
    first = found[0]
    assert first["all"] == (20 * size, [])
    rows, said = first["one without"]
    assert (rows, said) == (20 * (size - 1), [f"ranks: the rows of rank {size - 1} are missing: it has no profile"])
    assert first["same"] == (20, [])
    assert all(found[rank]["connected"] for rank in range(size))
    assert all(found[rank][case] == (None, []) for rank in range(1, size) for case in ("all", "one without", "same"))
    rows, said = first["silent"]
    missing = [rank for rank in range(size) if f"the rows of rank {rank} are missing: it could not be heard" in said[0]]
    assert 1 in missing
    assert rows == 20 * (size - len(missing))
    assert first["after it"] == (20 * size, [])
