"""The benchmark of LensAI's calls, without lensai-profiler: what it times takes in every pixel, and it runs."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import lensai_integrations


@pytest.fixture(scope="module")
def parts():
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    from benchmarks import peers
    from benchmarks.lensai import calls, turns

    return {"lensai": calls, "turns": turns, "peers": peers}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (64, 6, 5, 3)).astype(np.uint8)


def test_the_readme_s_loop_sketches_every_pixel(parts, images, monkeypatch):
    made = []

    class Kept(lensai_integrations.Sketches):
        def __init__(self):
            super().__init__()
            made.append(self)

    monkeypatch.setattr(lensai_integrations, "Sketches", Kept)
    for every in (False, True):
        parts["turns"].readme(lensai_integrations, "pt", images, all_pixels=every)(3)
    for sketches in made:
        assert [sketch.n for sketch in sketches.sketch_registry["pixel"]] == [3 * 32 * 30] * 3
        assert sketches.sketch_registry["brightness"].n == 96
    assert len(made) == 2


def test_floats_and_bytes_are_profiled(parts, images):
    ways = parts["turns"].turns("lensai_integrations", "pt", images)
    assert set(ways) == {way for package, way in parts["lensai"].WAYS if package == "lensai_integrations"}
    for turn in ways.values():
        turn(1)


def test_a_process_answers_line_by_line_and_its_end_is_told(parts):
    script = "print('ready', flush=True)\nfor i in range(2): print(input().upper(), flush=True)"
    with parts["peers"].asking([sys.executable, "-c", script]) as ask:
        assert [ask("a"), ask("b")] == ["A", "B"]
        with pytest.raises(SystemExit, match="ended"):
            ask("c")
    with pytest.raises(SystemExit, match="did not start"), parts["peers"].asking([sys.executable, "-c", ""]):
        pass


def test_ratios_are_of_the_same_turn(parts):
    ours = ("lensai_integrations", "readme")
    rates = {parts["lensai"].SLOWEST: [8.0, 10.0], ours: [800.0, 2000.0]}
    assert parts["lensai"].ratios(rates)[ours].tolist() == [100, 200]
    table = parts["lensai"].table(parts["lensai"].Setting("pt", True), rates)
    assert table.splitlines()[-1] == "| ours, the same lines | 1,400 (800 to 2,000) | 150 (100 to 200) |"


def test_files_of_a_folder_are_resized(parts, tmp_path):
    from PIL import Image

    (tmp_path / "cat").mkdir()
    Image.new("RGB", (4, 6), "red").save(tmp_path / "cat" / "a.png")
    found = parts["lensai"].files(tmp_path, 2)
    assert found.shape == (2, 160, 160, 3)
    assert (found == (255, 0, 0)).all()
    with pytest.raises(SystemExit, match=r"no \.jpg"):
        parts["lensai"].files(tmp_path / "dog", 2)


def test_it_runs(parts, monkeypatch, tmp_path, capsys):
    """With this package's turns in this process in the place of one of its own."""
    turns = parts["turns"]

    def within(package, setting, images, stack):
        ways = turns.turns(package, setting.framework, np.load(images)[:, :8, :8])
        return lambda way, batches: (ways[way](batches), (0.5, 0.25))[1]

    monkeypatch.setattr(parts["lensai"], "process_of", within)
    figures = tmp_path / "figures.json"
    arguments = ["--quick", "--no-peer", "--frameworks", "pt", "--turns", "1", "--json", str(figures)]
    assert parts["lensai"].main(arguments) == 0
    assert "| ours, the same lines | 128 (128 to 128) |  |" in capsys.readouterr().out
    assert json.loads(figures.read_text())["figures"]["torch, as it comes"]["lensai_integrations readme"] == [64.0]
