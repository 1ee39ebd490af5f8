"""Where a model's id ends in the name of a file; as read from folders, archives and uploads alike."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from datasketches import kll_floats_sketch
from hypothesis import assume, given
from hypothesis import strategies as st

from lensai_integrations import Profiler, compare, edge
from lensai_integrations.edge.layout import class_names
from lensai_integrations.edge.reading import profile_of_files, recognised
from lensai_integrations.edge.uploads import read_upload


def sketch_of(values) -> bytes:
    sketch = kll_floats_sketch(200)
    for value in values:
        sketch.update(float(value))
    return sketch.serialize()


def folder_of(root: Path, *stems: str) -> Path:
    for number, stem in enumerate(stems):
        path = root / "modelstats" / f"{stem}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sketch_of([number / 2048]))
    return root


def archive_of(folder: Path) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        archive.add(folder, "door-3")
    return file.getvalue()


def streams_of(profile) -> set[str]:
    return {f"{group.info['model']}/{name}" for group in profile.groups.values() for name in group.apart}


def stems_of(model: str, classes: int) -> list[str]:
    return [f"{model}{number}" for number in range(classes)]


def renamed(stems) -> dict[str, str]:
    names, _ = class_names([PurePosixPath("modelstats", f"{stem}.bin") for stem in stems])
    return {path.stem: name for path, name in names.items()}


@pytest.mark.parametrize("classes", [2, 10, 11, 12, 101, 1000])
@pytest.mark.parametrize("model", ["resnet50", "resnet", "v1", "net10", "net_v2", "50", "x0"])
def test_classes_from_0_on_show_where_the_id_ends(model, classes):
    stems = stems_of(model, classes)
    names, doubts = class_names([PurePosixPath("modelstats", f"{stem}.bin") for stem in stems])
    assert doubts == []
    expected = dict(zip(stems, (f"{model}_{number}" for number in range(classes)), strict=True))
    assert {path.stem: name for path, name in names.items()} == (expected if model[-1].isdecimal() else {})


def test_folders_archives_and_receivers_read_the_same(tmp_path):
    device = folder_of(tmp_path / "device", *stems_of("resnet50", 12), *stems_of("cars", 2))
    profile = edge.read_stats(device)
    expected = {f"resnet50/softmax/{c}" for c in range(12)} | {"cars/softmax/0", "cars/softmax/1"}
    assert streams_of(profile) == expected
    assert profile.warnings == []
    banks = profile.groups["outputs/resnet50"].apart
    assert [float(banks[f"softmax/{c}"].bank.min[0]) * 2048 for c in range(12)] == [*range(12)]
    archive = archive_of(device)
    (tmp_path / "door-3.tar.gz").write_bytes(archive)
    assert streams_of(edge.read_stats(tmp_path / "door-3.tar.gz")) == expected
    upload = read_upload(archive)
    assert upload.problems == ()
    assert streams_of(profile_of_files(upload.sketches, "door-3", 0)) == expected
    (contents,), problems = recognised(device)[0].values(), recognised(device)[1]
    assert problems == []
    assert streams_of(profile_of_files(contents, "door-3", 0)) == expected


def test_they_are_compared_with_the_baseline_and_written_by_their_newest_names(tmp_path):
    device = edge.read_stats(folder_of(tmp_path / "device", "resnet500", "resnet501"))
    assert {path.name for path in edge.write_stats(device, tmp_path / "again")} == {"resnet50_0.bin", "resnet50_1.bin"}
    assert streams_of(edge.read_stats(tmp_path / "again")) == streams_of(device)
    profiler = Profiler(convention="lensai-edge")
    profiler.update(outputs=np.eye(2)[np.arange(40) % 2])
    (group,) = compare(profiler.profile(), device).groups
    assert {stream.stream for stream in group.streams} == {"outputs/softmax/0", "outputs/softmax/1"}


@pytest.mark.parametrize(
    ("stems", "model"),
    [
        (["resnet500"], "resnet/softmax/500"),
        (["resnet501", "resnet502"], "resnet/softmax/501"),
        ([each for each in stems_of("net", 40) if each != "net5"], "net/softmax/39"),  # its file was damaged
        (["net0", "net1", "net10", "net11"], "net1/softmax/1"),
        (["net07"], "net/softmax/7"),
    ],
)
def test_what_stays_uncertain_is_said(stems, model, tmp_path):
    device = folder_of(tmp_path, *stems)
    profile = edge.read_stats(device)
    assert model in streams_of(profile)
    (told,) = profile.warnings
    assert "not certain which class" in told
    assert len(told) < 400
    upload = read_upload(archive_of(device))
    assert "not certain which class" in upload.problems[0]
    assert streams_of(profile_of_files(upload.sketches, "", 0)) == streams_of(profile)
    assert recognised(device)[1] == []


@pytest.mark.parametrize("stems", [["net3"], ["net_500"], ["net_500", "net_501"], ["net0", "net2"], ["embeddings"]])
def test_other_names_mean_what_they_did(stems):
    paths = [PurePosixPath("modelstats", f"{stem}.bin") for stem in stems]
    assert class_names(paths) == ({}, [])


def test_each_folder_speaks_for_itself():
    folders = ("a/modelstats/net50.bin", "b/modelstats/net51.bin", "a/custom/net50.bin", "a/custom/net51.bin")
    names, doubts = class_names(map(PurePosixPath, folders))
    assert names == {}
    assert doubts[0].startswith("a/modelstats/net50.bin, b/modelstats/net51.bin: ")


def test_a_damaged_class_does_not_change_the_others(tmp_path):
    device = folder_of(tmp_path, "resnet500", "resnet501", "resnet502")
    (device / "modelstats" / "resnet501.bin").write_bytes(b"x" * 99)
    assert streams_of(edge.read_stats(device)) == {"resnet50/softmax/0", "resnet50/softmax/2"}
    (contents,) = recognised(device)[0].values()
    assert list(contents) == ["modelstats/resnet50_0.bin", "modelstats/resnet50_2.bin"]


def test_a_class_that_comes_by_both_names_is_said(tmp_path):
    device = folder_of(tmp_path, "resnet500", "resnet501", "resnet50_0")
    assert any("another file of the folder is outputs/softmax/0" in told for told in edge.read_stats(device).warnings)
    assert "the same stream" in read_upload(archive_of(device)).problems[0]


def test_a_strangers_names_take_no_time():
    stems = [f"net{number}{c}" for number in range(1, 1000) for c in (0, 1)]
    assert class_names([PurePosixPath("modelstats", f"{stem}.bin") for stem in stems])[0] == {}


@given(st.lists(st.text("a_05", min_size=1, max_size=4), unique=True, max_size=3), st.integers(2, 12))
def test_models_of_other_names_are_told_apart(models, classes):
    assume(not any(model.endswith("_") for model in models))
    letters = [model.rstrip("05") for model in models]
    assume(len(set(letters)) == len(letters) and not any(start.endswith("_") for start in letters))
    found = renamed([stem for model in models for stem in stems_of(model, classes)])
    for model in models:
        expected = {f"{model}{c}": f"{model}_{c}" for c in range(classes)} if model[-1] in "05" else {}
        assert {stem: name for stem, name in found.items() if stem in stems_of(model, classes)} == expected
