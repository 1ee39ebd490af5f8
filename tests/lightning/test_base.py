from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from types import SimpleNamespace

import lightning.pytorch
import pytest
import pytorch_lightning

import lensai_integrations.lightning as package_itself
from lensai_integrations.errors import InputError, MissingDependencyError
from lensai_integrations.lightning import BaselineCallback, DriftCallback, base
from lensai_integrations.lightning.base import (
    LightningCallback,
    callback_classes,
    has_validation,
    is_fitting,
    one_loader,
    runs_of_loggers,
)
from lensai_integrations.training.tracking import TrackedRun


class Counting(LightningCallback):
    """A callback of our own, with a state."""

    def __init__(self, count, *, step=1):
        super().__init__()
        self.count = count
        self.step = step


@pytest.fixture
def installed(monkeypatch):
    """`installed(name=package_or_error)`: make it look as if only these were installed."""

    def make(**packages):
        packages = {name.replace("__", "."): package for name, package in packages.items()}

        def fake(name):
            found = packages.get(name, ModuleNotFoundError(name=name.split(".")[0]))
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(base, "import_module", fake)

    return make


def package():
    return SimpleNamespace(Callback=type("Callback", (), {}))


def test_is_of_both_packages_when_both_are_installed():
    for found in (lightning.pytorch, pytorch_lightning):
        assert issubclass(Counting, found.Callback)
        assert isinstance(Counting(1), found.Callback)
        assert issubclass(BaselineCallback, found.Callback)
        assert issubclass(DriftCallback, found.Callback)


def test_is_of_the_package_that_is_installed(installed):
    only = package()
    installed(lightning__pytorch=only)

    assert callback_classes() == (only.Callback,)


def test_a_broken_package_beside_a_whole_one_is_nobodys_trainer(installed):
    only = package()
    installed(pytorch_lightning=AttributeError("torch has no such function"), lightning__pytorch=only)

    assert callback_classes() == (only.Callback,)


def test_says_what_to_install_when_there_is_none(installed):
    installed()

    with pytest.raises(MissingDependencyError, match=r"pip install 'lensai-integrations\[lightning\]'"):
        callback_classes()


def test_a_broken_installation_is_not_mistaken_for_none(installed):
    installed(pytorch_lightning=ModuleNotFoundError(name="torchmetrics"))

    with pytest.raises(ModuleNotFoundError) as caught:
        callback_classes()
    assert caught.value.name == "torchmetrics"


@pytest.mark.slow
@pytest.mark.parametrize("name", base.PACKAGES)
def test_whatever_is_imported_first_and_if_only_one_is_installed(name):
    hidden = next(each for each in base.PACKAGES if each != name).split(".")[0]
    code = (
        f"import sys; sys.modules[{hidden!r}] = None\n"
        "from lensai_integrations.lightning import BaselineCallback, DriftCallback\n"
        f"import {name}\n"
        f"assert issubclass(BaselineCallback, {name}.Callback) and issubclass(DriftCallback, {name}.Callback)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_copies_and_pickles(again):
    twin = again(Counting(3, step=2))

    assert (twin.count, twin.step) == (3, 2)
    assert type(twin) is type(Counting(3))


def test_keeps_its_name():
    assert type(Counting(1)).__qualname__ == "Counting"
    assert type(Counting(1)).__module__ == Counting.__module__


def test_a_trainer_takes_it_bare():
    for found in (lightning.pytorch, pytorch_lightning):
        callback = BaselineCallback()
        trainer = found.Trainer(callbacks=callback, logger=False, accelerator="cpu", enable_progress_bar=False)
        assert callback in trainer.callbacks


def test_state_key_names_no_package():
    assert BaselineCallback().state_key == "lensai_integrations.BaselineCallback[lensai]"


def test_two_callbacks_with_two_artifact_paths_have_two_keys():
    assert BaselineCallback(artifact_path="a").state_key != BaselineCallback(artifact_path="b").state_key


@pytest.mark.slow
def test_importing_the_package_imports_no_framework():
    code = (
        "import sys, lensai_integrations.lightning as l; dir(l)\n"
        "found = {'torch', 'lightning', 'pytorch_lightning', 'mlflow'} & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match=r"attribute '?Baselinecallback"):
        _ = package_itself.Baselinecallback
    assert "BaselineCallback" in dir(package_itself)


# -- what a trainer says


def with_loaders(enabled=True, batches=(3,), **more):
    return SimpleNamespace(enable_validation=enabled, num_val_batches=list(batches), **more)


def test_one_of_whatever_the_trainer_has():
    alone = object()
    assert one_loader(alone, 0) is alone
    assert one_loader([1, 2], 1) == 2
    assert one_loader({"a": 1, "b": 2}, 1) == 2
    assert one_loader(None, 0) is None


@pytest.mark.parametrize(
    ("trainer", "index", "expected"),
    [
        (with_loaders(), 0, True),
        (with_loaders(enabled=False), 0, False),
        (with_loaders(batches=[]), 0, True),  # loaded later
        (with_loaders(batches=[0]), 0, False),
        (with_loaders(batches=[0, 3]), 1, True),
        (with_loaders(batches=[3, 0]), 1, False),
        (with_loaders(batches=[float("inf")]), 0, True),
        (with_loaders(enabled=False, batches=[]), 3, False),
    ],
)
def test_whether_anything_is_held_out(trainer, index, expected):
    assert has_validation(trainer, index) is expected


def test_a_loader_that_is_not_there():
    with pytest.raises(InputError, match="dataloader_idx=1, but there are 1 validation loaders"):
        has_validation(with_loaders(), 1)


def test_only_validation_within_a_fit_counts():
    state = SimpleNamespace
    assert is_fitting(with_loaders(state=state(fn="fit"), sanity_checking=False))
    assert not is_fitting(with_loaders(state=state(fn="fit"), sanity_checking=True))
    assert not is_fitting(with_loaders(state=state(fn="validate"), sanity_checking=False))


class MLFlowLogger:
    """Looks like Lightning's."""

    def __init__(self, run_id, uri="http://tracking"):
        self.run_id = run_id
        self.experiment = SimpleNamespace(tracking_uri=uri)


class Mine(MLFlowLogger):
    """A user's own, made from it."""


class CSVLogger:
    """Another kind."""


def with_loggers(*loggers):
    return SimpleNamespace(loggers=list(loggers))


def test_the_runs_of_mlflow_loggers_each_once():
    runs = runs_of_loggers(with_loggers(CSVLogger(), MLFlowLogger("a"), Mine("b"), MLFlowLogger("a")))

    assert runs == [TrackedRun("a", "http://tracking"), TrackedRun("b", "http://tracking")]


def test_one_run_id_on_two_servers_is_two_runs():
    assert len(runs_of_loggers(with_loggers(MLFlowLogger("a"), MLFlowLogger("a", "sqlite:///x.db")))) == 2


def test_loggers_without_a_run_have_none():
    assert runs_of_loggers(with_loggers(MLFlowLogger(None))) == []
    assert runs_of_loggers(with_loggers()) == []
