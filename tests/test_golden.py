"""What earlier releases have written is read for ever, and says what it said."""

from __future__ import annotations

from pathlib import Path

import pytest

from lensai_integrations import Baseline
from lensai_integrations.drift.calibrate import calibration_of
from lensai_integrations.drift.compare import compare
from lensai_integrations.profile import files_of, from_bytes, load, to_bytes

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
    assert [folder.name for folder in FOLDERS] == ["baseline-1", "baseline-2"]
