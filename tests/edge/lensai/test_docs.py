"""The page for people who move here: its snippets run, on LensAI's own way through files, loaders and a fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasketches import kll_floats_sketch
from libraries import maker
from snippets import run_section

from lensai_integrations import Metrics, Sketches

PAGE = "moving-from-lensai-profiler.md"
IMAGES = [f"imgstats/{name}.bin" for name in ("brightness", "noise", "sharpness")]
IMAGES += [f"imgstats/{name}_{channel}.bin" for name in ("mean", "pixel") for channel in range(3)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of three images of 8 x 8 pixels, as files."""
    Image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(6):
        path = folder / ("cats", "dogs")[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    return folder


def pixels(photos: Path) -> np.ndarray:
    Image = pytest.importorskip("PIL.Image")
    return np.stack([np.asarray(Image.open(path)) for path in photos.rglob("*.png")])


def check(folder: Path, photos: Path) -> None:
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.bin")}
    assert set(IMAGES) <= set(found)
    blue = kll_floats_sketch.deserialize(found["imgstats/pixel_0.bin"])
    exact = pixels(photos)[..., 2]
    assert (blue.n, blue.get_min_value(), blue.get_max_value()) == (exact.size, exact.min(), exact.max())
    assert kll_floats_sketch.deserialize(found["imgstats/brightness.bin"]).n == 6


def run(heading: str, **given: Any) -> dict[str, Any]:
    run_section(PAGE, heading, given)
    return given


def datasets(photos: Path) -> Any:
    maker("tensorflow")
    import keras

    return keras.utils.image_dataset_from_directory(photos, batch_size=4, image_size=(8, 8), verbose=False)


@pytest.mark.slow
def test_tensorflow(photos: Path, tmp_path: Path, server) -> None:
    train = datasets(photos)
    import tensorflow as tf

    run("TensorFlow", tf=tf, train_dataset=train, save_path=str(tmp_path), lensai_server_endpoint=server.url)
    check(tmp_path, photos)
    assert len(server.uploads) == 1


def test_pytorch_and_thresholds(photos: Path, tmp_path: Path, server) -> None:
    torch = pytest.importorskip("torch")
    transforms = pytest.importorskip("torchvision.transforms")
    datasets = pytest.importorskip("torchvision.datasets")
    data = datasets.ImageFolder(photos, transforms.Compose([transforms.Resize((8, 8)), transforms.ToTensor()]))
    loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
    given = {"save_path": str(tmp_path), "lensai_server_endpoint": server.url}
    run("PyTorch", torch=torch, train_loader=loader, **given)
    check(tmp_path, photos)
    assert len(server.uploads) == 1
    found = run("Thresholds", **given)
    assert set(found["thresholds"]["pixel"]) == {0, 1, 2}
    lower, upper = found["thresholds"]["brightness"]
    assert (found["lower"], found["upper"]) == pytest.approx((lower, upper), abs=(found["x"][-1] - found["x"][0]) / 30)


def test_a_callback_at_the_end_of_a_fit(photos: Path, tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "tensorflow":
        pytest.skip(f"Keras is on {keras.backend.backend()} in this process")
    train = datasets(photos)
    import tensorflow as tf

    sketches = Sketches()
    for name, channels in {"brightness": 1, "sharpness": 1, "noise": 1, "mean": 3, "pixel": 3, "embeddings": 1}.items():
        sketches.register_metric(name, num_channels=channels)
    kind = run("Embeddings", tf=tf)["EmbeddingCallback"]
    pictures = keras.Input((8, 8, 3))
    embedding = keras.layers.Dense(5, name="embedding")(keras.layers.Flatten()(pictures))
    model = keras.Model(pictures, keras.layers.Dense(1)(embedding))
    model.compile(loss="mse", jit_compile=False)
    callback = kind(train, Metrics(framework="tf"), sketches, "embedding", str(tmp_path))
    model.fit(train, epochs=1, shuffle=False, verbose=0, callbacks=[callback])
    check(tmp_path, photos)
    embeddings = kll_floats_sketch.deserialize((tmp_path / "modelstats/embeddings.bin").read_bytes())
    assert embeddings.n == 6 * 5


def test_normalised_images() -> None:
    assert run("What the numbers are")["metrics"].framework == "pt"
