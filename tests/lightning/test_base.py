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
from lensai_integrations.errors import MissingDependencyError
from lensai_integrations.lightning import BaselineCallback, base
from lensai_integrations.lightning.base import LightningCallback, callback_classes


class Counting(LightningCallback):
    """A callback of our own, with a state."""

    def __init__(self, count, *, step=1):
        super().__init__()
        self.count = count
        self.step = step


@pytest.fixture
def only(monkeypatch):
    """Make it look as if only these packages were loaded."""

    def make(**packages):
        for name in base.PACKAGES:
            monkeypatch.delitem(sys.modules, name, raising=False)
        for name, module in packages.items():
            monkeypatch.setitem(sys.modules, name.replace("__", "."), module)

    return make


def package(attribute="Callback"):
    return SimpleNamespace(**{attribute: type("Callback", (), {})})


def test_inherits_from_both_packages_when_both_are_loaded():
    callback = Counting(1)

    assert isinstance(callback, lightning.pytorch.Callback)
    assert isinstance(callback, pytorch_lightning.Callback)
    assert isinstance(callback, Counting)


def test_inherits_from_the_package_that_is_loaded(only):
    loaded = package()
    only(lightning__pytorch=loaded)

    assert callback_classes() == (loaded.Callback,)
    assert isinstance(Counting(1), loaded.Callback)
    assert not isinstance(Counting(1), pytorch_lightning.Callback)


def test_a_package_that_is_loaded_after_the_class_was_made_counts(only):
    early, late = package(), package()
    only(pytorch_lightning=early)
    first = Counting(1)
    only(pytorch_lightning=early, lightning__pytorch=late)
    second = Counting(1)

    assert not isinstance(first, late.Callback)
    assert isinstance(second, early.Callback)
    assert isinstance(second, late.Callback)


def test_a_package_still_being_imported_does_not_count(only):
    ready = package()
    only(pytorch_lightning=package("Trainer"), lightning__pytorch=ready)

    assert callback_classes() == (ready.Callback,)


def test_imports_one_when_none_is_loaded(only, monkeypatch):
    only()
    made = package()

    def fake(name):
        if name == "pytorch_lightning":
            raise ModuleNotFoundError(name=name)
        return made

    monkeypatch.setattr(base, "import_module", fake)
    assert callback_classes() == (made.Callback,)


def test_says_what_to_install_when_there_is_none(only, monkeypatch):
    only()

    def fake(name):
        raise ModuleNotFoundError(name=name.split(".")[0])

    monkeypatch.setattr(base, "import_module", fake)
    with pytest.raises(MissingDependencyError, match=r"pip install 'lensai-integrations\[lightning\]'"):
        Counting(1)


def test_a_broken_installation_is_not_mistaken_for_none(only, monkeypatch):
    only()

    def fake(name):
        raise ModuleNotFoundError(name="torchmetrics")

    monkeypatch.setattr(base, "import_module", fake)
    with pytest.raises(ModuleNotFoundError) as caught:
        Counting(1)
    assert caught.value.name == "torchmetrics"


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


def test_state_key_is_the_same_for_both_packages(only):
    keys = []
    for name in ("pytorch_lightning", "lightning__pytorch"):
        only(**{name: package()})
        keys.append(BaselineCallback().state_key)

    assert keys == ["lensai_integrations.BaselineCallback[lensai]"] * 2


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
    with pytest.raises(AttributeError, match="no attribute 'Baselinecallback'"):
        _ = package_itself.Baselinecallback
    assert "BaselineCallback" in dir(package_itself)
