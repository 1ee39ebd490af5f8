"""The kernels for images on CUDA: interpreted, compiled for real, counted, and on CUDA where there is one."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lensai_integrations.measures import kernels
from lensai_integrations.measures.images import (
    CONVENTIONS,
    image_measures,
    measure_by_conventions,
    measure_images,
    measure_images_and_counts,
)
from lensai_integrations.measures.inputs import ImageInputs, Images
from lensai_integrations.profiling.measuring import image_measurer

BOTH = ("lensai", "lensai-edge")
BATCH = np.random.default_rng(0).integers(0, 256, (5, 3, 30, 40), dtype=np.uint8)
FLOATS = ImageInputs(layout="NCHW", scale=255.0, kind="float", channels="RGB", whole=False)

needs_triton = pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="Triton comes with torch on Linux")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture
def fresh(monkeypatch):
    """No kernel has failed yet, and nothing has been said of it."""
    monkeypatch.setattr(kernels, "_failed", [])
    monkeypatch.setattr(kernels, "_problems", type(kernels._problems)())


@pytest.mark.slow
@needs_triton
def test_interpreted_they_compute_what_the_formulas_do():
    """In a process of its own: Triton has to be told before it is imported, and compiles nothing from then on."""
    root = Path(__file__).parent.parent.parent
    paths = os.pathsep.join([str(root), str(root / "tests"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    run = subprocess.run(
        [*command, str(Path(__file__).parent / "interpreted_kernels.py")],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]


# Compiled for accelerators that are not there: by the compiler and the assembler that come with Triton, for the very
# arguments that the kernels are started with.

DTYPES = [
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32,
    torch.float64,
]  # fmt: skip


class Compilation:
    """A function of Triton's that compiles where it would start a kernel."""

    def __init__(self, function, kernels_made):
        self.function, self.kernels_made = function, kernels_made

    def __getitem__(self, grid):
        def compile(**arguments):
            self.kernels_made.append(self.function.warmup(grid=grid, **arguments))

        return compile


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """From images, conventions and a capability to the kernels that are made."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kernels, "_fail", pytest.fail)
    functions, made = kernels._functions(), []
    compilations = {name: Compilation(function, made) for name, function in functions.items()}
    monkeypatch.setattr(kernels, "_functions", lambda: compilations)

    def compile(images, conventions, capability=90):
        made.clear()
        target = GPUTarget("cuda", capability, 32)
        stub = SimpleNamespace(
            get_current_device=lambda: 1000 + capability,
            get_current_stream=lambda device: 0,
            get_current_target=lambda: target,
        )
        monkeypatch.setattr(driver, "_active", stub)
        assert kernels.measured(images, conventions) is not None
        return dict(zip(kernels.WARPS, made, strict=True))

    return compile


def resources(binary, folder):
    """Registers of a thread, and bytes of them that had to be kept in memory."""
    import triton

    path = folder / "kernel.cubin"
    path.write_bytes(binary)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    text = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True, check=True).stdout
    registers, stack, local = map(int, re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", text).groups())
    return registers, stack + local


def images_of(pixels, *, whole=False):
    channels = pixels.shape[1]
    return Images(pixels, (255.0,) * channels, (0.5,) * channels, "", whole)


PLAIN = [(images_of(torch.zeros((2, 3, 16, 16), dtype=dtype)), BOTH) for dtype in DTYPES]
OTHERS = [
    (images_of(torch.zeros((2, 15, 17, 3)).permute(0, 3, 1, 2)), BOTH[:1]),
    (images_of(torch.zeros((2, 3, 15, 17), dtype=torch.bfloat16)[:, :, 1:, ::3], whole=True), BOTH[1:]),
    (images_of(torch.zeros((2, 1, 16, 16), dtype=torch.uint8)), BOTH),
    (images_of(torch.zeros((2, 1, 15, 16))), BOTH[:1]),
    (images_of(torch.zeros((1, 1, 1, 1))), BOTH[1:]),
    (images_of(torch.zeros((2, 3, 1, 1))), BOTH[:1]),
]


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize(
    ("capability", "batches"),
    [(90, [*PLAIN, *OTHERS]), (80, [OTHERS[1]]), (75, [PLAIN[7]]), (100, [PLAIN[7]])],
)
def test_they_compile_for_real(capability, batches, compiled, tmp_path):
    for images, conventions in batches:
        for name, kernel in compiled(images, conventions, capability).items():
            registers, kept_in_memory = resources(kernel.asm["cubin"], tmp_path)
            assert kernel.metadata.shared <= 16384
            if name != "finish":  # one small program an image
                assert kept_in_memory == 0, (name, images.note, conventions)
                blocks = 65536 // (registers * 32 * kernels.WARPS[name])  # at once; on the newest a register too few
                assert blocks >= (1 if capability == 100 else 2), (name, registers)


@pytest.mark.slow
@needs_triton
def test_images_of_other_sizes_need_no_other_kernels(compiled):
    kinds = [((2, 3, 64, 48), (7, 3, 224, 224)), ((2, 3, 15, 17), (1, 3, 375, 501))]
    for first, second in kinds:
        one, other = (compiled(images_of(torch.zeros(shape)), BOTH[:1]) for shape in (first, second))
        assert all(one[name] is other[name] for name in kernels.WARPS)


@pytest.mark.slow
@needs_triton
def test_nothing_is_rounded_once_where_the_formulas_round_twice(compiled):
    """A product and a sum in one step would make other bytes of pixels that are at a boundary."""
    assembly = compiled(*PLAIN[7])["point"].asm["ptx"]
    assert "mul.rn.f32" in assembly
    assert "fma.rn.f32" not in assembly


# How they are called: with CUDA tensors that have no memory.


@pytest.fixture
def started(monkeypatch):
    """The kernels that would have been started, on tensors that need not be an accelerator's."""
    calls = []
    monkeypatch.setattr(kernels, "runs_on", lambda pixels: True)
    monkeypatch.setattr(kernels, "launch", lambda *arguments: calls.append(arguments))
    return calls


def fake_batch(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="cuda")


@pytest.mark.parametrize("channels", [1, 3])
def test_their_columns_are_those_of_the_table(channels):
    for name in CONVENTIONS:
        assert kernels.columns(name, channels) == tuple(image_measures(channels, name))


@pytest.mark.parametrize("conventions", [BOTH[:1], BOTH[1:], BOTH])
def test_a_batch_takes_three_kernels_and_reads_its_pixels_once(started, conventions):
    with FakeTensorMode():
        batch = fake_batch(128, 3, 224, 224)
        measured = image_measurer(FLOATS, *conventions)(batch)
    assert [kernel for kernel, *_ in started] == ["point", "stencil", "finish"]
    assert sum("pixels" in tensors for _, _, tensors, _ in started) == 1
    # 77 MB of pixels, and a plane of luma, and of gray, that is written and read.
    traffic = sum(kernels.traffic(kernel, tensors) for kernel, _, tensors, _ in started)
    assert traffic <= {BOTH[:1]: 134e6, BOTH[1:]: 95e6, BOTH: 147e6}[conventions]
    for name in conventions:
        assert set(measured[name]) == {"rows", "counts", "counted"}
        assert measured[name]["rows"].shape == (128, len(image_measures(3, name)))
        assert (measured[name]["counts"].shape, measured[name]["counts"].dtype) == ((3, 256), torch.int64)
        assert (measured[name]["counted"].shape, measured[name]["counted"].dtype) == ((), torch.int64)
        assert all(value.device.type == "cuda" for value in measured[name].values())


def test_large_batches_take_a_part_at_a_time(started):
    with FakeTensorMode():
        rows, *_ = kernels.measured(FLOATS.read(fake_batch(40, 3, 1000, 1000)), BOTH)
    assert [programs for kernel, programs, *_ in started if kernel == "finish"] == [16, 16, 8]
    assert max(tensors["luma"].numel() for kernel, _, tensors, _ in started if kernel == "stencil") == 16_000_000
    assert {name: tuple(each.shape) for name, each in rows.items()} == {"lensai": (40, 20), "lensai-edge": (40, 7)}


@pytest.mark.parametrize(("make", "ways"), [
    (lambda: fake_batch(2, 3, 8, 6), {"ROWS": False, "WIDE": False, "column_stride": 1}),
    (lambda: fake_batch(2, 8, 6, 3).permute(0, 3, 1, 2), {"ROWS": False, "WIDE": False, "column_stride": 3}),
    (lambda: fake_batch(2, 3, 9, 9)[:, :, 1:, :6], {"ROWS": True, "WIDE": False, "column_stride": 1}),
    (lambda: fake_batch(2, 3, 9, 9)[:, :, 1:, :1], {"ROWS": False, "WIDE": False, "column_stride": 9}),
    (lambda: fake_batch(2, 3, 1, 9)[:, :, :, ::2], {"ROWS": False, "WIDE": False, "column_stride": 2}),
    (lambda: fake_batch(1, 3, 30_000, 30_000), {"ROWS": False, "WIDE": True, "column_stride": 1}),
])  # fmt: skip
def test_pixels_are_read_where_they_lie(started, make, ways):
    with FakeTensorMode():
        assert kernels.measured(FLOATS.read(make()), BOTH) is not None
    numbers = next(numbers for kernel, _, _, numbers in started if kernel == "point")
    assert {name: numbers[name] for name in ways} == ways


def test_images_of_more_pixels_than_can_be_counted_are_left_to_the_formulas(started):
    with FakeTensorMode():
        assert kernels.measured(Images(fake_batch(1, 1, 50_000, 50_000), (1.0,), (0.0,), ""), BOTH) is None
    assert not started


def test_nothing_is_started_on_what_has_no_memory(monkeypatch):
    monkeypatch.setattr(kernels, "launch", None)
    with FakeTensorMode():
        assert not kernels.runs_on(fake_batch(2, 3, 8, 8))
        rows, _, counts, n = measure_by_conventions(FLOATS.read(fake_batch(2, 3, 8, 8)), BOTH)
    assert rows["lensai"].shape == (2, 20)
    assert (rows["lensai"].device.type, counts.device.type, n.device.type) == ("cuda", "cuda", "cuda")


@pytest.mark.parametrize("batch", [BATCH, torch.from_numpy(BATCH), torch.empty(BATCH.shape, device="meta")])
def test_other_devices_take_the_formulas(batch):
    assert not kernels.runs_on(batch)


def test_no_images_are_left_to_the_formulas(started):
    _, rows, counts = measure_images_and_counts(FLOATS.read(torch.zeros((0, 3, 8, 8))))
    assert (len(rows), int(counts.sum()), started) == (0, 0, [])


def test_a_measure_they_do_not_know_is_left_to_the_formulas(started, monkeypatch):
    monkeypatch.setitem(kernels._COLUMNS, "lensai", kernels._COLUMNS["lensai"][1:])
    kernels.columns.cache_clear()
    measure_images(Images(torch.from_numpy(BATCH), (1.0,) * 3, (0.0,) * 3, ""))
    kernels.columns.cache_clear()
    assert not started


def test_kernels_that_fail_leave_the_work_to_the_formulas_and_say_so_once(fresh, monkeypatch, caplog):
    def fail(*arguments):
        raise RuntimeError("PTX of a newer driver")

    monkeypatch.setattr(kernels, "runs_on", lambda pixels: not kernels._failed)
    monkeypatch.setattr(kernels, "launch", fail)
    images = Images(torch.from_numpy(BATCH / 255).float(), (255.0,) * 3, (0.0,) * 3, "")
    for _ in range(2):
        rows, failed, counts, n = measure_by_conventions(images, BOTH)
    expected, _, expected_counts, _ = measure_by_conventions(Images(BATCH, (1.0,) * 3, (0.0,) * 3, ""), BOTH)
    assert not failed
    np.testing.assert_allclose(rows["lensai"], expected["lensai"], rtol=1e-4, atol=1e-3)
    assert np.array_equal(counts, expected_counts)
    assert int(n) == len(BATCH)
    (message,) = caplog.messages
    assert "Triton, which makes these, failed with RuntimeError('PTX of a newer driver')" in message


def test_kernels_that_find_no_memory_once_are_tried_again(fresh, monkeypatch, caplog):
    def fail(*arguments):
        tried.append(1)
        raise RuntimeError("Triton Error [CUDA]: out of memory")

    tried = []
    monkeypatch.setattr(kernels, "runs_on", lambda pixels: not kernels._failed)
    monkeypatch.setattr(kernels, "launch", fail)
    for _ in range(2):
        _, rows = measure_images(Images(torch.from_numpy(BATCH), (1.0,) * 3, (0.0,) * 3, ""))
        np.testing.assert_allclose(
            rows, measure_images(Images(BATCH, (1.0,) * 3, (0.0,) * 3, ""))[1], rtol=1e-4, atol=1e-3
        )
    assert len(tried) == 2
    assert not caplog.messages


def test_triton_that_is_missing_is_said_once(fresh, monkeypatch, caplog):
    def missing():
        raise ModuleNotFoundError("No module named 'triton'", name="triton")

    monkeypatch.setattr(kernels, "_functions", missing)
    monkeypatch.setitem(sys.modules, "triton", None)
    assert not kernels._can_compile.__wrapped__()
    assert not kernels._can_compile.__wrapped__()
    (message,) = caplog.messages
    assert message.endswith("Triton, which makes these, is not installed")


def test_triton_is_not_imported_after_tensorflow(fresh, monkeypatch, caplog):
    monkeypatch.setattr(kernels, "_functions", None)
    monkeypatch.setitem(sys.modules, "tensorflow", np)
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    assert not kernels._can_compile.__wrapped__()
    assert "import triton first" in caplog.text


# On CUDA.


@needs_gpu
@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "cropped"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (30, 40), (224, 224), (375, 500)])
def test_on_cuda_they_compute_what_the_formulas_do(layout, dtype, size):
    values = np.random.default_rng(1).integers(0, 256, (6, 3, *size), dtype=np.uint8)
    values[1] = 77
    exact = torch.from_numpy(values if dtype == torch.uint8 else values / 255).to(dtype)
    if dtype != torch.uint8:
        exact[2, 1, -1, 0] = float("nan")
    batch = exact.cuda()
    if layout == "NHWC":
        batch = batch.to(memory_format=torch.channels_last)
    if layout == "cropped":
        room = batch.new_zeros((6, 3, size[0] + 1, size[1] + 2))
        room[:, :, 1:, 1:-1] = batch
        batch = room[:, :, 1:, 1:-1]
    gain = ((1.0 if dtype == torch.uint8 else 255.0),) * 3
    whole = dtype in (torch.float16, torch.bfloat16)
    host = exact.float() if dtype == torch.bfloat16 else exact
    expected, _, counts, n = measure_by_conventions(Images(host.numpy(), gain, (0.0,) * 3, "", whole), BOTH)
    images = Images(batch, gain, (0.0,) * 3, "", whole)
    assert kernels.runs_on(batch)
    rows, found, counted = kernels.measured(images, BOTH)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    torch.use_deterministic_algorithms(True)
    try:
        again = kernels.measured(images, BOTH)
    finally:
        torch.use_deterministic_algorithms(False)
        torch.cuda.set_sync_debug_mode("default")
    assert np.array_equal(found.cpu(), counts)
    assert int(counted) == (6 if n is None else n)
    assert torch.equal(found, again[1])
    for name in BOTH:
        assert torch.equal(rows[name].nan_to_num(-1), again[0][name].nan_to_num(-1))
        np.testing.assert_allclose(rows[name].cpu(), expected[name], rtol=1e-3, atol=1e-3, err_msg=name)


@needs_gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_on_another_device_than_the_current_one():
    rows = measure_images(Images(torch.from_numpy(BATCH).to("cuda:1"), (1.0,) * 3, (0.0,) * 3, ""))[1]
    expected = measure_images(Images(BATCH, (1.0,) * 3, (0.0,) * 3, ""))[1]
    assert rows.device.index == 1
    np.testing.assert_allclose(rows.cpu(), expected, rtol=1e-3, atol=1e-3)
