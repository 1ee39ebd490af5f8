"""Commands that read profiles: compare, show, merge.

Profiles as tables in a terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import reduce
from pathlib import Path

import click

from lensai_integrations.cli.sources import (
    DRIFT,
    NO_DRIFT,
    load_source,
    printable,
    profile_of,
    tracking_uri_option,
    width,
)
from lensai_integrations.profiles.names import LABEL, label_names, shown
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.profiles.summary import StreamSummary, to_csv


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


@click.command()
@click.argument("baseline")
@click.argument("window")
@click.option(
    "--false-alarm-rate", type=float, default=0.01, show_default=True, help="Chance of a false alarm, whole report."
)
@click.option("--against", type=click.Choice(["reference", "training"]), default="reference", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Also write the report as a page.")
@tracking_uri_option
def compare(
    baseline: str,
    window: str,
    false_alarm_rate: float,
    against: str,
    as_json: bool,
    html: Path | None,
    tracking_uri: str | None,
) -> None:
    """Say which streams of WINDOW moved away from BASELINE, and by how much. Exits 0, 1 (drift) or 2 (error)."""
    from lensai_integrations.drift.compare import compare as compare_profiles

    held_against = load_source(baseline, tracking_uri)
    seen = profile_of(load_source(window, tracking_uri))
    report = compare_profiles(held_against, seen, false_alarm_rate=false_alarm_rate, against=against)
    if html is not None:
        from lensai_integrations.report import drift_html

        html.write_text(drift_html(report, held_against, seen), encoding="utf-8")
    click.echo(report.to_json() if as_json else printable(report.to_text(width=width())))
    sys.exit(DRIFT if report.drift else NO_DRIFT)


@click.command()
@click.argument("source")
@click.option("--csv", "as_csv", is_flag=True, help="Print all streams as CSV.")
@click.option("--all", "show_all", is_flag=True, help="List every stream of an embedding too.")
@tracking_uri_option
def show(source: str, as_csv: bool, show_all: bool, tracking_uri: str | None) -> None:
    """Print the streams of a profile or baseline."""
    loaded = load_source(source, tracking_uri)
    if as_csv:
        click.echo(to_csv({source: profile.groups for source, profile in loaded.sources().items()}), nl=False)
    else:
        print_streams(loaded.sources(), show_all)
    for warning in loaded.warnings:
        click.secho(f"note: {printable(warning)}", fg="yellow", err=True)


@click.command()
@click.argument("sources", nargs=-1, required=True)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to save to.")
@tracking_uri_option
def merge(sources: tuple[str, ...], output: Path, tracking_uri: str | None) -> None:
    """Merge the profiles of several machines or days into one."""
    profiles = [profile_of(load_source(source, tracking_uri)) for source in sources]
    merged = reduce(Profile.merge, profiles)
    merged.save(output)
    click.echo(f"{merged.n} rows of {len(profiles)} profiles in {output}")
