"""Promises about the package as a whole: light to import, typed, lazily loaded, errors of one family."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import lensai_integrations
from lensai_integrations import errors

FRAMEWORKS = (
    "torch",
    "torchvision",
    "pytorch_lightning",
    "lightning",
    "tensorflow",
    "keras",
    "jax",
    "mlflow",
    "pandas",
)

# Time of the process itself, so that other work on the machine does not count; the best of several starts.
MEASURE = """
import sys, time
start = time.process_time()
import lensai_integrations
print(time.process_time() - start)
print(",".join(name for name in {frameworks!r} if name in sys.modules))
"""


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_importing_is_light() -> None:
    outputs = [run(MEASURE.format(frameworks=FRAMEWORKS)).splitlines() for _ in range(5)]
    assert min(float(output[0]) for output in outputs) < 0.3
    assert {tuple(output[1:]) for output in outputs} == {("",)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["profiling.profiler", "drift.compare", "report", "profiles.archive", "cli"])
def test_the_core_loads_no_framework(name: str) -> None:
    loaded = run(f"import sys, lensai_integrations.{name}; print([m for m in {FRAMEWORKS!r} if m in sys.modules])")
    assert loaded.strip() == "[]"


def test_every_public_name_loads() -> None:
    for name in lensai_integrations.__all__:
        assert getattr(lensai_integrations, name).__name__ == name
        assert name in dir(lensai_integrations)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="No lensai_integrations attribute nothing"):
        lensai_integrations.nothing  # noqa: B018


STUBS = [path.parent for path in sorted(Path(lensai_integrations.__file__).parent.rglob("__init__.pyi"))]


@pytest.mark.parametrize("folder", STUBS, ids=lambda folder: folder.name)
def test_what_type_checkers_are_told_is_what_there_is(folder: Path) -> None:
    """The stub is the one list of a package's public names: editors read it, and `lazy_loader` does."""
    package = import_module(".".join(folder.relative_to(STUBS[0].parent).parts))
    for node in ast.parse((folder / "__init__.pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            assert [alias.name for alias in node.names] == [alias.asname for alias in node.names], "not re-exported"
            assert {alias.name for alias in node.names} <= {*package.__all__} & {*dir(package)}
            module = import_module(f"{package.__name__}.{node.module}")
            for alias in node.names:
                assert getattr(package, alias.name) is getattr(module, alias.name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "public", "install"),
    [
        ("keras", "keras.BaselineCallback", "'lensai-integrations[keras]'"),
        ("lightning", "lightning.BaselineCallback", "'lensai-integrations[lightning]'"),
        ("torch", "lightning.BaselineCallback", "'lensai-integrations[lightning]'"),
        ("torch", "lightning.DriftCallback", "'lensai-integrations[lightning]'"),
        ("torch", "torch.profiled", "torch"),
        ("torch", "transforms.ProfileImages", "'lensai-integrations[torchvision]'"),
        ("torchvision", "transforms.ProfileImages", "'lensai-integrations[torchvision]'"),
    ],
)
def test_without_its_framework_a_name_says_what_to_install(missing: str, public: str, install: str) -> None:
    package, name = public.split(".")
    code = f"""
import sys
sys.modules[{missing!r}] = sys.modules["pytorch_lightning"] = None
try:
    from lensai_integrations.{package} import {name}
except ImportError as error:
    print(type(error).__name__, error)
"""
    said = run(code).strip()
    assert said.startswith("MissingDependencyError")
    assert said.endswith(f" is not installed: pip install {install}")


def test_names_of_before_lead_to_the_modules_of_today() -> None:
    code = """
import importlib, sys, warnings
import lensai_integrations
for old, new in lensai_integrations._MOVED.items():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = importlib.import_module(f"lensai_integrations.{old}")
    assert found is sys.modules[f"lensai_integrations.{new}"], old
    assert [(w.category, w.filename) for w in caught if old in str(w.message)][0][0] is DeprecationWarning, old
    assert all(f"{new} now" in str(w.message) for w in caught if "is lensai_integrations" in str(w.message)), old
warnings.simplefilter("ignore")
from lensai_integrations.storage import pack, read_folder, unpack, write_folder
from lensai_integrations.drift.sinks.base import Sink
from lensai_integrations.monitoring.sinks import Sink as SinkOfToday
assert Sink is SinkOfToday
assert lensai_integrations._now("datasets") == lensai_integrations._now("uploads.x") == ""
assert lensai_integrations._now("lensai_integrations.profiles") == ""
try:
    importlib.import_module("lensai_integrations.drift.sinks.nothing")
except ModuleNotFoundError as error:
    print(error)
"""
    assert run(code).strip() == "No module named 'lensai_integrations.monitoring.sinks.nothing'"


def test_the_version_is_told_once() -> None:
    assert lensai_integrations.__version__ == version("lensai-integrations")


def test_a_copy_that_is_on_the_path_only_saves_as_well(tmp_path: Path) -> None:
    code = f"""
import importlib.metadata
real = importlib.metadata.version
def version(name):
    if name == "lensai-integrations":
        raise importlib.metadata.PackageNotFoundError(name)
    return real(name)
importlib.metadata.version = version
from lensai_integrations import Profile
print(Profile.load(Profile().save({str(tmp_path / "saved")!r})).n)
"""
    assert run(code).strip() == "0"


def test_it_ships_types_and_the_command() -> None:
    assert (Path(lensai_integrations.__file__).parent / "py.typed").is_file()
    assert [e.value for e in entry_points(group="console_scripts", name="lensai")] == ["lensai_integrations.cli:main"]


def test_all_errors_are_of_one_family() -> None:
    found = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(found) > 3
    assert all(issubclass(error, errors.LensAIError) for error in found)
