"""Figures of a benchmark as JSON, with what they depend on: the machine, the versions, the commit.

A file holds `benchmark`, `made` (UTC), `machine`, `versions`, `commit` and `figures`. Figures are a tree of names whose
leaves are numbers, or lists of numbers that were measured one after the other (turns, epochs).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np

PACKAGES: Final = (
    "lensai-integrations",
    "numpy",
    "scipy",
    "datasketches",
    "torch",
    "lightning",
    "keras",
    "tensorflow",
    "jax",
)
ROOT: Final = Path(__file__).resolve().parent.parent


def add_argument(parser: argparse.ArgumentParser) -> None:
    """`--json FILE`, for every script alike."""
    parser.add_argument("--json", type=Path, help="where all figures go, with the machine and the versions")


def write(path: Path | None, benchmark: str, figures: Mapping[str, Any]) -> None:
    """Write a result.

    Args:
        path: The file; `None` writes none.
        benchmark: The subject and the script, such as `sketches/bank`. Only results of one are comparable.
        figures: Names to numbers, to lists of numbers, or to more names; numpy's numbers and arrays as well.
    """
    if path is None:
        return
    result = {
        "benchmark": benchmark,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
        "figures": figures,
    }
    path.write_text(json.dumps(result, indent=1, default=_plain) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """The processor, its cores and memory, the system, the load of the last minute, and the GPU if torch found one."""
    torch = sys.modules.get("torch")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory(),
        "system": platform.platform(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "gpu": torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None,
    }


def versions() -> dict[str, str]:
    """Python's, and those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of this checkout, with `+` behind it if files differ from it; `None` outside a checkout."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def has_cuda() -> bool:
    """Whether torch is installed and finds a GPU."""
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None


def _plain(value: Any) -> Any:
    """What `json` does not know, in its words."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"figures hold a {type(value).__name__}: a number or a list of numbers was expected")
