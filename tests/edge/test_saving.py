"""Thresholds by how much a device saves: the share of whole rows beyond any bound."""

import configparser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lensai_integrations import Profiler, edge
from lensai_integrations.edge.config import row_bounds
from lensai_integrations.errors import InputError

MATRICES = st.tuples(st.integers(1, 40), st.integers(1, 5)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(-4, 4).map(float))
)


def share_beyond(rows, bounds):
    return (rows > bounds).any(axis=1).mean()


@given(MATRICES, st.floats(0.001, 0.999))
def test_no_more_than_the_share_is_beyond_any_bound(rows, rate):
    assert share_beyond(rows, row_bounds(rows, rate)) <= rate


@given(st.integers(0, 2**32), st.integers(1, 5), st.sampled_from([0.01, 0.05, 0.2]))
def test_the_share_is_reached_where_no_rows_are_equal(seed, width, rate):
    rows = np.random.default_rng(seed).normal(size=(400, width)) @ np.random.default_rng(seed + 1).normal(
        size=(width, width)
    )
    share = share_beyond(rows, row_bounds(rows, rate))
    # Of rows that stand out equally in different columns (at most one a column) none is taken without the others.
    assert rate - width / 400 < share <= rate


def profiled(rows=2000, outputs=False):
    rng = np.random.default_rng(0)
    light = rng.uniform(0.2, 1, (3000, 1, 1, 1))
    images = (rng.uniform(0, 255, (3000, 6, 6, 3)) * light).astype(np.uint8)
    profiler = Profiler(convention="lensai-edge", rows=rows, seed=1, task="classification")
    profiler.update(inputs=images, outputs=rng.normal(size=(3000, 4)) if outputs else None)
    return profiler.profile()


def bounds_of(path, section, names):
    parser = configparser.ConfigParser(inline_comment_prefixes=(";",))
    parser.read(path)
    return {name: tuple(map(float, parser[section][name].split(","))) for name in names}


@pytest.mark.parametrize("rows", [2000, 0])
@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_a_device_would_save_that_share(tmp_path, rows, rate):
    profile, judged = profiled(rows, outputs=True), profiled(3000)
    path = edge.write_config(profile, tmp_path / "config.ini", save_rate=rate)
    bounds = bounds_of(path, "image", ["BRIGHTNESS", "SHARPNESS", "NOISE"])
    names = list(judged.groups["inputs/lensai-edge"].streams)
    values = np.stack([judged.rows.data["inputs/lensai-edge"][:, names.index(name.lower())] for name in bounds], axis=1)
    lower, upper = np.array(list(bounds.values())).T
    assert (lower <= -1).all()
    share = ((values < lower) | (values > upper)).any(axis=1).mean()
    if rows:
        assert 0.6 * rate < share < 1.4 * rate
    else:
        assert 0.2 * rate < share < 1.4 * rate  # without rows: at most, up to the sketch's rank error
    scores = bounds_of(
        path, "sampling", ["MARGINCONFIDENCE", "LEASTCONFIDENCE", "RATIOCONFIDENCE", "ENTROPYCONFIDENCE"]
    )
    assert all(low == 0 < high < 1 for low, high in scores.values())
    assert f"to save {rate:g} of 3000" in path.read_text().splitlines()[0]


@pytest.mark.parametrize("rate", [0, 1, -0.1, float("nan"), True, "0.01"])
def test_a_rate_is_a_share(tmp_path, rate):
    with pytest.raises(InputError, match="save_rate"):
        edge.write_config(profiled(), tmp_path / "config.ini", save_rate=rate)
