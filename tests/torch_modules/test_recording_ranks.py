from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from lensai_integrations.torch.recording import padding_of


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
