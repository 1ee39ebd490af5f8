"""`lensai serve`."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lensai_integrations.errors import MissingDependencyError

if TYPE_CHECKING:
    from lensai_integrations.mlflow import SensorRuns

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option("--baseline", required=True, help="Folder, or models:/... or runs:/... of MLflow.")
@click.option(
    "--store",
    default="lensai_store",
    show_default=True,
    envvar="LENSAI_STORE",
    show_envvar=True,
    help="Folder for a SQLite file, or postgresql://user:password@host/name.",
)
@click.option("--tracking-uri", help="MLflow tracking URI; by default MLflow's own setting.")
@click.option("--experiment", default="lensai-devices", show_default=True, help="MLflow experiment of the reports.")
@click.option("--no-reports", is_flag=True, help="Log nothing to MLflow.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port to listen at.")
@click.option("--token-file", type=_FILE, help="A line each: <token> [<sensor>]. Read again when it changes.")
@click.option("--no-tokens", is_flag=True, help="Let everyone who reaches the address upload and read.")
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="Name under which browsers reach the server, besides --host and the machine's own; *.example.org for all"
    " below it, * for any. May be given more than once.",
)
@click.option("--tls-cert", type=_FILE, help="Certificate with its chain, PEM; then HTTPS only. Read again on SIGHUP.")
@click.option("--tls-key", type=_FILE, help="Its private key, PEM, if it is not in the same file.")
@click.option("--root-path", default="", metavar="PATH", help="Path below which a proxy has the server: /lensai.")
@click.option(
    "--trusted-proxy",
    multiple=True,
    metavar="ADDRESS",
    help="Proxy whose X-Forwarded-For and -Proto are believed. May be given more than once.",
)
@click.option("--keep-days", type=float, default=90.0, show_default=True, help="Days after which hours are forgotten.")
@click.option("--max-sensors", type=int, default=10_000, show_default=True, help="Most sensors.")
@click.option(
    "--judge-seconds", type=float, default=60.0, show_default=True, help="An hour is judged at most so often."
)
@click.option("--false-alarm-rate", type=float, default=0.01, show_default=True, help="Chance of one of an hour.")
def serve(
    baseline: str,
    store: str,
    tracking_uri: str | None,
    experiment: str,
    no_reports: bool,
    host: str,
    port: int,
    token_file: Path | None,
    no_tokens: bool,
    allow_host: tuple[str, ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    root_path: str,
    trusted_proxy: tuple[str, ...],
    keep_days: float,
    max_sensors: int,
    judge_seconds: float,
    false_alarm_rate: float,
) -> None:
    """Take what LensAI devices upload, and hold it against a baseline hour by hour."""
    try:
        from lensai_integrations.server.serving import serve as run
        from lensai_integrations.server.settings import Settings
    except ImportError as error:
        raise MissingDependencyError(
            f"{error.name} is not installed: pip install 'lensai-integrations[server]'"
        ) from error
    from lensai_integrations.mlflow import load_baseline

    settings = Settings(
        keep_days=keep_days, sensors=max_sensors, judge_seconds=judge_seconds, false_alarm_rate=false_alarm_rate
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    loaded = load_baseline(baseline, tracking_uri=tracking_uri)
    click.echo(f"{baseline}, {loaded.n:,} images", err=True)
    run(
        loaded,
        store,
        host=host,
        port=port,
        token_file=token_file,
        no_tokens=no_tokens,
        settings=settings,
        name=baseline,
        allow_hosts=allow_host,
        root_path=root_path,
        trusted_proxies=trusted_proxy,
        tls_cert=tls_cert,
        tls_key=tls_key,
        runs=None if no_reports else _runs(baseline, tracking_uri, experiment),
    )


def _runs(baseline: str, tracking_uri: str | None, experiment: str) -> SensorRuns | None:
    """Where reports are logged: nowhere if MLflow was not spoken of, whose default is a file in the current folder."""
    from lensai_integrations.mlflow import SensorRuns
    from lensai_integrations.mlflow.load import is_tracked

    if not (tracking_uri or is_tracked(baseline) or os.environ.get("MLFLOW_TRACKING_URI")):
        click.echo("reports are not logged to MLflow: pass --tracking-uri", err=True)
        return None
    return SensorRuns(experiment, tracking_uri)
