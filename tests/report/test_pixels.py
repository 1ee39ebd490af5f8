"""Pixel distributions: named by colour, exact, and readable where pixels are clipped."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lensai_integrations import Profiler, edge
from lensai_integrations.profiles.groups import Group
from lensai_integrations.report.streams import SourceShare, pixel_charts
from lensai_integrations.sketches.counts import PixelCounts


def pixels(values: np.ndarray, number: int = 0, **info: object) -> SourceShare:
    counts = PixelCounts(values.shape[1])
    counts.update(values)
    return SourceShare(
        number, ("validation", "training")[number], Group("inputs", sketches={"pixels": counts}, info=dict(info))
    )


@pytest.mark.parametrize(
    ("convention", "colours"), [("lensai", ["red", "green", "blue"]), ("lensai-edge", ["blue", "green", "red"])]
)
def test_channels_are_called_by_their_colour(convention: str, colours: list[str]) -> None:
    charts = pixel_charts([pixels(np.zeros((2, 3, 4, 4), np.uint8), convention=convention)])
    assert [chart.name for chart in charts] == [chart.tint for chart in charts] == colours


@pytest.mark.parametrize(
    ("channels", "names"),
    [(1, ["channel 0"]), (2, ["channel 0", "channel 1"]), (4, ["red", "green", "blue", "alpha"])],
)
def test_other_numbers_of_channels(channels: int, names: list[str]) -> None:
    assert [chart.name for chart in pixel_charts([pixels(np.zeros((1, channels, 2, 2), np.uint8))])] == names


def test_both_sources_are_drawn_over_each_other() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, high, (4, 1, 8, 8), dtype=np.uint8) for high in (256, 128))
    (chart,) = pixel_charts([pixels(first), pixels(second, 1)])
    assert re.findall(r'class="(s\d)"', chart.chart) == ["s0", "s1"]
    assert [cell.number for cell in chart.rows] == [0, 1]


def test_a_source_with_fewer_channels() -> None:
    colour, grey = (np.zeros((1, channels, 2, 2), np.uint8) for channels in (3, 1))
    assert [len(chart.rows) for chart in pixel_charts([pixels(colour), pixels(grey, 1)])] == [2, 1, 1]


def test_pixels_are_told_exactly() -> None:
    values = np.zeros((1, 1, 10, 10), np.uint8)
    values[0, 0, 0] = 255
    values[0, 0, 1:4] = 100
    other = np.full((1, 1, 5, 5), 7, np.uint8)
    (chart,) = pixel_charts([pixels(values), pixels(other, 1)])
    told = [(cell.source, cell.median, cell.at_low, cell.at_high) for cell in chart.rows]
    assert told == [("validation", "0", "60.0%", "10.0%"), ("training", "7", "0%", "0%")]


def test_clipped_pixels_do_not_flatten_the_others() -> None:
    values = np.concatenate([np.zeros(9000, np.uint8), (np.arange(1000) % 256).astype(np.uint8)])
    (chart,) = pixel_charts([pixels(values.reshape(1, 1, 100, 100))])
    first, *others = [float(y) for y in re.findall(r"V([\d.]+)H", chart.chart)]
    assert first < min(others) < max(others) < 0.5 * 70


def test_pixels_of_no_image() -> None:
    (chart,) = pixel_charts([SourceShare(0, "validation", Group("inputs", sketches={"pixels": PixelCounts(1)}))])
    assert chart.chart is None
    assert chart.rows[0].median == "no pixels"
    assert pixel_charts([]) == [] == pixel_charts([SourceShare(0, "validation", Group("inputs"))])


def test_what_a_device_has_sketched_is_drawn_over_what_was_counted(tmp_path) -> None:
    images = np.random.default_rng(0).integers(0, 128, (4, 8, 8, 3), dtype=np.uint8)
    profiler = Profiler(convention="lensai-edge")
    profiler.update(inputs=images)
    edge.write_stats(profiler.profile(), tmp_path)
    device = SourceShare(1, "window", edge.read_stats(tmp_path).groups["inputs/lensai-edge"])
    assert pixel_charts([device]) == []  # without counts they are in the table of streams
    charts = pixel_charts([SourceShare(0, "baseline", profiler.profile().groups["inputs/lensai-edge"]), device])
    assert [chart.name for chart in charts] == ["blue", "green", "red"]
    for chart, channel in zip(charts, (2, 1, 0), strict=True):
        assert re.findall(r'class="(s\d)"', chart.chart) == ["s0", "s1"]
        assert [cell.source for cell in chart.rows] == ["baseline", "window"]
        assert abs(float(chart.rows[1].median) - np.median(images[..., channel])) <= 0.05 * 128
