"""Profiles as tables in a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from lensai_integrations.cli.sources import printable, width
from lensai_integrations.profiles.names import LABEL, label_names, shown
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.profiles.summary import StreamSummary


def print_streams(sources: Mapping[str, Profile], show_all: bool) -> None:
    """A table per source; of an embedding only its size, unless all is asked for."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=width(), highlight=False)
    for source, profile in sources.items():
        table = Table(title=_plain(f"{source}: {profile.n:,} rows"), title_justify="left")
        table.add_column("stream", overflow="fold")
        for heading in ("n", "min", "5%", "median", "95%", "max"):
            table.add_column(heading, justify="right")
        for row in profile.summaries():
            if row.stream.startswith("embeddings/") and not show_all:
                continue
            table.add_row(*_cells(row))
        for name, group in profile.groups.items():
            if name.startswith("embeddings/") and not show_all:
                table.add_row(_plain(f"{name} ({len(group.streams)} streams)"), f"{group.n:,}", *[""] * 5)
        console.print(table)
        if profile.segments:
            console.print(printable(_segments_line(profile)), markup=False)


def _segments_line(profile: Profile) -> str:
    """Names and rows of the segments."""
    called = label_names(profile.groups) if profile.info.get("segment_by") == LABEL else ()
    names = ", ".join(f"{shown(name, called)} ({segment.n:,} rows)" for name, segment in profile.segments.items())
    return f"{len(profile.segments)} segments by {profile.info.get('segment_by')}: {names}\n"


def _plain(text: str) -> str:
    """A text that neither Rich nor the terminal takes for more than that."""
    from rich.markup import escape

    return escape(printable(text))


def _cells(row: StreamSummary) -> list[str]:
    if row.kind == "categories":
        top = ", ".join(f"{name}: {count:,}" for name, count in row.top[:3])
        return [_plain(f"{row.stream}  {top}"), f"{row.n:,}", *[""] * 5]
    numbers = [row.min, row.quantiles[0.05], row.quantiles[0.5], row.quantiles[0.95], row.max]
    name = f"{row.stream} ({row.label})" if row.label else row.stream
    return [_plain(name), f"{row.n:,}", *(f"{number:.4g}" for number in numbers)]
