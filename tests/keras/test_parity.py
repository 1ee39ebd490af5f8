"""What Lightning users get, Keras users get: the same images and weights through both callbacks.

The README states this as a table; each row of it names a test here.
"""

from __future__ import annotations

import csv
import json
import logging
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from lensai_integrations import ImageInputs, Profiler, compare
from lensai_integrations.keras import BaselineCallback as KerasCallback
from lensai_integrations.lightning import BaselineCallback as LightningCallback

CLASSES, SIDE, BATCH = 4, 16, 16
RANKS = np.linspace(0, 1, 21)

#: Lightning's own use of what torch has deprecated since, and its advice on tiny runs.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated"),
    pytest.mark.filterwarnings(r"ignore:The '\w+' does not have many workers"),
    pytest.mark.filterwarnings(r"ignore:The number of training batches"),
]


class Lit(pl.LightningModule):
    """The twin of `keras_model`, channels first; its learning rate is 0, so that both keep their weights."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, stride=2)
        self.embedding = torch.nn.Linear(8, 6)
        self.fc = torch.nn.Linear(6, CLASSES)

    def forward(self, images):
        return self.fc(self.embedding(torch.relu(self.conv(images)).mean(dim=(2, 3))))

    def training_step(self, batch, _):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def keras_model():
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            layers.Conv2D(8, 3, strides=2, activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(6, name="embedding"),
            layers.Dense(CLASSES, name="fc"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss=loss)
    return model


def twin_of(model):
    """The Lightning module with a Keras model's weights."""
    lit = Lit()
    with torch.no_grad():
        for name in ("conv", "embedding", "fc"):
            kernel, bias = (torch.tensor(values) for values in model.get_layer(name).get_weights())
            getattr(lit, name).weight.copy_(kernel.permute(3, 2, 0, 1) if name == "conv" else kernel.T)
            getattr(lit, name).bias.copy_(bias)
    return lit


def loader(images, labels):
    pictures = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    data = torch.utils.data.TensorDataset(pictures, torch.from_numpy(labels))
    return torch.utils.data.DataLoader(data, batch_size=BATCH)


class Both:
    """Two fits on the same pictures, and what came of them."""

    def __init__(self, train, held_out, folder):
        model = self.keras_model = keras_model()
        lit = self.lit = twin_of(model)
        self.held_out = held_out[0]
        options = {"layers": ["embedding"], "training": "all"}
        self.keras = KerasCallback(**options, directory=folder / "keras")
        self.lightning = LightningCallback(**options, directory=folder / "lightning")
        model.fit(
            *train,
            validation_data=held_out,
            batch_size=BATCH,
            epochs=2,
            shuffle=False,
            callbacks=[self.keras],
            verbose=0,
        )
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=2,
            callbacks=[self.lightning],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            default_root_dir=folder,
        )
        trainer.fit(lit, loader(*train), loader(*held_out))

    @property
    def profiles(self):
        """Pairs of profiles from Lightning and Keras: reference and training."""
        lightning, ours = self.lightning.baseline_, self.keras.baseline_
        return [(lightning.reference, ours.reference), (lightning.training, ours.training)]

    def groups(self, prefix):
        """Pairs of groups whose names begin so, of both profiles."""
        return [
            (lightning.groups[name], ours.groups[name])
            for lightning, ours in self.profiles
            for name in lightning.groups
            if name.startswith(prefix)
        ]

    def keras_window(self, baseline, darker=1.0):
        """What a Keras model in production would profile."""
        images = self.held_out * np.float32(darker)
        model = self.keras_model
        deployed = keras.Model(model.inputs[0], [model.get_layer("embedding").output, model.outputs[0]])
        profiler = Profiler(like=baseline, inputs=ImageInputs(layout="NHWC"))
        for part in np.split(images, range(BATCH, len(images), BATCH)):
            embedding, logits = deployed(part)
            profiler.update(inputs=part, outputs=logits, embeddings={"embedding": embedding})
        return profiler.profile()

    def torch_window(self, baseline):
        """What a torch model in production would profile."""
        profiler = Profiler(like=baseline, inputs=ImageInputs(layout="NCHW"))
        for images, _ in loader(self.held_out, np.zeros(len(self.held_out))):
            with torch.inference_mode():
                maps = torch.relu(self.lit.conv(images)).mean(dim=(2, 3))
                embedding = self.lit.embedding(maps)
                profiler.update(inputs=images, outputs=self.lit.fc(embedding), embeddings={"embedding": embedding})
        return profiler.profile()

    @property
    def folders(self):
        return self.lightning.directory_, self.keras.directory_


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    rng = np.random.default_rng(0)
    n, m = 70, 50  # neither is a multiple of the batch
    images = (rng.integers(0, 256, (n + m, SIDE, SIDE, 3)) // rng.integers(1, 4, (n + m, 1, 1, 3))).astype(np.float32)
    images /= 255
    labels = rng.integers(0, CLASSES, n + m)
    return Both((images[:n], labels[:n]), (images[n:], labels[n:]), tmp_path_factory.mktemp("parity"))


def assert_same_streams(pairs):
    assert len(pairs) == 2
    for lightning, ours in pairs:
        assert ours.streams == lightning.streams
        assert ours.definitions == lightning.definitions
        assert (ours.n, ours.invalid) == (lightning.n, lightning.invalid)
        np.testing.assert_allclose(ours.bank.quantiles(RANKS), lightning.bank.quantiles(RANKS), rtol=1e-4, atol=1e-4)


def test_every_image_measure_has_the_same_definition_and_quantiles(both):
    assert_same_streams(both.groups("inputs"))
    assert len(both.lightning.baseline_.reference.groups["inputs"].streams) > 10


def test_pixels_are_counted_the_same_to_the_last(both):
    for lightning, ours in both.groups("inputs"):
        np.testing.assert_array_equal(ours.pixels.counts, lightning.pixels.counts)


def test_outputs_have_the_same_definitions_and_quantiles(both):
    assert_same_streams(both.groups("outputs"))
    for lightning, ours in both.groups("outputs"):
        told = [{key: value for key, value in group.info.items() if key != "found"} for group in (ours, lightning)]
        assert told[0] == told[1]  # but for the words in which it is said how they were found
        assert tops(ours) == tops(lightning)


def test_embeddings_have_the_same_definitions_quantiles_and_moments(both):
    assert_same_streams(both.groups("embeddings"))
    for lightning, ours in both.groups("embeddings"):
        assert ours.info == lightning.info
        np.testing.assert_allclose(ours.moments.mean, lightning.moments.mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(ours.moments.covariance, lightning.moments.covariance, rtol=1e-3, atol=1e-6)


def test_labels_are_counted_the_same(both):
    for lightning, ours in both.groups("labels"):
        assert tops(ours) == tops(lightning)


def tops(group):
    return {name: dict(categories.top(10)) for name, categories in group.categories.items()}


def test_groups_rows_and_epochs_are_the_same(both):
    for lightning, ours in both.profiles:
        assert list(ours.groups) == list(lightning.groups)
        assert {name: group.n for name, group in ours.groups.items()} == {
            name: group.n for name, group in lightning.groups.items()
        }
        assert (ours.source, ours.info["epoch"], ours.warnings) == (lightning.source, lightning.info["epoch"], [])
        assert list(ours.rows.data) == list(lightning.rows.data)
        for name, rows in lightning.rows.data.items():
            np.testing.assert_allclose(ours.rows.data[name], rows, rtol=1e-4, atol=1e-3)
    assert both.keras.baseline_.warnings == both.lightning.baseline_.warnings == []


def test_the_folder_has_the_same_files_and_the_manifest_the_same_definitions(both):
    lightning, ours = both.folders

    assert names(ours) == names(lightning) == ["manifest.json", "profile.npz", "report.html", "streams.csv"]
    one, other = (json.loads((folder / "manifest.json").read_text()) for folder in both.folders)
    assert one.keys() == other.keys()
    assert one["definitions"] == other["definitions"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_table_of_streams_has_the_same_columns_and_streams(both):
    tables = [list(csv.DictReader((folder / "streams.csv").read_text().splitlines())) for folder in both.folders]

    assert [list(table[0]) for table in tables] == [list(tables[0][0])] * 2
    lightning, ours = ([(row["source"], row["stream"], row["n"]) for row in table] for table in tables)
    assert ours == lightning


def test_the_report_has_the_same_sections(both):
    lightning, ours = (headings(folder / "report.html") for folder in both.folders)

    assert ours == lightning
    assert len(ours) > 3


def headings(page):
    found = re.findall(r"<h[1-3][^>]*>(.*?)</h[1-3]>", page.read_text(), flags=re.DOTALL)
    return [re.sub(r"<[^>]+>|\s+", " ", heading).strip() for heading in found]


def test_a_window_of_either_framework_compares_with_a_baseline_of_either(both):
    for baseline in (both.lightning.baseline_, both.keras.baseline_):
        for window in (both.keras_window(baseline), both.torch_window(baseline)):
            same = compare(baseline, window)
            assert not same.drift
            assert {group.name for group in same.groups} == {"inputs", "outputs", "embeddings/embedding"}
            effects = [stream.effect for group in same.groups for stream in group.streams]
            assert max(effects) < 0.05

        assert compare(baseline, both.keras_window(baseline, darker=0.4)).drift


def test_every_row_of_the_readme_s_table_is_a_test_here():
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    rows = re.findall(r"^\|.*`(test_\w+)` *\|$", readme, flags=re.MULTILINE)

    assert len(rows) > 5
    assert set(rows) <= globals().keys()
