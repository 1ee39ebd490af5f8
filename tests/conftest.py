"""Fixtures several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real test data; tests that want it skip where it is absent."""
    folder = Path(os.environ.get("LENSAI_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real test data not found at {folder}: set LENSAI_TEST_DATA to the folder that holds it")
    return folder


#: Programs that tests start in processes of their own.
collect_ignore = ["lightning/ddp_script.py", "lightning/spawn_script.py"]
