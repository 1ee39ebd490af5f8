"""The distributions of a group's pixel values, a small chart per channel in the channel's colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lensai_integrations.profiles.groups import Group
from lensai_integrations.report.histogram import (
    Distribution,
    Histogram,
    bank_distributions,
    count_distribution,
    histogram,
)
from lensai_integrations.report.plots import histogram_svg
from lensai_integrations.report.streams import CHANNELS, SourceShare
from lensai_integrations.report.words import number, percent

#: Drawing height, and bars over the 256 values.
HEIGHT, BARS = 70.0, 64


@dataclass(frozen=True)
class PixelCell:
    """The numbers of one source under a pixel distribution: median, and how much is clipped at either end."""

    number: int
    source: str
    median: str
    at_low: str
    at_high: str


@dataclass(frozen=True)
class PixelChart:
    """The pixel distribution of one channel.

    Attributes:
        name: `"red"`, `"green"`, `"blue"`, `"alpha"` or `"channel 0"`.
        tint: The colour it is drawn in; empty for the usual one.
        chart: The histogram; None without pixels.
        rows: The numbers of each source.
    """

    name: str
    tint: str
    chart: Markup | None
    rows: tuple[PixelCell, ...]


def pixel_charts(parts: Sequence[SourceShare]) -> list[PixelChart]:
    """One chart per channel of the groups' pixel counts; beside these, what a device has sketched of its pixels.

    Example:
        >>> pixel_charts([])
        []
    """
    channels = max((part.group.pixels.channels for part in parts if part.group.pixels is not None), default=0)
    return [_pixel_chart(parts, channel, channels) for channel in range(channels)]


def _pixels(group: Group, channel: int) -> Distribution | None:
    """The pixel values of a channel; None if the group has none."""
    if group.pixels is not None:
        return count_distribution(group.pixels.counts[channel]) if channel < group.pixels.channels else None
    sketched = group.own(f"pixel/{channel}")
    return bank_distributions(sketched.bank)[0] if sketched is not None and sketched.bank is not None else None


def _pixel_chart(parts: Sequence[SourceShare], channel: int, channels: int) -> PixelChart:
    entries = [(part, d) for part in parts if (d := _pixels(part.group, channel)) is not None]
    colours = CHANNELS.get(str(entries[0][0].group.info.get("convention", "lensai")), ())
    tint = colours[channel] if channels in (3, 4) and channel < len(colours) else ""
    name = tint or ("alpha" if channels == 4 else f"channel {channel}")
    drawn = histogram([d for _, d in entries], (-0.5, 255.5), BARS)
    if drawn is None:
        return PixelChart(name, tint, None, tuple(_pixel_cell(*entry) for entry in entries))
    numbers = [part.number for part, _ in entries]
    chart = histogram_svg(drawn, f"Pixel values of {name}, 0 to 255", numbers, HEIGHT, top=_inner_top(drawn))
    return PixelChart(name, tint, chart, tuple(_pixel_cell(*entry) for entry in entries))


def _inner_top(drawn: Histogram) -> float:
    """Height of the axis: clipped pixels pile up in the outer bars, which must not flatten all others."""
    inner = max(float(shares[1:-1].max()) for shares in drawn.shares)
    return 1.15 * inner or max(float(shares.max()) for shares in drawn.shares)


def _pixel_cell(part: SourceShare, d: Distribution) -> PixelCell:
    if d.empty:
        return PixelCell(part.number, part.source, "no pixels", "", "")
    at = [percent(float(d.weights[d.values == value].sum() / d.weights.sum())) for value in (0, 255)]
    return PixelCell(part.number, part.source, number(d.quantile(0.5), 0), *at)
