"""Custom measures: the same numbers in every library, and a wrong one costs itself only."""

from __future__ import annotations

import gc
import json
import pickle
import re
import subprocess
import sys
import types
import weakref
from dataclasses import asdict

import numpy as np
import pytest
import torch
from checks.measure import check_measure
from hypothesis import given, settings
from hypothesis import strategies as st
from libraries import IMMUTABLE, LIBRARIES, as_if_elsewhere, maker

from lensai_integrations import Baseline, ImageInputs, Profile, Profiler, compare, measure
from lensai_integrations.errors import DefinitionError, InputError
from lensai_integrations.measures import custom, definitions
from lensai_integrations.measures import custom as custom_rows
from lensai_integrations.measures.custom import CustomMeasurer, checked_measures, registered
from lensai_integrations.report import baseline_html, drift_html


@measure("glare_of_tests", unit="%")
def glare(images): return (images >= 245).mean((1, 2, 3)) * 100  # fmt: skip


@measure("corner", unit="0-255", description="The pixel in the corner.", range=(0, 255))
def corner(images):
    return images[:, 0, 0, :]


@pytest.fixture
def own_registry(monkeypatch):
    monkeypatch.setattr(definitions, "DEFINITIONS", dict(definitions.DEFINITIONS))
    monkeypatch.setattr(custom, "_REGISTERED", dict(custom._REGISTERED))


@pytest.fixture
def make(own_registry):
    """`make(function, name, ...)`: a measure that only this test knows."""
    return lambda function, name="own", **more: measure(name, **more)(function)


def pictures(n=40, seed=0):
    return np.random.default_rng(seed).integers(200, 256, (n, 8, 6, 3), dtype=np.uint8)


def profiled(images, *measures, batch=16, **arguments):
    profiler = Profiler(measures=measures, seed=0, **arguments)
    for start in range(0, len(images), batch):
        profiler.update(inputs=images[start : start + batch])
    return profiler.profile()


def expected_glare(images):
    return np.array([100 * np.count_nonzero(image >= 245) / image.size for image in images])


def values(profile, name):
    return np.sort(profile.groups["inputs"].apart[name].bank.sorted_view()[0][0])


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("form", ["uint8", "unit", "normalised", "planes"])
def test_the_example_works_verbatim_in_every_library(library, form):
    images = pictures()
    batch, reader = images, None
    if form != "uint8":
        batch = (images / 255).astype(np.float32)
    if form == "normalised":
        batch, reader = (batch - np.float32(0.5)) / np.float32(0.25), ImageInputs(mean=(0.5,), std=(0.25,))
    if form == "planes":
        batch = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    profile = profiled(maker(library)(batch), glare, inputs=reader)
    np.testing.assert_allclose(values(profile, "glare_of_tests"), np.sort(expected_glare(images)), atol=1e-4)
    assert profile.warnings == []


@pytest.mark.parametrize("library", IMMUTABLE)
def test_what_lies_on_an_accelerator_is_measured_in_a_traced_function(library, monkeypatch, make):
    as_if_elsewhere(monkeypatch)
    images = pictures(20)

    def glare_of_tensors(images):
        import tensorflow as tf

        return tf.reduce_mean(tf.cast(images >= 245, tf.float32), (1, 2, 3)) * 100

    chosen = glare if library == "jax" else make(glare_of_tensors, "glare_of_tests", version=2)
    profile = profiled(maker(library)(images), chosen, batch=20)
    np.testing.assert_allclose(values(profile, "glare_of_tests"), np.sort(expected_glare(images)), atol=1e-4)
    assert profile.rows.data["inputs/glare_of_tests"].shape == (20, 1)


def test_methods_on_tensorflow_tensors_are_explained(monkeypatch, caplog):
    as_if_elsewhere(monkeypatch)
    profile = profiled(maker("tensorflow")(pictures(20)), glare)
    assert profile.groups["inputs"].n == 20
    assert "write tf.reduce_mean" in profile.warnings[0]
    assert "inputs/glare_of_tests could not be measured in 20 of 20 rows" in profile.warnings[0]


@pytest.mark.parametrize("library", LIBRARIES)
def test_images_are_rgb_floats_0_to_255_of_the_caller_s_library(library, make):
    seen = []

    def look(images):
        seen.append(images)
        return images[:, 0, 0, 0]

    images = maker(library)(pictures(4).transpose(0, 3, 1, 2))
    profiled(images, make(look))
    assert tuple(seen[0].shape) == (4, 8, 6, 3)
    assert str(seen[0].dtype).removeprefix("torch.") == "float32"
    expected = np.ndarray if library in ("numpy", "tensorflow") else type(images)
    assert isinstance(seen[0], expected)


def test_torch_takes_means_of_booleans_and_the_rest_is_its_own(make):
    def several(images):
        bright = images >= 245
        return torch.stack(
            [torch.mean(bright, dim=(1, 2, 3)), (~bright).mean(axis=(1, 2, 3)), bright.sum((1, 2, 3)) / 144.0], dim=1
        )

    images = pictures()
    profile = profiled(torch.from_numpy(images), make(several))
    rows = profile.rows.data["inputs/own"]
    np.testing.assert_allclose(rows[:, 0], rows[:, 2], atol=1e-6)
    np.testing.assert_allclose(rows[:, 0] + rows[:, 1], 1, atol=1e-6)


def test_columns_are_streams():
    images = pictures()
    profile = profiled(images, corner)
    rows = {row.stream: row for row in profile.summaries()}
    for channel in range(3):
        row = rows[f"inputs/corner/{channel}"]
        assert (row.definition, row.n, row.invalid) == ("custom/corner@1", 40, 0)
        assert (row.min, row.max) == (images[:, 0, 0, channel].min(), images[:, 0, 0, channel].max())


def test_a_large_batch_comes_in_parts(monkeypatch):
    monkeypatch.setattr(custom_rows, "MOST_PIXELS", 3 * 48)
    images = pictures(10)
    measured = CustomMeasurer(ImageInputs(layout="NHWC", scale=1), (glare, corner))(images)
    np.testing.assert_allclose(measured["glare_of_tests"][:, 0], expected_glare(images), atol=1e-4)
    np.testing.assert_array_equal(measured["corner"], images[:, 0, 0, :])


def test_a_function_that_writes_to_its_images_changes_them_for_nobody(make):
    def spoil(images):
        images[:] = 0
        return images[:, 0, 0, 0]

    images = np.float32(pictures())
    before = images.copy()
    for library in ("numpy", "torch"):
        profile = profiled(maker(library)(images), make(spoil), glare)
        np.testing.assert_allclose(values(profile, "glare_of_tests"), np.sort(expected_glare(before)), atol=1e-4)
    np.testing.assert_array_equal(images, before)


WRONG = {
    "raises": (lambda images: 1 / 0, "ZeroDivisionError: division by zero"),
    "scalar": (lambda images: images.mean(), r"it returned shape \(\) for images of shape \(16, 8, 6, 3\)"),
    "too few": (lambda images: images[1:, 0, 0, 0], r"it returned shape \(15,\)"),
    "maps": (lambda images: images.mean(3), r"it returned shape \(16, 8, 6\).*return a number per image"),
    "nothing": (lambda images: None, "it returned|expected an array of numbers"),
    "text": (lambda images: np.array(["x"] * len(images)), "expected an array of numbers"),
    "complex": (lambda images: images[:, 0, 0, 0] + 1j, "complex"),
}


@pytest.mark.parametrize(("function", "message"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_a_wrong_measure_costs_itself_only(function, message, library, make, caplog):
    images = maker(library)(pictures())
    plain, profile = profiled(images, glare), profiled(images, make(function), glare)
    assert (profile.n, profile.groups["inputs"].n, profile.groups["inputs"].invalid) == (40, 40, 0)
    assert [(r.stream, r.n, r.quantiles) for r in profile.summaries()] == [
        (r.stream, r.n, r.quantiles) for r in plain.summaries()
    ]
    (warning,) = profile.warnings
    assert warning.startswith("inputs/own could not be measured in 40 of 40 rows: ")
    assert re.search(message, warning)
    assert len([record for record in caplog.records if "inputs/own" in record.getMessage()]) == 1


def test_an_error_that_is_kept_keeps_no_images(make):
    images = torch.zeros(4, 3, 8, 6)
    profiler = Profiler(measures=[make(lambda images: 1 / len(images[:0]))], on_error=lambda *_: None)
    profiler.update(inputs=images)
    batch = weakref.ref(images)
    del images, profiler
    gc.collect()

    assert batch() is None


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.sampled_from(["fine", "raises", "wider", "nan"])), min_size=1, max_size=8)
)
def test_rows_are_exact_whatever_fails_when(batches):
    how = iter([kind for _, kind in batches])

    def moody(images):
        kind = next(how)
        if kind == "raises":
            raise RuntimeError("tired")
        answer = np.ones((len(images), 3 if kind == "wider" else 2))
        return np.where(np.arange(len(images))[:, None] == 0, np.nan, answer) if kind == "nan" else answer

    mood = custom.CustomMeasure(moody, glare.definition)
    mood.definition = definitions.Definition("custom/mood@1", "mood", "1", "", "", "")
    profiler = Profiler(measures=[mood, glare], seed=0, on_error=lambda *_: None)
    for n, _ in batches:
        profiler.update(inputs=pictures(n))
    profile = profiler.profile()
    total = sum(n for n, _ in batches)
    first = next((kind for _, kind in batches if kind != "raises"), None)
    good = sum(
        n - (kind == "nan") for n, kind in batches if kind != "raises" and (kind == "wider") == (first == "wider")
    )
    apart = profile.groups["inputs"].apart
    assert (apart["glare_of_tests"].n, apart["glare_of_tests"].invalid) == (total, 0)
    assert (profile.groups["inputs"].n, profile.groups["inputs"].invalid) == (total, 0)
    assert ("mood" in apart) == (first is not None)
    if first is not None:
        assert (apart["mood"].n, apart["mood"].invalid) == (good, total - good)
    assert profile.rows.n == total


def test_nan_in_one_measure_leaves_out_that_stream_only(make):
    holes = make(lambda images: np.where(np.arange(len(images)) % 4 == 0, np.nan, images[:, 0, 0, 0]))
    profile = profiled(pictures(), holes, glare)
    assert [(r.stream, r.n, r.invalid) for r in profile.summaries()][-5:-3] == [
        ("inputs/own", 30, 10),
        ("inputs/glare_of_tests", 40, 0),
    ]
    assert profile.warnings == ["10 of 40 rows of inputs/own were left out: a value was not finite"]
    assert np.isnan(profile.rows.data["inputs/own"]).sum() == 10


def test_images_that_are_not_valid_have_no_custom_measure_either():
    images = np.float32(pictures(10)) / 255
    images[3, 2, 2, 1] = np.nan
    group = profiled(images, glare).groups["inputs"]
    assert (group.n, group.invalid) == (9, 1)
    assert (group.apart["glare_of_tests"].n, group.apart["glare_of_tests"].invalid) == (9, 1)


def test_an_empty_batch_and_a_reset():
    profiler = Profiler(measures=[glare])
    profiler.update(inputs=pictures(5))
    profiler.update(inputs=pictures(0))
    assert profiler.profile().groups["inputs"].apart["glare_of_tests"].n == 5
    profiler.reset()
    profiler.update(inputs=pictures(3))
    assert profiler.profile().groups["inputs"].apart["glare_of_tests"].n == 3


def test_grey_images_have_one_channel(make):
    profile = profiled(np.full((6, 8, 8), 7, np.uint8), make(lambda images: images.sum((1, 2)) / 64))
    assert profile.groups["inputs"].apart["own"].streams == ("own",)
    assert profile.groups["inputs"].apart["own"].bank.max.tolist() == [7]


# Declaring.


def test_the_definition_is_told_by_the_function():
    told = corner.definition
    assert (told.id, told.name, told.unit, told.range) == ("custom/corner@1", "corner", "0-255", (0, 255))
    assert told.formula == "def corner(images):\n    return images[:, 0, 0, :]"
    assert told.description == "The pixel in the corner."
    assert registered("custom/corner@1") is corner
    assert glare.definition.formula.startswith("def glare(images): return (images >= 245).mean((1, 2, 3)) * 100")


def test_it_is_called_like_the_function_and_looks_like_it():
    assert corner(np.ones((2, 4, 4, 3))).shape == (2, 3)
    assert (corner.__name__, corner.__module__) == ("corner", __name__)
    assert repr(corner) == "<measure custom/corner@1>"


def test_it_is_pickled_by_reference(monkeypatch):
    module = types.ModuleType(__name__)
    module.glare = glare
    monkeypatch.setitem(sys.modules, __name__, module)
    assert pickle.loads(pickle.dumps(glare)) is glare
    assert b"glare.function" in pickle.dumps(glare)  # and not what it does


def test_the_same_cell_again_is_fine_and_another_function_is_not(own_registry):
    def cell(text, **more):
        names = {"measure": measure}
        source = f"@measure('cell'{''.join(f', {k}={v!r}' for k, v in more.items())})\ndef cell(images):\n    {text}\n"
        import linecache

        linecache.cache[f"<cell {hash(source)}>"] = (len(source), None, source.splitlines(True), "")
        exec(compile(source, f"<cell {hash(source)}>", "exec"), names)
        return names["cell"]

    first = cell("return images[:, 0, 0, 0]")
    again = cell("return images[:, 0, 0, 0]")
    assert first.definition == again.definition
    assert registered("custom/cell@1") is again
    with pytest.raises(DefinitionError, match=r"custom/cell@1.*another function.*pass version=2"):
        cell("return images[:, 0, 0, 1]")
    assert cell("return images[:, 0, 0, 1]", version=2).definition.id == "custom/cell@2"
    with pytest.raises(DefinitionError, match="unit"):
        cell("return images[:, 0, 0, 0]", unit="%")
    assert cell("return images[:, 0, 0, 1]", convention="acme").definition.id == "acme/cell@1"


def test_a_function_without_source_has_its_docstring(own_registry):
    names = {}
    exec("def blind(images):\n    'How blind.\\n\\nVery.'\n    return images[:, 0, 0, 0]", names)
    told = measure("blind")(names["blind"]).definition
    assert told.formula == "How blind.\n\nVery."
    assert told.description == "How blind."
    assert "not to be had" in told.source


def test_a_long_source_is_bounded_and_still_told_apart(own_registry, monkeypatch):
    texts = iter(["x" * 9000, "x" * 9001])
    monkeypatch.setattr(custom.inspect, "getsource", lambda _: f"def f():\n    {next(texts)}")
    one, two = (measure("long", version=v)(lambda images: images).definition.formula for v in (1, 2))
    assert len(one) < custom.MAX_FORMULA + 100
    assert one != two
    assert "9,013 characters, sha256" in one


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "brightness"}, "name='brightness' is a measure of this package"),
        ({"name": "invalid"}, "name='invalid'"),
        ({"name": "a/b"}, "name='a/b' and convention='custom' cannot be"),
        ({"name": ""}, "name=''"),
        ({"name": None}, "name=None"),
        ({"name": "x", "version": 0}, "version=0 should be a whole number from 1"),
        ({"name": "x", "version": True}, "version=True"),
        ({"name": "x", "convention": "lensai"}, "convention='lensai' is this package's own"),
        ({"name": "x", "convention": "A b"}, "convention='A b'"),
        ({"name": "x", "range": 3}, "range=3"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        measure(**arguments)
    with pytest.raises(InputError, match="decorates a function"):
        measure("x")(3)


@pytest.mark.parametrize(
    ("measures", "message"),
    [
        ([len], "measures has <built-in function len>, which is not decorated: write @measure"),
        (glare, "should be a list of functions decorated"),
        (3, "measures=3"),
        ([glare, glare], "has two of one name"),
    ],
)
def test_measures_that_are_none_are_refused(measures, message):
    with pytest.raises(InputError, match=message):
        checked_measures(measures)
    with pytest.raises(InputError, match=message):
        Profiler(measures=measures)


# Kept, merged, compared, shown.


@pytest.fixture
def baseline():
    return Baseline(profiled(pictures(200), glare, corner, source="validation"))


def test_the_manifest_has_the_definition(baseline, tmp_path):
    baseline.save(tmp_path / "b")
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert manifest["definitions"]["custom/glare_of_tests@1"]["formula"] == glare.definition.formula
    assert manifest["definitions"]["custom/glare_of_tests@1"]["unit"] == "%"
    assert "inputs/corner/2" in (tmp_path / "b" / "streams.csv").read_text()
    loaded = Baseline.load(tmp_path / "b").reference
    assert [asdict(a) for a in loaded.summaries()] == [asdict(b) for b in baseline.reference.summaries()]


def test_like_takes_the_measures_that_are_declared(baseline, tmp_path):
    baseline.save(tmp_path / "b")
    profiler = Profiler(like=Baseline.load(tmp_path / "b"))
    profiler.update(inputs=pictures(20, seed=1))
    assert list(profiler.profile().groups["inputs"].apart) == ["glare_of_tests", "corner"]
    without = Profiler(like=baseline, measures=[])
    without.update(inputs=pictures(20, seed=1))
    assert without.profile().groups["inputs"].apart == {}
    assert without.profile().warnings == []


def test_like_warns_of_measures_that_are_not_declared(baseline, own_registry, caplog):
    del custom._REGISTERED["custom/corner@1"]
    profiler = Profiler(like=baseline)
    profiler.update(inputs=pictures(20))
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert "'custom/corner@1' of the profile to be like is not declared in this process" in told[0]
    profile = profiler.profile()
    assert list(profile.groups["inputs"].apart) == ["glare_of_tests"]
    assert profile.warnings == told
    assert any("not declared" in note for note in compare(baseline, profile).notes)


def test_compare_finds_what_moved_in_a_custom_measure_alone(baseline):
    images = pictures(200, seed=2)
    pixels = images.reshape(200, 48, 3)
    lightest = pixels.sum(2).argmax(1)  # goes to the corner, and the corner's pixel to its place
    rows = np.arange(200)
    pixels[rows, lightest], pixels[:, 0] = pixels[:, 0].copy(), pixels[rows, lightest].copy()
    report = compare(baseline, profiled(images, glare, corner))
    assert {stream.stream for stream in report.moved} == {f"inputs/corner/{c}" for c in range(3)}
    assert "corner/0" in report.to_text()
    assert not compare(baseline, profiled(pictures(200, seed=3), glare, corner)).drift


def test_a_measure_that_begins_to_fail_has_moved(baseline, make):
    definition = glare.definition
    failing = custom.CustomMeasure(lambda images: np.full(len(images), np.nan), definition)
    report = compare(baseline, profiled(pictures(200, seed=2), failing))
    assert [stream.stream for stream in report.moved] == ["inputs/glare_of_tests/invalid"]
    assert any("custom measures only on one side, not compared: corner" in n for g in report.groups for n in g.notes)


def test_streams_of_other_functions_of_the_same_id_are_refused(baseline, own_registry):
    other = custom.CustomMeasure(glare.function, definitions.Definition(**{**asdict(glare.definition), "formula": "x"}))
    window = profiled(pictures(), other)
    with pytest.raises(DefinitionError, match=r"glare_of_tests.*computed by two functions.*'x'"):
        compare(baseline, window)
    with pytest.raises(DefinitionError):
        baseline.reference.merge(window)
    blind = definitions.Definition(**{**asdict(other.definition), "source": custom.WITHOUT_SOURCE})
    compare(baseline, profiled(pictures(), custom.CustomMeasure(glare.function, blind)))


def test_a_file_whose_function_is_another_here_is_refused(baseline, monkeypatch, tmp_path):
    baseline.save(tmp_path / "b")
    changed = definitions.Definition(**{**asdict(glare.definition), "formula": "x"})
    monkeypatch.setitem(definitions.DEFINITIONS, changed.id, changed)
    with pytest.raises(DefinitionError, match="custom/glare_of_tests@1"):
        Baseline.load(tmp_path / "b")


def test_profiles_merge():
    images = pictures(60)
    parts = [profiled(images[:25], glare, corner), profiled(images[25:], corner, glare)]
    merged, whole = parts[0].merge(parts[1]), profiled(images, glare, corner)
    for one, two in zip(merged.summaries(), whole.summaries(), strict=True):
        assert (one.stream, one.n, one.min, one.max) == (two.stream, two.n, two.min, two.max)
    assert merged.groups["inputs"].definition("custom/corner@1") == corner.definition


def test_what_only_one_profile_has_is_kept_in_merging(own_registry):
    images = pictures(60)
    for first, second in (((glare,), ()), ((), (glare,))):
        merged = profiled(images[:25], *first).merge(profiled(images[25:], *second))
        assert merged.groups["inputs"].apart["glare_of_tests"].n == (25 if first else 35)
        assert merged.groups["inputs"].definition_of("glare_of_tests") == "custom/glare_of_tests@1"
        assert merged.groups["inputs"].n == 60


def test_widths_that_differ_are_dropped_in_merging_and_it_is_said():
    grey = custom.CustomMeasure(lambda images: images[:, 0, 0, :2], corner.definition)
    merged = profiled(pictures(), corner, glare).merge(profiled(pictures(), grey, glare))
    assert list(merged.groups["inputs"].apart) == ["glare_of_tests"]
    assert any("inputs/corner: the custom measure was dropped" in warning for warning in merged.warnings)


def test_the_report_shows_them(baseline):
    page = baseline_html(baseline)
    assert "glare_of_tests" in page
    assert "The pixel in the corner." in page
    assert "images[:, 0, 0, :]" in page
    images = pictures(200, seed=2) // 2
    window = profiled(images, glare, corner)
    assert "corner/1" in drift_html(compare(baseline, window), baseline, window)


ELSEWHERE = """
import sys
from lensai_integrations import Baseline, compare
from lensai_integrations.report import baseline_html
baseline = Baseline.load(sys.argv[1])
again = Baseline.load(baseline.save(sys.argv[1] + "-again"))
assert "The pixel in the corner." in baseline_html(again)
assert again.reference.groups["inputs"].definition("custom/corner@1").unit == "0-255"
report = compare(again, baseline.reference)
assert not report.drift and any(s.stream == "inputs/corner/1" for g in report.groups for s in g.streams)
print([row.stream for row in baseline.reference.summaries()][-6:])
"""


@pytest.mark.slow
def test_a_process_that_does_not_know_them_loads_shows_and_compares(baseline, tmp_path):
    baseline.save(tmp_path / "b")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ELSEWHERE, str(tmp_path / "b")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "inputs/corner/2" in done.stdout


def test_a_manifest_that_tells_nonsense_of_measures_is_read(baseline):
    group = baseline.reference.groups["inputs"]
    for told in (
        3,
        {"corner": 4},
        {"corner": {"id": "custom/corner@1"}},
        {"corner": {"id": "custom/corner@1", "range": 1}},
    ):
        group.info["measures"] = told
        assert group.definition("custom/corner@1") == corner.definition
        assert isinstance(baseline.reference.merge(Profile()), Profile)


def test_an_error_handler_is_told_once(make):
    told = []
    profiler = Profiler(measures=[make(lambda images: 1 / 0)], on_error=lambda name, error: told.append((name, error)))
    for _ in range(3):
        profiler.update(inputs=pictures(4))
    assert [(name, type(error)) for name, error in told] == [("inputs/own", ZeroDivisionError)]


# The suite for measures: it passes what is right, in every library, and names what is wrong.


def seen(name, function, **told):
    function.__doc__ = "What a test looks at."
    return measure(f"checked-{name}", **told)(function)


def test_a_measure_of_one_stream_and_one_of_several():
    check_measure(seen("darkest", lambda images: images.min((1, 2, 3)), range=(0, 255)), libraries=("numpy", "jax"))
    check_measure(seen("halves", lambda images: images.reshape(len(images), 2, -1).mean(-1)), libraries=LIBRARIES[:2])
    check_measure(seen("grey", lambda images: images[:, 0, 0, 0]), channels=1)


@pytest.mark.parametrize(
    ("name", "function", "message"),
    [
        ("range", lambda images: images.max((1, 2, 3)), "above its range to 1"),
        ("finite", lambda images: 1 / images.std((1, 2, 3)), "is not finite"),
        ("batch", lambda images: images.mean((1, 2, 3)) / (images.max() + 1), "depends on the other images"),
        ("shape", lambda images: images[..., 0], "shape .8, 12, 9."),
        ("rows", lambda images: images[:1, 0, 0, 0], "1 rows of 8 images"),
        ("written", lambda images: np.divide(images, 256, out=images)[:, 0, 0, 0], "changed the images"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_what_is_wrong_is_named(name, function, message):
    with pytest.raises(AssertionError, match=message):
        check_measure(seen(name, function, range=(0, 1)), libraries=())


def test_a_measure_that_only_numpy_can_is_named():
    with pytest.raises((AssertionError, TypeError, AttributeError)):
        check_measure(
            seen("numpy-only", lambda images: np.ptp(np.asarray(images, object), (1, 2, 3))), libraries=["torch"]
        )


def test_a_measure_that_says_nothing_is_named():
    with pytest.raises(AssertionError, match="says nothing about an image"):
        check_measure(measure("checked-mute")(lambda images: images[:, 0, 0, 0]))
