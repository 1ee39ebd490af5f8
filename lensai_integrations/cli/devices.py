"""Commands that send: push, to MLflow or to a LensAI server; export, for devices."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from lensai_integrations.cli.sources import ERROR, load_source, tracking_uri_option
from lensai_integrations.errors import InputError


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
    told = f"the oldest of {utc(when)}" if when is not None else f"the first is {oldest}"
    again = shlex.join(["lensai", "push", str(folder / REFUSED)])
    return (
        f"not delivered: {len(refused)} uploads in {folder / REFUSED}, which the server has refused, {told}: {why}\n"
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
