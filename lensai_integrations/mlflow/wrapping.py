"""From a logged model to one that predicts the same and monitors beside it.

What is logged is data and the name of a module of this package: the wrapped model's own folder, the baseline's, and the
monitor's arguments as JSON. Nothing is pickled, and no code of ours is copied; `served.py` puts it together again.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lensai_integrations.errors import InputError
from lensai_integrations.measures.arguments import documented
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.mlflow.address import DEFAULT_PATH, resolve_tracking_uri
from lensai_integrations.mlflow.load import load_baseline
from lensai_integrations.mlflow.log import log_baseline
from lensai_integrations.monitoring.monitor import DriftMonitor
from lensai_integrations.profiles.archive import RELEASE
from lensai_integrations.profiles.conventions import readers_by_name
from lensai_integrations.profiles.profile import Baseline

if TYPE_CHECKING:
    from mlflow.models.model import ModelInfo

#: What the folder of a monitored model holds.
MODEL, BASELINE, CONFIGURATION = "model", "baseline", "monitor.json"
LOADER: Final = "lensai_integrations.mlflow.served"
_OURS: Final = f"lensai-integrations[mlflow]=={RELEASE}"


@documented(
    DriftMonitor, only=("window", "stride", "warn", "alarm", "alarms", "recover", "remind", "min_effect", "inputs")
)
def monitored(
    model_uri: str,
    *,
    baseline: Baseline | str | Path | None = None,
    name: str = "monitored",
    window: int = 200,
    stride: int | None = None,
    warn: float | None = 0.05,
    alarm: float = 0.01,
    alarms: str | None = None,
    recover: int = 3,
    remind: int | None = None,
    min_effect: float | None = None,
    inputs: ImageInputs | Mapping[str, ImageInputs] | None = None,
    outputs: bool = True,
    monitor: str = "production",
    directory: str | Path = "lensai_monitor",
    deadline: float = 60.0,
    **options: Any,
) -> ModelInfo:
    """Log a model that predicts exactly as another one and holds what it is fed and answers against a baseline.

    It has the signature of the wrapped model and its requirements, and this package's. Wherever MLflow loads it
    (`mlflow models serve`, `mlflow.pyfunc.load_model`) every call of `predict` is handed to a `DriftMonitor` once the
    wrapped model has answered. A failure of the monitor is logged once and never changes or stops a prediction. Inputs
    that are no images (tables, texts) are noted once; outputs are monitored all the same.

    In `directory` of the machine that serves, each process has a folder `worker-<n>` with its state, which a process
    started later goes on with, and a file `worker-<n>.jsonl` with a line for each window, notice and change of status
    (`JSONLinesSink`). Notices are also warnings in the log. Two environment variables of the server change this:
    `LENSAI_MONITOR_DIR` is another directory, `LENSAI_MONITOR_WEBHOOK` an address that is sent the notices.

    Args:
        model_uri: A model with the python_function flavour: `runs:/...`, `models:/...` or a folder.
        baseline: A `Baseline`, or what `load_baseline` takes; None for the one beside the model.
        name: Of the new logged model.
        window: In each process.
        outputs: Whether the model's answers are monitored. Pass False if the baseline has other ones of them: logits
            where the model answers probabilities.
        monitor: Name of the monitor.
        directory: Where the serving processes write.
        deadline: Seconds that the server gets to send or take the baseline.
        options: For `mlflow.pyfunc.log_model`: `registered_model_name`, `pip_requirements`, `metadata`, `tags`, ...

    Returns:
        MLflow's information on the new model; its `model_uri` is what to serve. The baseline is beside it as well.

    Raises:
        InputError: If an argument is wrong, or there is no baseline beside the model.
        MissingDependencyError: If MLflow is not installed.
        TrackingError: If the baseline cannot be loaded or logged.
        mlflow.exceptions.MlflowException: If the model cannot be loaded or logged.

    Example:
        >>> info = monitored("models:/cats@champion", window=500)  # doctest: +SKIP
        >>> info.model_uri  # doctest: +SKIP
        'models:/m-0f3c...'
    """
    resolve_tracking_uri(None)
    arguments: dict[str, Any] = {
        "window": window,
        "stride": stride,
        "warn": warn,
        "alarm": alarm,
        "alarms": alarms,
        "recover": recover,
        "remind": remind,
        "min_effect": min_effect,
        "name": monitor,
    }
    configuration = _checked(arguments, inputs, directory) | {"outputs": bool(outputs)}
    import mlflow

    info = mlflow.models.get_model_info(model_uri)
    reference = _baseline_of(model_uri, info.model_id, baseline, deadline)
    DriftMonitor(reference, inputs=inputs, **arguments)  # says now what it would say when it serves
    with tempfile.TemporaryDirectory(prefix="lensai_monitored_") as temporary:
        folder = Path(temporary) / "monitored"
        _fill(folder, model_uri, reference, configuration)
        options = {"pip_requirements": _requirements(folder / MODEL), "signature": info.signature, **options}
        logged: ModelInfo = mlflow.pyfunc.log_model(name=name, loader_module=LOADER, data_path=str(folder), **options)
    if logged.model_id:
        log_baseline(reference, model_id=logged.model_id, deadline=deadline)
    return logged


def _checked(arguments: Mapping[str, Any], inputs: Any, directory: str | Path) -> dict[str, Any]:
    """The configuration as JSON values."""
    readers = readers_by_name(inputs)
    if not isinstance(directory, str | Path) or not str(directory):
        raise InputError(f"directory={directory!r} should be a folder of the machine that serves")
    for key, value in arguments.items():
        if not isinstance(value, str | int | float | None):
            raise InputError(f"{key}={value!r} cannot be kept in a configuration: pass a number")
    described = None if inputs is None else {name: asdict(reader) for name, reader in readers.items()}
    described = described.get("", described) if described is not None else None
    return {"monitor": dict(arguments), "inputs": described, "directory": str(directory)}


def _baseline_of(
    model_uri: str, model_id: str | None, baseline: Baseline | str | Path | None, deadline: float
) -> Baseline:
    if isinstance(baseline, Baseline):
        return baseline
    if baseline is not None:
        return load_baseline(baseline, deadline=deadline)
    run = re.match(r"runs:/[^/]+", model_uri)
    if model_uri.startswith("models:/"):
        beside = model_uri
    elif model_id is not None and run:
        beside = f"models:/{model_id}"
    else:
        beside = run.group() if run else str(Path(model_uri.removeprefix("file://")) / DEFAULT_PATH)
    return load_baseline(beside, deadline=deadline)


def _fill(folder: Path, model_uri: str, baseline: Baseline, configuration: Mapping[str, Any]) -> None:
    import mlflow

    downloads = folder.parent / "downloads"
    downloads.mkdir()
    folder.mkdir()
    fetched = Path(mlflow.artifacts.download_artifacts(artifact_uri=model_uri, dst_path=str(downloads)))
    shutil.copytree(fetched, folder / MODEL)
    shutil.rmtree(folder / MODEL / DEFAULT_PATH, ignore_errors=True)  # the baseline comes once
    baseline.save(folder / BASELINE)
    (folder / CONFIGURATION).write_text(json.dumps(configuration, indent=2), encoding="utf-8")


def _requirements(model: Path) -> list[str]:
    """What the wrapped model needs, and this package."""
    file = model / "requirements.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else ["mlflow"]
    kept = [line.strip() for line in lines if line.strip() and not line.strip().startswith(("#", "-"))]
    return [*(line for line in kept if not re.match(r"lensai[-_]integrations\b", line)), _OURS]
