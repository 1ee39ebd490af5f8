"""Layers of a baseline in models that call them otherwise: found where it is sure, else said with what settles it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from small_nets import Inside, Net, Twins, baseline_of, images, net_of
from torch import nn

from lensai_integrations import Baseline, DriftMonitor
from lensai_integrations.errors import InputError
from lensai_integrations.torch import profiled
from lensai_integrations.training.layers import find_alike


@pytest.fixture
def net():
    return net_of()


def watched(baseline, model, **arguments):
    """The groups of a window of 50 rows, and the monitor."""
    monitor, found = DriftMonitor(baseline, 50), []
    monitor.update, update = (lambda **batch: found.extend(update(**batch))), monitor.update
    with torch.no_grad(), monitor, monitor.watch(model, **arguments):
        model(images(50, seed=1))
    (window,) = found
    return {name: group.n for name, group in window.profile.groups.items()}, window, monitor


@pytest.mark.parametrize(
    ("layers", "name", "found"),
    [
        (["net", "net.fc"], "model.net.fc", ("net.fc", False, True)),
        (["fc"], "model.net.fc.input", ("fc", True, True)),
        (["model.net.fc"], "fc", ("model.net.fc", False, True)),
        (["backbone.fc", "backbone.conv"], "model.net.fc", ("backbone.fc", False, False)),
        (["a.net.fc", "b.fc"], "model.net.fc", ("a.net.fc", False, False)),
        (["fc", "other.fc"], "net.fc", ("fc", False, True)),
        (["net.0", "net.1", "net.1.0"], "model.net.1", ("net.1", False, True)),
    ],
)
def test_the_longest_end_that_both_share(layers, name, found):
    assert find_alike({path: path for path in layers}, name) == found


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["a.fc", "b.fc"], "layer 'net.fc' of the baseline could be a.fc, b.fc here"),
        (["a.net.fc", "b.net.fc", "fc2"], "could be a.net.fc, b.net.fc here"),
        (["head"], "the model has no layer 'net.fc'"),
    ],
)
def test_what_is_not_unique_is_said(layers, message):
    with pytest.raises(InputError, match=message):
        find_alike({path: path for path in layers}, "net.fc")


PLACES = {
    "taken out": lambda net: net,
    "another prefix": lambda net: Inside("backbone", net=net),
    "a longer one": lambda net: Inside("app", "service", "net", net=net),
    "DataParallel": lambda net: nn.DataParallel(Inside("module", net=net)),
    "Fabric": lambda net: _fabric(Inside("net", net=net)),
    "compiled": lambda net: torch.compile(Inside("net", net=net), backend="eager"),
}


def _fabric(module):
    from lightning.fabric import Fabric

    return Fabric(accelerator="cpu", devices=1).setup(module)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("layers", [["fc.input", "conv"], ["model.net.fc.input", "model.net.conv"]])
def test_a_module_with_another_prefix_is_watched_as_before(net, place, layers, caplog):
    torch.compiler.reset()
    baseline = baseline_of(Inside("model", "net", net=net).eval(), layers=layers)
    counts, window, monitor = watched(baseline, PLACES[place](net).eval())
    assert counts == dict.fromkeys(baseline.reference.groups, 50)
    assert monitor.status.failures == {}
    with torch.no_grad():
        expected = net.conv(images(50, seed=1)).mean((2, 3))
    rows = window.profile.rows.data[f"embeddings/{layers[1]}"]
    np.testing.assert_allclose(np.sort(rows[:, 0]), np.sort(expected[:, 0]), rtol=1e-4, atol=1e-6)
    assert window.level == "ok"


@pytest.mark.parametrize("place", PLACES)
def test_what_auto_found_is_found_under_another_prefix(net, place):
    torch.compiler.reset()
    baseline = baseline_of(Inside("model", "net", net=net).eval())
    counts, window, monitor = watched(baseline, PLACES[place](net).eval())
    assert counts == dict.fromkeys(baseline.reference.groups, 50)
    assert (monitor.status.failures, monitor.status.causes, window.level) == ({}, {}, "ok")


def test_a_name_that_only_ends_alike_is_taken_and_said_once(net, caplog):
    baseline = baseline_of(Inside("model", "net", net=net).eval(), layers=["model.net.fc.input"])
    _, _, monitor = watched(baseline, Inside("backbone", net=net).eval())
    assert monitor.status.failures == {}
    (told,) = [record.getMessage() for record in caplog.records if "ends alike" in record.getMessage()]
    assert "'backbone.fc.input' is taken for 'model.net.fc.input' of the baseline" in told
    assert "pass layers={'model.net.fc.input': '...'} with the name of the layer here that is meant" in told


def test_several_that_end_alike_are_named_and_the_advice_works(net):
    baseline = baseline_of(Inside("model", "net", net=net).eval(), layers=["fc.input"])
    model, monitor = Twins(net).eval(), DriftMonitor(baseline)
    with pytest.raises(InputError, match=r"'model.net.fc.input' of the baseline could be left.fc, right.fc") as raised:
        monitor.watch(model)
    assert "pass layers={'fc.input': '...'} with the name of the layer here that is meant" in str(raised.value)
    counts, _, monitor = watched(baseline, model, layers={"fc.input": "left.fc.input"})
    assert counts == dict.fromkeys(baseline.reference.groups, 50)
    assert monitor.status.failures == {}


def test_the_outputs_can_be_of_a_named_layer(net):
    baseline = baseline_of(net, layers=None)
    model = nn.Sequential(net, nn.Softmax(1)).eval()
    counts, window, _ = watched(baseline, model, outputs="0.fc")
    assert counts == {"inputs": 50, "outputs": 50}
    with torch.no_grad():
        expected = torch.softmax(net(images(50, seed=1)), 1)[:, 0]
    np.testing.assert_allclose(np.sort(window.profile.rows.data["outputs"][:, 0]), np.sort(expected), rtol=1e-5)


class Softened(nn.Module):
    """As it is deployed: the network under another name, and a softmax behind it."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, images):
        return self.net(images).softmax(1)


def test_a_named_layer_of_the_outputs_is_found_under_another_prefix(net):
    baseline = baseline_of(Inside("model", "net", net=net).eval(), layers=None, outputs="model.net.fc")
    counts, window, monitor = watched(baseline, Softened(net).eval())
    assert counts == {"inputs": 50, "outputs": 50}
    with torch.no_grad():
        expected = torch.softmax(net(images(50, seed=1)), 1)[:, 0]
    np.testing.assert_allclose(np.sort(window.profile.rows.data["outputs"][:, 0]), np.sort(expected), rtol=1e-5)
    assert (monitor.status.failures, window.level) == ({}, "ok")


def test_a_reduction_of_a_layer_that_the_baseline_does_not_have_raises(net):
    with pytest.raises(InputError, match=r"reduce={'pool': 'max'} has \['pool'\], but the baseline has embeddings of"):
        DriftMonitor(baseline_of(net)).watch(net, reduce={"pool": "max"})


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"pool": "fc"}, r"has 'pool', but the baseline has embeddings of 'fc.input': pass a dict"),
        ({"fc.input": 3}, "should lead from names in the baseline to names of layers here"),
        ({"fc.input": "nothing"}, "the model has no layer 'nothing'"),
        ("fc.input", "should be a list of layer names such as"),
    ],
)
def test_wrong_names_raise(net, layers, message):
    with pytest.raises(InputError, match=message):
        DriftMonitor(baseline_of(net)).watch(net, layers=layers)


def test_a_layer_that_the_baseline_does_not_have_is_said_and_the_advice_works(net):
    baseline = baseline_of(net)
    _, _, monitor = watched(baseline, net, layers=["conv"])
    told = monitor.status.causes["embeddings/conv"]
    assert "the baseline has no embeddings 'conv', so these are held against nothing; it has 'fc.input'" in told
    assert "pass layers={'fc.input': 'conv'}" in told
    counts, _, monitor = watched(baseline, net, layers={"fc.input": "fc.input"})
    assert (counts["embeddings/fc.input"], monitor.status.failures) == (50, {})


def test_other_weights_than_the_baselines_are_a_likely_cause(net, caplog):
    baseline = baseline_of(net)
    _, _, monitor = watched(baseline, net)
    assert monitor.status.failures == {}
    torch.manual_seed(5)
    other = Net().eval()
    _, _, monitor = watched(baseline, other)
    assert monitor.status.failures == {"weights": 1}
    assert "the model's weights are not those that the baseline was made with" in monitor.status.causes["weights"]
    assert sum("the model's weights are not" in record.getMessage() for record in caplog.records) == 1
    for unsure in (copy.deepcopy(other).double(), nn.Sequential(other, nn.Linear(3, 3)).eval()):
        monitor = DriftMonitor(baseline, 50)
        with torch.no_grad(), monitor, monitor.watch(unsure, layers=[], inputs=False):
            unsure(images(5).to(next(unsure.parameters()).dtype))
        assert "weights" not in monitor.status.failures
    other.load_state_dict(net.state_dict())  # the advice
    assert watched(baseline, other)[2].status.failures == {}


def test_labels_go_to_a_monitor_as_well(net):
    with torch.no_grad(), profiled(net) as profiler, profiler.batch(labels=torch.arange(100) % 3):
        net(images())
    monitor = DriftMonitor(Baseline(profiler.profile()), 50)
    watching, found = monitor.watch(net), []
    monitor.update, update = (lambda **batch: found.extend(update(**batch))), monitor.update
    with torch.no_grad(), monitor, watching:
        with watching.batch(labels=torch.arange(50) % 3):
            for part in images(50, seed=1).split(20):
                net(part)
        with watching.batch(labels=torch.arange(4)):
            net(images(5))
    (window,) = found
    assert window.profile.groups["labels"].n == 50
    assert (monitor.status.rows, list(monitor.status.failures)) == (55, ["batch"])


def test_groups_without_rows_are_said_once_and_in_the_alarm(net, caplog):
    baseline = baseline_of(net)
    texts = []
    monitor = DriftMonitor(baseline, 50, sinks=[lambda event: texts.append(event.text)])
    with torch.no_grad(), monitor, monitor.watch(net, inputs=False, layers=[]):
        net(images(100) * 8)
    told = "inputs, embeddings/fc.input: a window has no rows of what the baseline has here"
    assert sum(told in record.getMessage() for record in caplog.records) == 1
    assert set(monitor.status.causes) >= {"inputs", "embeddings/fc.input"}
    assert any("No rows of inputs, embeddings/fc.input to compare." in text for text in texts if "alarm" in text)
