"""Importing the package costs nothing and needs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import lensai_integrations.mlflow as package

WITHOUT_MLFLOW = """
import sys
sys.modules["mlflow"] = None
import lensai_integrations.mlflow
from lensai_integrations.mlflow import SensorRuns, load_baseline, log_baseline, monitored, push
calls = {load_baseline: ["runs:/0"], log_baseline: [None], monitored: ["runs:/0/cats"], push: ["folder"]}
calls[SensorRuns] = []
for function, arguments in calls.items():
    try:
        function(*arguments)
    except lensai_integrations.LensAIError as error:
        print(type(error).__name__, "lensai-integrations[mlflow]" in str(error))
"""


def test_public_names_are_found_and_listed() -> None:
    for name in package.__all__:
        assert callable(getattr(package, name))
        assert name in dir(package)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"No lensai_integrations\.mlflow attribute log_baselin"):
        package.log_baselin  # noqa: B018


@pytest.mark.slow
def test_importing_it_does_not_import_mlflow() -> None:
    code = "import sys, lensai_integrations.mlflow.log, lensai_integrations.mlflow.load; print('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.slow
def test_without_mlflow_every_function_names_the_extra() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_MLFLOW], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["MissingDependencyError True"] * 5
