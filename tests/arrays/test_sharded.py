"""Torch arrays that several processes hold together: their own rows are read, what has none is refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from lensai_integrations import Profiler
from lensai_integrations.arrays.namespaces import local
from lensai_integrations.arrays.sharded import is_shared, own_rows
from lensai_integrations.errors import InputError
from lensai_integrations.measures.embeddings import reduce_embedding
from lensai_integrations.problems import Problems
from lensai_integrations.torch.layers import find_layer
from lensai_integrations.torch.taps import Tap, Taps
from lensai_integrations.torch.watching import _copy


@pytest.fixture
def mesh():
    """Two processes by three, of which this is one; nothing is sent."""
    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=6)
    yield init_device_mesh("cpu", (2, 3), mesh_dim_names=("data", "tensor"))
    distributed.destroy_process_group()


def shared(mesh, *placements, shape=(4, 5)):
    own = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    return DTensor.from_local(own, mesh, placements, run_check=False)


WHOLE = [(Shard(0), Replicate()), (Replicate(), Replicate()), (Shard(0), Shard(0)), (Replicate(), Shard(0))]


@pytest.mark.parametrize("placements", WHOLE)
def test_the_rows_of_this_process_are_read(mesh, placements):
    tensor = shared(mesh, *placements)

    assert is_shared(tensor)
    assert local(tensor).tolist() == torch.arange(20.0).reshape(4, 5).tolist()
    assert reduce_embedding(tensor, "mean").shape == (4, 5)
    assert type(_copy(tensor)) is torch.Tensor
    profiler = Profiler(seed=0)
    images = shared(mesh, *placements, shape=(4, 3, 8, 8)) / 768
    profiler.update(inputs=images, embeddings={"a": tensor}, outputs=tensor, labels=torch.arange(4))
    counts = {name: group.n for name, group in profiler.profile().groups.items()}
    assert counts == {"inputs": 4, "outputs": 4, "embeddings/a": 4, "labels": 4}


@pytest.mark.parametrize(
    ("placements", "says"),
    [
        ((Replicate(), Shard(1)), "its axis 1 is split over 3 processes, the mesh axis 'tensor'"),
        ((Shard(1), Shard(0)), "its axis 1 is split over 2 processes, the mesh axis 'data'"),
        ((Replicate(), Partial()), "it is a sum that 3 processes, the mesh axis 'tensor' have parts of"),
    ],
)
def test_rows_that_are_spread_are_refused_by_the_name_of_their_layer(mesh, placements, says):
    tensor, errors = shared(mesh, *placements), []
    with pytest.raises(InputError, match=says):
        own_rows(tensor)

    profiler = Profiler(on_error=lambda group, error: errors.append(f"{group}: {error}"))
    profiler.update(embeddings={"a": tensor}, labels=torch.arange(4))
    assert profiler.profile().groups.keys() == {"labels"}
    assert errors[0].startswith(f"embeddings/a: {says}")

    model, problems = torch.nn.Sequential(torch.nn.Identity()), Problems(quiet=True)
    taps = Taps([Tap("embeddings/0", find_layer(model, "0"), "mean")], problems)
    taps.open()
    model(tensor)
    assert not taps.close()
    taps.remove()
    assert problems.messages[0].startswith(f"embeddings/0: layer '0' is not read: of what it answers, {says}")
    assert "output_layouts=Replicate()" in problems.messages[0]
    assert taps.layers[0].left_out


def test_one_process_has_all_columns():
    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        assert own_rows(shared(mesh, Shard(1))).shape == (4, 5)
    finally:
        distributed.destroy_process_group()


def test_what_is_still_on_its_way_is_waited_for(mesh):
    from torch.distributed._functional_collectives import AsyncCollectiveTensor

    arriving = AsyncCollectiveTensor(torch.ones(2, 3))

    assert type(own_rows(arriving)) is torch.Tensor
    assert local(arriving).tolist() == [[1.0] * 3] * 2


def test_other_arrays_are_themselves():
    tensor = torch.zeros(2)

    assert own_rows(tensor) is tensor
    assert not is_shared(tensor)
