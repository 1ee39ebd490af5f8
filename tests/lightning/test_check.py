"""A dry run of the Lightning callback: everything is seen, nothing is changed; and custom measures in a fit."""

from __future__ import annotations

import random

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lensai_integrations import ImageInputs, measure
from lensai_integrations.errors import InputError
from lensai_integrations.lightning import BaselineCallback


@measure("lightning_glare", unit="%")
def glare(images):
    return (images >= 128).mean((1, 2, 3)) * 100


@measure("lightning_broken")
def broken(images):
    raise RuntimeError("a user's own mistake")


def groups(check):
    return [row.group for row in check.rows]


def state_of(model):
    parts = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = [(name, len(m._forward_hooks) + len(m._forward_pre_hooks)) for name, m in model.named_modules()]
    modes = [module.training for module in model.modules()]
    generators = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    return parts, hooks, modes, generators


def assert_same(before, after):
    assert before[0].keys() == after[0].keys()
    assert all(torch.equal(value, after[0][name]) for name, value in before[0].items())
    assert before[1:3] == after[1:3]
    assert torch.equal(before[3][0], after[3][0])
    np.testing.assert_array_equal(before[3][1], after[3][1])
    assert before[3][2] == after[3][2]


def test_a_model_and_a_loader(lit, loaders):
    check = BaselineCallback(layers=["avgpool"], measures=[glare]).check(lit(), loaders(32))
    assert groups(check) == ["inputs", "embeddings/avgpool", "outputs", "labels", "inputs/lightning_glare"]
    assert {row.rows for row in check.rows} == {8}
    assert check.ok, check.warnings


def test_nothing_is_changed(lit, images):
    class Restless(nn.Module):
        """Counts its calls in a buffer, and draws random numbers of all kinds, in evaluation mode too."""

        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))
            self.fc = nn.Linear(3, 4)

        def forward(self, pictures):
            self.calls += 1
            random.random(), np.random.rand()  # noqa: NPY002
            return self.fc(pictures.mean((2, 3)) + torch.rand(1))

    model = lit(Restless())
    model.model.fc.eval()
    own = torch.Generator().manual_seed(3)
    shuffled = DataLoader(images(32), batch_size=8, shuffle=True, generator=own)
    before, drawn = state_of(model), own.get_state()
    check = BaselineCallback().check(model, shuffled)
    assert_same(before, state_of(model))
    assert torch.equal(own.get_state(), drawn)
    assert groups(BaselineCallback().check(model, DataLoader(images(32), batch_size=8, shuffle=True)))
    assert_same(before, state_of(model))
    assert row_of(check, "outputs").rows == 8
    assert all(parameter.grad is None for parameter in model.parameters())


def row_of(check, group):
    return next(row for row in check.rows if row.group == group)


def test_without_a_model_images_and_labels_are_looked_at(loaders):
    assert groups(BaselineCallback().check(loaders(16))) == ["inputs", "labels"]
    assert groups(BaselineCallback().check(next(iter(loaders(16))))) == ["inputs", "labels"]
    assert groups(BaselineCallback(target=None).check(torch.rand(4, 3, 8, 8))) == ["inputs"]


def test_a_data_module(lit, loaders):
    class Data(pl.LightningDataModule):
        def setup(self, stage):
            self.ready = stage

        def train_dataloader(self):
            assert self.ready == "fit"
            return loaders(16, 4)

    class Held(Data):
        def val_dataloader(self):
            return [loaders(16, 2), loaders(16, 6)]

    assert row_of(BaselineCallback().check(lit(), Data()), "inputs").rows == 4
    assert row_of(BaselineCallback(dataloader_idx=1).check(lit(), Held()), "inputs").rows == 6
    assert row_of(BaselineCallback(reference="training").check(lit(), Held()), "inputs").rows == 4


def test_a_layer_that_is_not_there_is_named_with_the_nearest_and_the_rest_is_checked(lit, loaders):
    callback = BaselineCallback(layers=["avgpol", "hidden"], outputs="head", reduce={"avgpol": "max"})
    check = callback.check(lit(), loaders(8))
    assert groups(check) == ["inputs", "embeddings/hidden", "labels"]
    assert any("no layer 'avgpol'; nearest: model.avgpool" in warning for warning in check.warnings)
    assert any("no layer 'head'" in warning for warning in check.warnings)


def test_a_wrong_normalisation_is_seen(lit, images):
    batch = (torch.stack([image for image, _ in images(16)]) - 0.5) / 0.25, torch.arange(16) % 4
    wrong = BaselineCallback(inputs=ImageInputs(mean=(0.5,), std=(2.0,), scale=255)).check(lit(), batch)
    assert any("pixels reach from" in warning for warning in wrong.warnings)
    assert BaselineCallback(inputs=ImageInputs(mean=(0.5,), std=(0.25,))).check(lit(), batch).ok


def test_a_forward_pass_that_fails_leaves_the_inputs(lit):
    check = BaselineCallback().check(lit(), (torch.rand(8, 1, 16, 16), torch.arange(8) % 4))
    assert groups(check) == ["inputs", "labels"]
    assert any("the model's forward pass: RuntimeError" in warning for warning in check.warnings)


def test_a_module_without_a_forward_runs_its_validation_step(net, loaders):
    class Steps(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net()

        def validation_step(self, batch, _):
            images, labels = batch
            self.log("loss", nn.functional.cross_entropy(self.net(images), labels))

    model = Steps()
    before = state_of(model)
    check = BaselineCallback().check(model, loaders(8))
    assert groups(check) == ["inputs", "embeddings/net.fc.input", "outputs", "labels"]
    assert_same(before, state_of(model))


def test_a_step_that_uses_forward_otherwise_is_run_as_fit_runs_it(net):
    """`forward` takes two images here, so it cannot be called with the batch's."""

    class Pairs(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.head, self.steps = net(), nn.Linear(8, 2), 0

        def forward(self, left, right):
            return self.head(torch.cat([self.net(left), self.net(right)], 1))

        def validation_step(self, batch, _):
            self.steps += 1
            nn.functional.cross_entropy(self(batch[0], batch[0].flip(-1)), batch[2])

    model = Pairs()
    check = BaselineCallback().check(model, (torch.rand(8, 3, 16, 16), torch.arange(8) + 50, torch.arange(8) % 2))
    assert check.ok, check.warnings
    assert groups(check) == ["inputs", "embeddings/head.input", "outputs", "labels"]
    assert next(row.read for row in check.rows if row.group == "labels").endswith("from 2")
    assert model.steps == 0


def test_where_the_step_fails_forward_is_called(lit, loaders):
    class Attached(type(lit())):
        def validation_step(self, batch, batch_idx):
            return self.trainer.world_size

    assert BaselineCallback().check(Attached(), loaders(8)).ok


@pytest.mark.parametrize("arguments", [(), (1, 2, 3)])
def test_other_arguments_are_refused(arguments):
    with pytest.raises(InputError, match="takes a model and a batch"):
        BaselineCallback().check(*arguments)


@pytest.mark.parametrize("batch", [3, iter(())])
def test_what_is_no_batch_is_refused(batch):
    with pytest.raises(InputError, match="without a batch"):
        BaselineCallback().check(batch)


def test_custom_measures_in_a_fit(lit, loaders, trainer, said):
    callback = BaselineCallback(measures=[glare, broken])
    trainer(callback).fit(lit(), loaders(24), loaders(16))
    baseline = callback.baseline_
    for profile, n in ((baseline.reference, 16), (baseline.training, 24)):
        group = profile.groups["inputs"]
        assert (group.n, group.apart["lightning_glare"].n) == (n, n)
        assert list(group.apart) == ["lightning_glare"]
        expected = (
            f"inputs/lightning_broken could not be measured in {n} of {n} rows: RuntimeError: a user's own mistake"
        )
        assert profile.warnings == [expected]
    assert baseline.reference.rows.data["inputs/lightning_glare"].shape == (16, 1)
    assert said.text.count("a user's own mistake") >= 1


def test_measures_are_checked_at_construction():
    with pytest.raises(InputError, match="which is not decorated"):
        BaselineCallback(measures=[len])


@pytest.mark.parametrize("how", [{}, {"layers": ["model.conv"], "outputs": "model.fc"}])
def test_a_forward_pass_that_fails_is_the_only_thing_that_is_said(lit, loaders, how):
    class Fails(lit):
        def forward(self, images):
            raise ValueError("no such size")

    check = BaselineCallback(**how).check(Fails(), loaders(8))
    assert check.warnings == ("the model's forward pass: ValueError('no such size')",)
    assert [row.group for row in check.rows] == ["inputs", "labels"]


@pytest.mark.parametrize(("dtype", "name"), [(torch.bfloat16, "bfloat16"), (torch.float64, "float64")])
def test_a_model_of_other_floats_is_given_such_as_its_trainer_does(lit, loaders, dtype, name):
    check = BaselineCallback().check(lit().to(dtype), loaders(8))
    assert check.ok, check.warnings
    assert {row.group: row.dtype for row in check.rows}["outputs"] == name


def test_a_model_that_is_compiled_as_a_whole_is_checked_by_what_it_returns(lit, loaders):
    check = BaselineCallback().check(torch.compile(lit(), backend="eager"), loaders(8))
    assert {"outputs", "embeddings/fc.input"} <= {row.group.replace("model.", "") for row in check.rows}
    assert check.warnings == ()


@pytest.mark.parametrize("beside", ["right", "label", "about"])
def test_labels_are_missed_where_something_is_beside_the_images(beside):
    """As in a fit, nothing is said of a batch of images alone."""
    what = {"right": torch.rand(8, 3, 12, 12), "label": torch.arange(8) % 2, "about": object()}[beside]
    check = BaselineCallback(inputs=ImageInputs(key="left")).check(
        None, {"left": torch.rand(8, 3, 12, 12), beside: what}
    )
    assert any(each.startswith("no labels were found") for each in check.warnings) == (beside == "about")
