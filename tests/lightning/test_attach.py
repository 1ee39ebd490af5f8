from __future__ import annotations

import pytest
import torch
from torch import nn

from lensai_integrations.errors import InputError
from lensai_integrations.lightning import BaselineCallback
from lensai_integrations.problems import Problems
from lensai_integrations.torch.finding import attach


@pytest.fixture
def attached():
    made = []

    def make(model, problems=None, **arguments):
        taps = attach(model, BaselineCallback(**arguments)._options, problems or Problems())
        made.append(taps)
        return taps

    yield make
    for taps in made:
        taps.remove()


def where(taps):
    return {tap.key: tap.layer.path + (".input" if tap.layer.before else "") for tap in taps}


def test_by_default_the_input_and_the_output_of_the_last_linear(lit, attached):
    assert where(attached(lit())) == {"embeddings/model.fc.input": "model.fc.input", "outputs": "model.fc"}


def test_layers_go_by_the_names_they_were_asked_for(lit, attached):
    taps = attached(lit(), layers=["avgpool", "model.hidden"], outputs="fc")

    assert where(taps) == {
        "embeddings/avgpool": "model.avgpool",
        "embeddings/model.hidden": "model.hidden",
        "outputs": "model.fc",
    }


def test_nothing_asked_for_nothing_hooked(lit, attached):
    model = lit()
    attached(model, layers=None, outputs=None)

    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_without_a_linear_layer_there_is_no_guess(attached):
    problems = Problems()

    assert where(attached(nn.Sequential(nn.Conv2d(3, 4, 1)), problems)) == {}
    assert problems.messages == []  # the first batch will show what it answers


def test_one_reduction_for_all_or_one_each(lit, attached):
    def centre(maps):
        return maps[:, :, 0, 0]

    one = attached(lit(), layers=["conv", "avgpool"], reduce="max", outputs=None)
    each = attached(lit(), layers=["conv", "avgpool"], reduce={"conv": centre}, outputs=None)

    assert [tap.reduce for tap in one] == ["max", "max"]
    assert [tap.reduce for tap in each] == [centre, "mean"]


def test_a_reduction_of_a_layer_that_is_not_read_is_refused(lit):
    options = BaselineCallback(layers=["avgpool"], reduce={"avg": "max"})._options

    with pytest.raises(InputError, match=r"reduce has \['avg'\], but the layers that are read are \['avgpool'\]"):
        attach(lit(), options, Problems())


@pytest.mark.parametrize("arguments", [{"layers": ["layer4"]}, {"outputs": "head"}])
def test_unknown_layers_are_refused_and_nothing_is_left_hooked(lit, arguments):
    model = lit()

    with pytest.raises(InputError, match="the model has no layer"):
        attach(model, BaselineCallback(**arguments)._options, Problems())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_outputs_are_kept_as_they_are(lit, attached):
    model = lit().eval()
    taps = attached(model)
    taps.open()
    answer = model(torch.rand(2, 3, 16, 16))
    caught = taps.close()

    assert torch.equal(caught["outputs"], answer)
    assert caught["embeddings/model.fc.input"].shape == (2, 6)
