from __future__ import annotations

import pytest
import torch
from torch import nn

from lensai_integrations.torch.layers import SampledWeights


def digest(model):
    return SampledWeights(model).weights()


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 4))


def test_the_same_weights_have_the_same_digest_wherever_they_are_laid_out():
    one, two = net(), net().to(memory_format=torch.channels_last)

    assert digest(one) == digest(two)
    assert digest(one).tensors == 8
    assert digest(one).kinds == ("float32",)


@pytest.mark.parametrize("path", ["0.weight", "1.bias", "1.running_mean", "3.bias"])
def test_one_other_tensor_is_another_digest(path):
    one, two = net(), net()
    with torch.no_grad():
        two.state_dict()[path].add_(1e-3)

    assert digest(one).same_as(digest(two)) is False


def test_what_counts_are_parameters_and_saved_floating_buffers_of_layers():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net()
            self.register_buffer("best", torch.zeros(()))
            self.inner.register_buffer("kept", torch.zeros(2))
            self.inner.register_buffer("passing", torch.zeros(2), persistent=False)
            self.inner.register_buffer("count", torch.zeros((), dtype=torch.int64))

    names = SampledWeights(Own()).names

    assert "inner.kept" in names
    assert not {"best", "inner.passing", "inner.count", "inner.1.num_batches_tracked"} & set(names)
    assert set(names) <= set(Own().state_dict())


def test_a_metrics_states_are_no_weights():
    import torchmetrics

    model = net()
    model.append(torchmetrics.MeanMetric())
    model[-1].persistent(True)

    assert SampledWeights(model).names == SampledWeights(net()).names


def test_a_model_of_nothing_has_no_digest():
    assert digest(nn.ReLU()) is None
    assert digest(nn.ParameterList([nn.Parameter(torch.zeros(0))])) is None


def test_packed_weights_cannot_be_seen_and_are_not_taken_for_the_same(quantised):
    assert digest(quantised(nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 3)))) is None


def test_another_precision_cannot_be_compared():
    assert digest(net()).same_as(digest(net().bfloat16())) is None


def test_nothing_is_waited_for_and_what_comes_later_changes_nothing():
    model = net()
    sample = SampledWeights(model)
    before = digest(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)

    assert sample.weights() == before
    SampledWeights(net().to("meta"))  # values are not read
