"""`Sketches`: what goes in, what is written, what is read back."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from datasketches import kll_floats_sketch
from libraries import LIBRARIES, maker

from lensai_integrations import Metrics, Sketches, get_histogram_sketch
from lensai_integrations.errors import FormatError, InputError


def filled(**values: np.ndarray) -> Sketches:
    sketches = Sketches()
    for name, each in values.items():
        sketches.register_metric(name, num_channels=1 if each.ndim == 1 else each.shape[-1])
    sketches.update_sketches(**values)
    return sketches


def files(folder: Path) -> dict[str, kll_floats_sketch]:
    found = sorted(folder.rglob("*.*"))
    return {path.relative_to(folder).as_posix(): kll_floats_sketch.deserialize(path.read_bytes()) for path in found}


@pytest.mark.parametrize("framework", ["tf", "pt"])
def test_every_pixel_of_every_image_is_in_the_sketches(tmp_path: Path, framework: str) -> None:
    images = np.random.default_rng(3).integers(0, 256, (5, 12, 10, 3), np.uint8)
    sketches = Sketches()
    for name, channels in {"brightness": 1, "sharpness": 1, "noise": 1, "mean": 3, "pixel": 3}.items():
        sketches.register_metric(name, num_channels=channels)
    batch = images if framework == "tf" else images.transpose(0, 3, 1, 2)
    brightness, sharpness, mean, noise, pixel = Metrics(framework).process_batch(batch)
    sketches.update_sketches(brightness=brightness, sharpness=sharpness, mean=mean, noise=noise, pixel=pixel)
    sketches.save_sketches(tmp_path)
    found = files(tmp_path)
    single = ["imgstats/brightness.bin", "imgstats/noise.bin", "imgstats/sharpness.bin"]
    numbered = [f"imgstats/{name}_{channel}.bin" for name in ("mean", "pixel") for channel in range(3)]
    assert sorted(found) == sorted(single + numbered)
    for channel in range(3):
        of_one = images[..., 2 - channel].reshape(-1)  # blue first
        sketch = found[f"imgstats/pixel_{channel}.bin"]
        assert (sketch.n, sketch.get_min_value(), sketch.get_max_value()) == (of_one.size, of_one.min(), of_one.max())
        assert abs(sketch.get_quantile(0.5) - np.median(of_one)) <= 4
        assert found[f"imgstats/mean_{channel}.bin"].n == 5
    assert found["imgstats/noise.bin"].k == 200


def test_folders_and_names_of_other_metrics(tmp_path: Path) -> None:
    values = np.arange(6.0)
    filled(embeddings=values, my_own_metric=values, layer=np.ones((4, 2))).save_sketches(tmp_path)
    named = ["customstats/layer_0.bin", "customstats/layer_1.bin", "customstats/my_own_metric.bin"]
    assert sorted(files(tmp_path)) == [*named, "modelstats/embeddings.bin"]


def test_what_was_saved_is_loaded_whatever_its_name(tmp_path: Path) -> None:
    values = np.random.default_rng(5).normal(size=(5000, 2))
    saved = filled(my_own_metric=values[:, 0], mean=values, score_7=values[:, 1])
    saved.save_sketches(tmp_path)
    loaded = Sketches()
    loaded.load_sketches(str(tmp_path))
    assert loaded.metrics == {"my_own_metric": 1, "mean": 2, "score_7": 1}
    saved.save_sketches(tmp_path / "again")
    loaded.save_sketches(tmp_path / "loaded")
    for path in sorted((tmp_path / "again").rglob("*.bin")):
        assert (tmp_path / "loaded" / path.relative_to(tmp_path / "again")).read_bytes() == path.read_bytes()
    loaded.update_sketches(mean=values)
    assert [each.n for each in loaded.sketch_registry["mean"]] == [10_000, 10_000]


def test_a_registered_name_is_not_taken_for_a_channel(tmp_path: Path) -> None:
    filled(layer_0=np.ones(3), layer_1=np.ones(4)).save_sketches(tmp_path)
    loaded = Sketches()
    loaded.register_metric("layer_0")
    loaded.register_metric("layer_1")
    loaded.load_sketches(tmp_path)
    assert {name: sketch.n for name, sketch in loaded.sketch_registry.items()} == {"layer_0": 3, "layer_1": 4}


def test_what_the_old_profiler_left_beside_it_is_passed_over(tmp_path: Path) -> None:
    filled(mean=np.ones((3, 2))).save_sketches(tmp_path)
    (tmp_path / "customstats").mkdir()
    (tmp_path / "customstats/mean_0.bin").write_bytes(kll_floats_sketch().serialize())
    (tmp_path / "imgstats/._mean_0.bin").write_bytes(b"junk of macOS")
    loaded = Sketches()
    loaded.load_sketches(tmp_path)
    assert [each.n for each in loaded.sketch_registry["mean"]] == [3, 3]


def test_real_files_of_devices_are_loaded(data_dir: Path) -> None:
    folders = [path for path in (data_dir / "lensai_edge").rglob("im*g*stats") if path.is_dir()]
    assert folders
    loaded = Sketches()
    loaded.load_sketches(folders[0].parent)
    assert loaded.metrics["brightness"] == 1
    lower, upper = loaded.compute_thresholds()["brightness"]
    assert 0 <= lower < upper <= 255


def test_thresholds_of_a_skewed_metric_come_from_the_sketch() -> None:
    values = np.random.default_rng(0).lognormal(0.0, 1.0, 20_000)
    lower, upper = filled(size=values).compute_thresholds(lower_percentile=0.1, upper_percentile=0.99)["size"]
    assert (values <= lower).mean() == pytest.approx(0.1, abs=0.0133)
    assert (values <= upper).mean() == pytest.approx(0.99, abs=0.0133)
    assert lower == pytest.approx(0.28, abs=0.04)


def test_thresholds_of_several_channels() -> None:
    assert filled(mean=np.array([[1.0, 5.0], [2.0, 6.0]])).compute_thresholds(0, 1) == {
        "mean": {0: (1.0, 2.0), 1: (5.0, 6.0)}
    }


@pytest.mark.parametrize("library", LIBRARIES)
def test_any_librarys_values(library: str) -> None:
    make, sketches = maker(library), Sketches()
    sketches.register_metric("embeddings")
    sketches.register_metric("mean", num_channels=2)
    sketches.update_sketches(embeddings=make(np.arange(6, dtype=np.float32).reshape(2, 3)))
    sketches.update_sketches(mean=make(np.array([[1, 2], [3, 4]], np.float32)), embeddings=make(np.float32([9])))
    registry = sketches.sketch_registry
    assert (registry["embeddings"].n, registry["embeddings"].get_max_value()) == (7, 9.0)
    assert [each.get_min_value() for each in registry["mean"]] == [1.0, 2.0]


def test_values_with_a_gradient_and_of_half_precision() -> None:
    torch = pytest.importorskip("torch")
    sketches = Sketches()
    sketches.register_metric("embeddings")
    sketches.update_sketches(embeddings=torch.ones(2, 3, requires_grad=True))
    sketches.update_sketches(embeddings=torch.ones(2, 3, dtype=torch.bfloat16))
    assert sketches.sketch_registry["embeddings"].n == 12


def test_bytes_and_floats_of_one_metric_are_one_sketch() -> None:
    sketches = filled(size=np.arange(10, dtype=np.uint8))
    sketches.update_sketches(size=np.array([0.5, 300.0]))
    sketch = sketches.sketch_registry["size"]
    assert (sketch.n, sketch.get_max_value()) == (12, 300.0)


def test_values_that_are_not_finite_are_counted_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sketches = filled(noise=np.array([1.0, np.nan, np.inf]), brightness=np.ones(3))
    assert sketches.invalid == {"noise": 2}
    with caplog.at_level(logging.WARNING):
        sketches.save_sketches(tmp_path)
    assert caplog.messages == ["2 values of 'noise' were not finite and are in no sketch"]


def test_an_unknown_metric_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    sketches = filled(noise=np.ones(3))
    for _ in range(3):
        sketches.update_sketches(noise=np.ones(3), blur=np.ones(3))
    assert [message.split(",")[0] for message in caplog.messages] == ["no sketch is registered for 'blur'"]
    assert sketches.sketch_registry["noise"].n == 12


def test_all_or_nothing_is_taken_in() -> None:
    sketches = filled(noise=np.ones(3), mean=np.ones((3, 2)))
    for wrong in (np.ones(2), np.ones((3, 4)), np.array(1.0)):
        with pytest.raises(InputError, match=r"mean has 2 channels, so its values should be \[..., 2\]"):
            sketches.update_sketches(noise=np.ones(3), mean=wrong)
    with pytest.raises(InputError, match="array of numbers"):
        sketches.update_sketches(noise=np.ones(3), mean=np.array([["a", "b"]]))
    assert sketches.sketch_registry["noise"].n == 3


@pytest.mark.parametrize("name", ["../up", "", ".hidden", "a/b", "a\\b", "new\nline", 3])
def test_names_that_are_no_file_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="metric_name="):
        Sketches().register_metric(name)


def test_two_metrics_do_not_share_a_file() -> None:
    sketches = filled(layer=np.ones((2, 2)))
    with pytest.raises(InputError, match="the same file as 'layer'"):
        sketches.register_metric("layer_1")
    with pytest.raises(InputError, match="num_channels=0"):
        sketches.register_metric("other", num_channels=0)
    sketches.register_metric("layer", num_channels=2)
    with pytest.raises(InputError, match="the sketch of 'layer' is empty"):
        sketches.compute_thresholds()


def test_damaged_files_replace_nothing(tmp_path: Path) -> None:
    sketches = filled(brightness=np.ones(3), noise=np.ones(3))
    sketches.save_sketches(tmp_path)
    path = tmp_path / "imgstats/noise.bin"
    for content in (b"", path.read_bytes()[:-1], bytes(100)):
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"noise\.bin: not a readable KLL sketch"):
            sketches.load_sketches(tmp_path)
    with path.open("wb") as file:
        file.truncate(1 << 25)
    with pytest.raises(FormatError, match="more than the"):
        sketches.load_sketches(tmp_path)
    assert sketches.sketch_registry["brightness"].n == 3
    with pytest.raises(InputError, match="has no sketches"):
        sketches.load_sketches(tmp_path / "imgstats")


def test_a_devices_infinite_noise_is_no_noise(tmp_path: Path) -> None:
    device = kll_floats_sketch(200)
    for value in (8.0, 9.0, 10.0, float("inf")):
        device.update(value)
    (tmp_path / "imgstats").mkdir()
    (tmp_path / "imgstats" / "noise.bin").write_bytes(device.serialize())
    sketches = Sketches()
    sketches.load_sketches(tmp_path)
    assert sketches.compute_thresholds(0.0, 1.0)["noise"] == (8.0, 200.0)
    bins, shares = get_histogram_sketch(sketches.sketch_registry["noise"], 4)
    assert np.isfinite(bins).all()
    assert np.sum(shares) == pytest.approx(1)
