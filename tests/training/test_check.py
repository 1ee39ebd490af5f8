"""A dry run of arrays and files: what it shows, and what it warns of."""

from __future__ import annotations

import numpy as np
import pytest

from lensai_integrations import ImageInputs, measure
from lensai_integrations.errors import InputError
from lensai_integrations.problems import Problems
from lensai_integrations.training.check import Check, CheckRow, check_path, run_check
from lensai_integrations.training.fit import Preparer
from lensai_integrations.training.options import Profiling
from lensai_integrations.training.recording import Listened

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (16, 3, 12, 10), dtype=np.uint8)
LABELS = RNG.integers(0, 4, 16)


def checked(images=PICTURES, labels=LABELS, answers=None, layers=(), **changes):
    options = Profiling(**{"layers": None, "inputs": ImageInputs(), "outputs": None, "rows": 0, **changes})
    batch = images if labels is None else (images, labels)
    return run_check(Preparer(options, Problems(quiet=True)), batch, answers or {}, layers)


def row(check, group):
    return next(each for each in check.rows if each.group == group)


def test_a_good_batch_has_nothing_to_warn_of():
    logits = Listened("outputs", "fc", {"layer": "fc", "linear": True})
    pool = Listened("embeddings/pool", "pool", {"layer": "pool", "reduce": "mean", "axes": 4})
    answers = {"outputs": RNG.normal(0, 3, (16, 4)), "embeddings/pool": RNG.normal(0, 1, (16, 5))}
    check = checked(answers=answers, layers=[logits, pool])
    assert check.warnings == ()
    assert check.ok
    assert [each.group for each in check.rows] == ["inputs", "outputs", "embeddings/pool", "labels"]
    assert row(check, "inputs") == CheckRow(
        "inputs", (16, 3, 12, 10), "uint8", "cpu", "NCHW uint8, 12x10", PICTURES.min(), PICTURES.max(), 16, 0
    )
    assert row(check, "outputs").read == "logits of fc"
    assert row(check, "outputs").found == "read as logits: labels are one class per image"
    assert "\noutputs: read as logits: labels are one class per image\n" in str(check)
    assert row(check, "embeddings/pool").read == "mean of 4 axes, 5 wide"
    assert (row(check, "labels").read, row(check, "labels").low) == ("4 classes, from 1", 0)


def test_the_table_is_100_columns_and_says_it_all():
    text = str(checked(labels=np.zeros(16, int), answers={"embeddings/a_layer_with_a_name" * 3: np.ones((16, 3))}))
    assert max(map(len, text.splitlines())) <= 100
    for word in ("inputs", "16x3x12x10", "uint8", "cpu", "0 to 255", "warning: all 16 labels are '0'"):
        assert word in text
    assert "Nothing to warn of." in str(checked())


def floats(low, high):
    return np.float32(PICTURES / 255 * (high - low) + low)


WRONG_STD = ImageInputs(mean=(0.5,), std=(3.0,), scale=255)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": floats(-2, 2)}, "inputs cannot be profiled: scale='auto' expects float pixels"),
        ({"images": floats(-2, 2), "inputs": WRONG_STD}, "pixels reach from -1402 to 1658 on"),
        ({"images": floats(-2, 2), "inputs": WRONG_STD}, "16 of 16 rows of inputs were left out"),
        ({"images": floats(0, 1 / 255)}, "nearly black: are scale="),
        ({"images": floats(0.97, 1)}, "nearly white"),
        ({"images": np.full_like(PICTURES, 99)}, "16 of 16 images are constant"),
        ({"images": np.full_like(PICTURES, 99)}, "all 16 images are the same"),
        ({"images": PICTURES[:, :1].repeat(3, axis=1)}, "these are grey images"),
        ({"images": PICTURES[:, :, :3], "inputs": ImageInputs(layout="NCHW")}, "images are 3 x 10 pixels: is layout"),
        ({"labels": np.full(16, 3)}, "all 16 labels are '3': is target= right"),
        ({"labels": np.r_[np.nan, np.ones(15)].astype(np.float32)}, "labels"),
        ({"answers": {"outputs": RNG.dirichlet(np.ones(4), 16)}, "task": "logits"}, "look like probabilities"),
        ({"answers": {"outputs": RNG.normal(0, 3, (16, 3))}}, "labels reach from 0 to 3, but"),
        ({"answers": {"outputs": np.full((16, 4), np.nan)}, "task": "logits"}, "16 of 16 rows of outputs"),
        ({"answers": {"embeddings/pool": np.zeros((16, 4))}}, "embeddings/pool is the same for every image"),
        ({"answers": {"embeddings/pool": RNG.normal(size=(9, 4))}}, "different numbers of rows"),
        ({"layers": [Listened("embeddings/x", "x")]}, "layer 'x' answered nothing"),
        ({"images": [], "labels": []}, "inputs"),
        ({"labels": np.zeros((16, 5, 5))}, "labels: the batch has no labels of a kind that is read"),
    ],
)  # fmt: skip
def test_what_looks_wrong_is_said(arguments, message):
    check = checked(**arguments)
    assert not check.ok
    assert any(message in warning for warning in check.warnings), check.warnings


def test_what_cannot_be_read_is_still_shown():
    shown = row(checked(floats(-2, 2)), "inputs")
    assert (shown.shape, shown.dtype, shown.read, shown.rows) == ((16, 3, 12, 10), "float32", "could not be read", 0)


@pytest.mark.parametrize("labels", [["cat", "dog"] * 8, None])
def test_texts_and_no_labels_are_fine(labels):
    assert checked(labels=labels).warnings == ()


def test_custom_measures_are_in_the_table():
    @measure("checked_light", unit="%")
    def light(images):
        return (images >= 128).mean((1, 2, 3)) * 100

    @measure("checked_wrong")
    def wrong(images):
        return images.mean()

    check = checked(measures=[light, wrong])
    own = row(check, "inputs/checked_light")
    assert (own.shape, own.read, own.rows, own.invalid) == ((16, 1), "custom measure, %", 16, 0)
    assert len(check.warnings) == 1
    assert "inputs/checked_wrong could not be measured in 16 of 16 rows" in check.warnings[0]


def test_nothing_is_not_ok():
    assert not Check((), ()).ok


# Files.


@pytest.fixture
def folder(tmp_path):
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "deep").mkdir()
    for number in range(5):
        image.fromarray(RNG.integers(0, 256, (9, 11, 3), dtype=np.uint8)).save(tmp_path / "deep" / f"{number}.png")
    image.fromarray(RNG.integers(0, 256, (7, 7), dtype=np.uint8)).save(tmp_path / "grey.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    return tmp_path


def test_a_folder_of_images(folder):
    check = check_path(folder)
    assert check.rows[0].shape == (5, 9, 11, 3)
    assert len(check.warnings) == 2
    assert check.warnings[0].startswith("broken.jpg could not be read")
    assert "1 of 7 images are of other sizes" in check.warnings[1]


def test_one_image(folder):
    assert check_path(folder / "grey.png").rows[0].read == "NHW uint8, 7x7"


def test_arrays_and_options(tmp_path):
    normalised = (PICTURES / 255 - 0.4) / 0.2
    np.save(tmp_path / "batch.npy", np.float32(normalised))
    np.savez(tmp_path / "batch.npz", images=PICTURES, labels=LABELS)
    check = check_path(tmp_path / "batch.npy", mean="0.4,0.4,0.4", std="0.2,0.2,0.2")
    assert check.rows[0].read == "NCHW float32 (x std + mean) x 255, 12x10"
    assert (check.rows[0].low, check.rows[0].high) == (pytest.approx(0, abs=1e-3), pytest.approx(255, abs=1e-3))
    assert [each.group for each in check_path(tmp_path / "batch.npz").rows] == ["inputs", "labels"]
    assert not check_path(tmp_path / "batch.npy", scale="255").ok


def test_nothing_is_unpickled(tmp_path):
    np.save(tmp_path / "evil.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="holds no plain numpy arrays"):
        check_path(tmp_path / "evil.npy")


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(InputError, match="no images in"):
        check_path(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"has no images that can be read: broken\.png could not be read"):
        check_path(tmp_path)
    np.save(tmp_path / "a.npy", PICTURES)
    with pytest.raises(InputError, match="mean='x' should be numbers"):
        check_path(tmp_path / "a.npy", mean="x", std="1")
    (tmp_path / "b.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="holds no plain"):
        check_path(tmp_path / "b.npz")
