"""What others say of the same windows: Evidently, Frouros and scipy's Kolmogorov-Smirnov test.

Evidently and Frouros get environments and processes of their own (`.benchmark-envs/`, made when missing). What they say
does not depend on this package, so it is kept beside the features and asked for again only where the rows changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from drift_windows import Draws, Windows
from numpy.typing import NDArray
from scipy.stats import ks_2samp
from tqdm.auto import tqdm

ENVIRONMENTS: Final = Path(__file__).resolve().parent.parent / ".benchmark-envs"
PACKAGES: Final = {
    "evidently": ("evidently==0.7.23", "pandas==2.3.3"),  # it fails to import with pandas 3
    "frouros": ("frouros==0.9.0", "numpy==2.1.3", "scipy==1.14.1"),
}
KS: Final = "KS softmax"
ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
#: Windows for each reference, clean and of each shift: the slower, the fewer.
TURNS: Final = {"evidently": (25, 4), "frouros": (25, 4), "permutation": (5, 0), "speed": (1, 0), "scipy": (10**6,) * 2}

#: Scores of windows by method, the larger the more drift; NaN where a method was not asked.
Scores = dict[str, NDArray[np.float64]]


def python_of(peer: str, environments: Path) -> Path:
    """The Python of a peer's environment, made if it is not there."""
    folder = environments / peer
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists():
        print(f"making {folder} ...", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES[peer]], check=True)
        ready.touch()
    return python


def asked(
    peer: str, table: NDArray[np.float32], references: NDArray[Any], windows: Mapping[int, Windows], python: Path
) -> dict[str, Any]:
    """What a peer's own process answers: version, seconds, and scores by size of the windows given."""
    with tempfile.TemporaryDirectory() as folder:
        jobs, answers = Path(folder) / "jobs.npz", Path(folder) / "answers.json"
        each = {f"rows_{size}": some.rows for size, some in windows.items()}
        each |= {f"reference_{size}": some.reference for size, some in windows.items()}
        np.savez(jobs, table=table, references=references, sizes=np.array(list(windows)), **each)
        script = Path(__file__).with_name("drift_peer_scores.py")
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


def ks_scores(softmax: NDArray[np.float32], draws: Draws, windows: Mapping[int, Windows]) -> dict[str, Any]:
    """The smallest p-value of a test per class times their number, as a score."""
    scores: dict[str, list[dict[str, float]]] = {}
    for size, some in windows.items():
        found = []
        for rows, reference in zip(tqdm(some.rows, f"{KS}, {size}", leave=False), some.reference, strict=True):
            p = ks_2samp(softmax[draws.references[reference]], softmax[rows], axis=0).pvalue
            found.append({KS: -min(1.0, softmax.shape[1] * float(p.min()))})
        scores[str(size)] = found
    return {"scores": scores}


def kept(path: Path, peer: str, key: str, make: Any) -> dict[str, Any]:
    """What was kept of a peer, if it was asked about these rows; else made now."""
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if known.get(peer, {}).get("key") != key:
        answer = {"key": key, **make()}
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**known, peer: answer}))
        return answer
    found: dict[str, Any] = known[peer]
    return found


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
) -> dict[str, Any]:
    """A peer's answer about its part of the windows, from the cache where it is there.

    Args:
        peer: `"evidently"`, `"frouros"`, `"permutation"` (Frouros's, windows of 50) or `"scipy"`.
        tables: Rows of all shifts, `"embeddings"` and `"softmax"`.
        draws: What is compared.
        cache: A JSON file.
        environments: Folder of the peers' environments.
        turns: Clean and shifted windows for each reference; by default `TURNS`.
    """
    clean, shifted = turns or TURNS[peer]
    asks = {size: peer == "scipy" or bool(np.any(~each.clean)) for size, each in draws.windows.items()}
    sizes = [50] if peer == "permutation" else [size for size, asked_for in asks.items() if asked_for]
    windows = {size: chosen(draws.windows[size], clean, shifted) for size in sizes}
    table = tables["softmax" if peer == "scipy" else "embeddings"]
    key = key_of(table, draws.references, *(each.rows for each in windows.values()))
    if peer == "scipy":
        return kept(cache, peer, key, lambda: ks_scores(table, draws, windows))
    python = python_of("evidently" if peer == "evidently" else "frouros", environments)
    return kept(cache, peer, key, lambda: asked(peer, table, draws.references, windows, python))


def scores_of(answer: Mapping[str, Any], windows: Windows, turns: tuple[int, int]) -> Scores:
    """A peer's scores of all windows of a size, NaN where it was not asked."""
    first = windows.first(*turns)
    given = answer["scores"].get(str(windows.size), [])
    scores: Scores = {}
    for name in given[0] if given else ():
        scores[name] = np.full(len(first), np.nan)
        scores[name][first] = [each[name] for each in given]
    return scores


def share_below(answer: Mapping[str, Any], rate: float) -> tuple[int, int]:
    """Of the permutation test: clean windows with a p-value below the rate, and all."""
    p = [each["p"] for found in answer["scores"].values() for each in found]
    return sum(value < rate for value in p), len(p)
