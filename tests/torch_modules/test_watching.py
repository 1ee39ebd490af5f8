"""A monitor beside a module: it sees every pass in eval mode, and the module answers as without it."""

from __future__ import annotations

import copy
import threading

import numpy as np
import pytest
import torch
from torch import nn

from lensai_integrations import Baseline, DriftMonitor, Profiler
from lensai_integrations.errors import InputError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(6, 4)

    def forward(self, images, *, fail=False, scale=False):
        if scale:
            images.mul_(0.5)  # works in place on what it was given
        if fail:
            raise RuntimeError("out of memory")
        return {"logits": self.head(self.drop(self.features(images).mean((2, 3)))), "aux": 1}


def images(n, seed=0):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def baseline(net):
    profiler = Profiler(source="validation", seed=1)
    profiler.describe("embeddings/features", layer="features", reduce="max", axes=4)
    profiler.describe("outputs", layer="head", linear=True)
    with torch.no_grad():
        given = images(200, seed=9)
        kept = net.features(given)
        profiler.update(inputs=given, outputs=net(given)["logits"], embeddings={"features": kept})
    return Baseline(profiler.profile())


def hooks(module):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_it_sees_what_the_module_sees_and_changes_nothing(net, baseline, context):
    given = images(30)
    with context():
        expected = net(given)["logits"]
    monitor = DriftMonitor(baseline, 30)
    before = torch.random.get_rng_state()
    found = []
    monitor.update, update = (lambda **batch: found.extend(update(**batch))), monitor.update
    with monitor.watch(net) as same, context():
        assert same is monitor
        answers = [net(part)["logits"] for part in given.split(10)]
    assert torch.equal(torch.cat(answers), expected)  # bit for bit
    assert torch.equal(torch.random.get_rng_state(), before)
    assert hooks(net) == 0
    (window,) = found
    with torch.no_grad():
        maxima = net.features(given).amax((2, 3)).numpy()
        outputs = torch.softmax(net(given)["logits"], 1).numpy()
    rows = {name: np.sort(each[:, 0]) for name, each in window.profile.rows.data.items()}
    np.testing.assert_allclose(rows["embeddings/features"], np.sort(maxima[:, 0]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(rows["outputs"], np.sort(outputs[:, 0]), rtol=1e-5)
    assert window.profile.groups["inputs"].n == 30
    assert monitor.status.failures == {}


def test_gradients_are_the_same(net, baseline):
    def gradients():
        net.zero_grad()
        net(images(8))["logits"].sum().backward()
        return [p.grad.clone() for p in net.parameters()]

    alone = gradients()
    with DriftMonitor(baseline).watch(net):
        assert all(torch.equal(a, b) for a, b in zip(alone, gradients(), strict=True))


def test_training_passes_do_not_count(net, baseline):
    monitor = DriftMonitor(baseline)
    with monitor.watch(net):
        net.train()
        net(images(4))
        net.eval()
        net(images(4))
    assert monitor.status.rows == 4


def test_exceptions_pass_and_hooks_go(net, baseline):
    monitor = DriftMonitor(baseline)
    with monitor.watch(net):
        net(images(4))
    with pytest.raises(RuntimeError, match="out of memory"), monitor.watch(net):
        net(images(4), fail=True)
    assert hooks(net) == 0
    with monitor.watch(net):
        net(images(4))
    assert monitor.status.rows == 8


def test_inputs_are_those_before_the_module_worked_in_place(net, baseline):
    given = images(50)
    expected = Profiler(like=baseline)
    expected.update(inputs=given)
    monitor, found = DriftMonitor(baseline, 50), []
    monitor.update, update = (lambda **batch: found.extend(update(**batch))), monitor.update
    with monitor.watch(net), torch.no_grad():
        net(given.clone(), scale=True)
    ours, theirs = found[0].profile.rows.data["inputs"], expected.profile().rows.data["inputs"]
    np.testing.assert_allclose(np.sort(ours, axis=0), np.sort(theirs, axis=0), rtol=1e-6)


def test_a_monitor_that_fails_is_not_noticed(net, baseline, caplog, monkeypatch):
    monitor = DriftMonitor(baseline)
    monkeypatch.setattr(Profiler, "update", lambda *_, **__: 1 / 0)
    with monitor.watch(net, inputs=lambda args, kwargs: 1 / 0):
        assert net(images(4))["logits"].shape == (4, 4)
    assert monitor.status.failures == {"watch inputs": 1, "update": 1}


def test_what_is_read_can_be_chosen(net, baseline):
    seen = []
    monitor = DriftMonitor(baseline)
    monitor.update = lambda **batch: seen.append(batch)
    with monitor.watch(net, layers=["head.input"], inputs=False, outputs=False, reduce="mean"):
        net(images(4))
    with monitor.watch(net, layers=[], outputs="drop", inputs=lambda args, kwargs: args[0][:, :1]):
        net(images(4))
    assert (seen[0]["inputs"], seen[0]["outputs"], seen[0]["embeddings"]["head.input"].shape) == (None, None, (4, 6))
    assert (seen[1]["inputs"].shape, seen[1]["outputs"].shape, seen[1]["embeddings"]) == ((4, 1, 8, 8), (4, 6), None)


def test_threads_do_not_mix_their_passes(net, baseline):
    batches = []
    monitor = DriftMonitor(baseline)
    monitor.update = lambda **batch: batches.append(batch)
    barrier = threading.Barrier(4)

    def serve(seed):
        for n in range(5):
            barrier.wait()
            with torch.no_grad():
                net(torch.full((seed + 1, 3, 8, 8), seed / 10 + n / 100))

    with monitor.watch(net):
        threads = [threading.Thread(target=serve, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(batches) == 20
    for batch in batches:
        with torch.no_grad():
            assert torch.equal(net.head(net.features(batch["inputs"]).mean((2, 3))), batch["outputs"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"module": 3}, "module is a int"),
        ({"layers": ["nothing"]}, "nothing"),
        ({"inputs": "x"}, "inputs='x'"),
        ({"outputs": 3}, "outputs=3"),
    ],
)
def test_wrong_arguments_raise(net, baseline, arguments, message):
    with pytest.raises(InputError, match=message):
        DriftMonitor(baseline).watch(arguments.pop("module", net), **arguments)
    assert hooks(net) == 0


def test_a_watch_is_opened_once(net, baseline):
    watch = DriftMonitor(baseline).watch(net)
    with watch, pytest.raises(InputError, match="open already"), watch:
        pass
    assert hooks(net) == 0


CALL = "the module was not called, so nothing was recorded: call the module itself"


def in_training(net, given):
    net.train()
    net(given)
    net(given)


@pytest.mark.parametrize(
    ("use", "told", "times"),
    [
        (in_training, "the module is in training mode, in which nothing is recorded: call module.eval() first", 2),
        (lambda net, given: None, CALL, 1),
        (lambda net, given: net.forward(given), CALL, 1),
        (lambda net, given: net.features(given), CALL, 1),
        (lambda net, given: copy.deepcopy(net)(given), "a copy of the module was called, of which nothing is recor", 1),
    ],
)
def test_a_pass_that_is_not_recorded_is_said_once_with_what_to_do(net, baseline, caplog, use, told, times):
    monitor = DriftMonitor(baseline)
    with monitor.watch(net):
        use(net, images(4))
    assert (monitor.status.rows, monitor.status.failures) == (0, {"watch": times})
    assert told in monitor.status.causes["watch"]
    assert [told in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize(
    "use",
    [
        lambda net, given: net(images=given),
        lambda net, given: nn.DataParallel(net)(given),
        lambda net, given: (net(given[:2]), net.train()(given), net.eval()(given[2:])),
    ],
)
def test_a_pass_that_is_recorded_is_not_complained_of(net, baseline, caplog, use):
    monitor = DriftMonitor(baseline)
    with monitor.watch(net):
        use(net, images(4))
    assert (monitor.status.rows, monitor.status.failures, caplog.text) == (4, {}, "")
    [pane] = monitor._memory.opened.values()
    assert set(pane.profiler.profile().groups) == set(baseline.reference.groups)


@pytest.mark.parametrize("wrapped", [nn.DataParallel, lambda net: torch.compile(net, backend="eager")])
def test_a_wrapper_is_watched_as_the_module_in_it(net, baseline, caplog, wrapped):
    """Compiled, hooks stay out of what is compiled."""
    model, monitor = wrapped(net).eval(), DriftMonitor(baseline)
    with torch.no_grad(), monitor.watch(model):
        model(images(4))
        model(images(4))
    said = [record.getMessage() for record in caplog.records if record.name == "lensai_integrations"]
    assert (monitor.status.rows, monitor.status.failures, said) == (8, {}, [])
    [pane] = monitor._memory.opened.values()
    assert set(pane.profiler.profile().groups) == set(baseline.reference.groups)


def test_a_copy_that_outlives_the_watch_is_left_alone(net, baseline):
    monitor = DriftMonitor(baseline)
    with monitor.watch(net):
        net(images(4))
        twin = copy.deepcopy(net)
    twin(images(4))
    assert (monitor.status.rows, monitor.status.failures) == (4, {})


def test_layers_that_a_pass_does_not_call_are_named(net, baseline, caplog):
    net.forward = lambda images: net.head(images.mean((2, 3)).repeat(1, 2))
    monitor = DriftMonitor(baseline)
    with monitor.watch(net):
        net(images(4))
    told = {
        "watch embeddings/features": "layer 'features' was not called in the pass: name one that is called in layers="
    }
    assert {topic: cause.startswith(told[topic]) for topic, cause in monitor.status.causes.items()} == {
        "watch embeddings/features": True
    }
    monitor = DriftMonitor(baseline)
    with monitor.watch(net, layers=[], outputs="features"):
        net(images(4))
    assert "pass outputs='...', the name of one that is called" in monitor.status.causes["watch outputs"]
    with monitor.watch(net, layers=[], outputs="head"):
        net(images(4))
    assert monitor.status.failures == {"watch outputs": 1}
