"""The recipes of CONTRIBUTING.md as they stand there: each is made a module, and its tests are run."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import lensai_integrations
from lensai_integrations.measures.definitions import DEFINITIONS

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
#: Sections by what they add.
RECIPES = dict(re.findall(r"^## Adding an? (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))


def module_of(recipe: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """The recipe's Python as a module of its own, so that its source is to be had."""
    path = folder / f"adding_{recipe.replace(' ', '_')}.py"
    path.write_text("\n\n".join(re.findall(r"^```python\n(.*?)^```", RECIPES[recipe], re.M | re.S)), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def declared_anew():
    """What a recipe declares, the pages' examples may have declared in this process, and will again."""
    before = dict(DEFINITIONS)
    for name in [name for name in before if name.startswith("custom/")]:
        del DEFINITIONS[name]
    yield
    DEFINITIONS.clear()
    DEFINITIONS.update(before)


@pytest.mark.usefixtures("declared_anew")
@pytest.mark.parametrize("recipe", sorted(RECIPES.keys() - {"framework"}))
def test_a_recipe_passes_its_own_tests(recipe, tmp_path, monkeypatch):
    module = module_of(recipe, tmp_path, monkeypatch)
    tests = [value for name, value in vars(module).items() if name.startswith("test_")]
    assert tests, f"the recipe for a {recipe} has no test"
    given = {"tmp_path": tmp_path}
    for test in tests:
        test(**{name: given[name] for name in inspect.signature(test).parameters})


def test_there_is_a_recipe_for_each_kind_of_thing():
    assert RECIPES.keys() == {"measure", "sink", "sketch", "framework"}


def test_the_recipe_for_a_framework_names_what_the_suite_asks_for():
    """No framework is made up here: those that there are pass the suite, each in its own tests."""
    suite = pytest.importorskip("checks.adapter")
    given = set(re.findall(r"    def (\w+)\(self", RECIPES["framework"]))
    tests = [getattr(suite.CallbackAdapter, name) for name in dir(suite.CallbackAdapter) if name.startswith("test_")]
    asked = {name for test in tests for name in inspect.signature(test).parameters}
    assert given == asked & {"train", "make", "asked"}


def test_what_is_said_to_be_run_can_be():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"\bmake ([a-z]+)", PAGE)) <= targets
    for module in re.findall(r"python -m (benchmarks[\w.]+)", PAGE):
        assert (ROOT / Path(*module.split("."))).with_suffix(".py").is_file(), module
    for path in re.findall(r"`((?:tests|benchmarks|docs)/[\w/.]+|\.ci/run)`", PAGE):
        assert (ROOT / path).exists(), path


def test_the_pythons_are_the_same_everywhere():
    """What the package says of itself, what CI runs, and what `.ci/run` resolves."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {found[1] for line in project["classifiers"] if (found := re.search(r"Python :: (3\.\d+)$", line))}
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert set(workflow["jobs"]["test"]["strategy"]["matrix"]["python"]) == named
    (resolved,) = re.findall(r"for version in (.+); do", (ROOT / ".ci/run").read_text(encoding="utf-8"))
    assert set(resolved.split()) == named
    assert project["requires-python"] == f">={min(named, key=lambda version: int(version[2:]))}"


def test_forms_workflows_and_the_citation_are_whole():
    """What GitHub would refuse is seen here: no tabs, no half a mapping, permissions that are asked for job by job."""
    texts = list(ROOT.glob(".github/**/*.yml"))
    assert {path.name for path in texts} >= {"ci.yml", "release.yml", "bug.yml", "idea.yml"}
    parsed = {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in texts}
    for name in ("bug.yml", "idea.yml"):
        assert {"name", "description", "body"} <= parsed[name].keys()
    assert parsed["release.yml"]["permissions"] == {}
    assert parsed["release.yml"]["jobs"]["publish"]["permissions"] == {"attestations": "write", "id-token": "write"}
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == lensai_integrations.__version__
