"""The `lensai` command: what a terminal or a pipeline asks of profiles.

Exit codes are an interface: 0 no drift (or done), 1 drift, 2 error of any kind, so that `lensai compare` can gate a
pipeline without anybody reading its output.
"""

from __future__ import annotations

import sys

import click

from lensai_integrations.cli.commands import (
    ERROR,
    calibrate,
    check,
    compare,
    export,
    merge,
    printable,
    profile,
    push,
    show,
)
from lensai_integrations.errors import LensAIError
from lensai_integrations.server.command import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lensai-integrations", prog_name="lensai")
def cli() -> None:
    """Baselines of what a model was trained on, and what has moved since.

    SOURCE is a folder that was saved; or runs:/<id>, models:/<name>/<version>, models:/<name>@<alias>, models:/m-<id>;
    or what a LensAI device wrote: its folder, or an upload (.tar.gz).
    """


for _command in (compare, show, calibrate, merge, profile, push, export, serve, check):
    cli.add_command(_command)


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
        click.secho(f"error: {printable(str(error))}", fg="red", err=True)
        sys.exit(ERROR)
    except Exception as error:  # noqa: BLE001  a crash must not look like "drift" to a pipeline
        click.secho(f"error: {type(error).__name__}: {printable(str(error))}", fg="red", err=True)
        sys.exit(ERROR)
