"""What the command does with devices' files: read as any source, and written by export."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from lensai_integrations import Profile, Profiler, cli, edge


@pytest.fixture
def lensai(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run the command as a terminal would; gives (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["lensai", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """A saved profile, and the same rows and darker ones as devices write them: a folder and an upload."""
    for name, factor in (("clean", 1), ("dark", 3)):
        profiler = Profiler(convention="lensai-edge", seed=factor)
        images = np.random.default_rng(factor).integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
        profiler.update(inputs=images // factor)
        profiler.profile().save(tmp_path / f"{name}_saved")
        edge.write_stats(profiler.profile(), tmp_path / name)
    with tarfile.open(tmp_path / "dark.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "dark", arcname="dark")
    return tmp_path


def test_folders_and_uploads_of_devices_are_compared(lensai, places: Path) -> None:
    assert lensai("compare", places / "clean", places / "clean")[0] == 0
    assert lensai("compare", places / "clean_saved", places / "clean")[0] == 0
    code, out, err = lensai("compare", places / "clean_saved", places / "dark.tar.gz")
    assert (code, err) == (1, "")
    assert "inputs/lensai-edge/brightness" in out


def test_devices_are_shown_and_merged(lensai, places: Path) -> None:
    code, out, _ = lensai("show", places / "dark.tar.gz")
    assert code == 0
    assert "dark: 300 rows" in out
    code, out, _ = lensai("merge", places / "clean", places / "dark.tar.gz", "-o", places / "all")
    assert (code, out) == (0, f"600 rows of 2 profiles in {places / 'all'}\n")
    assert Profile.load(places / "all").n == 600


def test_export_writes_what_a_device_reads(lensai, places: Path) -> None:
    out = places / "device"
    code, told, err = lensai(
        "export", places / "clean_saved", "-o", out, "--config", out / "config.ini", "--save-rate", 0.1,
        "--sensor", "door-3", "--endpoint", "https://lensai.example/upload/",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert told == f"9 sketches in {out}\nthresholds in {out / 'config.ini'}\n"
    text = (out / "config.ini").read_text()
    assert "; Thresholds: to save 0.1 of 300" in text
    assert "sensorId = door-3" in text
    assert "http_endpoint = https://lensai.example/upload/" in text
    assert edge.read_stats(out).n == 300


def test_export_refuses_what_devices_do_not_measure(lensai, tmp_path: Path) -> None:
    profiler = Profiler()
    profiler.update(inputs=np.zeros((4, 8, 8, 3), np.uint8))
    profiler.profile().save(tmp_path / "p")
    code, out, err = lensai("export", tmp_path / "p", "-o", tmp_path / "device")
    assert (code, out) == (2, "")
    assert "profile with convention='lensai-edge'" in err
    assert not (tmp_path / "device").exists()
