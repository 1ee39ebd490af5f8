"""Fixtures several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from time_limits import time_limit

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real test data; tests that want it skip where it is absent."""
    folder = Path(os.environ.get("LENSAI_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real test data not found at {folder}: set LENSAI_TEST_DATA to the folder that holds it")
    return folder


@pytest.fixture(params=[False, True], ids=["", "deterministic"])
def accelerator(request):
    """Makes tensors on a CUDA device that does not exist, and objects to being waited for."""
    import torch
    from checks.accelerator import an_accelerator

    torch.use_deterministic_algorithms(request.param)
    try:
        with an_accelerator() as make:
            yield make
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.fixture
def alarm():
    """Whose call is a user's time limit: from then on there is none."""
    with time_limit() as call:
        yield call


@pytest.fixture
def at_call(monkeypatch, alarm):
    """`at_call(owner, name)`: the time is up within the first call of a function."""

    def patch(owner, name):
        original, calls = getattr(owner, name), []

        def run(*arguments, **keywords):
            calls.append(1)
            result = original(*arguments, **keywords)
            if len(calls) == 1:
                alarm()
            return result

        monkeypatch.setattr(owner, name, run)

    return patch


@pytest.fixture
def calibration_ends_in(monkeypatch, alarm):
    """`calibration_ends_in(kind)`: the calibration at the end of a fit is cut short, by Ctrl-C or the time limit."""

    def patch(kind):
        def interrupted(*_, **__):
            if kind is KeyboardInterrupt:
                raise KeyboardInterrupt
            alarm()

        monkeypatch.setattr("lensai_integrations.training.finish._lacks_calibration", lambda *_: True)
        monkeypatch.setattr("lensai_integrations.drift.learning.calibrate", interrupted)

    return patch


#: Programs that tests start in processes of their own.
collect_ignore = ["lightning/ddp_script.py", "lightning/spawn_script.py"]
