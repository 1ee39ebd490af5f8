from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from lensai_integrations import Profile, Profiler
from lensai_integrations.problems import Problems
from lensai_integrations.profiles.profile import to_bytes
from lensai_integrations.torch.recording import gathered, merged, padding_of


@given(
    n=st.integers(1, 40), ranks=st.integers(1, 7), shuffle=st.booleans(), drop=st.booleans(), batch=st.integers(1, 5)
)
@settings(max_examples=60, deadline=None)
def test_each_samples_first_appearance_is_some_ranks_own(n, ranks, shuffle, drop, batch):
    own, repeated = [], []
    for rank in range(ranks):
        sampler = DistributedSampler(range(n), ranks, rank, shuffle=shuffle, drop_last=drop)
        loader = DataLoader(range(n), batch_size=batch, sampler=sampler)
        count, padding = padding_of(loader)
        indices = list(sampler)
        assert count + padding == len(indices)
        own += indices[:count]
        repeated += indices[count:]

    assert len(own) == len(set(own))
    assert set(repeated) <= set(own)
    if not drop or n % ranks == 0:
        assert sorted(own) == list(range(n))


def test_a_sampler_of_batches_is_looked_into():
    sampler = DistributedSampler(range(251), 2, 1, shuffle=False)
    loader = DataLoader(range(251), batch_sampler=BatchSampler(sampler, 8, drop_last=False))

    assert padding_of(loader) == (125, 1)


def test_samplers_that_are_not_distributed_repeat_nothing():
    data = range(10)

    for loader in (DataLoader(data), DataLoader(data, sampler=RandomSampler(data)), None, object()):
        assert padding_of(loader) == (0, 0)
    assert padding_of(DataLoader(data, batch_sampler=BatchSampler(SequentialSampler(data), 2, False))) == (0, 0)


def test_lightnings_wrapper_of_a_users_sampler():
    from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
    from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSamplerWrapper

    wrapped = DistributedSamplerWrapper(SequentialSampler(range(7)), num_replicas=2, rank=1, shuffle=False)
    exact = UnrepeatedDistributedSamplerWrapper(SequentialSampler(range(7)), num_replicas=2, rank=1, shuffle=False)

    assert padding_of(DataLoader(range(7), sampler=wrapped)) == (3, 1)
    assert padding_of(DataLoader(range(7), sampler=exact)) == (3, 0)


def profile(rank, n=20, left_out=0):
    rng = np.random.default_rng(rank)
    profiler = Profiler(seed=[0, rank], source="validation")
    profiler.update(
        inputs=rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8), embeddings={"fc": rng.normal(size=(n, 4))}
    )
    result = profiler.profile()
    result.info |= {"epoch": 3, "padding_left_out": left_out}
    return result


def test_one_process_gathers_nothing():
    mine = profile(0)

    assert gathered(mine, 1, Problems()) is mine
    assert gathered(None, 1, Problems()) is None


def test_processes_that_are_not_connected_count_for_themselves():
    problems = Problems(quiet=True)
    mine = profile(0)

    assert gathered(mine, 4, problems) is mine
    assert "each counts for itself" in problems.messages[0]


def test_merged_profiles_are_one_that_has_seen_all():
    problems = Problems()
    whole = merged([to_bytes(profile(rank, left_out=rank)) for rank in range(3)], problems)

    assert not problems.messages
    assert whole.n == 60
    assert whole.groups["embeddings/fc"].n == 60
    assert whole.rows.n == 60
    assert whole.info["epoch"] == 3
    assert whole.info["ranks"] == 3
    assert whole.info["padding_left_out"] == 3
    assert whole.source == "validation"


def test_a_rank_without_a_profile_is_missed():
    problems = Problems(quiet=True)
    whole = merged([to_bytes(profile(0)), b""], problems)

    assert whole.n == 20
    assert problems.messages == ["ranks: the rows of rank 1 are missing: it has no profile"]


def test_a_rank_that_measured_otherwise_is_left_out():
    problems = Problems(quiet=True)
    other = Profiler(convention="lensai-edge")
    other.update(inputs=np.zeros((5, 8, 8, 3), np.uint8))
    whole = merged([to_bytes(profile(0)), to_bytes(other.profile()), to_bytes(profile(2))], problems)

    assert whole.n == 40
    assert "the rows of rank 1 are missing" in problems.messages[0]


def test_nothing_from_anybody_is_nothing():
    assert merged([b"", b""], Problems(quiet=True)) is None


def test_profiles_survive_being_sent():
    assert isinstance(merged([to_bytes(profile(0))], Problems()), Profile)
    assert torch.distributed.is_available()
