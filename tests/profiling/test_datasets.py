"""Profiles of any data: what is image and label, what is said where that is open; arguments work or are one error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from lensai_integrations import Baseline, ImageInputs, Profile, Profiler, measure, profile_dataset
from lensai_integrations.errors import InputError

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (20, 12, 10, 3), dtype=np.uint8)
LABELS = (np.arange(20) % 3).tolist()
EXPECTED = {"0": 7, "1": 7, "2": 6}


def counted(profile):
    return dict(profile.groups["labels"].categories[""].top(99)) if "labels" in profile.groups else None


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (lambda i: (PICTURES[i], LABELS[i]), EXPECTED),
        (lambda i: (PICTURES[i], 1000 + 7 * i, LABELS[i]), EXPECTED),
        (lambda i: (PICTURES[i], f"/data/{i}.jpg", LABELS[i]), EXPECTED),
        (lambda i: (PICTURES[i], np.int64(LABELS[i]), None), EXPECTED),
        (lambda i: {"image": PICTURES[i], "label": LABELS[i], "age": i % 2}, EXPECTED),
        (lambda i: {"image": PICTURES[i], "species": LABELS[i]}, EXPECTED),
        (lambda i: (PICTURES[i], LABELS[i], i % 2), None),
        (lambda i: (PICTURES[i], i % 2, LABELS[i]), None),
    ],
)
def test_the_label_of_a_sample(sample, expected):
    profile = profile_dataset([sample(i) for i in range(20)])

    assert profile.groups["raw"].n == 20
    assert counted(profile) == expected
    said = [warning for warning in profile.warnings if warning.startswith("labels")]
    assert len(said) == (expected is None)
    if said:
        assert "pass target=1 or target=2" in said[0]
        assert counted(profile_dataset([sample(i) for i in range(20)], target=1)) is not None


def test_what_is_open_in_batches_is_in_the_profile():
    batches = [(PICTURES[i : i + 10], LABELS[i : i + 10], [i % 2 for i in range(10)]) for i in (0, 10)]
    profile = profile_dataset(iter(batches))
    assert counted(profile) is None
    assert profile.warnings[0].startswith("labels: several parts")
    assert counted(profile_dataset(iter(batches), target=1)) == EXPECTED


def test_key_is_where_the_images_of_batches_are():
    batches = [{"left": PICTURES, "right": PICTURES[::-1], "label": LABELS}]
    profile = profile_dataset(iter(batches), inputs=ImageInputs(key="right"))
    assert profile.groups["inputs"].n == 20
    assert counted(profile) == EXPECTED


@pytest.mark.parametrize(
    ("sample", "key"),
    [
        (lambda one, other: (one, other, 1), 1),
        (lambda one, other: ((one, other), 1), (0, 1)),
        (lambda one, other: {"image": one, "label": 1, "other": other}, "other"),
    ],
)
@pytest.mark.parametrize("of", [np.asarray, Image.fromarray])
def test_samples_with_several_images_say_which_is_read(sample, key, of):
    """And what they say is followed as it stands."""
    dark, bright = PICTURES // 16, 255 - PICTURES // 16
    data = [sample(of(one), of(other)) for one, other in zip(dark, bright, strict=True)]
    profile = profile_dataset(data)
    assert profile.groups["raw"].sketches["pixels"].counts[:, 16:].sum() == 0
    if not isinstance(key, str):  # under a usual name it is the one that is meant
        (said,) = profile.warnings
        assert f"other images beside the one that is read, at {key!r}: settle it with inputs=ImageInputs(key=" in said
    other = profile_dataset(data, inputs=ImageInputs(key=key))
    assert other.groups["raw"].sketches["pixels"].counts[:, :240].sum() == 0
    assert (other.groups["raw"].n, other.warnings, counted(other)) == (20, [], {"1": 20})
    with pytest.raises(InputError, match="key='nowhere' was not found"):
        profile_dataset(data, inputs=ImageInputs(key="nowhere"))


def test_a_mask_is_no_other_image():
    data = [(image, image[..., :1] > 9, image[..., 0], 1) for image in PICTURES]
    assert profile_dataset(data).warnings == []


N = 12
PIXELS = RNG.integers(0, 256, (N, 10, 9, 3), dtype=np.uint8)
CLASSES_OF_ARGUMENTS = [i % 3 for i in range(N)]
NAMES = ["cat", "dog", "owl"]


@measure("reddest")
def reddest(images):
    return images[..., 0].mean((1, 2))


def brightness_of(sample):
    """Metadata of whatever a sample is."""
    return "sampled"


class Photos(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, index):
        return torch.from_numpy(PIXELS[index]).permute(2, 0, 1), CLASSES_OF_ARGUMENTS[index]


class Streamed(IterableDataset):
    def __iter__(self):
        return iter([Photos()[i] for i in range(N)])


class HuggingFace:
    """Items are dicts, images Pillow's."""

    def __len__(self):
        return N

    def __getitem__(self, index):
        return {"image": Image.fromarray(PIXELS[index]), "label": CLASSES_OF_ARGUMENTS[index]}


class PyDataset:
    """Keras's: items are batches."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        part = slice(4 * index, 4 * index + 4)
        return PIXELS[part], np.array(CLASSES_OF_ARGUMENTS[part])


def batches():
    return (PyDataset()[i] for i in range(3))


def tensorflow(batched):
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices((PIXELS, np.array(CLASSES_OF_ARGUMENTS)))
    return data.batch(4) if batched else data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("photos")
    for i, pixels in enumerate(PIXELS):
        name = place / NAMES[CLASSES_OF_ARGUMENTS[i]] / f"{i:02}.jpg"
        name.parent.mkdir(exist_ok=True)
        exif = Image.Exif()
        exif[0x010F] = "Canon" if i % 2 else "Nikon"
        Image.fromarray(pixels).save(name, exif=exif)
    return place


#: What kind of data it is, and whether it has labels, and may have worker processes.
FILES, SAMPLES, ITERATED, BATCHES = "files", "samples", "iterated samples", "batches"
KINDS = {
    "a folder": (FILES, lambda folder: folder),
    "a folder's name": (FILES, str),
    "a pattern": (FILES, lambda folder: folder / "*" / "*.jpg"),
    "pictures": (
        SAMPLES,
        lambda _: [(Image.fromarray(each), y) for each, y in zip(PIXELS, CLASSES_OF_ARGUMENTS, strict=True)],
    ),
    "arrays": (SAMPLES, lambda _: list(zip(PIXELS, CLASSES_OF_ARGUMENTS, strict=True))),
    "a pair of arrays": (SAMPLES, lambda _: (PIXELS, np.array(CLASSES_OF_ARGUMENTS))),
    "torch's Dataset": (SAMPLES, lambda _: Photos()),
    "torch's Subset": (SAMPLES, lambda _: Subset(Photos(), range(N))),
    "Hugging Face's": (SAMPLES, lambda _: HuggingFace()),
    "a generator of samples": (ITERATED, lambda _: (HuggingFace()[i] for i in range(N))),
    "torch's IterableDataset": (ITERATED, lambda _: Streamed()),
    "a DataLoader without batches": (ITERATED, lambda _: DataLoader(Photos(), batch_size=None)),
    "webdataset's": (
        ITERATED,
        lambda _: ({"jpg": HuggingFace()[i]["image"], "cls": CLASSES_OF_ARGUMENTS[i]} for i in range(N)),
    ),
    "tf.data of samples": (ITERATED, lambda _: tensorflow(batched=False)),
    "torch's DataLoader": (BATCHES, lambda _: DataLoader(Photos(), batch_size=4)),
    "a generator of batches": (BATCHES, lambda _: batches()),
    "a list of batches": (BATCHES, lambda _: list(batches())),
    "Keras's PyDataset": (BATCHES, lambda _: PyDataset()),
    "tf.data of batches": (BATCHES, lambda _: tensorflow(batched=True)),
}


def baseline(kind, data):
    """One that data of this kind can be like, measured by another convention."""
    if kind == BATCHES:
        return Baseline(profile_dataset(data, convention="lensai-edge"))
    return Baseline(profile_dataset(list(PIXELS), convention="lensai-edge", measures=[reddest]))


def images(profile):
    (name,) = {"raw", "inputs", "inputs/lensai-edge"} & set(profile.groups)
    return profile.groups[name]


def counts(profile):
    return dict(profile.groups["labels"].categories[""].top(9)) if "labels" in profile.groups else None


#: Arguments, of which kinds they are refused, and what is to be seen of them elsewhere.
ARGUMENTS = {
    "target": ({"target": None}, (), lambda p, _: counts(p) is None),
    "metadata": (
        {"metadata": {"how": brightness_of}},
        (BATCHES,),
        lambda p, _: p.groups["metadata/how"].categories[""].top(1) == [("sampled", N)],
    ),
    "exif": (
        {"exif": ["make"]},
        (BATCHES,),
        lambda p, kind: kind != FILES or dict(p.groups["metadata/make"].categories[""].top(2))
        == {"Canon": 6, "Nikon": 6},
    ),
    "measures": ({"measures": [reddest]}, (), lambda p, _: images(p).apart["reddest"].n == N),
    "convention": (
        {"convention": "lensai-edge"}, (), lambda p, _: images(p).info["convention"] == "lensai-edge"
    ),
    "k": ({"k": 64}, (), lambda p, _: images(p).bank.k == 64),
    "rows": ({"rows": 5}, (), lambda p, _: {len(rows) for rows in p.rows.data.values()} == {5}),
    "no rows": ({"rows": 0}, (), lambda p, _: p.rows is None),
    "seed": ({"seed": 7}, (), lambda p, _: images(p).n == N),
    "segment_by": (
        {"segment_by": "label"}, (), lambda p, _: sorted(each.n for each in p.segments.values()) == [4, 4, 4]
    ),
    "max_segments": (
        {"segment_by": "label", "max_segments": 1}, (),
        lambda p, _: len(p.segments) == 2 and p.segments["other"].n == 8,
    ),
    "like": (
        {"like": ...}, (),
        lambda p, kind: (images(p).info["convention"], len(images(p).apart)) == ("lensai-edge", int(kind != BATCHES)),
    ),
    "num_workers": ({"num_workers": 1}, (ITERATED, BATCHES), lambda p, _: images(p).n == N),
    "limit": ({"limit": 2}, (), lambda p, kind: images(p).n == (8 if kind == BATCHES else 2)),
    "source": ({"source": "monday", "segment_by": "label"}, (), lambda p, _: {p.source} | {
        each.info["source"] for each in p.segments.values()} == {"monday"}),
    "inputs": ({"inputs": ImageInputs(scale=0.5)}, (FILES, "pictures"), lambda p, _: images(p).bank.max[0] < 160),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize("name", KINDS)
def test_every_argument_works_or_is_refused(name, argument, folder):
    kind, make = KINDS[name]
    given, refused, seen = ARGUMENTS[argument]
    if "like" in given:
        given = {"like": baseline(kind, make(folder))}
    pictures = name in ("pictures", "Hugging Face's", "a generator of samples", "webdataset's")
    if kind in refused or ("pictures" in refused and pictures):
        with pytest.raises(InputError, match=f"^{next(iter(given))}="):
            profile_dataset(make(folder), **given)
        return
    profile = profile_dataset(make(folder), **given)
    assert seen(profile, kind), profile
    by_device = images(profile).info["convention"] == "lensai-edge"
    assert images(profile).name == ("raw" if kind != BATCHES else "inputs/lensai-edge" if by_device else "inputs")
    if argument not in ("target", "limit"):
        assert images(profile).n == N
        assert sorted(counts(profile).values()) == [4, 4, 4]
    assert profile.warnings == []


def test_the_seed_decides_what_is_random(folder):
    kept = [profile_dataset(folder, rows=5, seed=seed).rows.data["raw"].tolist() for seed in (1, 1, 2)]
    assert kept[0] == kept[1] != kept[2]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"inputs": "RGB"}, "inputs='RGB'"),
        ({"inputs": {"left": ImageInputs()}}, "samples are profiled by one image each"),
        ({"measures": [brightness_of]}, "measures has"),
        ({"metadata": {"mode": brightness_of}}, "metadata names"),
        ({"metadata": brightness_of}, "metadata="),
        ({"exif": ["gps"]}, "exif="),
        ({"convention": "mine"}, "convention="),
        ({"convention": ("lensai", "lensai-edge")}, "convention="),
        ({"k": 1}, "k=1"),
        ({"rows": -1}, "rows=-1"),
        ({"rows": True}, "rows=True"),
        ({"seed": 0.5}, "seed=0.5"),
        ({"segment_by": "site"}, "segment_by='site'"),
        ({"max_segments": 0, "segment_by": "label"}, "max_segments=0"),
        ({"max_segments": 3}, "max_segments=3 is of segments"),
        ({"like": 3}, "like=3"),
        ({"like": Profile()}, "like= has"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"limit": 0}, "limit=0"),
        ({"source": ""}, "source=''"),
    ],
)
def test_what_no_argument_may_be(given, message, folder):
    for data in (folder, list(PIXELS)):
        if data is folder and message.startswith("samples"):
            message = "inputs="
        with pytest.raises(InputError, match=f"^{message}"):
            profile_dataset(data, **given)
        message = "samples are profiled" if isinstance(given.get("inputs"), dict) else message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"image": PIXELS}, "data is a dict"),
        (PIXELS[0], "data is a single image"),
        (Image.fromarray(PIXELS[0]), "data is a single image"),
        (["a.jpg", "b.jpg"], "data is a list of texts"),
        (3, "data is a int"),
        ([], "data has nothing in it"),
    ],
)
def test_what_is_no_data(data, message):
    with pytest.raises(InputError, match=message):
        profile_dataset(data)


def test_like_may_not_be_of_other_images(folder):
    profiler = Profiler()
    profiler.update(inputs=PIXELS)
    with pytest.raises(InputError, match=r"^like= has inputs, and no images as they were delivered"):
        profile_dataset(folder, like=profiler.profile())
    files = profile_dataset(folder)
    with pytest.raises(InputError, match=r"^convention='lensai-edge', but the images of the profile to be like"):
        profile_dataset(folder, like=files, convention="lensai-edge")
    like = profile_dataset(batches(), like=files)  # batches are read as delivered then
    assert like.groups["raw"].n == N
    assert set(like.groups) == {"raw", "labels"}


def test_functions_that_other_processes_cannot_import_are_refused(folder):
    with pytest.raises(InputError, match=r"^measures= or metadata= has a function .* num_workers=0"):
        profile_dataset(folder, metadata={"how": lambda image: 1}, num_workers=1)
