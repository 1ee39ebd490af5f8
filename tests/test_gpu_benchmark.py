"""The benchmark for a GPU, where there is none: its parts run, and what fails or is unequal is said."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks.gpu import __main__ as gpu  # noqa: E402
from benchmarks.gpu import equality, frameworks, running, throughput, timing  # noqa: E402
from benchmarks.gpu.data import NORMALISED, normalised, photos  # noqa: E402
from benchmarks.gpu.pretending import as_an_accelerator  # noqa: E402
from benchmarks.gpu.running import Part, Run  # noqa: E402
from benchmarks.results import ROOT  # noqa: E402
from lensai_integrations import Profiler  # noqa: E402
from lensai_integrations.profiling import measuring  # noqa: E402

CPU = torch.device("cpu")
OTHER_PROCESSES = {"JAX", "Keras on torch", "Keras on JAX"}


@pytest.mark.slow
def test_all_parts_run_on_a_cpu(tmp_path, capsys):
    file = tmp_path / "figures.json"
    names = [part.name for part in gpu.parts_of(Run(CPU, quick=True)) if part.name not in OTHER_PROCESSES]
    assert gpu.main(["--device", "cpu", "--quick", "--json", str(file), "--only", *names]) == 0

    written = json.loads(file.read_text())
    assert written["benchmark"] == gpu.BENCHMARK
    assert list(written["figures"]) == names
    assert written["figures"]["the package's own tests"] == "needs a GPU"
    measured = {name: figures for name, figures in written["figures"].items() if isinstance(figures, dict)}
    assert set(measured) == set(names) - {"the package's own tests"}
    assert [name for name, figures in measured.items() if "error" in figures] == []
    assert measured["a step, batch 4"]["problems"] == []
    assert measured["waits"]["problems where waiting is an error"] == []
    assert all(measured["equal bytes"].values())
    assert {tuple(each["said"]) for each in measured["graphs"].values()} == {()}
    assert "failed: nothing; numbers that differ: none" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("part", [frameworks.jax, frameworks.keras_on_torch, frameworks.keras_on_jax])
def test_other_frameworks_run_in_processes_of_their_own(part):
    pytest.importorskip("jax" if part is frameworks.jax else "keras")
    found = part(Run(CPU, quick=True))
    assert "error" not in found
    if part is frameworks.jax:
        assert found["inputs"]["pixels in another bin"] == 0
    else:
        assert all(figures["rows"] == 128 for figures in found.values() if isinstance(figures, dict))


#: Imports the benchmark where nothing is installed but what its docstring names, and what torch brings along.
BARE = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import benchmarks.gpu.__main__
from benchmarks.gpu import counting
from lensai_integrations.torch.recording import LoaderPass
"""


@pytest.mark.slow
def test_it_needs_no_more_than_it_says():
    absent = [
        "click",
        "rich",
        "urllib3",
        "prometheus_client",
        "threadpoolctl",
        "numba",
        "lightning",
        "pytorch_lightning",
    ]
    absent += ["mlflow", "pandas", "sklearn", "PIL", "fastapi", "sqlalchemy", "keras", "tensorflow", "jax", "triton"]
    ran = subprocess.run([sys.executable, "-c", BARE, *absent], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_without_a_gpu_nothing_is_measured(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 0
    assert capsys.readouterr().out == "skipped: no CUDA device\n"


def test_a_part_that_is_not_there_is_an_error(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--device", "cpu", "--only", "weather"])
    assert "the parts are ceilings, equal numbers" in capsys.readouterr().err


def test_an_error_is_kept_and_the_others_go_on():
    def fails(run):
        raise ValueError("why")

    kept, said = [], []
    parts = [Part("one", 1, fails), Part("two", 1, lambda run: {"a": 1}), Part("three", 1, lambda run: {}, gpu=True)]
    figures = running.run_parts(Run(CPU, quick=True), parts, lambda found: kept.append(dict(found)), said.append)

    assert figures["one"]["error"] == "ValueError('why')"
    assert figures["two"] == {"a": 1}
    assert figures["three"] == "needs a GPU"
    assert [len(found) for found in kept] == [1, 2, 3]
    assert "   a: 1" in said


def test_what_might_not_end_in_time_does_not_begin():
    run = Run(CPU, budget=50, begun=time.monotonic())
    parts = [Part("long", 60, lambda run: {"a": 1}), Part("short", 5, lambda run: {"a": 1})]
    figures = running.run_parts(run, parts, lambda found: None, lambda line: None)
    assert figures == {"long": running.LEFT_OUT, "short": {"a": 1}}


def test_tensors_of_the_host_go_the_way_of_an_accelerator_s_and_back():
    images = photos(4, 16)
    with as_an_accelerator():
        assert isinstance(measuring.local(images), torch.Tensor)
        assert isinstance(measuring.local(images.numpy()), np.ndarray)
    assert isinstance(measuring.local(images), np.ndarray)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda images, outputs, layer, labels: (images + 0.2, outputs, layer, labels), "inputs, quantiles"),
        (lambda images, outputs, layer, labels: (images, outputs.flip(1), layer, labels), "outputs, same classes"),
        (lambda images, outputs, layer, labels: (images, outputs, layer * 1.01, labels), "embeddings/layer, moments"),
        (lambda images, outputs, layer, labels: (images, outputs, layer, labels.flip(0) * 0), "labels, same classes"),
        (lambda images, outputs, layer, labels: (images[:8], outputs[:8], layer[:8], labels[:8]), "inputs, rows"),
    ],
    ids=["images", "outputs", "layer", "labels", "fewer rows"],
)
def test_unequal_numbers_are_said(change, said):
    run = Run(CPU, quick=True)
    batches = equality.batches_of(2, torch.float32, n=32)
    host = equality.profiled(run, batches, NORMALISED, "cpu")
    assert equality.unequal(equality.differences(host, host)) == []

    other = equality.profiled(run, [change(*batch) for batch in batches], NORMALISED, "cpu")
    assert said in "; ".join(equality.unequal(equality.differences(host, other)))


def test_what_is_raised_on_the_device_is_unequal(monkeypatch):
    true = equality.profiled

    def profiled(run, batches, reader, where, *contexts):
        if where == "cpu":
            return true(run, batches, reader, where)
        raise RuntimeError("called a synchronizing CUDA operation")

    monkeypatch.setattr(equality, "profiled", profiled)
    found = equality.same_as_the_host(Run(CPU, quick=True))
    assert len(found) == 8
    for figures in found.values():
        assert figures["differs in"] == ["raised RuntimeError('called a synchronizing CUDA operation')"]


def test_a_missing_group_is_unequal():
    images = normalised(photos(8, 16))
    one, two = Profiler(inputs=NORMALISED, seed=[0]), Profiler(inputs=NORMALISED, seed=[0], task="logits")
    one.update(inputs=images)
    two.update(inputs=images, outputs=torch.randn(8, 3))
    assert equality.unequal(equality.differences(one.profile(), two.profile())) == ["outputs, missing: True"]


def test_the_ratio_is_of_steps_in_turns(monkeypatch):
    clock = iter(range(10_000))
    now = {"ms": 0.0}
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now["ms"] / 1e3 + 0 * next(clock))

    def step(milliseconds):
        def work():
            now["ms"] += milliseconds

        return work

    found = timing.interleaved(Run(CPU), {"plain": step(10.0), "with": step(11.0)}, blocks=5, steps=3)
    assert found["plain"]["ms"] == pytest.approx(10)
    assert found["with"]["ratio"] == pytest.approx(1.1)
    assert found["with"]["95%"] == [1.1, 1.1]


def test_without_triton_the_formulas_measure(monkeypatch):
    found = throughput.kernels_and_formulas(Run(CPU, quick=True))
    assert {figures["same counts"] for figures in found.values()} == {True}
    assert len(found) == 5


def test_what_is_not_installed_is_said(monkeypatch):
    monkeypatch.setattr(frameworks, "find_spec", lambda name: None)
    assert frameworks.jax(Run(CPU)) == {"not installed": "jax"}
    assert frameworks.own_tests(Run(CPU)) == {"not installed": "pytest"}
