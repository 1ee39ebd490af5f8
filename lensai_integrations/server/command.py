"""`lensai serve`."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from lensai_integrations.errors import MissingDependencyError


@click.command()
@click.option("--baseline", required=True, help="Folder, or models:/... or runs:/... of MLflow.")
@click.option(
    "--store",
    required=True,
    envvar="LENSAI_STORE",
    show_envvar=True,
    help="Folder for a SQLite file, or postgresql://user:password@host/name.",
)
@click.option("--tracking-uri", help="MLflow tracking URI; by default MLflow's own setting.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port to listen at.")
@click.option("--token-file", type=click.Path(dir_okay=False, path_type=Path), help="A line each: <token> [<sensor>].")
@click.option("--no-tokens", is_flag=True, help="Let everyone who reaches the address upload and read.")
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
    host: str,
    port: int,
    token_file: Path | None,
    no_tokens: bool,
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
    click.echo(f"{baseline}, {loaded.n:,} images; http://{host}:{port}/", err=True)
    run(
        loaded,
        store,
        host=host,
        port=port,
        token_file=token_file,
        no_tokens=no_tokens,
        settings=settings,
        name=baseline,
    )
