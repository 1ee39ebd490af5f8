"""Models that were compiled, and called, before a fit: by another fit, by a tuner, in a loop over folds."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
import torch._dynamo
from lightning.pytorch.tuner import Tuner
from torch import nn

from lensai_integrations import DriftMonitor
from lensai_integrations.lightning import BaselineCallback, DriftCallback
from lensai_integrations.torch.finding import has_compiled, is_compiled

pytestmark = pytest.mark.slow

N = 12


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(params=["eager", "aot_eager"])
def backend(request):
    return request.param


@pytest.fixture
def compiled(lit):
    """`compiled(how)`: a LightningModule that is compiled in one of the usual ways."""

    def make(how, backend="eager"):
        class Model(lit):
            lr = 0.1

            def configure_model(self):
                if how == "configure_model" and not hasattr(self.model, "_orig_mod"):
                    self.model = torch.compile(self.model, backend=backend)

            def encode(self, images):
                return self.model(images)

            def forward(self, images):
                return self.encode(images)

            def predict_step(self, batch, _):
                return self(batch[0])

        model = Model()
        if how == "whole":
            return torch.compile(model, backend=backend)
        if how == "network":
            model.model = torch.compile(model.model, backend=backend)
        elif how == "in place":
            model.model.compile(backend=backend)
        elif how == "forward":
            model.model.forward = torch.compile(model.model.forward, backend=backend)
        elif how == "method":
            model.encode = torch.compile(model.encode, backend=backend)
        return model

    return make


HOW = ["whole", "network", "in place", "forward", "method", "configure_model"]


def check_rows(callback, model, data):
    """The rows of the baseline are those that the fitted model answers now."""
    model = getattr(model, "_orig_mod", model)
    network = getattr(model.model, "_orig_mod", model.model).eval()
    caught = []
    handle = network.fc.register_forward_pre_hook(lambda _, given: caught.append(given[0]))
    with torch.no_grad(), torch._dynamo.config.patch(disable=True):
        answers = type(network).forward(network, data.tensors[0])
    handle.remove()
    network.train()
    reference = callback.baseline_.reference
    assert {group.n for group in reference.groups.values()} == {len(data)}
    for key, expected in (("outputs", answers.softmax(1)), ("embeddings/model.fc.input", caught[0])):
        rows = reference.rows.data[key][:, : expected.shape[1]]
        np.testing.assert_allclose(np.sort(rows, 0), np.sort(expected.numpy(), 0), rtol=1e-4, atol=1e-6)
    assert callback.baseline_.warnings == []


@pytest.mark.parametrize("how", HOW)
def test_code_that_other_objects_of_the_class_have_compiled_is_compiled_again(compiled, how, trainer, images, loaders):
    data = images(N, seed=1)
    trainer().fit(compiled(how), loaders(16), loaders(data))
    model = compiled(how)
    for _ in range(2):  # the second time with hooks of the first in what was compiled
        callback = BaselineCallback(clean_windows=0)
        trainer(callback).fit(model, loaders(16), loaders(data))
        check_rows(callback, model, data)


def test_folds(compiled, backend, trainer, images, loaders):
    data = images(N, seed=1)
    callback = BaselineCallback(clean_windows=0)
    for _ in range(2):
        model = compiled("network", backend)
        trainer(callback).fit(model, loaders(16), loaders(data))
        check_rows(callback, model, data)


def test_after_a_validation_and_a_search_for_the_learning_rate(compiled, trainer, images, loaders):
    data = images(N, seed=1)
    model, callback = compiled("network"), BaselineCallback(clean_windows=0)
    made = trainer(callback)
    made.validate(model, loaders(data), verbose=False)
    Tuner(made).lr_find(model, loaders(16), loaders(data), num_training=2, update_attr=False)
    made.fit(model, loaders(16), loaders(data))

    check_rows(callback, model, data)


def test_it_is_monitored_and_watched_and_checked_when_it_is_warm(compiled, trainer, images, loaders):
    data = images(N, seed=1)
    model, callback = compiled("network"), BaselineCallback(layers=["model.avgpool"], clean_windows=0)
    trainer(callback).fit(model, loaders(16), loaders(data))
    with torch.no_grad():
        model.eval()(data.tensors[0])

    drift = DriftCallback(callback.baseline_, window=N)
    trainer(drift).predict(model, loaders(data))
    assert (drift.monitor_.status.failures, [report.rows for report in drift.reports_]) == ({}, [N])
    with torch.no_grad(), DriftMonitor(callback.baseline_, window=N) as monitor, monitor.watch(model):
        model.eval()(data.tensors[0])
    assert (monitor.status.failures, monitor.status.rows) == ({}, N)
    assert "embeddings/model.avgpool" in [row.group for row in callback.check(model, loaders(data)).rows]


def test_compiled_code_that_no_part_of_the_model_knows_of_is_said_and_the_advice_works(
    lit, trainer, images, loaders, said
):
    through = torch.compile(lambda network, images: network(images), backend="eager")

    class Model(lit):
        def forward(self, images):
            return through(self.model, images)

    data = images(N, seed=1)
    trainer().fit(Model(), loaders(16), loaders(data))
    callback = BaselineCallback(layers=["model.avgpool"], outputs=None, clean_windows=0)
    model = Model()
    trainer(callback).fit(model, loaders(16), loaders(data))
    (warning,) = callback.baseline_.warnings
    assert "'model.avgpool' answered nothing in 2 batches of validation" in warning
    assert "torch.compiler.reset() before fit" in warning
    assert sum("answered nothing" in text for text in said.messages) == 2  # where it is seen, and at the end

    torch.compiler.reset()
    trainer(callback).fit(model, loaders(16), loaders(data))
    assert callback.baseline_.warnings == []
    assert callback.baseline_.reference.groups["embeddings/model.avgpool"].n == N


def test_what_is_compiled(lit):
    plain, function, whole = nn.Sequential(nn.Linear(2, 2)), nn.Sequential(), nn.Sequential()
    function.encode = torch.compile(lambda images: images, backend="eager")
    whole.compile(backend="eager")

    assert [is_compiled(each) for each in (plain, function, whole)] == [False, False, True]
    assert [has_compiled(each) for each in (plain, function, whole, lit())] == [False, True, True, False]


@pytest.mark.parametrize("how", ["whole", "network", "in place", "forward", "configure_model"])
def test_further_passes_of_a_monitored_model_compile_nothing(compiled, how, trainer, images, loaders):
    data = images(N, seed=1)
    model, callback = compiled(how), BaselineCallback(layers=["model.avgpool"], clean_windows=0)
    trainer(callback).fit(model, loaders(16), loaders(data))
    drift, graphs, answers = DriftCallback(callback.baseline_, window=N), [], []
    for _ in range(3):
        answers.append(torch.cat(trainer(drift).predict(model, loaders(data))))
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        assert (drift.monitor_.status.failures, [report.rows for report in drift.reports_]) == ({}, [N])
    with torch.no_grad():
        (getattr(model, "_orig_mod", model)).eval().model(data.tensors[0])  # hooks are there, and do nothing

    assert graphs[0] == graphs[1] == graphs[2]
    assert torch.equal(answers[0], answers[2])


def test_a_layer_that_was_exchanged_between_passes_is_listened_to(compiled, trainer, images, loaders):
    data = images(N, seed=1)
    model, callback = compiled("network"), BaselineCallback(layers=["model.avgpool"], clean_windows=0)
    trainer(callback).fit(model, loaders(16), loaders(data))
    drift = DriftCallback(callback.baseline_, window=N)
    trainer(drift).predict(model, loaders(data))
    network = getattr(model.model, "_orig_mod", model.model)
    before, network.avgpool = network.avgpool, torch.nn.AdaptiveAvgPool2d(1)
    trainer(drift).predict(model, loaders(data))

    assert drift.monitor_.status.failures == {}
    assert [report.rows for report in drift.reports_] == [N]
    assert "embeddings/model.avgpool" in {group.name for group in drift.reports_[0].report.groups}
    assert not before._forward_hooks


def test_a_model_that_was_monitored_is_not_kept_alive(compiled, trainer, images, loaders):
    data = images(N, seed=1)
    model, callback = compiled("network"), BaselineCallback(layers=["model.avgpool"], clean_windows=0)
    trainer(callback).fit(model, loaders(16), loaders(data))
    drift = DriftCallback(callback.baseline_, window=N)
    other = compiled("network")
    trainer(drift).predict(other, loaders(data))
    alive = weakref.ref(other.model.fc if not hasattr(other.model, "_orig_mod") else other.model._orig_mod.fc)
    trainer(drift).predict(model, loaders(data))
    del other
    torch._dynamo.reset()
    gc.collect()

    assert alive() is None
    assert drift.monitor_.status.rows == 2 * N
