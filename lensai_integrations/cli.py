"""The `lensai` command: what a terminal or a pipeline asks of profiles.

Exit codes are an interface: 0 no drift (or done), 1 drift, 2 error of any kind, so that `lensai compare` can gate a
pipeline without anybody reading its output.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lensai_integrations import __version__
from lensai_integrations.errors import LensAIError
from lensai_integrations.profile import Baseline, Profile
from lensai_integrations.progress import progress_bar
from lensai_integrations.segments import DEFAULT_SEGMENTS
from lensai_integrations.server.command import serve

if TYPE_CHECKING:
    from lensai_integrations.summary import StreamSummary

NO_DRIFT, DRIFT, ERROR = 0, 1, 2
#: Unreadable files that are printed; the profile names more.
MOST_LISTED = 10

_URI = re.compile(r"(runs|models):/")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lensai")
def cli() -> None:
    """Baselines of what a model was trained on, and what has moved since.

    SOURCE is a folder that was saved, or runs:/<id>, models:/<name>/<version>, models:/<name>@<alias>, models:/m-<id>.
    """


_tracking_uri = click.option("--tracking-uri", help="MLflow tracking URI; by default MLflow's own setting.")


@cli.command()
@click.argument("baseline")
@click.argument("window")
@click.option(
    "--false-alarm-rate", type=float, default=0.01, show_default=True, help="Chance of a false alarm, whole report."
)
@click.option("--against", type=click.Choice(["reference", "training"]), default="reference", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Also write the report as a page.")
@_tracking_uri
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

    held_against = _load(baseline, tracking_uri)
    seen = _profile(_load(window, tracking_uri))
    report = compare_profiles(held_against, seen, false_alarm_rate=false_alarm_rate, against=against)
    if html is not None:
        from lensai_integrations.report import drift_html

        html.write_text(drift_html(report, held_against, seen), encoding="utf-8")
    click.echo(report.to_json() if as_json else report.to_text(width=_width()))
    sys.exit(DRIFT if report.drift else NO_DRIFT)


@cli.command()
@click.argument("source")
@click.option("--csv", "as_csv", is_flag=True, help="Print all streams as CSV.")
@click.option("--all", "show_all", is_flag=True, help="List every stream of an embedding too.")
@_tracking_uri
def show(source: str, as_csv: bool, show_all: bool, tracking_uri: str | None) -> None:
    """Print the streams of a profile or baseline."""
    from lensai_integrations.summary import to_csv

    loaded = _load(source, tracking_uri)
    if as_csv:
        click.echo(to_csv(loaded.sources()), nl=False)
    else:
        _print_streams(loaded.sources(), show_all)
    for warning in loaded.warnings:
        click.secho(f"note: {warning}", fg="yellow", err=True)


@cli.command()
@click.argument("source")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to save to.")
@click.option("--windows", type=int, default=1000, show_default=True, help="Clean windows of each size to draw.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draws.")
@_tracking_uri
def calibrate(source: str, output: Path, windows: int, seed: int, tracking_uri: str | None) -> None:
    """Find out what clean windows of a baseline look like, for compare to hold the false-alarm rate asked for.

    Callbacks do this at the end of training; it is for profiles and for baselines made without.
    """
    from lensai_integrations.drift.calibrate import calibrate as calibrate_baseline
    from lensai_integrations.report import baseline_html

    with progress_bar("calibrating") as tick:
        made = calibrate_baseline(_load(source, tracking_uri), draws=windows, seed=seed, progress=tick)
    made.save(output, report_html=baseline_html(made))
    click.echo(f"calibrated baseline of {made.n} rows in {output}")


@cli.command()
@click.argument("sources", nargs=-1, required=True)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to save to.")
@_tracking_uri
def merge(sources: tuple[str, ...], output: Path, tracking_uri: str | None) -> None:
    """Merge the profiles of several machines or days into one."""
    profiles = [_profile(_load(source, tracking_uri)) for source in sources]
    merged = reduce(Profile.merge, profiles)
    merged.save(output)
    click.echo(f"{merged.n} rows of {len(profiles)} profiles in {output}")


@cli.command()
@click.argument("images")
@click.option(
    "-o", "--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to save to."
)
@click.option("--jobs", type=click.IntRange(0), help="Worker processes; by default as many as there are cores.")
@click.option(
    "--exif", default="", help="EXIF data to keep, e.g. make,model,iso. It may identify people; default none."
)
@click.option("--convention", type=click.Choice(["lensai", "lensai-edge"]), default="lensai", show_default=True)
@click.option("--segment-by", help="Also a profile per value: label (the folder), format, mode, or a name in --exif.")
@click.option("--max-segments", type=int, default=DEFAULT_SEGMENTS, show_default=True, help="Values with a profile.")
def profile(
    images: str,
    output: Path,
    jobs: int | None,
    exif: str,
    convention: str,
    segment_by: str | None,
    max_segments: int,
) -> None:
    """Profile the image files of a folder, or of a pattern in quotes ('photos/**/*.jpg').

    If it is interrupted, the same command goes on where it was. Files that cannot be read are counted and listed.
    """
    from lensai_integrations.raw.files import profile_files
    from lensai_integrations.report import baseline_html

    with progress_bar("profiling") as tick:
        made = profile_files(
            images,
            jobs=jobs,
            exif=[each.strip() for each in exif.split(",") if each.strip()],
            convention=convention,
            segment_by=segment_by,
            max_segments=max_segments,
            resume=output,
            progress=tick,
        )
    made.save(output, report_html=baseline_html(made))
    for path, why in made.info.get("unreadable", [])[:MOST_LISTED]:
        click.secho(f"unreadable: {path}: {why}", fg="yellow", err=True)
    for warning in made.warnings:
        click.secho(f"note: {warning}", fg="yellow", err=True)
    click.echo(
        f"{made.n:,} images in {output}, {made.info['images_per_second']:,} images/s; look at {output / 'report.html'}"
    )


@cli.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--run", "run_id", help="MLflow run to upload to.")
@click.option("--model", "model_id", help="Logged model (m-...) to upload to, instead of a run or beside it.")
@click.option("--artifact-path", default="lensai", show_default=True, help="Where in the run's artifacts.")
@click.option("--deadline", type=float, default=600.0, show_default=True, help="Seconds after which to give up.")
@_tracking_uri
def push(
    folder: Path,
    run_id: str | None,
    model_id: str | None,
    artifact_path: str,
    deadline: float,
    tracking_uri: str | None,
) -> None:
    """Upload a saved baseline to MLflow, e.g. to a run whose server could not be reached when training ended."""
    from lensai_integrations.mlflow import push as push_folder

    source = push_folder(
        folder,
        run_id=run_id,
        model_id=model_id,
        artifact_path=artifact_path,
        deadline=deadline,
        tracking_uri=tracking_uri,
    )
    click.echo(f"{folder} is at {source}")


@cli.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--layout", default="auto", show_default=True, help="Of an array: NCHW, NHWC or NHW (grey).")
@click.option("--scale", default="auto", show_default=True, help="Factor that takes pixels to 0-255.")
@click.option("--mean", help="What a normalisation subtracted: a number, or one per channel, as 0.485,0.456,0.406.")
@click.option("--std", help="What it divided by.")
def check(path: Path, layout: str, scale: str, mean: str | None, std: str | None) -> None:
    """Say how images are read: of a folder, one image, or a batch in a .npy or .npz file.

    Exits 0, 1 (there is something to look at) or 2 (error).
    """
    from lensai_integrations.training.check_files import check_path

    found = check_path(path, layout=layout, scale=scale, mean=mean, std=std)
    click.echo(str(found), nl=False)
    sys.exit(0 if found.ok else 1)


cli.add_command(serve)


def main() -> None:
    """Run the command; every error is one line on stderr and exit code 2."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(ERROR)
    except click.Abort:
        sys.exit(ERROR)
    except LensAIError as error:
        click.secho(f"error: {error}", fg="red", err=True)
        sys.exit(ERROR)
    except Exception as error:  # noqa: BLE001  a crash must not look like "drift" to a pipeline
        click.secho(f"error: {type(error).__name__}: {error}", fg="red", err=True)
        sys.exit(ERROR)


def _load(source: str, tracking_uri: str | None) -> Profile | Baseline:
    if _URI.match(source):
        from lensai_integrations.mlflow import load_baseline

        return load_baseline(source, tracking_uri=tracking_uri)
    from lensai_integrations.archive import load

    return load(source)


def _profile(loaded: Profile | Baseline) -> Profile:
    return loaded.reference if isinstance(loaded, Baseline) else loaded


def _print_streams(sources: Mapping[str, Profile], show_all: bool) -> None:
    """A table per source; of an embedding only its size, unless all is asked for."""
    from rich.console import Console
    from rich.table import Table

    from lensai_integrations.summary import summarize

    console = Console(width=_width(), highlight=False)
    for source, profile in sources.items():
        table = Table(title=f"{source}: {profile.n:,} rows", title_justify="left")
        table.add_column("stream", overflow="fold")
        for heading in ("n", "min", "5%", "median", "95%", "max"):
            table.add_column(heading, justify="right")
        for row in summarize(profile):
            if row.stream.startswith("embeddings/") and not show_all:
                continue
            table.add_row(*_cells(row))
        for name, group in profile.groups.items():
            if name.startswith("embeddings/") and not show_all:
                table.add_row(f"{name} ({len(group.streams)} streams)", f"{group.n:,}", *[""] * 5)
        console.print(table)
        if profile.segments:
            console.print(_segments_line(profile), markup=False)


def _segments_line(profile: Profile) -> str:
    """Names and rows of the segments."""
    names = ", ".join(f"{name} ({segment.n:,} rows)" for name, segment in profile.segments.items())
    return f"{len(profile.segments)} segments by {profile.info.get('segment_by')}: {names}\n"


def _cells(row: StreamSummary) -> list[str]:
    if row.kind == "categories":
        top = ", ".join(f"{name}: {count:,}" for name, count in row.top[:3])
        return [f"{row.stream}  {top}", f"{row.n:,}", *[""] * 5]
    numbers = [row.min, row.quantiles[0.05], row.quantiles[0.5], row.quantiles[0.95], row.max]
    return [row.stream, f"{row.n:,}", *(f"{number:.4g}" for number in numbers)]


def _width() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 120)
