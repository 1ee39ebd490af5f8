"""A model that MLflow serves and a monitor beside it. MLflow loads it by the name of this module (`wrapping.py`)."""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from lensai_integrations.arrays.namespaces import is_array
from lensai_integrations.errors import InputError, InUseError
from lensai_integrations.measures.batches import Key, find_images
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.measures.layouts import kind_of
from lensai_integrations.mlflow.wrapping import BASELINE, CONFIGURATION, MODEL
from lensai_integrations.monitoring.events import Event
from lensai_integrations.monitoring.monitor import DriftMonitor
from lensai_integrations.monitoring.sinks import FunctionSink, JSONLinesSink, Sink, WebhookSink
from lensai_integrations.problems import Problems
from lensai_integrations.profiles.conventions import is_images
from lensai_integrations.profiles.names import is_outputs
from lensai_integrations.profiles.profile import Baseline

#: Environment variables of the serving process.
DIRECTORY, WEBHOOK = "LENSAI_MONITOR_DIR", "LENSAI_MONITOR_WEBHOOK"
#: Processes that can share a directory.
MOST_WORKERS: Final = 1024

_log = logging.getLogger("lensai_integrations")


def _load_pyfunc(path: str) -> MonitoredModel:
    """What MLflow calls to load the model."""
    import mlflow

    return MonitoredModel(mlflow.pyfunc.load_model(str(Path(path) / MODEL)), path)


class MonitoredModel:
    """Predicts as the wrapped model, and tells a monitor.

    The monitor is made at the first prediction of each process, so that servers may fork.

    Args:
        model: What predicts.
        folder: Of `wrapping.py`.

    Attributes:
        model: The wrapped model.
        monitor: The monitor of this process; None before its first prediction, or if it could not be made.
    """

    def __init__(self, model: Any, folder: str | Path) -> None:
        self.model = model
        self.monitor: DriftMonitor | None = None
        self._folder = Path(folder)
        self._failures = Problems("monitored model")
        self._lock = threading.Lock()
        self._process: int | None = None
        self._known: frozenset[str] = frozenset()
        self._key: Key = None

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """What the wrapped model predicts, as it is.

        Args:
            model_input: What the wrapped model takes.
            params: For the wrapped model.
        """
        monitor: DriftMonitor | None = None
        images = None
        with self._failures.caught("starting"):
            monitor = self._running()
        with self._failures.caught("inputs"):
            if monitor is not None and any(map(is_images, self._known)):
                images = images_in(model_input, self._key, several="" not in monitor.readers)
        answer = self.model.predict(model_input, params=params)
        with self._failures.caught("monitoring"):
            if monitor is not None:
                outputs = plain(answer) if any(map(is_outputs, self._known)) else None
                monitor.update(inputs=images, outputs=outputs)
        return answer

    def _running(self) -> DriftMonitor | None:
        if self._process != os.getpid():
            with self._lock:
                if self._process != os.getpid():
                    self.monitor = None
                    try:
                        self.monitor = self._made()
                    finally:
                        self._process = os.getpid()  # what failed is not tried again
        return self.monitor

    def _made(self) -> DriftMonitor:
        configuration = json.loads((self._folder / CONFIGURATION).read_text(encoding="utf-8"))
        baseline = Baseline.load(self._folder / BASELINE)
        inputs = configuration["inputs"]
        reader = None if inputs is None else _readers(inputs)
        root = Path(os.environ.get(DIRECTORY) or configuration["directory"])
        monitor = _in_free_folder(root, baseline, inputs=reader, **configuration["monitor"])
        wanted = configuration.get("outputs", True)
        self._known = frozenset(name for name in monitor.reference.groups if wanted or not is_outputs(name))
        self._key = reader.key if isinstance(reader, ImageInputs) else None
        atexit.register(_close, weakref.ref(monitor), os.getpid())
        return monitor


def _close(reference: Callable[[], DriftMonitor | None], process: int) -> None:
    """At exit of the process that made the monitor, and of none that was forked from it."""
    monitor = reference()
    if monitor is not None and process == os.getpid():
        monitor.close()


def _in_free_folder(root: Path, baseline: Baseline, **arguments: Any) -> DriftMonitor:
    """A monitor with a folder that no other process has; that of one that is gone is gone on with."""
    for number in range(MOST_WORKERS):
        folder = root / f"worker-{number}"
        try:
            return DriftMonitor(baseline, sinks=_sinks(folder), state=folder, **arguments)
        except InUseError:
            continue
    raise InputError(f"{root} has {MOST_WORKERS} monitors already: set {DIRECTORY} to another folder")


def _sinks(folder: Path) -> list[Sink]:
    sinks: list[Sink] = [JSONLinesSink(folder.with_suffix(".jsonl")), FunctionSink(_warn)]
    if address := os.environ.get(WEBHOOK):
        sinks.append(WebhookSink(address))
    return sinks


def _warn(event: Event) -> None:
    _log.warning("%s", event.text)


def _readers(described: Mapping[str, Any]) -> ImageInputs | dict[str, ImageInputs]:
    """How images are read, as a configuration says it; of several image inputs by name."""
    if all(isinstance(fields, Mapping) for fields in described.values()):
        return {name: ImageInputs(**fields) for name, fields in described.items()}
    return ImageInputs(**described)


def images_in(model_input: Any, key: Key = None, *, several: bool = False) -> Any:
    """A copy of the images in what a model is given: the model may work in place.

    Args:
        model_input: An array, or a dict or list with one in it.
        key: Which of several.
        several: Whether they are of several inputs, which the monitor tells apart: then all arrays are.

    Raises:
        InputError: If there are none: a table, texts.

    Example:
        >>> images_in({"image": np.zeros((2, 8, 8, 3))}).shape
        (2, 8, 8, 3)
    """
    if not isinstance(model_input, Mapping | list | tuple) and not is_array(model_input):
        raise InputError(f"inputs are not monitored: a {type(model_input).__name__} is no batch of images")
    if several and isinstance(model_input, Mapping):
        return {name: _copied(array) for name, array in model_input.items()}
    if several and isinstance(model_input, list | tuple):
        return [_copied(array) for array in model_input]
    images = find_images(model_input, None if is_array(model_input) else key)
    if isinstance(images, list):
        return [_copied(array) for array in images]
    kind_of(images)
    if len(images.shape) < 3:
        raise InputError(f"inputs are not monitored: an array of shape {tuple(images.shape)} is no batch of images")
    return _copied(images)


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value


def plain(answer: Any) -> Any:
    """What a model answered, as arrays: pandas' tables become `[n, C]`.

    Example:
        >>> plain({"logits": np.zeros((2, 3))})["logits"].shape
        (2, 3)
    """
    return answer.to_numpy() if hasattr(answer, "to_numpy") else answer
