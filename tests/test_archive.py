"""What is saved is what is loaded, to the byte; what was tampered with is refused."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import make_baseline, make_profile

from lensai_integrations import Baseline, Profile
from lensai_integrations.archive import from_bytes, load, save, to_bytes
from lensai_integrations.errors import DefinitionError, FormatError, LensAIError
from lensai_integrations.storage import pack, unpack


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    return make_baseline(100)


@pytest.fixture(scope="module")
def blob(baseline: Baseline) -> bytes:
    return to_bytes(baseline)


def test_a_baseline_survives_to_the_byte(baseline: Baseline, tmp_path: Path) -> None:
    first = save(baseline, tmp_path / "a", report_html="<p>hello")
    second = save(load(first), tmp_path / "b", report_html="<p>hello")
    names = sorted(path.name for path in first.iterdir())
    assert names == ["manifest.json", "profile.npz", "report.html", "streams.csv"]
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_a_profile_survives_to_the_byte(tmp_path: Path) -> None:
    profile = make_profile(80)
    loaded = Profile.load(profile.save(tmp_path / "p"))
    assert to_bytes(loaded) == to_bytes(profile)
    assert loaded.summaries() == profile.summaries() or str(loaded.summaries()) == str(profile.summaries())


def test_bytes_survive(baseline: Baseline, blob: bytes) -> None:
    loaded = from_bytes(blob)
    assert isinstance(loaded, Baseline)
    assert to_bytes(loaded) == blob
    assert loaded.reference.rows is not None
    assert baseline.reference.rows is not None
    for name, rows in baseline.reference.rows.data.items():
        np.testing.assert_array_equal(loaded.reference.rows.data[name], rows)


def test_a_loaded_profile_goes_on_merging(tmp_path: Path) -> None:
    a, b = make_profile(60, seed=1), make_profile(90, seed=2)
    loaded = Profile.load(a.save(tmp_path / "a"))
    assert loaded.merge(b).n == 150


def test_profiles_and_baselines_load_as_what_was_asked_for(baseline: Baseline, tmp_path: Path) -> None:
    one, two = baseline.save(tmp_path / "one"), baseline.reference.save(tmp_path / "two")
    assert isinstance(load(one), Baseline)
    assert isinstance(load(two), Profile)
    assert Profile.load(one).n == baseline.reference.n
    assert Baseline.load(two).training is None


def test_layer_names_may_be_anything(tmp_path: Path) -> None:
    profile = make_profile(20)
    group = profile.groups.pop("embeddings/avgpool")
    group.name = "embeddings/../../<b>é /\\:*?"
    profile.groups[group.name] = group
    loaded = Profile.load(profile.save(tmp_path / "p"))
    assert group.name in loaded.groups
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["manifest.json", "profile.npz", "streams.csv"]
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_the_manifest_explains_the_measures(baseline: Baseline, tmp_path: Path) -> None:
    manifest = json.loads((baseline.save(tmp_path / "b") / "manifest.json").read_text())
    assert "0.299" in manifest["definitions"]["lensai/brightness@1"]["formula"]
    assert manifest["versions"].keys() >= {"lensai-integrations", "datasketches", "numpy"}
    assert manifest["info"] == {"epoch": 3}


def test_a_formula_that_changed_without_a_new_version_is_refused(baseline: Baseline, blob: bytes) -> None:
    def other(manifest: dict[str, Any]) -> None:
        manifest["definitions"]["lensai/brightness@1"]["formula"] = "(R + G + B) / 3"

    with pytest.raises(DefinitionError, match="give a changed measure a new version"):
        from_bytes(tampered(blob, other))


def test_a_definition_of_a_later_release_is_carried(blob: bytes) -> None:
    def later(manifest: dict[str, Any]) -> None:
        manifest["definitions"]["later/measure@7"] = {"formula": "unknown here"}

    assert isinstance(from_bytes(tampered(blob, later)), Baseline)


def tampered(blob: bytes, change: Any) -> bytes:
    arrays = unpack(blob)
    manifest = json.loads(arrays["manifest"].tobytes())
    change(manifest)
    arrays["manifest"] = np.frombuffer(json.dumps(manifest).encode(), np.uint8)
    return pack(arrays)


def drop(key: str) -> Any:
    return lambda manifest: manifest.pop(key)


@pytest.mark.parametrize(
    "change",
    [
        drop("profiles"),
        drop("kind"),
        drop("definitions"),
        lambda m: m["profiles"].pop("reference"),
        lambda m: m["profiles"]["reference"].pop("groups"),
        lambda m: m["profiles"]["reference"].update(groups=3),
        lambda m: m["profiles"]["reference"]["groups"][0].update(streams=["only one"]),
        lambda m: m["profiles"]["reference"]["groups"][0].update(sketches=["moments", "bank"]),
        lambda m: m["profiles"]["reference"]["groups"][0].update(sketches=["virus"]),
        lambda m: m["profiles"]["reference"]["groups"][0].update(sketches=None),
        lambda m: m["profiles"]["reference"].update(info=7),
        lambda m: m.update(definitions={"lensai/brightness@1": 3}),
        lambda m: m.update(profiles=[1, 2]),
    ],
)
def test_a_manifest_that_does_not_fit_its_arrays_is_refused(blob: bytes, change: Any) -> None:
    with pytest.raises(FormatError):
        from_bytes(tampered(blob, change))


def test_bytes_without_a_manifest_are_refused() -> None:
    with pytest.raises(FormatError, match="hold no manifest"):
        from_bytes(pack({"x": np.zeros(1)}))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_arrays_that_were_swapped_or_cut_never_crash(blob: bytes, data: st.DataObject) -> None:
    arrays = unpack(blob)
    names = sorted(set(arrays) - {"manifest"})
    victim, donor = data.draw(st.sampled_from(names)), data.draw(st.sampled_from(names))
    change = data.draw(st.sampled_from(["drop", "swap", "empty", "negate"]))
    if change == "drop":
        del arrays[victim]
    elif change == "swap":
        arrays[victim] = arrays[donor]
    elif change == "empty":
        arrays[victim] = arrays[victim].reshape(-1)[:0]
    else:
        arrays[victim] = -arrays[victim].astype(np.float64)
    with contextlib.suppress(LensAIError):  # refused in our own words; anything else fails this test
        from_bytes(pack(arrays))
