"""Runs within a peer's own environment, started by `peer_answers.py`: scores of windows, the larger the more drift.

    python peer_scores.py evidently|frouros|permutation|speed JOBS.npz ANSWERS.json

Needs numpy and the peer, nothing of this package.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray
PERMUTATIONS = 100


def evidently(reference: Array) -> Callable[[Array], dict[str, float]]:
    """The default of `EmbeddingsDriftMetric`: ROC AUC of a linear classifier that tells the two sides apart."""
    import pandas as pd
    from evidently.legacy.metrics.data_drift.embedding_drift_methods import model

    method = model()

    def score(window: Array) -> dict[str, float]:
        try:
            found = float(method(pd.DataFrame(window), pd.DataFrame(reference))[0])
        except ValueError:  # a handful of rows, all of them in one half of its random split
            found = 0.5
        return {"Evidently": 0.5 if np.isnan(found) else found}

    return score


def median_distance(rows: Array) -> float:
    """Median distance of two rows: the usual bandwidth."""
    from scipy.spatial.distance import pdist

    return float(np.median(pdist(rows[:500])))


def frouros(reference: Array) -> Callable[[Array], dict[str, float]]:
    """MMD, with its own bandwidth of 1 and with the median distance of the reference."""
    from frouros.detectors.data_drift import MMD
    from frouros.utils.kernels import rbf_kernel

    detectors = {
        "Frouros MMD": MMD(kernel=partial(rbf_kernel, sigma=median_distance(reference))),
        "Frouros MMD, sigma 1": MMD(),
    }
    for detector in detectors.values():
        detector.fit(X=reference)
    return lambda window: {name: float(each.compare(X=window)[0].distance) for name, each in detectors.items()}


def permutation(reference: Array) -> Callable[[Array], dict[str, float]]:
    """p-values of MMD by permutation. Every permutation makes all kernel values anew: 200 rows of reference."""
    from frouros.callbacks import PermutationTestDistanceBased
    from frouros.detectors.data_drift import MMD
    from frouros.utils.kernels import rbf_kernel

    test = PermutationTestDistanceBased(num_permutations=PERMUTATIONS, num_jobs=1, random_state=31)
    detector = MMD(kernel=partial(rbf_kernel, sigma=median_distance(reference)), callbacks=test)
    detector.fit(X=reference[:200])
    return lambda window: {"p": float(detector.compare(X=window)[1]["PermutationTestDistanceBased"]["p_value"])}


def speed(reference: Array) -> Callable[[Array], dict[str, float]]:
    """Seconds of a permutation test with the whole reference."""
    from frouros.callbacks import PermutationTestDistanceBased
    from frouros.detectors.data_drift import MMD

    def seconds(window: Array) -> dict[str, float]:
        test = PermutationTestDistanceBased(num_permutations=PERMUTATIONS, num_jobs=1, random_state=31)
        detector = MMD(callbacks=test)
        detector.fit(X=reference)
        began = time.perf_counter()
        detector.compare(X=window)
        return {"seconds": time.perf_counter() - began}

    return seconds


PEERS = {"evidently": evidently, "frouros": frouros, "permutation": permutation, "speed": speed}


def answers(peer: str, jobs: Any) -> Iterator[dict[str, float]]:
    """The scores of all windows; those of one reference follow each other."""
    table, score, owner = jobs["table"], None, -1
    for i, (rows, reference) in enumerate(zip(jobs["rows"], jobs["reference"], strict=True)):
        if score is None or reference != owner:
            score, owner = PEERS[peer](table[jobs["references"][reference]].astype(float)), reference
        if i % 200 == 0:
            print(f"{peer}: windows of {len(rows)}, {i} of {len(jobs['rows'])}", file=sys.stderr, flush=True)
        yield score(table[rows].astype(float))


def main() -> None:
    """Score all windows of the file."""
    if len(sys.argv) != 4:
        print(__doc__)
        return
    peer, jobs, path = sys.argv[1:]
    began = time.perf_counter()
    with np.load(jobs) as arrays:
        scores = list(answers(peer, dict(arrays)))
    package = "evidently" if peer == "evidently" else "frouros"
    result = {"version": version(package), "seconds": time.perf_counter() - began, "scores": scores}
    Path(path).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
