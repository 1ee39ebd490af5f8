"""`Profiler(like=...)`: batches of another width are refused, and a device's profile can be matched, too."""

from __future__ import annotations

import re

import numpy as np
import pytest
from photographs import patches
from profiles import batch, make_profile

from lensai_integrations import DriftMonitor, ImageInputs, Profile, Profiler, compare, edge
from lensai_integrations.errors import DefinitionError, InputError
from lensai_integrations.profiles.alike import check_alike, sketched_alike
from lensai_integrations.profiles.groups import Group

IMAGES_OF_DEVICES = "inputs/lensai-edge"
IMAGES = patches(200)
LOGITS = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def like():
    return make_profile(100)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("outputs", {"outputs": np.zeros((5, 9))}, "outputs has other streams.*: 13 here, 8 there"),
        ("embeddings/avgpool", {"embeddings": {"avgpool": np.zeros((5, 7))}}, "avgpool has other.*: 7 here, 24 there"),
        ("embeddings/avgpool", {"embeddings": {"avgpool": np.zeros((5, 40))}}, "avgpool has other.*: 40 here, 24 th"),
        (
            "inputs",
            {"inputs": np.zeros((5, 8, 8, 1), np.uint8)},
            "images are grey .1 channel.*channels='RGB'.*make all alike, or pass channels='L'",
        ),
        ("labels", {"labels": np.zeros((5, 2, 2))}, r"labels must be \[n\] or \[n, k\], got shape \(5, 2, 2\)"),
    ],
)
def test_a_batch_of_another_width_is_refused_and_decides_nothing(name, given, message, like):
    profiler = Profiler(like=like, seed=1)
    with pytest.raises(InputError, match=message):
        profiler.update(**given)
    profiler.update(**batch(np.random.default_rng(1), 10))
    assert {group.n for group in profiler.profile().groups.values()} == {10}
    told = []
    lenient = Profiler(like=like, seed=1, on_error=lambda *what: told.append(what))
    lenient.update(**batch(np.random.default_rng(1), 5) | given)
    lenient.update(**batch(np.random.default_rng(2), 10))
    assert [group for group, _ in told] == [name]
    found = {name: group.n for name, group in lenient.profile().groups.items()}
    assert found == {each: 10 if each == name else 15 for each in found}
    assert len(found) == 4


def test_a_group_that_was_measured_otherwise_is_refused(like):
    wide = Profiler(max_dim=24)
    wide.update(embeddings={"avgpool": np.random.default_rng(0).normal(size=(30, 100))})
    with pytest.raises(DefinitionError, match="embeddings/avgpool"):
        Profiler(like=wide.profile()).update(embeddings={"avgpool": np.zeros((5, 24))})
    check_alike(Group("other", ("a",)), like)


def test_streams_of_another_order_are_told_apart():
    like = Profile({"outputs": Group("outputs", ("a", "b"))})
    with pytest.raises(InputError, match="none, in another order"):
        check_alike(Group("outputs", ("b", "a")), like)


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    folder = tmp_path_factory.mktemp("device")
    profiler = Profiler(convention="lensai-edge", seed=5)
    profiler.update(inputs=IMAGES, outputs=LOGITS)
    edge.write_stats(profiler.profile(), folder)
    return edge.read_stats(folder)


def like_device(device, images=IMAGES, **given):
    profiler = Profiler(like=device, seed=7)
    profiler.update(inputs=images, **given)
    return profiler.profile()


def test_a_profile_like_a_devices_has_its_streams_and_merges_with_it(device, caplog):
    own = like_device(device, outputs=LOGITS)
    assert not caplog.messages
    assert own.rows is None
    for name in (IMAGES_OF_DEVICES, "outputs"):
        assert own.groups[name].streams == ()
        assert own.groups[name].sketches.keys() == device.groups[name].sketches.keys()
        for stream, each in own.groups[name].apart.items():
            theirs = device.groups[name].apart[stream]
            np.testing.assert_array_equal(each.bank.min, theirs.bank.min)
            assert (each.bank.n, each.bank.k) == (theirs.bank.n, 200)
    assert {name: group.n for name, group in device.merge(own).groups.items()} == {
        IMAGES_OF_DEVICES: 400,
        "outputs": 400,
    }
    assert device.merge(own).groups[IMAGES_OF_DEVICES].apart["pixel/1"].bank.n == 2 * 200 * 32 * 32
    assert device.merge(own).groups[IMAGES_OF_DEVICES].info["convention"] == "lensai-edge"


def test_it_is_compared_and_watched(device):
    dark = (IMAGES * 0.6).astype(np.uint8)
    assert not compare(device, like_device(device)).drift
    report = compare(device, like_device(device, dark))
    assert f"{IMAGES_OF_DEVICES}/brightness" in [stream.stream for stream in report.moved]
    with DriftMonitor(device, 100) as monitor:
        levels = [window.level for images in (IMAGES, dark) for window in monitor.update(inputs=images)]
        assert monitor.status.failures == {}
    assert levels == ["ok", "ok", "alarm", "alarm"]


def test_outputs_of_a_device_do_not_say_how_others_are_to_be_read(device):
    """A device keeps probabilities; the batch may be logits."""
    found = like_device(device, outputs=LOGITS).groups["outputs"].apart["softmax/0"].bank
    assert (found.min[0] >= 0, found.max[0] <= 1) == (True, True)


def test_warnings_of_rows_that_were_left_out_are_kept(device):
    bad = IMAGES[:20].astype(np.float32)
    bad[4] = np.nan
    own = like_device(device, bad)
    assert own.groups[IMAGES_OF_DEVICES].n == 19
    assert any("1 of 20 rows of inputs/lensai-edge were left out" in warning for warning in own.warnings)


def test_another_profile_is_let_be():
    group = Group("labels")
    assert sketched_alike(group, Profile({"labels": Group("labels")})) is group


@pytest.mark.parametrize("sensor", ["reference", "sensor1"])
def test_real_devices_can_be_matched(sensor, data_dir):
    device = edge.read_stats(data_dir / "lensai_edge" / sensor)
    own = like_device(device)
    streams = own.groups[IMAGES_OF_DEVICES].apart
    assert streams.keys() == device.groups[IMAGES_OF_DEVICES].apart.keys()
    report = compare(device, own)
    assert {
        stream.stream.removeprefix(f"{IMAGES_OF_DEVICES}/") for group in report.groups for stream in group.streams
    } == set(streams)
    assert device.merge(own).groups[IMAGES_OF_DEVICES].n == device.groups[IMAGES_OF_DEVICES].n + 200


Z = np.random.default_rng(3).normal(0, 2, (400, 5))
ANSWERS = {
    "logits": Z,
    "probabilities": np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True),
    "multilabel_logits": Z,
    "multilabel_probabilities": 1 / (1 + np.exp(-Z)),
    "values": Z,
}
AS_LOGITS = "outputs: read as logits, as the baseline's were, but .*hand over what goes into it"
SUMS = "outputs: read as probabilities of classes, as the baseline's were, but rows sum to .* hand over what a softmax"
NO_SHARES = ("logits", "multilabel_logits", "values")
#: By what the baseline is of and what production answers: what is said to be the cause of the alarm.
CAUSES = {
    ("logits", "probabilities"): AS_LOGITS.replace(".*", "rows lie in .0, 1. and sum to 1, as after a softmax: "),
    ("logits", "multilabel_probabilities"): AS_LOGITS.replace(".*", "the two .*, as after a softmax or a sigmoid: .*"),
    ("multilabel_logits", "probabilities"): AS_LOGITS,
    ("multilabel_logits", "multilabel_probabilities"): AS_LOGITS.replace(".*", "all lie .*, as after a sigmoid: "),
    ("probabilities", "multilabel_probabilities"): SUMS,
    ("multilabel_probabilities", "probabilities"): "the baseline's were, but those of a row sum to 1, as after a soft",
    **{("probabilities", each): "as logits do: .* hand over what a softmax makes" for each in NO_SHARES},
    **{("multilabel_probabilities", each): "as logits do: .* hand over what a sigmoid" for each in NO_SHARES},
    ("values", "probabilities"): "read as numbers.*is a sigmoid, a softmax",
    ("values", "multilabel_probabilities"): "read as numbers.*is a sigmoid, a softmax",
}  # fmt: skip


@pytest.mark.parametrize("rows", [1, 100])
@pytest.mark.parametrize("given", ANSWERS)
@pytest.mark.parametrize("known", ANSWERS)
def test_an_answer_of_another_kind_than_the_baselines_is_named(known, given, rows):
    """Image by image as well as in batches: what tells is in the sketches of all rows."""
    baseline = Profiler(task=known, seed=1)
    baseline.update(outputs=ANSWERS[known][:300])
    window = Profiler(like=baseline.profile(), seed=2)
    for start in range(300, 400, rows):
        window.update(outputs=ANSWERS[given][start : start + rows])
    report = compare(baseline.profile(), window.profile())
    expected = CAUSES.get((known, given))
    assert report.drift is (expected is not None)
    assert (report.causes == ()) is (expected is None)
    if expected:
        assert re.search(expected, " ".join(report.causes))
        assert "Look here first: " in report.to_text()
        assert report.to_dict()["causes"] == list(report.causes)


def test_profiles_that_were_made_apart_are_told_apart_too():
    baseline, window = Profiler(task="multilabel_logits"), Profiler(task="multilabel_logits")
    baseline.update(outputs=Z)
    window.update(outputs=ANSWERS["multilabel_probabilities"])
    assert window.profile().warnings == []
    (cause,) = compare(baseline.profile(), window.profile()).causes
    assert re.search(AS_LOGITS, cause)


def test_two_classes_in_one_column_are_told_apart_too():
    baseline = Profiler(task="logits")
    baseline.update(outputs=Z[:300, :1])
    window = Profiler(like=baseline.profile())
    window.update(outputs=ANSWERS["multilabel_probabilities"][300:, :1])
    assert re.search(AS_LOGITS.replace(".*", "all lie .*, as after a sigmoid: "), " ".join(window.profile().warnings))


def test_of_logits_whose_two_largest_are_close_the_others_tell():
    """Dark images: two classes are as likely as each other, and a third is out of the question."""
    close = np.stack([np.zeros(100), np.linspace(-0.9, 0.9, 100), np.full(100, -5)], axis=1)
    baseline = Profiler(task="logits")
    baseline.update(outputs=Z[:, :3])
    window = Profiler(like=baseline.profile())
    window.update(outputs=close)
    assert window.profile().warnings == []


@pytest.mark.parametrize("kind", ["logits", "multilabel_logits", "values"])
def test_a_baseline_that_lies_between_0_and_1_itself_is_no_reason_to_doubt(kind):
    """Logits of a model that has learnt nothing, rows that happen to be sure of nothing."""
    unsure = np.random.default_rng(4).uniform(0.1, 0.9, (400, 3))
    baseline = Profiler(task=kind)
    baseline.update(outputs=unsure[:300])
    window = Profiler(like=baseline.profile())
    window.update(outputs=unsure[300:])
    assert window.profile().warnings == []


@pytest.mark.parametrize("rows", [1, 3])
def test_few_rows_between_0_and_1_are_no_reason_to_doubt_logits(rows):
    baseline = Profiler(task="multilabel_logits")
    baseline.update(outputs=np.random.default_rng(5).normal(0.5, 0.5, (400, 1)).repeat(2, axis=1))
    window = Profiler(like=baseline.profile())
    window.update(outputs=np.full((rows, 2), 0.6))
    assert window.profile().warnings == []


COLOURS = np.clip(np.random.default_rng(6).normal([150, 110, 60], 40, (200, 8, 10, 3)), 0, 255).astype(np.uint8)


def test_red_and_blue_that_changed_places_are_named_and_the_advice_works():
    baseline = Profiler()
    baseline.update(inputs=COLOURS[:100])
    like, exchanged = baseline.profile(), np.ascontiguousarray(COLOURS[100:, ..., ::-1])
    (cause,) = window_of(like, exchanged).causes
    assert cause.startswith("inputs: red and blue look exchanged")
    told = window_of(like, exchanged, inputs=ImageInputs(channels="BGR"))
    assert (told.drift, told.causes, told.notes) == (False, (), ())


def window_of(like, images, **arguments):
    profiler = Profiler(like=like, **arguments)
    profiler.update(inputs=images)
    return compare(like, profiler.profile())


@pytest.mark.parametrize("images", [COLOURS[100:] // 2, COLOURS[100:, ..., :1].repeat(3, axis=-1), COLOURS[100:, ::-1]])
def test_other_changes_of_colour_are_no_exchange(images):
    baseline = Profiler()
    baseline.update(inputs=COLOURS[:100])
    assert window_of(baseline.profile(), images).causes == ()


def test_standardised_images_beside_bytes_are_named():
    baseline = Profiler()
    baseline.update(inputs=COLOURS[:100])
    (cause,) = window_of(baseline.profile(), ((COLOURS[100:] - 110.0) / 50).astype(np.float32)).causes
    assert "0 to 255 (NHWC uint8): were they standardised?" in cause


def test_masks_among_images_are_named():
    profiler = Profiler(on_note=lambda note: None)
    profiler.update(inputs=(COLOURS[:100, ..., 0] > 100).astype(np.uint8))
    (told,) = profiler.profile().warnings
    assert "are they masks, and not the images? If 1 is white, pass ImageInputs(scale=255)" in told
    white = Profiler(inputs=ImageInputs(scale=255))
    white.update(inputs=(COLOURS[:100, ..., 0] > 100).astype(np.uint8))
    assert white.profile().warnings == []


def test_half_precision_that_overflowed_is_named():
    baseline = Profiler()
    baseline.update(outputs=LOGITS)
    window = Profiler(like=baseline.profile())
    with np.errstate(over="ignore"):
        window.update(outputs=(LOGITS * 1e5).astype(np.float16))
    (told,) = window.profile().warnings
    assert "rows of outputs were left out: a value was not finite (they are float16, which ends at 65,504)" in told


@pytest.mark.parametrize(
    ("outputs", "told", "task"),
    [
        (
            LOGITS.argmax(axis=1),
            "whole numbers, one for each row, are read as numbers: if they are classes",
            "regression",
        ),
        (
            1 / (1 + np.exp(-LOGITS[:, :1])),
            "one column between 0 and 1 is read as a number: pass task=",
            "probabilities",
        ),
        (LOGITS[:, :1], None, "auto"),
    ],
)
def test_one_column_that_looks_like_no_number_is_doubted_and_the_advice_settles_it(outputs, told, task):
    profiler, settled = Profiler(), Profiler(task=task)
    profiler.update(outputs=outputs)
    settled.update(outputs=outputs)
    assert [told in warning for warning in profiler.profile().warnings] == ([True] if told else [])
    assert settled.profile().warnings == []


def test_an_answer_of_another_width_is_told_by_its_columns():
    baseline = Profiler()
    baseline.update(outputs=LOGITS)
    with pytest.raises(InputError, match=r"6 here, 7 there \(columns: 2 here, 3 there\). Pass what the model"):
        Profiler(like=baseline.profile()).update(outputs=LOGITS[:, :2])
