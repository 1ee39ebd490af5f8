"""A new measure is its function and a row of a table: one is made here, and goes all the way of a profile."""

from __future__ import annotations

import numpy as np
import pytest
from libraries import LIBRARIES, maker

from lensai_integrations import Profile, Profiler, compare
from lensai_integrations.errors import DefinitionError
from lensai_integrations.measures import images as formulas
from lensai_integrations.measures.definitions import DEFINITIONS
from lensai_integrations.measures.images import CONVENTIONS, Convention, measures_of
from lensai_integrations.report import baseline_html


def warmth(sums, xp):
    """How much redder than blue."""
    return sums.mean[:, 0] - sums.mean[:, 2]


def light(sums, xp):
    """Share of the lightest level that each channel reaches."""
    return sums.mean / 255


TABLE = (
    (warmth, "warmth", "0-255", (-255.0, 255.0), "How warm the colours are.", "mean(R) - mean(B)", "tests", "colours"),
    (light, "light", "1", (0.0, 1.0), "How light a channel is.", "mean / 255", "tests", "channel"),
)


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    measures = measures_of("toy", TABLE)
    monkeypatch.setitem(
        CONVENTIONS, "toy", Convention(measures, formulas.PIXEL, formulas.over_pixels, blue_first=False)
    )
    for measure in measures:
        monkeypatch.setitem(DEFINITIONS, measure.definition.id, measure.definition)


def profile_of(convert=np.asarray, red=0, seed=0):
    images = np.random.default_rng(seed).integers(0, 200, (200, 8, 8, 3), dtype=np.uint8)
    images[..., 0] += np.uint8(red)
    profiler = Profiler(convention="toy", seed=seed)
    profiler.update(inputs=convert(images))
    return profiler.profile(), images


@pytest.mark.parametrize("library", LIBRARIES)
def test_it_goes_all_the_way_of_a_profile(library, tmp_path):
    profile, images = profile_of(maker(library))
    read = Profile.load(profile.save(tmp_path))
    streams = {row.stream: row for row in read.summaries()}
    means = images.mean(axis=(1, 2))
    warm = means[:, 0] - means[:, 2]
    assert list(streams)[:4] == ["inputs/toy/warmth", "inputs/toy/light/0", "inputs/toy/light/1", "inputs/toy/light/2"]
    assert (streams["inputs/toy/warmth"].min, streams["inputs/toy/warmth"].max) == pytest.approx(
        (warm.min(), warm.max()), 1e-4
    )
    assert streams["inputs/toy/warmth"].definition == "toy/warmth@1"
    moved = {stream.stream for stream in compare(read, profile_of(red=50, seed=1)[0]).moved}
    assert {"inputs/toy/warmth", "inputs/toy/light/0"} <= moved
    assert not {"inputs/toy/light/1", "inputs/toy/light/2"} & moved
    assert "How warm the colours are." in baseline_html(read)


def test_grey_images_have_no_colours():
    profiler = Profiler(convention="toy")
    profiler.update(inputs=np.full((2, 8, 8, 1), 51, np.uint8))
    assert profiler.profile().groups["inputs/toy"].streams == ("light/0",)


def test_what_is_written_by_another_formula_is_refused(tmp_path, monkeypatch):
    profile_of()[0].save(tmp_path)
    changed = measures_of("toy", [(*TABLE[0][:5], "mean(R) / mean(B)", "tests", "colours")])[0].definition
    monkeypatch.setitem(DEFINITIONS, "toy/warmth@1", changed)
    with pytest.raises(DefinitionError, match="give a changed measure a new version"):
        Profile.load(tmp_path)
