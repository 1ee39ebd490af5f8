"""Fixtures several test files share."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

# Workers of pytest-xdist are as many as the cores: threads of a second pool would spin while they wait for one another,
# which doubles the time that anything with a model in it takes. Read when numpy and torch are loaded, and by processes.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Both torch, once it loads triton, and TensorFlow bring LLVM; the process aborts if TensorFlow's is there first.
with contextlib.suppress(ImportError):
    import torch._dynamo  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real test data; tests that want it skip where it is absent."""
    folder = Path(os.environ.get("LENSAI_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real test data not found at {folder}: set LENSAI_TEST_DATA to the folder that holds it")
    return folder


#: Programs that tests start in processes of their own.
collect_ignore = ["lightning/ddp_script.py"]
