"""What earlier releases have written is read for ever, and says what it said."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pins
import pytest

from lensai_integrations import Baseline, DriftMonitor, Profile, edge
from lensai_integrations.drift.calibration import calibration_of
from lensai_integrations.drift.compare import compare
from lensai_integrations.profiles.profile import files_of, from_bytes, load, to_bytes
from lensai_integrations.storage.folders import FORMAT_VERSION, read_folder
from lensai_integrations.storage.npz import pack

GOLDEN = Path(__file__).with_name("golden")
#: A calibrated baseline by format: folders without a digest of the manifest (1), and with one (2).
FOLDERS = sorted(GOLDEN.glob("baseline-?"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folder_is_read_and_says_what_it_said(folder: Path, tmp_path: Path) -> None:
    loaded = load(folder)
    assert isinstance(loaded, Baseline)
    files = files_of(loaded)
    for name in ("streams.csv", "segments.csv"):
        assert files[name] == (folder / name).read_bytes(), name
    assert (loaded.reference.n, loaded.reference.rows.n, len(loaded.training.segments)) == (120, 120, 4)
    assert calibration_of(loaded).draws == 100
    assert not compare(loaded, loaded.reference).drift
    assert to_bytes(load(loaded.save(tmp_path / "again"))) == to_bytes(loaded)


def test_bytes_are_read_and_are_what_the_folder_is() -> None:
    blob = (GOLDEN / "baseline-1.bytes").read_bytes()
    read = from_bytes(blob)
    assert to_bytes(read) == to_bytes(load(GOLDEN / "baseline-1"))


def test_there_is_a_folder_of_each_version() -> None:
    """What is written now is pinned by `test_pins.py`; when that is another version, a folder of this one is kept."""
    versions = [json.loads((folder / "manifest.json").read_text())["format_version"] for folder in FOLDERS]
    assert [*versions, FORMAT_VERSION] == [1, 2, 3]


#: Until version 2 the convention that was asked for first was called `inputs`, and custom measures were with it. Made
#: by `made_now` as it was then; `monitor` is the state of a monitor that holds production against `edge`.
OLD_NAMES = GOLDEN / "names-2"
EDGE = "inputs/lensai-edge"
GROUPS = {"reversed": [EDGE, "inputs", "labels"], "edge": [EDGE, "labels"]}


def made_now(name: str, seed: int = 0, **settings: Any) -> Profile:
    own = {
        "reversed": {"convention": ("lensai-edge", "lensai"), "segment_by": "site"},
        "edge": {"convention": "lensai-edge", "segment_by": None},
    }[name]
    seed = seed or {"reversed": 1, "edge": 3}[name]
    return pins.profile("validation", seed, kinds=("inputs", "labels"), **(own | settings))


@pytest.fixture(params=[(name, form) for name in GROUPS for form in ("2", "1", "bytes")], ids="-".join)
def old(request, tmp_path) -> tuple[str, Baseline]:
    """A baseline with names of before, read from a folder of either version, or from bytes."""
    name, form = request.param
    if form == "bytes":
        manifest, arrays = read_folder(OLD_NAMES / name)
        text = json.dumps(manifest | {"format_version": 1}).encode()
        return name, from_bytes(pack({**arrays, "manifest": np.frombuffer(text, np.uint8)}))
    folder = shutil.copytree(OLD_NAMES / name, tmp_path / "folder")
    if form == "1":
        manifest = json.loads((folder / "manifest.json").read_text()) | {"format_version": 1}
        manifest.pop("sha256")
        (folder / "manifest.json").write_text(json.dumps(manifest))
    return name, load(folder)


def test_groups_are_called_by_what_they_hold(old) -> None:
    name, baseline = old
    assert [list(each.groups) for each in baseline.sources().values()] == [GROUPS[name]] * (1 + (name == "reversed"))
    assert all(list(segment.groups) == GROUPS[name] for segment in baseline.reference.segments.values())
    profiles = (made_now(name), baseline.reference)
    assert not [*pins.differences(*(dict(sorted(profile.rows.data.items())) for profile in profiles))]
    made, kept = (files_of(Baseline(replace(profile, rows=None))) for profile in profiles)
    assert sorted(made) == sorted(kept)
    for file in sorted(made.keys() - {"manifest.json"}):
        assert not [*pins.differences(pins.settled(made[file]), pins.settled(kept[file]), file)]


def test_its_calibration_goes_with_it(old) -> None:
    name, baseline = old
    assert {part.group for part in calibration_of(baseline).parts} == {*GROUPS[name]} - {"labels"}
    for window in (baseline.reference, made_now(name, 7)):
        report = compare(baseline, window)
        assert (report.correction, report.drift) == ("max-t", False)
        assert {group.name for group in report.groups} == {*GROUPS[name]}
    assert compare(baseline, made_now(name, 7, shift=1.0)).drift
    assert to_bytes(from_bytes(to_bytes(baseline))) == to_bytes(baseline)


def test_it_merges_and_is_gone_on_with_under_the_new_names(old, tmp_path) -> None:
    name, baseline = old
    now = made_now(name, 7)
    for merged in (baseline.reference.merge(now), now.merge(baseline.reference)):
        assert [*merged.groups] == GROUPS[name]
        assert {group.n for group in merged.groups.values()} == {200}
        assert merged.rows.n == 200
        assert not [warning for warning in merged.warnings if "dropped" in warning]
    alike = made_now(name, 7, like=baseline, convention=None, measures=None, segment_by=None)
    assert [*alike.groups] == [EDGE, "labels"]
    assert [*alike.groups[EDGE].custom] == ["pinned_glare"]
    written = [edge.write_stats(each, tmp_path / f"{i}") for i, each in enumerate((baseline, made_now(name)))]
    assert [path.name for path in written[0]] == [path.name for path in written[1]]


def test_a_monitor_goes_on_with_its_state(tmp_path, caplog) -> None:
    state = shutil.copytree(OLD_NAMES / "monitor", tmp_path / "state")
    baseline = load(OLD_NAMES / "edge")
    with DriftMonitor(baseline, 20, stride=10, state=state, name="door") as monitor:
        assert (monitor.status.restarts, monitor.status.rows, monitor.status.windows) == (1, 33, 2)
        given = pins.batch(np.random.default_rng(9), 7, 0.0)
        (window,) = monitor.update(inputs=given["inputs"], labels=given["labels"])
    assert (window.number, window.rows, sorted(window.profile.groups)) == (3, 20, [EDGE, "labels"])
    assert {group.name for group in window.report.groups} == {EDGE, "labels"}
    assert not caplog.records
