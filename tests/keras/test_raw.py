"""Images as the data delivered them, beside what a Keras model was fed."""

from __future__ import annotations

import numpy as np
import pytest

from lensai_integrations.errors import InputError
from lensai_integrations.keras import BaselineCallback, profile_images


def pictures(n):
    """n images of several sizes, and labels."""
    rng = np.random.default_rng(0)
    for i in range(n):
        yield rng.integers(0, 256, (20 + i % 5, 24, 3), dtype=np.uint8), i % 4


def pipeline(tf, n, **arguments):
    shapes = (tf.TensorSpec((None, None, 3), tf.uint8), tf.TensorSpec((), tf.int64))
    data = tf.data.Dataset.from_generator(lambda: pictures(n), output_signature=shapes)
    delivered = profile_images(data.apply(tf.data.experimental.assert_cardinality(n)), **arguments)
    resized = delivered.map(lambda image, label: (tf.image.resize(image, (16, 16)) / 255, label))
    return delivered, resized.batch(8).prefetch(2)


@pytest.mark.backend("tensorflow", "jax")
def test_what_a_tf_data_pipeline_delivered_joins_the_baseline(model):
    tf = pytest.importorskip("tensorflow")
    _, training = pipeline(tf, 40)
    _, validation = pipeline(tf, 20, metadata={"label": lambda element: float(element[1])})
    callback = BaselineCallback()
    model().fit(training, validation_data=validation, epochs=2, shuffle=False, callbacks=[callback], verbose=0)
    baseline = callback.baseline_

    assert baseline.warnings == []
    for profile, n in ((baseline.reference, 20), (baseline.training, 40)):
        assert (profile.groups["raw"].n, profile.groups["inputs"].n, profile.n) == (n, n, n)
    table = baseline.reference.to_pandas().set_index("stream")
    assert table.loc[["raw/height", "inputs/height"], "max"].tolist() == [24, 16]
    assert table.loc["metadata/label/value", "max"] == 3


def test_what_passes_is_the_same_and_is_counted_without_a_callback():
    tf = pytest.importorskip("tensorflow")
    delivered, batches = pipeline(tf, 10)
    assert (int(delivered.cardinality()), int(batches.cardinality())) == (10, 2)
    for (image, label), (expected, number) in zip(delivered, pictures(10), strict=True):
        np.testing.assert_array_equal(image, expected)
        assert label == number
    assert delivered.collector.profile().groups["raw"].n == 10
    with pytest.raises(InputError, match=r"should be a tf.data.Dataset, not list"):
        profile_images([])


def test_the_former_name_says_the_new_one():
    from lensai_integrations.keras import profile_dataset

    with (
        pytest.warns(DeprecationWarning, match=r"is called keras\.profile_images now"),
        pytest.raises(InputError, match=r"should be a tf.data.Dataset, not list"),
    ):
        profile_dataset([], name="raw")


def test_segments_of_what_passes():
    pytest.importorskip("tensorflow")
    import tensorflow as tf

    delivered, _ = pipeline(tf, 10, metadata={"shape": lambda element: len(element[0])}, segment_by="shape")
    for _ in delivered:
        pass
    profile = delivered.collector.profile()
    assert {name: segment.groups["raw"].n for name, segment in profile.segments.items()} == {
        str(size): 2 for size in range(20, 25)
    }


@pytest.mark.backend("torch")
def test_a_torch_loader_with_profile_images(model):
    torch = pytest.importorskip("torch")
    from torchvision.transforms import v2

    from lensai_integrations.transforms import ProfileImages

    class Pictures(torch.utils.data.Dataset):
        def __init__(self, n):
            self.data = list(pictures(n))
            to_float = v2.ToDtype(torch.float32, scale=True)
            self.transform = v2.Compose([v2.ToImage(), ProfileImages(), v2.Resize((16, 16)), to_float])

        def __len__(self):
            return len(self.data)

        def __getitem__(self, i):
            image, label = self.data[i]
            return self.transform(image).permute(1, 2, 0), label

    callback = BaselineCallback()
    loaders = [torch.utils.data.DataLoader(Pictures(n), batch_size=8) for n in (40, 20)]
    model().fit(loaders[0], validation_data=loaders[1], epochs=2, shuffle=False, callbacks=[callback], verbose=0)
    assert callback.baseline_.warnings == []
    assert callback.baseline_.training.groups["raw"].n == 40
    assert callback.baseline_.reference.groups["raw"].n == 20


class Batches:
    """What a torch loader of a Keras model is made of: the pipeline lies under a name of the user's."""

    def __init__(self, profiled, n):
        self.n, self.steps = n, {"first": [profiled]}

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        import torch

        image = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(i))
        (profiled,) = self.steps["first"]
        return profiled(image).permute(1, 2, 0).float() / 255, i % 4


@pytest.mark.parametrize("found", [True, False])
def test_profile_images_in_a_torch_loader(model, found):
    torch = pytest.importorskip("torch")
    from lensai_integrations.transforms import ProfileImages

    training, validation, callback = ProfileImages(), ProfileImages(), BaselineCallback()
    sets = [Batches(training, 24), Batches(validation, 16)]
    if not found:
        here = {24: training, 16: validation}
        for each in sets:
            each.steps = {"first": [Looked(each.n)]}
        LOOKED.update(here)
    loaders = [torch.utils.data.DataLoader(each, batch_size=8) for each in sets]
    model().fit(loaders[0], validation_data=loaders[1], epochs=1, shuffle=False, callbacks=[callback], verbose=0)
    baseline = callback.baseline_
    said = [warning for warning in baseline.warnings if "found in none of its data sets" in warning]
    if found:
        assert baseline.training.groups["raw"].n == 24
        assert baseline.reference.groups["raw"].n in (16, 32)  # Keras looks into the loader beforehand, or does not
    assert len(said) == (not found)
    if said:
        assert "ProfileImages('raw') has seen " in said[0]


LOOKED = {}


class Looked:
    """Finds its transform at run time."""

    def __init__(self, n):
        self.n = n

    def __call__(self, image):
        return globals()["LOOKED"][self.n](image)
