from __future__ import annotations

import pytest
import torch
from torch import nn

from lensai_integrations.errors import InputError
from lensai_integrations.torch.layers import find_layer, last_linear, named_layers


class Wrapped(nn.Module):
    """A model that is compiled, and one of whose blocks is checkpointed."""

    def __init__(self, net):
        super().__init__()
        self.model = torch.compile(net)
        self.block = nn.Module()
        self.block._checkpoint_wrapped_module = nn.Linear(2, 2)


def test_names_are_those_torch_gives(net):
    model = net()

    assert named_layers(model) == {name: module for name, module in model.named_modules() if name}


def test_wrappers_words_are_left_out(net):
    inner = net()
    layers = named_layers(Wrapped(inner))

    assert layers["model.fc"] is inner.fc
    assert layers["model"] is inner
    assert isinstance(layers["block"], nn.Linear)
    assert not any(word in name for name in layers for word in ("_orig_mod", "_checkpoint"))


def test_a_parallel_wrappers_word_is_left_out_and_a_users_is_not(net):
    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = net()
            self.parallel = nn.DataParallel(net())

    layers = named_layers(Mine())

    assert "module.fc" in layers
    assert "parallel.fc" in layers


def test_finds_by_full_name_and_by_the_end_of_one(lit):
    model = lit()

    for name in ("model.avgpool", "avgpool"):
        layer = find_layer(model, name)
        assert layer.module is model.model.avgpool
        assert (layer.name, layer.path, layer.before) == (name, "model.avgpool", False)


def test_finds_what_goes_into_a_layer(lit):
    layer = find_layer(lit(), "fc.input")

    assert layer.before
    assert (layer.name, layer.path) == ("fc.input", "model.fc")


def test_a_layer_that_is_called_input_is_itself():
    model = nn.Module()
    model.stem = nn.Module()
    model.stem.input = nn.Linear(2, 2)

    assert not find_layer(model, "stem.input").before
    assert find_layer(model, "stem.input.input").before


def test_finds_names_with_the_wrappers_words_in_them(net):
    inner = net()

    assert find_layer(Wrapped(inner), "model._orig_mod.fc").module is inner.fc


def test_an_end_that_several_layers_have_is_refused_with_their_names():
    model = nn.ModuleDict({"a": nn.ModuleDict({"fc": nn.Linear(1, 1)}), "b": nn.ModuleDict({"fc": nn.Linear(1, 1)})})

    with pytest.raises(InputError, match=r"'fc' could be a\.fc, b\.fc: pass the full name"):
        find_layer(model, "fc")
    assert find_layer(model, "b.fc").module is model["b"]["fc"]


def test_one_module_under_two_names_is_not_ambiguous():
    shared = nn.Linear(1, 1)
    model = nn.ModuleDict({"a": nn.ModuleDict({"fc": shared}), "b": nn.ModuleDict({"fc": shared})})

    assert find_layer(model, "fc").module is shared


def test_only_whole_words_count():
    with pytest.raises(InputError):
        find_layer(nn.ModuleDict({"myfc": nn.Linear(1, 1)}), "fc")


@pytest.mark.parametrize("name", ["avgpol", "model.avgpol", "avg_pool", "Avgpool"])
def test_an_unknown_name_is_answered_with_the_nearest_and_all(lit, name):
    with pytest.raises(InputError) as caught:
        find_layer(lit(), name)

    message = str(caught.value)
    assert f"no layer {name!r}" in message
    assert "nearest: model.avgpool" in message
    assert "model.conv, model.norm" in message


def test_a_long_list_of_layers_is_cut(lit):
    model = nn.Sequential(*[nn.ReLU() for _ in range(100)])

    with pytest.raises(InputError, match="and 60 more"):
        find_layer(model, "layer4")


def test_the_last_linear_is_the_one_defined_last(lit):
    assert last_linear(lit()).path == "model.fc"


def test_there_may_be_no_linear_layer():
    assert last_linear(nn.Sequential(nn.Conv2d(3, 3, 1))) is None


def test_attentions_projection_is_not_called_and_not_taken():
    model = nn.Sequential(nn.Linear(4, 4), nn.MultiheadAttention(4, 1))

    assert last_linear(model).path == "0"


def test_a_metrics_network_is_not_the_models():
    import torchmetrics

    class Judge(torchmetrics.Metric):
        def __init__(self):
            super().__init__()
            self.judge = nn.Linear(2, 2)

        def update(self):
            pass

        def compute(self):
            pass

    assert last_linear(nn.ModuleDict({"fc": nn.Linear(2, 2), "metric": Judge()})).path == "fc"
