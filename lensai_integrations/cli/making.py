"""Commands that measure and calibrate: profile, calibrate, check."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from lensai_integrations.cli.sources import load_source, printable, tracking_uri_option
from lensai_integrations.errors import InputError
from lensai_integrations.profiles.names import DEFAULT_SEGMENTS

#: Unreadable files that are printed; the profile names more.
MOST_LISTED = 10


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
def profile(
    images: str,
    output: Path,
    jobs: int | None,
    exif: str,
    convention: tuple[str, ...],
    segment_by: str | None,
    max_segments: int,
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
            exif=[each.strip() for each in exif.split(",") if each.strip()],
            convention=convention,
            segment_by=segment_by,
            max_segments=max_segments,
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
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to save to.")
@click.option("--windows", type=int, default=1000, show_default=True, help="Clean windows of each size to draw.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draws.")
@tracking_uri_option
def calibrate(source: str, output: Path, windows: int, seed: int, tracking_uri: str | None) -> None:
    """Find out what clean windows of a baseline look like, for compare to hold the false-alarm rate asked for.

    Callbacks do this at the end of training; it is for profiles and for baselines made without.
    """
    from lensai_integrations.drift.calibration import calibrate as calibrate_baseline
    from lensai_integrations.report import baseline_html
    from lensai_integrations.training.finish import progress_bar

    with progress_bar("calibrating") as tick:
        made = calibrate_baseline(load_source(source, tracking_uri), draws=windows, seed=seed, progress=tick)
    made.save(output, report_html=baseline_html(made))
    click.echo(f"calibrated baseline of {made.n} rows in {output}")


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

    found = check_path(path, layout=layout, scale=scale, mean=mean, std=std)
    click.echo(str(found), nl=False)
    sys.exit(0 if found.ok else 1)
