"""The fuzzer itself, without its guide: good inputs hold, so do some mutants, and what does not is found and kept."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from lensai_integrations.errors import LensAIError

FOLDER = Path(__file__).resolve().parent.parent / "fuzz"


@pytest.fixture(scope="module")
def fuzz():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        patch.setitem(sys.modules, "atheris", None)
        import fuzz

        yield fuzz


NAMES = ["distinct", "frequent", "profile", "quantiles", "upload"]


@pytest.mark.parametrize("name", NAMES)
def test_mutants_are_refused_or_hold(fuzz, name):
    run = fuzz.Run(name)
    fuzz.blindly(run, seed=0, count=60 if name == "profile" else 300)
    assert fuzz.NAMES == NAMES
    assert set(run.counts) == {name, f"{name} admitted"}


@pytest.mark.parametrize("name", ["distinct", "frequent", "quantiles"])
def test_most_of_what_is_made_up_is_admitted(fuzz, name):
    """Mutants of what is refused at once would reach nothing."""
    target, admitted = fuzz.targets.TARGETS[name], 0
    for seed in target.seeds():
        try:
            target.admitted(seed)
        except LensAIError:
            continue
        admitted += 1
    assert admitted > len(target.seeds()) / 3


@pytest.mark.slow
def test_the_same_seed_gives_the_same_mutants(fuzz):
    """In another process, too, whose sets are in another order."""
    program = (
        "import fuzz, hashlib, random; run = fuzz.Run(); "
        "made = [run.mutant(seed, random.Random(5)) for seed in run.seeds()]; "
        "print(hashlib.sha256(repr(made).encode()).hexdigest())"
    )
    run = fuzz.Run()
    made = [run.mutant(seed, Random(5)) for seed in run.seeds()]
    assert made != run.seeds()
    environment = {**os.environ, "PYTHONHASHSEED": "3", "PYTHONPATH": os.pathsep.join([*sys.path, str(FOLDER)])}
    told = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == hashlib.sha256(repr(made).encode()).hexdigest()


def die(data):
    os.kill(os.getpid(), signal.SIGSEGV)


def fail(data):
    raise KeyError("something of our own")


@pytest.mark.parametrize("changes", [{"holds": die}, {"holds": fail}, {"admitted": fail}])
def test_what_does_not_hold_is_kept_and_said(fuzz, changes, monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(fuzz, "FOUND", tmp_path / "found")
    monkeypatch.setitem(fuzz.targets.TARGETS, "upload", fuzz.targets.TARGETS["upload"]._replace(**changes))
    with pytest.raises(fuzz.FoundError):
        fuzz.blindly(fuzz.Run("upload"), seed=0, count=3)
    [kept] = (tmp_path / "found").iterdir()
    assert kept.read_bytes() in fuzz.Run("upload").seeds()
    assert f"--replay {kept}" in capfd.readouterr().out
