"""Callbacks out of YAML: LightningCLI (jsonargparse) and Hydra."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import pytorch_lightning
import yaml
from snippets import DOCS

from lensai_integrations import Baseline, DriftMonitor, ImageInputs, Profiler, measure
from lensai_integrations.lightning import BaselineCallback, DriftCallback
from lensai_integrations.measures.inputs import ImageInputs as Reader

pytestmark = pytest.mark.slow

CALLBACKS = "lensai_integrations.lightning."
N = 20


@measure("bright_share", unit="%")
def glare(images):
    """How much of an image is bright."""
    return (images >= 200).mean((1, 2, 3)) * 100


def largest(maps):
    """A reduction of the user's own."""
    return maps.amax((2, 3))


@pytest.fixture
def run(tmp_path, monkeypatch, steps, images, loaders):
    """`run(init_args, ...)`: what a LightningCLI makes of a callback in YAML, after the sub-command."""
    pytest.importorskip("jsonargparse")
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's own use of it
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "settings_under_test", sys.modules[__name__])
    data, training = images(N), images(16, seed=1)

    def make(init_args, *, callback="BaselineCallback", command="fit", package=pl, arguments=(), **extra):
        from lightning.pytorch.cli import LightningCLI
        from pytorch_lightning.cli import LightningCLI as OtherCLI

        class Module(steps, package.LightningModule):
            def __init__(self, width: int = 4):
                super().__init__()

            def predict_step(self, batch, batch_idx):
                return self(batch[0])

        class Data(package.LightningDataModule):
            def train_dataloader(self):
                return loaders(training)

            def val_dataloader(self):
                return loaders(data)

            predict_dataloader = val_dataloader

        trainer = {
            "max_epochs": 1,
            "logger": False,
            "accelerator": "cpu",
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": "root",
            "callbacks": [{"class_path": CALLBACKS + callback, "init_args": init_args, **extra}],
        }
        Path("config.yaml").write_text(yaml.safe_dump({"seed_everything": 0, "trainer": trainer}), encoding="utf-8")
        monkeypatch.setattr(sys, "argv", ["train.py"])
        cli = LightningCLI if package is pl else OtherCLI
        made = cli(Module, Data, args=[command, "--config", *(arguments or ["config.yaml"])])
        return next(each for each in made.trainer.callbacks if isinstance(each, BaselineCallback | DriftCallback))

    return make


def options(callback):
    return callback._options


READER = {"class_path": "lensai_integrations.ImageInputs", "init_args": {"scale": 255, "key": 0}}
HERE = "settings_under_test"


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        ({"layers": ["model.hidden"]}, "layers", ["model.hidden"]),
        ({"layers": "auto"}, "layers", "auto"),
        ({"layers": None}, "layers", None),
        ({"inputs": READER}, "inputs", Reader(scale=255.0, key=0)),
        ({"inputs": {"test": READER}}, "inputs", {"test": Reader(scale=255.0, key=0)}),
        ({"inputs": {"left": READER}}, "inputs", {"left": Reader(scale=255.0, key=0)}),
        ({"target": [1]}, "target", (1,)),
        ({"target": {"training": None, "validation": 1}}, "target", {"training": None, "validation": 1}),
        ({"layers": ["model.conv"], "reduce": {"model.conv": "max"}}, "reduce", {"model.conv": "max"}),
        ({"layers": ["model.conv"], "reduce": f"{HERE}.largest"}, "reduce", largest),
        ({"measures": [f"{HERE}.glare"]}, "measures", [glare]),
        ({"convention": ["lensai", "lensai-edge"]}, "convention", ["lensai", "lensai-edge"]),
        ({"task": {"": "classification"}}, "task", {"": "classification"}),
        ({"segment_by": "label", "max_segments": 5, "rows": 100, "upload_deadline": 5}, "max_segments", 5),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)  # fmt: skip
def test_arguments_of_a_command_line_are_what_they_are_in_python_and_its_saved_configuration_is_read_again(
    run, given, name, expected
):
    callback = run({"clean_windows": 0, **given})
    saved = Path("root/config.yaml").read_text(encoding="utf-8")
    Path("saved.yaml").write_text(saved, encoding="utf-8")
    Path("root/config.yaml").unlink()
    again = run({}, arguments=["saved.yaml"])

    for each in (callback, again):
        assert getattr(options(each), name) == expected
        assert each.baseline_.reference.n == N


@pytest.mark.parametrize("package", [pl, pytorch_lightning], ids=lambda package: package.__name__)
def test_both_packages_make_a_callback_of_it(run, package):
    assert run({"clean_windows": 0}, package=package).baseline_.reference.n == N


@pytest.mark.parametrize("name", [CALLBACKS + "BaselineCallback", "BaselineCallback"])
def test_on_the_command_line(run, name):
    callback = run(
        {},
        arguments=[
            "config.yaml",
            f"--trainer.callbacks={name}",
            "--trainer.callbacks.layers=[model.fc]",
            "--trainer.callbacks.clean_windows=0",
        ],
    )

    assert list(callback.baseline_.reference.groups) == ["inputs", "outputs", "embeddings/model.fc", "labels"]


def test_the_printed_configuration_has_every_argument(run, capsys):
    with pytest.raises(SystemExit) as ended:
        run({"layers": ["model.fc"]}, arguments=["config.yaml", "--print_config"])
    callback = yaml.safe_load(capsys.readouterr().out)["trainer"]["callbacks"][0]

    assert ended.value.code == 0
    assert callback["init_args"]["layers"] == ["model.fc"]
    assert {"inputs", "outputs", "reference", "measures", "directory"} < callback["init_args"].keys()


@pytest.fixture
def folder(tmp_path):
    """A baseline of outputs."""
    profiler = Profiler()
    profiler.update(outputs=np.random.default_rng(0).normal(size=(100, 4)))
    Baseline(profiler.profile()).save(tmp_path / "baseline")
    return str(tmp_path / "baseline")


def test_a_drift_callback(run, folder):
    given = {
        "baseline": folder,
        "window": {"class_path": "datetime.timedelta", "init_args": {"hours": 1}},
        "sinks": ["builtins.repr"],
        "inputs": READER,
    }
    callback = run(given, callback="DriftCallback", command="predict", dict_kwargs={"recover": 3})

    assert callback.monitor_.status.rows == N
    assert callback._passes.options.window == timedelta(hours=1)
    assert callback._passes.options.sinks == [repr]
    assert callback._passes.options.settings == {"recover": 3}


@pytest.fixture
def made(monkeypatch):
    """`made(config)`: what Hydra makes of YAML."""
    utils = pytest.importorskip("hydra.utils")
    omegaconf = pytest.importorskip("omegaconf")
    monkeypatch.setitem(sys.modules, "settings_under_test", sys.modules[__name__])
    return lambda text: utils.instantiate(omegaconf.OmegaConf.create(text))


HYDRA = """
_target_: lensai_integrations.lightning.BaselineCallback
clean_windows: 0
layers: [model.conv, model.hidden]
reduce: {model.conv: max}
convention: [lensai, lensai-edge]
target: [1]
measures: [{_target_: hydra.utils.get_object, path: settings_under_test.glare}]
inputs:
  training: {_target_: lensai_integrations.ImageInputs, scale: 255, key: [0]}
  validation: {_target_: lensai_integrations.ImageInputs, mean: [0, 0, 0], std: [1, 1, 1], scale: 255}
"""


def test_hydra(made, trainer, lit, loaders):
    callback = made(HYDRA)
    trainer(callback).fit(lit(), loaders(16), loaders(N))
    training, validation = Reader(scale=255, key=(0,)), Reader(scale=255, mean=(0, 0, 0), std=(1, 1, 1))

    assert options(callback).inputs == {"training": training, "validation": validation}
    assert (options(callback).target, options(callback).reduce) == ((1,), {"model.conv": "max"})
    groups = callback.baseline_.reference.groups
    assert {name: group.n for name, group in groups.items()} == dict.fromkeys(
        ["inputs", "inputs/lensai-edge", "outputs", "embeddings/model.conv", "embeddings/model.hidden", "labels"], N
    )
    assert list(groups["inputs"].custom) == ["bright_share"]


def test_hydra_makes_a_drift_callback(made, folder, trainer, lit, loaders):
    callback = made({
        "_target_": "lensai_integrations.lightning.DriftCallback",
        "baseline": folder,
        "window": 10,
        "sinks": [{"_target_": "hydra.utils.get_object", "path": "builtins.repr"}],
        "reduce": {},
    })  # fmt: skip
    trainer(callback).validate(lit(), loaders(N), verbose=False)

    assert [report.rows for report in callback.reports_] == [10, 10]


def test_what_hydra_hands_over_is_taken_everywhere(made, folder):
    config = made({
        "inputs": {"left": {"_target_": "lensai_integrations.ImageInputs", "key": 0}},
        "convention": ["lensai", "lensai-edge"],
        "measures": [{"_target_": "hydra.utils.get_object", "path": "settings_under_test.glare"}],
        "task": {"species": "classification"},
    })  # fmt: skip
    profiler = Profiler(**config)
    profiler.update(inputs=[np.zeros((4, 8, 8, 3), np.uint8)], outputs={"species": np.eye(4), "age": np.eye(4)})

    assert list(profiler.profile().groups) == [
        "inputs/left",
        "inputs/left/lensai-edge",
        "outputs/species",
        "outputs/age",
    ]
    monitor = DriftMonitor(Baseline.load(folder), window=10, sinks=made({"sinks": []}).sinks)
    assert monitor.update(outputs=np.zeros((10, 4)))[0].rows == 10


@pytest.mark.parametrize("given", ["rows: '500'", "upload_deadline: '5'", "layers: fc", "inputs: {left: 3}"])
def test_what_does_not_fit_is_named(made, given):
    name = given.partition(":")[0]
    with pytest.raises(Exception, match=rf"InputError.*{name}="):
        made(f"_target_: lensai_integrations.lightning.BaselineCallback\n{given}")


def documented(heading):
    page = (DOCS / "lightning.md").read_text(encoding="utf-8")
    return page.split(f"## {heading}")[1].split("```yaml\n")[1].split("```")[0]


def test_the_documented_files_mean_the_same(run, made):
    given = yaml.safe_load(documented("From a configuration file"))["trainer"]["callbacks"][0]["init_args"]
    by_lightning = run({"clean_windows": 0, **given})
    by_hydra = made(documented("Hydra"))

    assert by_lightning.baseline_.reference.n == N
    assert replace(options(by_hydra), clean_windows=0) == replace(options(by_lightning), measures=())


def test_hydra_and_python_mean_the_same(made):
    text = "_target_: lensai_integrations.lightning.BaselineCallback\nlayers: [fc]\ntarget: {validation: [1, a]}"

    assert options(made(text)) == options(BaselineCallback(layers=["fc"], target={"validation": (1, "a")}))
    assert isinstance(ImageInputs(key=[0, "a"]).key, tuple)
