"""Training with the callback is bit for bit what it is without: weights, optimizer, metrics, random states."""

from __future__ import annotations

import random

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from checks.adapter import CallbackAdapter

from lensai_integrations.lightning import BaselineCallback, DriftCallback
from lensai_integrations.training.drift import DriftOptions
from lensai_integrations.training.options import Options


class Augmented(torch.utils.data.Dataset):
    """Draws from all three random generators for each picture."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        picture, label = self.data[index]
        if random.random() < 0.5:
            picture = picture.flip(-1)
        picture = picture * float(np.random.uniform(0.8, 1.0))  # noqa: NPY002 - the global state is the point
        return (picture + 0.01 * torch.rand_like(picture)).clamp(0, 1), label


class Watch(pl.Callback):
    """Notes the loss of each step and the random states after each epoch."""

    def __init__(self):
        self.notes = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.notes.append(outputs["loss"].detach().clone())

    def on_train_epoch_end(self, trainer, pl_module):
        _, keys, position, *_ = np.random.get_state()  # noqa: NPY002
        states = [torch.get_rng_state(), torch.from_numpy(keys.astype(np.int64)), torch.tensor(position)]
        self.notes += [*states, torch.tensor(random.getstate()[1]), trainer.callback_metrics["val_loss"].clone()]


def history(trainer, model, loaders, data, callbacks, **options):
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    watch = Watch()
    running = trainer(*callbacks, watch, max_epochs=2, **options)
    running.fit(model, loaders(data, shuffle=True), loaders(data))
    optimizer = [state["momentum_buffer"] for state in running.optimizers[0].state_dict()["state"].values()]
    return [*watch.notes, *model.state_dict().values(), *optimizer]


EVERYTHING = {"training": "all", "layers": ["conv", "avgpool", "fc.input"], "max_dim": 4}


class TestLightning(CallbackAdapter):
    declared = ((BaselineCallback, Options, {"since"}), (DriftCallback, DriftOptions, set()))
    most_said = 3  # a training pass that could not begin is begun again with its batch

    @pytest.fixture(
        params=[
            ({}, {}),
            (EVERYTHING, {}),
            (EVERYTHING, {"precision": "bf16-mixed"}),
            ({"every": 2}, {}),
            ({**EVERYTHING, "every": 3}, {"accumulate_grad_batches": 2}),
            ({**EVERYTHING, "cost": 0.02}, {}),
            (EVERYTHING, {"accumulate_grad_batches": 2}),
            (EVERYTHING, {"val_check_interval": 2}),
            (EVERYTHING, {"inference_mode": False}),
        ],
        ids=str,
    )
    def asked(self, request):
        return request.param

    @pytest.fixture
    def make(self):
        return lambda **arguments: BaselineCallback(**{"clean_windows": 0, **arguments})

    @pytest.fixture
    def train(self, trainer, lit, loaders, images):
        data = Augmented(images(28))

        def run(beside, **options):
            torch.manual_seed(0)
            model = lit()
            values = history(trainer, model, loaders, data, [] if beside is None else [beside], **options)
            if beside is not None and beside.baseline_ is not None:
                assert beside.baseline_.n in (0, 28)
            return values, [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]

        return run


def test_the_comparison_would_notice_a_draw(trainer, lit, loaders, images):
    class Disturbing(pl.Callback):
        def on_train_batch_end(self, *_):
            torch.rand(1)

    data = Augmented(images(28))
    torch.manual_seed(0)
    plain = history(trainer, lit(), loaders, data, [])
    torch.manual_seed(0)
    disturbed = history(trainer, lit(), loaders, data, [Disturbing()])

    assert not all(torch.equal(one, other) for one, other in zip(plain, disturbed, strict=True))


def test_compiled_training_is_bit_identical(trainer, lit, loaders, images):
    data = Augmented(images(28))
    results = []
    thinned = [BaselineCallback(training="all", layers=["avgpool"], every=2)]
    for callbacks in ([], [BaselineCallback(training="all", layers=["avgpool"])], thinned):
        torch._dynamo.reset()
        torch.manual_seed(0)
        model = lit()
        model.model = torch.compile(model.model, backend="aot_eager")
        results.append(history(trainer, model, loaders, data, callbacks))
    torch._dynamo.reset()

    for values in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(values, results[0], strict=True))
