"""The command as a pipeline uses it: exit codes are the interface, errors are one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from profiles import make_baseline, make_profile

from lensai_integrations import Baseline, Profile, Profiler, cli
from lensai_integrations.drift.calibration import calibration_of
from lensai_integrations.profiling import image_files, sampling


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("profiles")
    make_baseline(800).save(root / "baseline")
    make_profile(300, seed=50).save(root / "clean")
    make_profile(300, seed=51, brightness=0.5).save(root / "dark")
    return root


def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command, run in this process as the console script runs it."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "argv", ["lensai", *map(str, arguments)])
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def lensai(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    return lambda *arguments: call(capsys, monkeypatch, *arguments)


def test_no_drift_is_0(lensai, folders: Path) -> None:
    code, out, _ = lensai("compare", folders / "baseline", folders / "clean")
    assert code == 0
    assert "no drift" in out.lower()


def test_drift_is_1_and_names_the_stream(lensai, folders: Path) -> None:
    code, out, _ = lensai("compare", folders / "baseline", folders / "dark")
    assert code == 1
    assert "brightness" in out


def test_of_several_windows_those_that_drift_are_named(lensai, folders: Path) -> None:
    code, out, _ = lensai("compare", folders / "baseline", folders / "clean", folders / "dark")
    assert code == 1
    assert "1 of 2 windows drift" in out
    code, out, _ = lensai("compare", folders / "baseline", folders / "clean", folders / "dark", "--json")
    assert (code, json.loads(out)["drifting"]) == (1, [str(folders / "dark")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("clean", "clean"), "is named twice"), (("clean", "dark", "--html", "a.html"), "is the page of one window")],
)
def test_what_several_windows_have_not(lensai, folders: Path, arguments, message, monkeypatch) -> None:
    monkeypatch.chdir(folders)
    code, _, err = lensai("compare", "baseline", *arguments)
    assert code == 2
    assert message in err


def test_json_is_json(lensai, folders: Path) -> None:
    code, out, _ = lensai("compare", folders / "baseline", folders / "dark", "--json")
    assert code == 1
    assert json.loads(out)["drift"] is True


def test_html_is_written(lensai, folders: Path, tmp_path: Path) -> None:
    code, _, _ = lensai("compare", folders / "baseline", folders / "dark", "--html", tmp_path / "drift.html")
    assert code == 1
    assert (tmp_path / "drift.html").read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")


@pytest.mark.parametrize(
    "arguments",
    [
        ("compare", "nowhere", "nowhere"),
        ("compare", "only-one"),
        ("compare", "a", "b", "--false-alarm-rate", "much"),
        ("nothing",),
        ("show", "nowhere"),
        ("merge", "-o", "out"),
        ("push", "nowhere", "--run", "x"),
    ],
)
def test_every_error_is_2_and_one_message(lensai, arguments: tuple[str, ...]) -> None:
    code, out, err = lensai(*arguments)
    assert code == 2
    assert out == ""
    assert "error" in err.lower()
    assert "Traceback" not in err


def test_a_crash_is_2_and_never_looks_like_drift(lensai, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr("lensai_integrations.cli.commands.load_source", crash)
    code, _, err = lensai("compare", folders / "baseline", folders / "clean")
    assert code == 2
    assert "ZeroDivisionError: inside" in err


def test_a_tampered_folder_is_2(lensai, folders: Path, tmp_path: Path) -> None:
    make_profile(20).save(tmp_path / "p")
    (tmp_path / "p" / "profile.npz").write_bytes(b"PK")
    code, _, err = lensai("compare", folders / "baseline", tmp_path / "p")
    assert code == 2
    assert "truncated or replaced" in err


def test_show_lists_streams_and_sums_up_embeddings(lensai, folders: Path) -> None:
    code, out, _ = lensai("show", folders / "baseline")
    assert code == 0
    assert "validation: 800 rows" in out
    assert "training: 1,600 rows" in out
    assert "inputs/brightness" in out
    assert "embeddings/avgpool (24 streams)" in out
    assert "embeddings/avgpool/3" not in out
    assert "embeddings/avgpool/3" in lensai("show", folders / "baseline", "--all")[1]


def test_calibrate_makes_a_baseline_that_decides_by_clean_windows(lensai, folders: Path, tmp_path: Path) -> None:
    code, out, err = lensai("calibrate", folders / "clean", "-o", tmp_path / "c", "--windows", 100, "--seed", 3)
    assert (code, out, err) == (0, f"calibrated baseline of 300 rows in {tmp_path / 'c'}\n", "")
    assert Baseline.load(tmp_path / "c").calibration is not None
    assert (tmp_path / "c" / "report.html").exists()
    code, out, _ = lensai("compare", tmp_path / "c", folders / "dark")
    assert code == 1
    assert "100 clean windows drawn from the baseline" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "message"), [(("--windows", 5), "draws=5"), (("--seed", -1), "seed=-1"), (("--windows", "x"), "x")]
)
def test_calibrate_refuses(lensai, folders: Path, tmp_path: Path, arguments, message: str) -> None:
    code, _, err = lensai("calibrate", folders / "clean", "-o", tmp_path / "c", *arguments)
    assert code == 2
    assert message in err
    assert not (tmp_path / "c").exists()


def test_show_csv_is_the_artifact(lensai, folders: Path) -> None:
    code, out, _ = lensai("show", folders / "baseline", "--csv")
    assert code == 0
    assert out == (folders / "baseline" / "streams.csv").read_text()


def test_merge_adds_rows(lensai, folders: Path, tmp_path: Path) -> None:
    code, out, _ = lensai("merge", folders / "clean", folders / "dark", folders / "baseline", "-o", tmp_path / "all")
    assert code == 0
    assert "1400 rows of 3 profiles" in out
    assert Profile.load(tmp_path / "all").n == 1400


def test_a_baseline_can_be_held_against_its_training_data(lensai, folders: Path) -> None:
    code, out, _ = lensai("compare", folders / "baseline", folders / "dark", "--against", "training", "--json")
    assert code == 1
    assert json.loads(out)["n_baseline"] == Baseline.load(folders / "baseline").sources()["training"].n


@pytest.mark.slow
def test_the_installed_command_gates_a_pipeline(folders: Path) -> None:
    lensai = Path(sys.executable).with_name("lensai")
    results = [
        subprocess.run([lensai, "compare", folders / "baseline", folders / name], capture_output=True, check=False)
        for name in ("clean", "dark", "missing")
    ]
    assert [result.returncode for result in results] == [0, 1, 2]


def test_check_shows_how_a_batch_is_read(lensai, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "bytes.npy", rng.integers(0, 256, (12, 3, 8, 9), dtype=np.uint8))
    np.save(tmp_path / "normalised.npy", rng.normal(0, 1, (12, 8, 9, 3)).clip(-2, 2).astype(np.float32))
    code, out, _ = lensai("check", tmp_path / "bytes.npy")
    assert code == 0
    assert "NCHW uint8" in out
    code, out, _ = lensai("check", tmp_path / "normalised.npy")
    assert code == 1
    assert "warning: inputs cannot be profiled" in out
    code, out, _ = lensai(
        "check", tmp_path / "normalised.npy", "--layout", "NHWC", "--mean", ".5", "--std", ".25", "--scale", "255"
    )
    assert code == 0
    assert "NHWC float32 (x std + mean) x" in " ".join(out.split())


@pytest.mark.parametrize("arguments", [("check", "nowhere"), ("check", "."), ("check", ".", "--scale", "much")])
def test_check_of_nothing_is_2(lensai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = lensai(*arguments)
    assert (code, out) == (2, "")
    assert "error" in err.lower()


def test_profile_of_a_folder_of_images(lensai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for i in range(5):
        (tmp_path / "images" / f"class {i % 2}").mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(rng.integers(0, 256, (9, 8 + i, 3), dtype=np.uint8))
        image.save(tmp_path / "images" / f"class {i % 2}" / f"{i}.png")
    (tmp_path / "images" / "class 0" / "damaged.jpg").write_bytes(b"nothing")

    code, out, err = lensai("profile", tmp_path / "images", "-o", tmp_path / "profile", "--jobs", "0")
    assert code == 0
    assert "5 images in" in out
    assert "images/s" in out
    assert "damaged.jpg: UnidentifiedImageError" in err
    assert "note: 1 of 6 files could not be read" in err
    profile = Profile.load(tmp_path / "profile")
    assert dict(profile.groups["labels"].categories[""].top(2)) == {"class 0": 3, "class 1": 2}
    assert (tmp_path / "profile" / "report.html").exists()
    code, _, err = lensai("profile", tmp_path / "*.jpg", "-o", tmp_path / "other")
    assert code == 2
    assert "no images in" in err
    code, _, err = lensai("profile", tmp_path / "images", "-o", tmp_path / "other", "--exif", "gps", "--jobs", "0")
    assert code == 2
    by_label = ("--segment-by", "label", "--max-segments", "1", "--jobs", "0")
    code, _, _ = lensai("profile", tmp_path / "images", "-o", tmp_path / "other", *by_label)
    assert code == 0
    assert {name: each.n for name, each in Profile.load(tmp_path / "other").segments.items()} == {
        "class 0": 3,
        "other": 2,
    }
    assert "2 segments by label: class 0 (3 rows), other (2 rows)" in lensai("show", tmp_path / "other")[1]
    code, _, err = lensai("profile", tmp_path / "images", "-o", tmp_path / "other", "--segment-by", "site")
    assert code == 2
    assert "segment_by='site' is none of" in err
    code, _, err = lensai("profile", tmp_path / "images", "-o", tmp_path / "other", "--budget", "1.5")
    assert code == 2
    assert "budget=1.5 should be a number between 0 and 1" in err
    within = ("--budget", "0.05", "--jobs", "0")
    code, out, _ = lensai("profile", tmp_path / "images", "-o", tmp_path / "other", *within)
    assert (code, out.startswith("5 images in")) == (0, True)  # few are all measured
    monkeypatch.setattr(image_files, "WHOLE", 2)
    monkeypatch.setattr(sampling, "WHOLE", 2)
    monkeypatch.setattr(image_files, "_times", lambda *_: (1.0, 1.0))
    lensai("profile", tmp_path / "images", "-o", tmp_path / "other", *within)
    sampled = Profile.load(tmp_path / "other").groups["raw"].info["sampled"]
    assert sampled["seen"] == 5
    assert 2 <= sampled["measured"] + 1 < 6  # one of the share may be the file that cannot be read


def test_files_alone_make_a_baseline_that_is_calibrated_and_compared(lensai, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, gain in (("then", 1.0), ("now", 1.0), ("dark", 0.3)):
        for i in range(120):
            place = tmp_path / name / ("day" if i % 2 else "night") / f"{i}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            light = rng.uniform(60, 200) * gain
            Image.fromarray(np.full((8, 8 + i % 3, 3), light, np.uint8)).save(place)
        options = ("--jobs", 0, "--segment-by", "label", "--max-segments", 1, "--exif", "make")
        assert lensai("profile", tmp_path / name, "-o", tmp_path / f"{name}-profile", *options)[0] == 0
    profile = Profile.load(tmp_path / "then-profile")
    assert {name: segment.n for name, segment in profile.segments.items()} == {"day": 60, "other": 60}
    assert profile.rows.n == 120
    assert lensai("calibrate", tmp_path / "then-profile", "-o", tmp_path / "baseline", "--windows", 100)[0] == 0
    assert lensai("compare", tmp_path / "baseline", tmp_path / "now-profile")[0] == 0
    code, out, _ = lensai("compare", tmp_path / "baseline", tmp_path / "dark-profile")
    assert code == 1
    assert "raw/brightness fell: median" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--convention", "lensai", "--convention", "lensai-edge"), "by one convention at a time"),
        (("--segment-by", "label"), "segment_by='label'"),
        (("--segment-by", "format", "--max-segments", 0), "max_segments=0"),
        (("--max-segments", 3), "--max-segments 3 is of segments: pass --segment-by"),
        (("--exif", "gps"), "exif=['gps']"),
        (("--jobs", -1), "--jobs"),
    ],
)
def test_options_of_profile_that_cannot_be_are_errors(lensai, tmp_path: Path, options, message: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    code, _, err = lensai("profile", tmp_path, "-o", tmp_path / "made", *options)
    assert code == 2
    assert message in err
    assert not (tmp_path / "made" / "manifest.json").exists()


NASTY = "a[/red]\x1b]0;owned\x07\x1b[2J[bold]=1\u202e"


@pytest.mark.parametrize("arguments", [("show",), ("show", "--all"), ("compare",)])
def test_names_out_of_a_file_are_printed_as_they_are_and_control_no_terminal(
    lensai, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    profile = make_profile(300, source=NASTY, segment_by="label")
    group = profile.groups.pop("embeddings/avgpool")
    group.name = f"embeddings/{NASTY}"
    profile.groups[group.name] = group
    profile.rows = None
    profile.info["warnings"] = [NASTY]
    profile.segments = {NASTY: profile.segments["1"]}
    folder = profile.save(tmp_path / "p")
    code, out, err = lensai(*arguments, *([folder, folder] if arguments == ("compare",) else [folder]))
    assert code == 0
    assert not {"\x1b", "\x07", "\u202e"} & {*out, *err}
    assert "a[/red]\\x1b]0;owned\\x07" in "".join(out.split()) + err


def test_csv_that_is_printed_is_no_program(lensai, tmp_path: Path) -> None:
    code, out, _ = lensai("show", "--csv", make_profile(20, source="=1").save(tmp_path / "p"))
    assert code == 0
    assert out.splitlines()[1].startswith("'=1,inputs/")


def test_errors_control_no_terminal(lensai, tmp_path: Path) -> None:
    code, _, err = lensai("show", tmp_path / "\x1b[2J")
    assert code == 2
    assert "\x1b" not in err
    assert "\\x1b[2J" in err


@pytest.fixture(scope="module")
def of_hours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile of the validation, and of hours of production, each around a mean of its own."""
    root, rng = tmp_path_factory.mktemp("hours"), np.random.default_rng(60)

    def save(name: str, n: int, spread: float, shift: float = 0.0) -> None:
        profiler = Profiler(seed=int(rng.integers(2**31)), source=name)
        profiler.update(embeddings={"pool": rng.normal(size=(n, 3)) + spread * rng.normal(size=3) + shift})
        profiler.profile().save(root / name)

    save("validation", 1000, 0)
    for hour in range(30):
        save(f"{hour:02}", 80, 0.6)
    save("moved", 80, 0.6, 5)
    return root


def test_calibrate_learns_from_clean_windows(lensai, of_hours: Path, tmp_path: Path) -> None:
    clean, later = ([of_hours / f"{hour:02}" for hour in hours] for hours in (range(20), range(20, 30)))
    options = ("-o", tmp_path / "c", "--windows", 200)
    code, out, err = lensai("calibrate", of_hours / "validation", *clean, *options)
    assert (code, err) == (0, "")
    assert out == f"calibrated baseline of 1000 rows, with what 20 clean windows tell, in {tmp_path / 'c'}\n"
    assert calibration_of(Baseline.load(tmp_path / "c")).learned.windows == 20
    assert (tmp_path / "c" / "report.html").exists()
    code, out, _ = lensai("compare", of_hours / "validation", *later)
    assert code == 1
    code, out, _ = lensai("compare", tmp_path / "c", *later)
    assert code == 0, out
    code, out, _ = lensai("compare", tmp_path / "c", of_hours / "moved")
    assert code == 1
    assert "independent ones: learned from 20 clean windows" in " ".join(out.split())
    again = tmp_path / "again"  # a baseline is calibrated anew, by which what it learned is forgotten
    assert lensai("calibrate", tmp_path / "c", "-o", again, "--windows", 100)[0] == 0
    assert calibration_of(Baseline.load(again)).learned is None


def test_calibrate_refuses_windows_that_teach_nothing(lensai, of_hours: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(of_hours)
    hours = [f"{hour:02}" for hour in range(8)]
    for clean, message in (
        (hours[:7], "clean_windows has 7 windows: pass 8 at the least"),
        ([*hours, "03"], "is named twice"),
        ([*hours, "nowhere"], "nowhere"),
    ):
        code, out, err = lensai("calibrate", "validation", *clean, "-o", tmp_path / "c", "--windows", 100)
        assert (code, out) == (2, "")
        assert message in err
        assert "Traceback" not in err
        assert not (tmp_path / "c").exists()
    assert lensai("calibrate", "validation", *hours, "-o", tmp_path / "c", "--windows", 100)[0] == 0
