"""Baselines of `trainer.validate`, `test` and `predict`, without a fit and after one."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from snippets import run_section
from weighed import VAL, callback, is_of

from lensai_integrations import Baseline
from lensai_integrations.errors import InputError

pytestmark = [
    pytest.mark.filterwarnings(r"ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:You requested to overfit"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
]


def test_a_fit_that_trains_nothing_says_how_to_get_a_baseline(trainer, lit, loaders, said):
    own = callback()
    running = trainer(own, max_epochs=0)
    model = lit()
    running.fit(model, loaders(40), loaders(VAL))
    assert own.baseline_ is None
    assert any("there is none, as fit had nothing to train" in message for message in said.messages)
    trainer(own).validate(model, loaders(VAL), verbose=False)
    assert own.baseline_.n == VAL


class Predicts:
    """A model that predicts, too, and tests on several loaders."""

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("test_loss", self.loss(batch))

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        return self(batch[0])


PASSES = {"validation": "validate", "test": "test", "prediction": "predict"}


def run(running, source, model, loader, **options):
    quiet = {} if source == "prediction" else {"verbose": False}
    return getattr(running, PASSES[source])(model, loader, **quiet, **options)


@pytest.fixture
def model(lit):
    return type("Predicting", (Predicts, lit), {})()


@pytest.mark.parametrize("source", PASSES)
def test_a_pass_alone_makes_the_baseline_that_was_asked_for(trainer, model, loaders, images, source):
    data = images(VAL, 5)
    own = callback(reference=source, clean_windows=100, rows=100)
    run(trainer(own), source, model, loaders(data))

    assert list(own.baseline_.sources()) == [source]
    assert {group.n for group in own.baseline_.reference.groups.values()} == {VAL}
    assert is_of(own.baseline_, model, data)
    assert own.baseline_.info["weights_of"] == f"the model as it was given for {source}"
    assert [own.baseline_.info[key] for key in ("checkpoint", "step", "epoch")] == [None, None, None]
    assert own.baseline_.warnings == []
    assert Baseline.load(own.directory_).info == own.baseline_.info
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    first = own.baseline_
    run(trainer(own), source, model, loaders(data))  # and again
    assert own.baseline_ is not first
    assert own.baseline_.n == VAL


@pytest.mark.parametrize("source", PASSES)
@pytest.mark.parametrize("reference", [*PASSES, "training", "final"])
def test_a_pass_that_was_not_asked_for_says_how_to_ask_once(trainer, model, loaders, said, source, reference):
    if source == {"final": "validation"}.get(reference, reference):
        return
    own = callback(reference=reference)
    for _ in range(2):
        run(trainer(own), source, model, loaders(VAL))

    told = [message for message in said.messages if message.startswith("Baseline: ")]
    assert own.baseline_ is None
    assert len(told) == 1
    assert f"`trainer.{PASSES[source]}` makes none with reference={reference!r}" in told[0]
    assert f"pass BaselineCallback(reference={source!r})" in told[0]


def test_validating_after_a_fit_leaves_its_baseline_and_says_what_to_do(trainer, model, loaders, said):
    own = callback()
    running = trainer(own)
    running.fit(model, loaders(40), loaders(VAL))
    baseline = own.baseline_
    for _ in range(2):
        running.validate(model, loaders(8), verbose=False)

    assert own.baseline_ is baseline
    assert [message for message in said.messages if "use a new callback" in message] == [
        "Baseline: that of fit stays; for one of this pass, with the weights of now, use a new callback:"
        " Trainer(callbacks=[BaselineCallback(...)]).validate(model, ...)."
    ]


@pytest.mark.parametrize("source", PASSES)
def test_a_pass_with_a_checkpoint_names_it(fitted, trainer, model, loaders, images, tmp_path, source):
    """What the messages advise for a checkpoint of other weights."""
    checkpoint = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=7)
    done = fitted(checkpoint, model=model, max_epochs=2)
    assert "those at step 7 (epoch 1)" in done.said
    assert f"validate(model, loader, ckpt_path={checkpoint.best_model_path!r})" in done.said
    own = callback(reference=source)
    fresh = type(model)()
    run(trainer(own), source, fresh, loaders(done.val), ckpt_path=checkpoint.best_model_path, weights_only=True)

    assert own.baseline_.reference.source == source
    assert is_of(own.baseline_, fresh, done.val)
    assert done.of(checkpoint.best_model_path) is False
    info = own.baseline_.info
    assert [info[key] for key in ("checkpoint", "step", "epoch")] == ["epoch=1-step=7.ckpt", 7, 1]
    assert info["weights_of"] == "checkpoint epoch=1-step=7.ckpt, at step 7 (epoch 1)"
    assert own.baseline_.warnings == []
    assert own.baseline_.training.n == 40  # the checkpoint carries it


@pytest.mark.parametrize("source", ["test", "prediction"])
def test_a_pass_after_a_fit_tells_the_weights_that_it_ran_with(trainer, model, loaders, tmp_path, source):
    checkpoint = ModelCheckpoint(tmp_path / "saved", filename="{step}", every_n_train_steps=7)
    own = callback(reference=source)
    running = trainer(own, checkpoint, enable_checkpointing=True, max_epochs=2)
    running.fit(model, loaders(40), loaders(VAL))
    assert own.baseline_ is None
    run(running, source, model, loaders(24))
    assert own.baseline_.n == 24
    assert own.baseline_.training.n == 40
    assert own.baseline_.info["weights_of"] == "the weights that fit leaves, at step 10 (epoch 1)"
    assert own.baseline_.info["checkpoint"] is None
    run(running, source, model, loaders(24), ckpt_path="best", weights_only=True)
    assert own.baseline_.info["weights_of"] == "checkpoint step=7.ckpt, at step 7 (epoch 1)"
    assert own.baseline_.info["step"] == 7
    with torch.no_grad():
        model.model.conv.weight.mul_(2)
    run(running, source, model, loaders(24))
    assert own.baseline_.info["weights_of"] == f"the model as it was given for {source}"


def test_a_loaded_checkpoint_whose_weights_are_changed_is_not_named(trainer, lit, loaders, tmp_path):
    class Doubles(lit):
        def on_validation_start(self):
            with torch.no_grad():
                self.model.conv.weight.mul_(2)

    running = trainer(max_epochs=1)
    running.fit(lit(), loaders(40), loaders(VAL))
    running.save_checkpoint(tmp_path / "a.ckpt")
    own = callback()
    trainer(own).validate(Doubles(), loaders(VAL), ckpt_path=tmp_path / "a.ckpt", weights_only=True, verbose=False)

    assert own.baseline_.info["checkpoint"] is None
    assert "the weights at the first batch were others" in own.baseline_.warnings[0]


def test_the_docs_way_to_a_checkpoints_baseline(trainer, model, loaders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    running = trainer(max_epochs=1)
    running.fit(model, loaders(40), loaders(VAL))
    running.save_checkpoint("epoch=2-step=28.ckpt")
    given = {"BaselineCallback": callback, "Trainer": lambda callbacks: trainer(*callbacks)}
    given |= {"model": model, "loader": loaders(VAL)}
    run_section("baseline.md", "Whose weights it is of", given)

    assert given["at_the_end_of_fit"]._options.reference == "final"
    assert given["callback"].baseline_.info["checkpoint"] == "epoch=2-step=28.ckpt"


@pytest.mark.parametrize("source", PASSES)
@pytest.mark.parametrize("several", [False, True])
def test_a_loader_of_a_pass_that_is_not_there_is_refused(trainer, model, loaders, source, several):
    own = callback(reference=source, dataloader_idx=2)
    with pytest.raises(InputError, match="dataloader_idx=2, but the loaders of this pass are"):
        run(trainer(own), source, model, [loaders(8), loaders(8)] if several else loaders(8))


@pytest.mark.parametrize("source", PASSES)
def test_one_of_several_loaders_of_a_pass(trainer, model, loaders, source):
    own = callback(reference=source, dataloader_idx=1)
    run(trainer(own), source, model, [loaders(8), loaders(24)])

    assert own.baseline_.n == 24


@pytest.mark.parametrize(("reference", "side"), [("validation", 8), ("final", 8), ("test", 12), ("prediction", 20)])
def test_check_looks_at_the_data_of_the_reference(lit, loaders, images, reference, side):
    class Data(pl.LightningDataModule):
        def setup(self, stage):
            self.stage = stage

        def train_dataloader(self):
            return loaders(images(8, side=8))

        def val_dataloader(self):
            return loaders(images(8, side=8))

        def test_dataloader(self):
            assert self.stage == "test"
            return loaders(images(8, side=12))

        def predict_dataloader(self):
            assert self.stage == "predict"
            return loaders(images(8, side=20))

    checked = callback(reference=reference).check(lit(), Data())

    assert checked.ok
    assert next(row for row in checked.rows if row.group == "inputs").shape == (8, 3, side, side)


def test_a_loaded_checkpoint_that_cannot_be_compared_is_named_by_the_trainers_word(trainer, lit, loaders, tmp_path):
    class Renames(lit):
        def on_load_checkpoint(self, checkpoint):
            state = checkpoint["state_dict"]
            checkpoint["state_dict"] = {name.replace("net.", ""): value for name, value in state.items()}

        def on_save_checkpoint(self, checkpoint):
            checkpoint["state_dict"] = {f"net.{name}": value for name, value in checkpoint["state_dict"].items()}

    running = trainer()
    running.fit(Renames(), loaders(40), loaders(VAL))
    running.save_checkpoint(tmp_path / "a.ckpt")
    own = callback()
    trainer(own).validate(Renames(), loaders(VAL), ckpt_path=tmp_path / "a.ckpt", weights_only=True, verbose=False)

    assert own.baseline_.info["checkpoint"] == "a.ckpt"
    assert own.baseline_.info["step"] == 5
    assert own.baseline_.info["weights_of"].endswith("which the trainer loaded; its file cannot be compared")
