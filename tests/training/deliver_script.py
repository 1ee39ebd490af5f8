"""Ends of fits in a program of its own: `calibrates FOLDER`, `shares FOLDER N` or `beside FOLDER N`."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from fits import baseline_of, options_of

from lensai_integrations.drift import learning
from lensai_integrations.mlflow import log
from lensai_integrations.problems import Problems
from lensai_integrations.storage.folders import write_files
from lensai_integrations.training import finish
from lensai_integrations.training.tracking import TrackedRun


def tell(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def deliver(root, n, runs=(), **options):
    settings = options_of(clean_windows=100, **options)
    finish.deliver(baseline_of(n), settings, Problems(), root=root, runs=runs, say=lambda line: None)


def calibrates(root):
    def waits(*_, **__):
        tell("calibrating")
        time.sleep(600)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    learning.calibrated = waits
    deliver(root, 120)


def shares(root, n):
    """Ten fits that save to the folder that another program saves to; what is uploaded is kept."""

    def upload(files, saved, run_id, **_):
        write_files(root / f"uploads-{n}" / run_id, files)

    log.upload_files = upload
    for i in range(10):
        deliver(root, int(n), [TrackedRun(str(i), "u")], directory=root / "shared")


def beside(root, n):
    """Ten fits, and ten of another program, that are told nothing of one another."""
    tell("ready")
    sys.stdin.readline()  # so that both have begun when the first saves
    for _ in range(10):
        deliver(root, int(n))


if __name__ == "__main__":
    what, root, *arguments = sys.argv[1:]
    {"calibrates": calibrates, "shares": shares, "beside": beside}[what](Path(root), *arguments)
