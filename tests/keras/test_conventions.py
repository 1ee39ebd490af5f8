"""One fit by both conventions: each baseline is what it would be alone, on every backend."""

from __future__ import annotations

import json

import numpy as np

from lensai_integrations import Profiler, compare, edge
from lensai_integrations.keras import BaselineCallback

BOTH, EDGE = ("lensai", "lensai-edge"), "inputs/lensai-edge"


def test_one_fit_gives_both_baselines(model, images, tmp_path):
    pictures, labels = images(70)
    held_out = images(40, 3)
    made = {}
    for convention in (BOTH, *BOTH):
        callback = BaselineCallback(convention=convention, directory=tmp_path / "-".join(convention), clean_windows=100)
        model().fit(
            pictures, labels, validation_data=held_out, batch_size=16, epochs=1, verbose=0, callbacks=[callback]
        )
        made[convention] = callback.baseline_
    for name, alone in zip(("inputs", EDGE), BOTH, strict=True):
        one, other = made[BOTH].reference.groups[name], made[alone].reference.groups[name]
        assert (one.streams, one.definitions) == (other.streams, other.definitions)
        np.testing.assert_array_equal(one.pixels.counts, other.pixels.counts)
        np.testing.assert_array_equal(one.bank.min, other.bank.min)
        np.testing.assert_array_equal(one.bank.quantiles([0.1, 0.5, 0.9]), other.bank.quantiles([0.1, 0.5, 0.9]))
        assert made[BOTH].training.groups[name].n == 70
    camera = Profiler(convention="lensai-edge")
    camera.update(inputs=(held_out[0] * 255 * 0.5).astype(np.uint8))
    edge.write_stats(camera.profile(), tmp_path / "device")
    report = compare(made[BOTH], edge.read_stats(tmp_path / "device"))
    assert [group.name for group in report.groups] == [EDGE]
    assert report.drift


def test_training_is_the_same(model, images, alike):
    alike(model, BaselineCallback(convention=BOTH, clean_windows=0), *images(40), epochs=2)


def test_both_go_through_json():
    config = BaselineCallback(convention=BOTH).get_config()
    again = BaselineCallback.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    assert config["convention"] == list(BOTH)
