"""Segments on disk: what is saved is what is loaded, names stay in the manifest, hostile files are refused."""

from __future__ import annotations

import copy
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from profiles import make_profile

from lensai_integrations import Baseline, Profile, Profiler, cli
from lensai_integrations.errors import FormatError
from lensai_integrations.profiles.profile import from_bytes, to_bytes
from lensai_integrations.storage.npz import pack, unpack
from lensai_integrations.training.fit import StateCache, profiles_of

NAMES = ["../../etc/passwd", "zoë 日本", "a/b\\c", "<b>", "nul\0nul"]


def sites(n: int = 60, names: list[str] = NAMES) -> Profile:
    profiler = Profiler(segment_by="site", max_segments=5, seed=3, source="validation")
    images = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    embedding = np.random.default_rng(1).normal(size=(n, 70)).astype(np.float32)
    profiler.update(inputs=images, embeddings={"e": embedding}, segments=[names[i % len(names)] for i in range(n)])
    return profiler.profile()


@pytest.fixture(scope="module")
def blob() -> bytes:
    return to_bytes(sites())


def test_segments_survive_to_the_byte(tmp_path: Path) -> None:
    profile = sites()
    folder = Baseline(profile, sites(30)).save(tmp_path / "b")
    loaded = Baseline.load(folder)
    assert to_bytes(loaded.reference) == to_bytes(profile)
    assert {name: segment.n for name, segment in loaded.reference.segments.items()} == dict.fromkeys(NAMES, 12)
    assert loaded.training is not None
    assert loaded.training.segments.keys() == set(NAMES)
    merged = loaded.reference.merge(loaded.training)
    assert {name: segment.n for name, segment in merged.segments.items()} == dict.fromkeys(NAMES, 18)


def test_names_are_in_the_manifest_only(blob: bytes, tmp_path: Path) -> None:
    for name in unpack(blob):
        assert name.replace("/", "").replace("_", "").isalnum(), name
    folder = sites().save(tmp_path / "p")
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json",
        "profile.npz",
        "segments.csv",
        "streams.csv",
    ]


def test_the_tables(tmp_path: Path) -> None:
    folder, plain = sites().save(tmp_path / "p"), make_profile(20).save(tmp_path / "plain")
    with (folder / "segments.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["segment"] for row in rows} == set(NAMES)
    assert {row["n"] for row in rows} == {"12"}
    assert {row["stream"].split("/")[0] for row in rows} == {"inputs"}
    whole = (folder / "streams.csv").read_text().splitlines()
    assert whole[0] == (plain / "streams.csv").read_text().splitlines()[0]
    assert len(whole) == 1 + len(sites().summaries())  # a row per source and stream, as ever
    assert not (plain / "segments.csv").exists()


def test_without_segments_nothing_is_written_of_them() -> None:
    manifest = json.loads(unpack(to_bytes(make_profile(20)))["manifest"].tobytes())
    assert "segments" not in manifest["profiles"]["profile"]


def test_segments_travel_in_checkpoints() -> None:
    profile = sites()
    again = profiles_of(StateCache().state({"validation": profile}))["validation"]
    assert to_bytes(again) == to_bytes(profile)


def twice(entry: dict[str, Any]) -> None:
    entry["segments"][1]["name"] = entry["segments"][0]["name"]


def nested(entry: dict[str, Any]) -> None:
    entry["segments"][0]["segments"] = copy.deepcopy(entry["segments"][1:2])


def renamed(name: Any) -> Callable[[dict[str, Any]], None]:
    def change(entry: dict[str, Any]) -> None:
        entry["segments"][0]["name"] = name

    return change


def told(**info: Any) -> Callable[[dict[str, Any]], None]:
    def change(entry: dict[str, Any]) -> None:
        entry["info"] |= info

    return change


def replaced(segments: Any) -> Callable[[dict[str, Any]], None]:
    def change(entry: dict[str, Any]) -> None:
        entry["segments"] = segments

    return change


@pytest.mark.parametrize(
    "change",
    [
        twice,
        nested,
        renamed(""),
        renamed(7),
        renamed(None),
        renamed(["a"]),
        renamed("x" * 201),
        renamed("\ud800"),
        told(max_segments=4),
        told(max_segments=10**9),
        told(max_segments="5"),
        told(max_segments=True),
        told(segment_by=None),
        told(segment_by=["label"]),
        replaced("abc"),
        replaced([1]),
        replaced([{"name": "a"}]),
        replaced({"a": {}}),
        replaced([{"name": str(i), "info": {}, "groups": [], "rows": False} for i in range(1001)]),
    ],
)
def test_hostile_manifests_are_refused(blob: bytes, change: Callable[[dict[str, Any]], None]) -> None:
    arrays = unpack(blob)
    manifest = json.loads(arrays.pop("manifest").tobytes())
    change(manifest["profiles"]["profile"])
    text = json.dumps(manifest).encode()
    with pytest.raises(FormatError):
        from_bytes(pack({**arrays, "manifest": np.frombuffer(text, np.uint8)}))


def test_show_names_the_segments(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    folder = sites(names=["north", "south [bold]"]).save(tmp_path / "p")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("sys.argv", ["lensai", "show", str(folder)])
    cli.main()
    assert "2 segments by site: north (30 rows), south [bold] (30 rows)" in capsys.readouterr().out
