"""Which weights a module has: told apart by a digest that wrappers do not change and one step of training does."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lensai_integrations.torch.weights import WeightSample, versions_of, weights_of
from lensai_integrations.training.weights import Weights, sampled


def model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Flatten(), nn.Linear(16, 300))


def test_the_digest_is_of_the_elements_that_are_sampled_of_parameters_and_saved_floating_buffers():
    net = model()
    net.register_buffer("scratch", torch.ones(3), persistent=False)
    net.register_buffer("count", torch.ones(3, dtype=torch.int64))
    tensors = [*net.parameters(), net[1].running_mean, net[1].running_var]
    arrays = [each.detach().numpy() for each in tensors]
    expected = Weights.of(("float32", each.shape, each.reshape(-1)[sampled(each.size)]) for each in arrays)
    assert weights_of(net) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("change", [lambda w: w[-1].add_(0.5), lambda w: w.mul_(1.5)])
def test_a_change_is_seen_in_every_dtype(dtype, change):
    net = model().to(dtype)
    before = weights_of(net)
    assert before.kinds == (str(dtype)[6:],)
    assert before.same_as(weights_of(copy.deepcopy(net))) is True
    with torch.no_grad():
        change(net[3].weight)
    assert before.same_as(weights_of(net)) is False
    assert before.same_as(weights_of(model().to(torch.float64).to(dtype))) is True


def test_memory_format_and_wrappers_change_nothing():
    net = model()
    before = weights_of(net)
    assert before.same_as(weights_of(copy.deepcopy(net).to(memory_format=torch.channels_last))) is True
    assert before.same_as(weights_of(nn.DataParallel(net))) is True
    assert before.same_as(weights_of(torch.compile(net, backend="eager"))) is True
    assert before.same_as(weights_of(copy.deepcopy(net).half())) is None


def test_what_is_not_here_has_no_digest():
    with torch.device("meta"):
        assert weights_of(nn.Linear(2, 2)) is None
    assert weights_of(nn.LazyLinear(2)) is None
    assert weights_of(nn.Flatten()) == Weights.of([])


def test_a_sample_is_of_the_moment_in_which_it_was_taken():
    net = model()
    before, sample, versions = weights_of(net), WeightSample.of(net), versions_of(net)
    with torch.no_grad():
        net[3].weight.zero_()
    assert sample.digest() == before != weights_of(net)
    assert versions_of(net) != versions
    with torch.inference_mode():
        other = nn.Linear(2, 2)
    assert versions_of(other) == (0, 0)
    assert weights_of(other) is not None


def test_a_digest_is_the_same_under_inference_mode_and_draws_no_random_numbers():
    net = model()
    after_building = torch.get_rng_state()
    before = weights_of(net)
    with torch.inference_mode():
        assert weights_of(net) == before
    assert torch.equal(torch.get_rng_state(), after_building)
