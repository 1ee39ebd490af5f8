"""Commands that read profiles: compare, show, merge."""

from __future__ import annotations

import sys
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
from lensai_integrations.cli.tables import print_streams
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.profiles.summary import to_csv


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
