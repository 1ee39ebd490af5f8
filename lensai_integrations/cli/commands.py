"""What each command does: it asks for its profiles by name, makes the call that a program makes, and prints.

Frameworks, servers and plots are imported by the command that needs them, so that `lensai --help` is there at once.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Final
from unicodedata import category

import click

from lensai_integrations.errors import InputError
from lensai_integrations.profiles.coverage import coverage_text
from lensai_integrations.profiles.names import DEFAULT_SEGMENTS, LABEL, label_names, shown
from lensai_integrations.profiles.profile import Baseline, Profile, load
from lensai_integrations.profiles.summary import StreamSummary, to_csv
from lensai_integrations.profiling.sampling import measured_lines
from lensai_integrations.storage.folders import MANIFEST

NO_DRIFT, DRIFT, ERROR = 0, 1, 2

_URI: Final = re.compile(r"(runs|models):/")
_ARCHIVES: Final = (".tar.gz", ".tgz", ".tar")

tracking_uri_option = click.option("--tracking-uri", help="MLflow tracking URI; by default MLflow's own setting.")

#: Unreadable files that are printed; the profile names more.
MOST_LISTED = 10


@click.command()
@click.argument("baseline")
@click.argument("windows", metavar="WINDOW...", nargs=-1, required=True)
@click.option(
    "--false-alarm-rate", type=float, default=0.01, show_default=True, help="Chance of a false alarm, whole report."
)
@click.option("--against", type=click.Choice(["reference", "training"]), default="reference", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Also write the report as a page.")
@tracking_uri_option
def compare(
    baseline: str,
    windows: tuple[str, ...],
    false_alarm_rate: float,
    against: str,
    as_json: bool,
    html: Path | None,
    tracking_uri: str | None,
) -> None:
    """Say which streams of WINDOW moved away from BASELINE, and by how much. Exits 0, 1 (drift) or 2 (error).

    Of several windows it says which drift, so that of those reported at most 5% are false on average.
    """
    from lensai_integrations.drift.compare import compare as compare_profiles
    from lensai_integrations.drift.fleet import compare_many

    held_against = load_source(baseline, tracking_uri)
    if len(windows) > 1:
        if html is not None:
            raise InputError(f"--html {html} is the page of one window, and there are {len(windows)}: leave it away")
        profiles = {name: profile_of(load_source(name, tracking_uri)) for name in _named_once(windows)}
        fleet = compare_many(held_against, profiles, false_alarm_rate=false_alarm_rate, against=against)
        click.echo(fleet.to_json() if as_json else printable(fleet.to_text(width=width())))
        sys.exit(DRIFT if fleet.drift else NO_DRIFT)
    current = profile_of(load_source(windows[0], tracking_uri))
    report = compare_profiles(held_against, current, false_alarm_rate=false_alarm_rate, against=against)
    if html is not None:
        from lensai_integrations.report import drift_html

        html.write_text(drift_html(report, held_against, current), encoding="utf-8")
    click.echo(report.to_json() if as_json else printable(report.to_text(width=width())))
    sys.exit(DRIFT if report.drift else NO_DRIFT)


def _named_once(windows: tuple[str, ...]) -> tuple[str, ...]:
    """The windows, if none is named twice: evidence would be counted twice."""
    if twice := next((name for name in windows if windows.count(name) > 1), None):
        raise InputError(f"window {twice!r} is named twice: pass each once")
    return windows


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


def print_streams(sources: Mapping[str, Profile], show_all: bool) -> None:
    """A table per source; of an embedding only its size, unless all is asked for."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=width(), highlight=False)
    for source, profile in sources.items():
        of = f", of {text}" if (text := coverage_text(profile.info)) else ""
        table = Table(title=_plain(f"{source}: {profile.n:,} rows{printable(of)}"), title_justify="left")
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
        for line in measured_lines(profile):
            console.print(printable(line), markup=False)
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
@click.argument("sources", nargs=-1, required=True)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to save to.")
@tracking_uri_option
def merge(sources: tuple[str, ...], output: Path, tracking_uri: str | None) -> None:
    """Merge the profiles of several machines or days into one."""
    profiles = [profile_of(load_source(source, tracking_uri)) for source in sources]
    merged = reduce(Profile.merge, profiles)
    merged.save(output)
    click.echo(f"{merged.n} rows of {len(profiles)} profiles in {output}")


@click.command()
@click.argument("images")
@click.option(
    "-o", "--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to save to."
)
@click.option("--jobs", type=click.IntRange(0), help="Worker processes; by default as many as there are cores.")
@click.option(
    "--exif", default="", help="EXIF data to keep, e.g. make,model,iso. It may identify people; default none."
)
@click.option(
    "--convention", type=click.Choice(["lensai", "lensai-edge"]), default=["lensai"], show_default=True, multiple=True
)
@click.option("--segment-by", help="Also a profile per value: label (the folder), format, mode, or a name in --exif.")
@click.option("--max-segments", type=int, default=DEFAULT_SEGMENTS, show_default=True, help="Values with a profile.")
@click.option(
    "--budget",
    type=float,
    help="Share of the time that measuring may take, e.g. 0.05: of more than 2,000 images a share; by default all.",
)
def profile(
    images: str,
    output: Path,
    jobs: int | None,
    exif: str,
    convention: tuple[str, ...],
    segment_by: str | None,
    max_segments: int,
    budget: float | None,
) -> None:
    """Profile the image files of a folder, or of a pattern in quotes ('photos/**/*.jpg').

    If it is interrupted, the same command goes on where it was. Files that cannot be read are counted and listed.
    """
    from lensai_integrations.profiling.image_files import profile_files
    from lensai_integrations.report import baseline_html
    from lensai_integrations.training.finish import progress_bar

    if segment_by is None and max_segments != DEFAULT_SEGMENTS:
        raise InputError(f"--max-segments {max_segments} is of segments: pass --segment-by, too")
    with progress_bar("profiling") as tick:
        made = profile_files(
            images,
            jobs=jobs,
            exif=[tag.strip() for tag in exif.split(",") if tag.strip()],
            convention=convention,
            segment_by=segment_by,
            max_segments=max_segments,
            budget=budget,
            resume=output,
            progress=tick,
        )
    made.save(output, report_html=baseline_html(made))
    for path, why in made.info.get("unreadable", [])[:MOST_LISTED]:
        click.secho(f"unreadable: {printable(path)}: {printable(why)}", fg="yellow", err=True)
    for warning in made.warnings:
        click.secho(f"note: {printable(warning)}", fg="yellow", err=True)
    click.echo(
        f"{made.n:,} images in {output}, {made.info['images_per_second']:,} images/s; look at {output / 'report.html'}"
    )


@click.command()
@click.argument("source")
@click.argument("clean", nargs=-1)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to save to.")
@click.option("--windows", type=int, default=1000, show_default=True, help="Clean windows of each size to draw.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draws.")
@tracking_uri_option
def calibrate(
    source: str, clean: tuple[str, ...], output: Path, windows: int, seed: int, tracking_uri: str | None
) -> None:
    """Find out what clean windows of a baseline look like, for compare to hold the false-alarm rate asked for.

    Callbacks do this at the end of training; it is for profiles and for baselines made without. Profiles of CLEAN
    windows of production, 8 or more, the oldest first, tell how much more they vary than independent rows would.
    """
    from lensai_integrations.drift.learning import calibrate as calibrate_baseline
    from lensai_integrations.report import baseline_html
    from lensai_integrations.training.finish import progress_bar

    with progress_bar("calibrating") as tick:
        profiles = [profile_of(load_source(name, tracking_uri)) for name in _named_once(clean)]
        made = calibrate_baseline(
            load_source(source, tracking_uri), clean_windows=profiles, draws=windows, seed=seed, progress=tick
        )
    made.save(output, report_html=baseline_html(made))
    also = f", with what {len(clean)} clean windows tell," if clean else ""
    click.echo(f"calibrated baseline of {made.n} rows{also} in {output}")


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--layout", default="auto", show_default=True, help="Of an array: NCHW, NHWC or NHW (grey).")
@click.option("--scale", default="auto", show_default=True, help="Factor that takes pixels to 0-255.")
@click.option("--mean", help="What a normalisation subtracted: a number, or one per channel, as 0.485,0.456,0.406.")
@click.option("--std", help="What it divided by.")
def check(path: Path, layout: str, scale: str, mean: str | None, std: str | None) -> None:
    """Say how images are read: of a folder, one image, or a batch in a .npy or .npz file.

    Exits 0, 1 (there is something to look at) or 2 (error).
    """
    from lensai_integrations.training.check import check_path

    result = check_path(path, layout=layout, scale=scale, mean=mean, std=std)
    click.echo(str(result), nl=False)
    sys.exit(0 if result.ok else 1)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--run", "run_id", help="MLflow run to upload to.")
@click.option("--model", "model_id", help="Logged model (m-...) to upload to, instead of a run or beside it.")
@click.option("--artifact-path", default="lensai", show_default=True, help="Where in the run's artifacts.")
@click.option("--deadline", type=float, default=600.0, show_default=True, help="Seconds after which to give up.")
@tracking_uri_option
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the token for a LensAI server; by default the environment's LENSAI_TOKEN.",
)
@click.option("--endpoint", help="Deliver only the uploads to this address.")
def push(
    folder: Path,
    run_id: str | None,
    model_id: str | None,
    artifact_path: str,
    deadline: float,
    tracking_uri: str | None,
    token_file: Path | None,
    endpoint: str | None,
) -> None:
    """Upload what a server that could not be reached has not got yet.

    FOLDER is a saved baseline, which goes to MLflow; or a spool of edge.publish, which goes to its LensAI server: then
    exits 0 (all delivered) or 2 (something was not, a line each; or is in FOLDER/refused, which can be pushed again).
    """
    from lensai_integrations.edge.spool import is_spool

    if is_spool(folder):
        _push_spool(folder, token_file, endpoint, for_mlflow=bool(run_id or model_id or tracking_uri))
        return
    if token_file or endpoint:
        raise InputError(f"{folder} is no spool of edge.publish: --token-file and --endpoint are for spools")
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


def _push_spool(folder: Path, token_file: Path | None, endpoint: str | None, *, for_mlflow: bool) -> None:
    """Deliver uploads; what was not delivered is a line each and exit code 2."""
    from lensai_integrations.edge import deliver

    if for_mlflow:
        raise InputError(
            f"{folder} is a spool of edge.publish: --run, --model and --tracking-uri are for saved baselines"
        )
    token = (token_file.read_text(encoding="utf-8") if token_file else os.environ.get("LENSAI_TOKEN", "")).strip()
    if token_file and not token:
        raise InputError(f"--token-file {token_file} is empty: write the server's token into it")
    done = deliver(folder, token=token or None, endpoint=endpoint)
    for name, why in done.problems.items():
        click.secho(f"not delivered: {name}: {why}", fg="red", err=True)
    elsewhere = f"; {done.elsewhere} to other addresses stay" if done.elsewhere else ""
    click.echo(f"{done.delivered} uploads of {folder} delivered{elsewhere}")
    if done.refused:
        click.secho(_told_of_refused(folder, done.refused), fg="red", err=True)
    if done.problems or done.refused:
        sys.exit(ERROR)


def _told_of_refused(folder: Path, refused: Mapping[str, str]) -> str:
    """What is to be done about uploads that a server has refused."""
    from lensai_integrations.edge.sending import utc
    from lensai_integrations.edge.spool import REFUSED, time_of

    oldest, why = next(iter(refused.items()))
    when = time_of(oldest)
    age = f"the oldest of {utc(when)}" if when is not None else f"the first is {oldest}"
    again = shlex.join(["lensai", "push", str(folder / REFUSED)])
    return (
        f"not delivered: {len(refused)} uploads in {folder / REFUSED}, which the server has refused, {age}: {why}\n"
        f"when the cause is gone, send them again with: {again}; or delete them"
    )


@click.command()
@click.argument("source")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write to, as a device has it: imgstats/, modelstats/, samples/.",
)
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="Also write the device's config.ini.")
@click.option(
    "--percentiles",
    nargs=2,
    type=float,
    default=(0.01, 0.99),
    show_default=True,
    help="Of each measure, beyond which a device saves an image.",
)
@click.option("--save-rate", type=float, help="Instead: the share of images that a device saves, e.g. 0.01.")
@click.option(
    "--endpoint",
    default="http://localhost:8080/upload/",
    show_default=True,
    help="Where the device uploads to, for config.ini.",
)
@click.option("--sensor", default="sensor", show_default=True, help="The device's name, for config.ini.")
@tracking_uri_option
def export(
    source: str,
    output: Path,
    config: Path | None,
    percentiles: tuple[float, float],
    save_rate: float | None,
    endpoint: str,
    sensor: str,
    tracking_uri: str | None,
) -> None:
    """Write what LensAI devices read: the sketches of SOURCE, and thresholds.

    SOURCE is measured as devices measure: profiled with convention lensai-edge, or read from a device.
    """
    from lensai_integrations.edge import write_config, write_stats

    loaded = load_source(source, tracking_uri)
    written = write_stats(loaded, output)
    click.echo(f"{len(written)} sketches in {output}")
    if config is not None:
        write_config(loaded, config, percentiles=percentiles, save_rate=save_rate, endpoint=endpoint, sensor_id=sensor)
        click.echo(f"thresholds in {config}")


def load_source(source: str, tracking_uri: str | None = None) -> Profile | Baseline:
    """What a SOURCE holds: of MLflow, a folder that was saved, a device's folder, or an upload.

    Raises:
        InputError: If there is nothing of these.
        FormatError: If it is damaged.
        TrackingError: If MLflow's server cannot be reached.
    """
    if _URI.match(source):
        from lensai_integrations.mlflow import load_baseline

        return load_baseline(source, tracking_uri=tracking_uri)
    if _is_of_devices(Path(source)):
        from lensai_integrations.edge import read_stats

        return read_stats(source)
    return load(source)


def _is_of_devices(path: Path) -> bool:
    """Whether it is an archive, or a folder with sketches and no manifest."""
    if path.is_file():
        return path.name.endswith(_ARCHIVES)
    return path.is_dir() and not (path / MANIFEST).exists() and next(path.rglob("*.bin"), None) is not None


def profile_of(loaded: Profile | Baseline) -> Profile:
    """A profile, or the reference of a baseline."""
    return loaded.reference if isinstance(loaded, Baseline) else loaded


def width() -> int:
    """Columns to print on."""
    return min(shutil.get_terminal_size((100, 24)).columns, 120)


def printable(text: str) -> str:
    """A text without what would control the terminal: names come out of files that anybody may have written.

    Example:
        >>> printable("ok\\n\\x1b[2J")
        'ok\\n\\\\x1b[2J'
    """
    return "".join(
        c.encode("unicode_escape").decode() if category(c).startswith("C") and c not in "\n\t" else c for c in text
    )
