"""The examples run as a user runs them, and show what the README says they show."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lensai_integrations import Baseline

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.slow


def run(script: str, *arguments: object, cwd: Path, **variables: str) -> str:
    environment = {**os.environ, "PYTHONWARNINGS": "default", "COLUMNS": "120", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment |= variables
    command = [sys.executable, str(ROOT / "examples" / script), *map(str, arguments)]
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture
def folder(tmp_path: Path, data_dir: Path) -> Path:
    """Every fifth image of CIFAR-10's folders: 2,000 to train on, of them 400 held out, and 1,000 of production."""
    for path in data_dir.glob("cifar10/*/*"):
        few = tmp_path / path.relative_to(data_dir)
        few.mkdir(parents=True)
        for image in sorted(path.iterdir())[::5]:
            (few / image.name).symlink_to(image)
    return tmp_path / "cifar10"


def verdicts(output: str) -> dict[str, str]:
    rows = re.findall(r"│ (clean|blurred|darkened)\s+│\s+[\d,]+ │ (drift|no drift)(?:, harmful|, benign)?\s+│", output)
    return dict(rows)


EXPECTED = {"clean": "no drift", "blurred": "drift", "darkened": "drift"}


def test_the_demo_flags_the_two_drifted_sets_and_not_the_clean_one(tmp_path: Path) -> None:
    output = run("lightning_images.py", cwd=tmp_path)
    assert verdicts(output) == EXPECTED
    last = output.strip().splitlines()[-1].strip()
    assert last.endswith("mlflow ui --backend-store-uri sqlite:///mlflow.db")
    assert (tmp_path / "mlflow.db").is_file()

    # The commands the demo prints do what it says, as a pipeline would run them.
    source = re.search(r"runs:/[0-9a-f]+", output)
    assert source is not None
    lensai = Path(sys.executable).with_name("lensai")
    for name, code in (("clean", 0), ("blurred", 1), ("darkened", 1)):
        command = [lensai, "compare", source[0], f"demo/{name}", "--tracking-uri", "sqlite:///mlflow.db"]
        assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == code


def test_the_demo_takes_a_folder_of_images(tmp_path: Path, folder: Path) -> None:
    output = run("lightning_images.py", "--data", folder, "--epochs", 1, cwd=tmp_path)
    assert verdicts(output) == EXPECTED
    found = list(tmp_path.rglob("lensai_baseline*/manifest.json")) or list(tmp_path.rglob("lensai/manifest.json"))
    assert Baseline.load(found[0].parent).reference.n == 400


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_the_keras_demo_gives_the_same_verdicts_on_every_backend(tmp_path: Path, backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    output = run("keras_images.py", "--epochs", 2, cwd=tmp_path, KERAS_BACKEND=backend)
    assert verdicts(output) == EXPECTED
    assert Baseline.load(tmp_path / "demo" / "lensai_baseline").info["made_by"].keys() == {"keras", backend}
    assert re.search(r"lensai compare runs:/[0-9a-f]+ demo/blurred --tracking-uri sqlite:///mlflow.db", output)


def test_the_keras_demo_takes_a_folder_of_images(tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("tensorflow")
    arguments = ("--data", folder, "--epochs", 1)
    output = run("keras_images.py", *arguments, cwd=tmp_path, KERAS_BACKEND="tensorflow")
    assert verdicts(output) == EXPECTED
    assert Baseline.load(tmp_path / "demo" / "lensai_baseline").reference.n == 400
