"""A program that saves to one folder again and again: in each save, everything says who saved it. It never ends."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np

from lensai_integrations.storage.folders import write_folder


def save(folder: Path, name: str) -> None:
    """One save, whose files all hold the name."""
    arrays = {"x": np.frombuffer(name.encode(), np.uint8), "y": np.full(2000, hash(name) % 1000)}
    texts = {"streams.csv": name} | ({"segments.csv": name} if name.startswith("a") else {"report.html": name})
    write_folder(folder, {"saved": name}, arrays, texts)


if __name__ == "__main__":
    for number in itertools.count():
        save(Path(sys.argv[1]), f"{sys.argv[2]}-{number}")
