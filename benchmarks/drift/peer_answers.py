"""What others say of the same windows: Evidently, Frouros and scipy's Kolmogorov-Smirnov test.

Evidently and Frouros get environments and processes of their own (`.benchmark-envs/`, made when missing). What they say
does not depend on this package, so it is kept beside the features and asked for again only where the rows changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp
from tqdm.auto import tqdm

from benchmarks.drift.windows import Draws, Windows
from benchmarks.peers import ONE_THREAD, python_of

PACKAGES: Final = {
    "evidently": ("evidently==0.7.23", "pandas==2.3.3"),  # it fails to import with pandas 3
    "frouros": ("frouros==0.9.0", "numpy==2.1.3", "scipy==1.14.1"),
}
KS: Final = "KS softmax"
#: Windows for each reference, clean and of each shift: the slower, the fewer.
TURNS: Final = {"evidently": (25, 3), "frouros": (25, 5), "permutation": (5, 0), "speed": (1, 0), "scipy": (10**6,) * 2}

#: Scores of windows by method, the larger the more drift; NaN where a method was not asked.
Scores = dict[str, NDArray[np.float64]]


def asked(
    peer: str, table: NDArray[np.float32], references: NDArray[Any], windows: Windows, python: Path
) -> dict[str, Any]:
    """What a peer's own process answers: version, seconds, and scores of the windows given."""
    with tempfile.TemporaryDirectory() as folder:
        jobs, answers = Path(folder) / "jobs.npz", Path(folder) / "answers.json"
        np.savez(jobs, table=table, references=references, rows=windows.rows, reference=windows.reference)
        script = Path(__file__).with_name("peer_scores.py")
        environment = {**os.environ, **ONE_THREAD, "DO_NOT_TRACK": "1"}
        environment.pop("PYTHONPATH", None)
        subprocess.run([python, script, peer, jobs, answers], env=environment, check=True)
        result: dict[str, Any] = json.loads(answers.read_text())
        return result


def chosen(windows: Windows, clean: int, shifted: int) -> Windows:
    """The first windows of each reference."""
    first = windows.first(clean, shifted)
    return Windows(
        windows.size, windows.shift[first], windows.reference[first], windows.turn[first], windows.rows[first]
    )


def ks_scores(softmax: NDArray[np.float32], references: NDArray[Any], windows: Windows) -> dict[str, Any]:
    """The smallest p-value of a test per class times their number, as a score."""
    began, found = time.perf_counter(), []
    for rows, reference in zip(tqdm(windows.rows, f"{KS}, {windows.size}"), windows.reference, strict=True):
        p = ks_2samp(softmax[references[reference]], softmax[rows], axis=0).pvalue
        found.append({KS: -min(1.0, softmax.shape[1] * float(p.min()))})
    return {"version": version("scipy"), "seconds": time.perf_counter() - began, "scores": found}


def kept(folder: Path, name: str, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was kept under a name, if it is about these rows; else made now."""
    path = folder / f"{name}.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if known.get("key") != key:
        known = {"key": key, **make()}
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known))
    return known


def key_of(*arrays: NDArray[Any]) -> str:
    """What changes when the rows do."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def peer_answers(
    peer: str,
    tables: Mapping[str, NDArray[np.float32]],
    draws: Draws,
    cache: Path,
    environments: Path,
    turns: tuple[int, int] | None = None,
) -> dict[int, dict[str, Any]]:
    """A peer's answers about its part of the windows by size, from the cache where they are there.

    Args:
        peer: `"evidently"`, `"frouros"`, `"permutation"` (Frouros's, windows of 50) or `"scipy"`.
        tables: Rows of all shifts, `"embeddings"` and `"softmax"`.
        draws: What is compared.
        cache: A folder.
        environments: Folder of the peers' environments.
        turns: Clean and shifted windows for each reference; by default `TURNS`.
    """
    asks = {size: peer == "scipy" or not np.all(each.clean) for size, each in draws.windows.items()}
    sizes = [50] if peer == "permutation" else [size for size, wanted in asks.items() if wanted]
    return {size: _answer(peer, tables, draws, size, cache, environments, turns or TURNS[peer]) for size in sizes}


def _answer(
    peer: str,
    tables: Mapping[str, NDArray[np.float32]],
    draws: Draws,
    size: int,
    cache: Path,
    environments: Path,
    turns: tuple[int, int],
) -> dict[str, Any]:
    windows, references = chosen(draws.windows[size], *turns), draws.references
    table = tables["softmax" if peer == "scipy" else "embeddings"]

    def make() -> dict[str, Any]:
        if peer == "scipy":
            return ks_scores(table, references, windows)
        name = "evidently" if peer == "evidently" else "frouros"
        python = python_of(name, PACKAGES[name], environments)
        return asked(peer, table, references, windows, python)

    return kept(cache, f"{peer}_{size}", key_of(table, references, windows.rows), make)


def scores_of(answers: Mapping[int, Any], windows: Windows, turns: tuple[int, int]) -> Scores:
    """A peer's scores of all windows of a size, NaN where it was not asked."""
    first, scores = windows.first(*turns), Scores()
    given = answers[windows.size]["scores"] if windows.size in answers else []
    for name in given[0] if given else ():
        scores[name] = np.full(len(first), np.nan)
        scores[name][first] = [each[name] for each in given]
    return scores


def share_below(answers: Mapping[int, Any], rate: float) -> tuple[int, int]:
    """Of the permutation test: clean windows with a p-value below the rate, and all."""
    p = [each["p"] for answer in answers.values() for each in answer["scores"]]
    return sum(value < rate for value in p), len(p)
