"""What is written is what it was: files, reports, verdicts, states and public names, held against `golden/pins/`.

A change that is meant is written anew by `LENSAI_WRITE_PINS=1 python -m pytest tests/test_pins.py`, and its diff says
what it does to those who read these files.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

import pins
import pytest
from public_names import MODULES, command_lines, names_of

from lensai_integrations import Baseline, Profile, compare, edge
from lensai_integrations.cli import cli
from lensai_integrations.errors import TrackingError
from lensai_integrations.report import baseline_html, drift_html

PINS = Path(__file__).parent / "golden" / "pins"
WRITE = bool(os.environ.get("LENSAI_WRITE_PINS"))


@pytest.fixture
def hold() -> Callable[[str, Mapping[str, bytes]], None]:
    """`hold(name, files)`: hold files against those that are kept under a name; or keep them from now on."""

    def check(name: str, files: Mapping[str, bytes]) -> None:
        folder = PINS / name
        if WRITE:
            shutil.rmtree(folder, ignore_errors=True)
            for path, content in files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(pins.kept(content))
            pytest.skip(f"{name} is written anew")
        kept = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert sorted(files) == sorted(kept)
        pairs = {path: (pins.settled(files[path]), pins.settled(kept[path])) for path in files}
        found = [line for path, pair in pairs.items() for line in pins.differences(*pair, path)]
        assert not found, "\n".join(found[:20])

    return check


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    return pins.baseline()


@pytest.fixture(scope="module")
def window() -> Profile:
    return pins.window()


def test_a_baseline_folder(hold, baseline, window, tmp_path) -> None:
    baseline.save(tmp_path)
    hold("baseline", _files(tmp_path))


def test_reports(hold, baseline, window) -> None:
    drift = drift_html(compare(baseline, window), baseline, window)
    hold("reports", {"baseline.html": baseline_html(baseline).encode(), "drift.html": drift.encode()})


def test_verdicts(hold, baseline, window) -> None:
    reports = {
        "calibrated": compare(baseline, window),
        "formulas": compare(baseline, window, correction="holm"),
    }
    assert [report.correction for report in reports.values()] == ["max-t", "holm"]
    hold("verdicts", {f"{name}.json": report.to_json(indent=1).encode() for name, report in reports.items()})


def test_a_device_folder(hold, tmp_path) -> None:
    device = pins.device()
    edge.write_stats(device, tmp_path)
    edge.write_config(device, tmp_path / "config.ini", save_rate=0.1)
    hold("device", _files(tmp_path))


def test_an_upload_that_waits(hold, tmp_path) -> None:
    to = {"endpoint": "http://127.0.0.1:9/upload/", "sensor_id": "door-3", "timestamp": 1_700_000_000}
    with pytest.raises(TrackingError, match="it is kept"):
        edge.publish(pins.device(), **to, retries=0, spool=tmp_path)
    hold("spool", {f"{i}{Path(name).suffix}": content for i, (name, content) in enumerate(_files(tmp_path).items())})


def test_a_monitor_state(hold, tmp_path, monkeypatch) -> None:
    numbers = count(1)
    monkeypatch.setattr(secrets, "randbits", lambda _: next(numbers))  # the seeds of a window's sketches
    telling = pins.monitor_state(tmp_path)
    head = (tmp_path / "head.json").read_bytes()
    written = [path for path in tmp_path.iterdir() if path.suffix == ".npz"]
    written.sort(key=lambda path: head.index(path.name.encode()))
    assert head.count(b".npz") == len(written)
    files = {f"{number}.npz": path.read_bytes() for number, path in enumerate(written)}
    hold("monitor", {"head.json": head, "telling.json": telling, **files})


def _files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize(
    "module", [pytest.param(name, marks=[pytest.mark.slow] * bool(needed)) for name, needed in MODULES.items()]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what frameworks do while they are loaded
def test_public_names(hold, module) -> None:
    if framework := MODULES[module]:
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")
        pytest.importorskip(framework)
    hold(f"names/{module or 'top'}", {"names.txt": "".join(f"{line}\n" for line in names_of(module)).encode()})


def test_the_command(hold) -> None:
    hold("command", {"options.txt": "".join(f"{line}\n" for line in command_lines(cli, "lensai")).encode()})
