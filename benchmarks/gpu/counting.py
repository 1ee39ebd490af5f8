"""What profiling asks of a GPU, counted where there is none: kernel launches, bytes moved, keys sorted, copies.

Batches of a `Setting` go through the callback's own recording, with the hooks on a model, on a CUDA device that does
not exist: torch's `FakeTensorMode` gives every operation its shapes, dtypes and devices, and computes nothing. Every
operation that reaches torch's dispatcher is put down with the file of the package that asked for it.

    python -m benchmarks.gpu.counting [--batch 128] [--dtype float32] [--channels-last] [--batches 40] [--json FILE]
    python -m benchmarks.gpu.counting --all
    python -m benchmarks.gpu.counting --list 6

What is counted is exact, but for the rules of `costs.py`; a Triton kernel moves its tensors once. Times are estimates,
the longest of what launches, bytes and keys take, operation by operation, under three assumptions. Nothing here is a
measurement.
"""

from __future__ import annotations

import argparse
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import results
from benchmarks.gpu.costs import ASSUMPTIONS, Assumption, Copy, Operation, bytes_of, cost
from benchmarks.gpu.data import BYTES, NORMALISED
from benchmarks.gpu.recorded import Answers, Recorded
from lensai_integrations import ImageInputs, Profiler
from lensai_integrations.arrays import namespaces
from lensai_integrations.monitoring.batches import Measuring
from lensai_integrations.profiles.profile import Profile

PACKAGE: Final = "lensai_integrations"
#: The module of the package that launches Triton kernels: all through its function `launch`, where `runs_on` says so.
KERNELS: Final = f"{PACKAGE}.measures.kernels"
#: Batches after which every buffer is there and every sketch has been filled once.
STEADY: Final = 4
#: Operations that launch nothing, beside views.
_FREE: Final = {"empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "_unsafe_view", "lift_fresh"}
_ASIDE: Final = {"device", "sym_size", "sym_numel", "sym_stride", "is_contiguous", "size", "stride", "is_pinned"}
#: Operations that read a value back to the host, whatever else they do.
_WAITS: Final = {"_local_scalar_dense", "nonzero", "masked_select", "bincount", "_unique2", "unique_consecutive"}


#: Images of ResNet-50 in bfloat16 that are trained on a second.
IMAGES_A_SECOND: Final = 2750


@dataclass(frozen=True)
class Setting:
    """What is profiled.

    Attributes:
        batch: Images in a batch.
        side: Their height and width.
        dtype: `"float32"`, `"bfloat16"`, ... normalised as for ImageNet, or `"uint8"`.
        channels_last: Whether NCHW images lie in memory channel by channel within each pixel.
        classes: Outputs of the model, bfloat16.
        width: Channels of the layer that is read, bfloat16.
        conventions: What images are measured by.
        layers: Whether outputs and the layer are profiled too, and not images and labels alone.
        kernels: Whether Triton is there, and not the formulas alone.
    """

    batch: int = 128
    side: int = 224
    dtype: str = "float32"
    channels_last: bool = False
    classes: int = 1000
    width: int = 2048
    conventions: tuple[str, ...] = ("lensai",)
    layers: bool = True
    kernels: bool = True

    @property
    def reader(self) -> ImageInputs:
        """How such images are read."""
        return BYTES if self.dtype == "uint8" else NORMALISED

    def images(self, device: str = "cuda") -> Tensor:
        """A batch of zeros."""
        shape = self.batch, 3, self.side, self.side
        images = torch.zeros(shape, dtype=getattr(torch, self.dtype), device=device)
        return images.to(memory_format=torch.channels_last) if self.channels_last else images

    @property
    def name(self) -> str:
        """Such as `float32, batch 128`."""
        parts = [self.dtype, "channels last" if self.channels_last else "", f"batch {self.batch}"]
        parts += [] if self.layers else ["images and labels alone"]
        parts += [] if self.kernels else ["without Triton"]
        return ", ".join(filter(None, [*parts, *(name for name in self.conventions if name != "lensai")]))


@dataclass
class Counts:
    """What was counted of some batches."""

    setting: Setting
    operations: list[Operation] = field(default_factory=list)
    peak: dict[int, int] = field(default_factory=dict)
    kept: int = 0
    problems: list[str] = field(default_factory=list)

    def between(self, first: int, stop: int | None = None) -> list[Operation]:
        """Those of some batches, by default from one on."""
        return [op for op in self.operations if op.batch >= first and (stop is None or op.batch < stop)]

    @property
    def batches(self) -> int:
        """How many there were."""
        return len(self.peak)

    def mean(self, what: str, first: int = STEADY) -> float:
        """Mean of `launches`, `bytes` or `keys` a batch, from a batch on."""
        return sum(getattr(op, what) for op in self.between(first)) / max(self.batches - first, 1)

    def launches_by_batch(self) -> list[int]:
        """Launches of each batch."""
        by_batch = Counter[int]()
        for op in self.operations:
            by_batch[op.batch] += op.launches
        return [by_batch[number] for number in range(self.batches)]

    def copies(self, first: int = 0, stop: int | None = None) -> list[Copy]:
        """Between host and device."""
        return [op.copy for op in self.between(first, stop) if op.copy is not None]

    def milliseconds(self, assumption: Assumption, first: int = STEADY) -> float:
        """An estimate of the device's time a batch."""
        return 1e3 * sum(map(assumption.seconds, self.between(first))) / max(self.batches - first, 1)


class Tally(TorchDispatchMode):
    """Puts down what the dispatcher sees of a device, within `of(batch, phase)`.

    Attributes:
        live: Bytes of the device that are taken by what was made there.
    """

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts
        self._batch, self._phase = 0, ""
        self._sizes: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._pinned: weakref.WeakSet[Any] = weakref.WeakSet()
        self.live = 0

    @contextmanager
    def of(self, batch: int, phase: str) -> Iterator[None]:
        """What happens in here belongs to a batch and a phase."""
        self._batch, self._phase = batch, phase
        self.counts.peak.setdefault(batch, 0)
        before = self.live
        with self, _as_on_a_gpu(self.kernel if self.counts.setting.kernels else None):
            yield
        self.counts.peak[batch] = max(self.counts.peak[batch], self.live - before)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.__name__.split(".")[0]
        if name == "is_pinned" and args[0].untyped_storage() in self._pinned:
            return True
        self._note_wait(name, args)
        result = self._pin(args[0]) if name == "_pin_memory" else func(*args, **kwargs)
        answers = list(_tensors(result))
        for tensor in answers:
            self._track(tensor)
            if kwargs.get("pin_memory"):
                self._pinned.add(tensor.untyped_storage())
        arguments = [*_tensors(args), *_tensors(list(kwargs.values()))]
        on_device = any(tensor.device.type == "cuda" for tensor in arguments + answers)
        if on_device and name not in _ASIDE:
            self._put_down(func, name, args, kwargs, arguments, answers)
        return result

    def kernel(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Put down a Triton kernel, which moves each of its tensors once."""
        file, line = _asked_by()
        shapes, moved = _shapes(list(tensors.values())), sum(map(bytes_of, tensors.values()))
        self._add(Operation(self._batch, self._phase, f"kernel {name}", file, line, shapes, 1, moved))

    def _put_down(
        self, func: Any, name: str, args: Any, kwargs: Any, arguments: list[Tensor], answers: list[Tensor]
    ) -> None:
        file, line = _asked_by()
        if not file:
            return  # the model's own
        launches, moved, keys = (
            (0, 0, 0) if func.is_view or name in _FREE else cost(name, args, kwargs, arguments, answers)
        )
        shapes = f"{_shapes(arguments)} -> {_shapes(answers)}"
        copy = self._copy(name, args, kwargs, answers)
        self._add(Operation(self._batch, self._phase, name, file, line, shapes, launches, moved, keys, copy))

    def _note_wait(self, name: str, args: Any) -> None:
        """Put down that a value is about to be read back: without values, most such operations raise."""
        file, line = _asked_by()
        if not file or not any(tensor.device.type == "cuda" for tensor in _tensors(args)):
            return
        if name in _WAITS or (name.startswith("index") and any(map(_is_mask, _listed(args)))):
            shapes = _shapes(list(_tensors(args)))
            self._add(Operation(self._batch, self._phase, name, file, line, shapes, 0, 0, waits=True))

    def _add(self, operation: Operation) -> None:
        self.counts.operations.append(operation)

    def _copy(self, name: str, args: Any, kwargs: Any, answers: list[Tensor]) -> Copy | None:
        if name not in ("_to_copy", "copy_"):
            return None
        source, target = (args[1], args[0]) if name == "copy_" else (args[0], answers[0])
        if source.device.type == target.device.type:
            return None
        to_device = bool(target.device.type == "cuda")
        host = source if to_device else target
        non_blocking = bool(kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
        return Copy(to_device, bytes_of(source), host.untyped_storage() in self._pinned, non_blocking)

    def _pin(self, tensor: Tensor) -> Tensor:
        """What `pin_memory()` answers; fake tensors have no such operation."""
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype)
        self._pinned.add(pinned.untyped_storage())
        return pinned

    def _track(self, tensor: Tensor) -> None:
        """Follow how much memory of the device there is while it lives."""
        if tensor.device.type != "cuda" or tensor.untyped_storage() in self._sizes:
            return
        storage = tensor.untyped_storage()
        size = self._sizes[storage] = int(storage.nbytes())
        self.live += size
        self.counts.peak[self._batch] = max(self.counts.peak[self._batch], self.live)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.live -= size


@contextmanager
def _as_on_a_gpu(put_down: Callable[[str, Mapping[str, Tensor]], None] | None) -> Iterator[None]:
    """Within this the package treats tensors without values as a GPU's, and its Triton kernels are put down.

    Args:
        put_down: Given a kernel's name and its tensors, instead of launching it; with None Triton is not there.
    """

    def launch(kernel: str, programs: int, tensors: Mapping[str, Tensor | None], numbers: Mapping[str, Any]) -> None:
        assert put_down is not None
        assert programs > 0
        put_down(kernel, {name: tensor for name, tensor in tensors.items() if tensor is not None})

    def runs_on(_: Any) -> bool:  # a mock would keep the images that it is asked about
        return put_down is not None

    with ExitStack() as stack:
        stack.enter_context(mock.patch.multiple(namespaces, _stages=_is_on_cuda, _queue_of=lambda like: 0))
        stack.enter_context(mock.patch.object(Tensor, "numpy", _numbers_of(Tensor.numpy)))
        if find_spec(KERNELS) is not None:
            kernels = import_module(KERNELS)
            stack.enter_context(mock.patch.object(kernels, "runs_on", runs_on))
            stack.enter_context(mock.patch.object(kernels, "launch", launch))
        yield


def _is_on_cuda(like: Tensor) -> bool:
    return like.device.type == "cuda"


def _numbers_of(true: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """`Tensor.numpy`, which also answers for a buffer of the host that has no values: what is written there is lost."""

    def numpy(tensor: Tensor, *args: Any, **options: Any) -> Any:
        if isinstance(tensor, FakeTensor) and tensor.device.type == "cpu":
            return np.empty(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        return true(tensor, *args, **options)

    return numpy


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _tensors(entry)


def _listed(args: Any) -> list[Any]:
    return list(args[1]) if len(args) > 1 and isinstance(args[1], list | tuple) else []


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype == torch.bool


def _shapes(tensors: Sequence[Tensor]) -> str:
    return ", ".join(f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}" for tensor in tensors)


def _asked_by() -> tuple[str, int]:
    """File and line of the innermost function of the package that is running; "" if there is none."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if f"{PACKAGE}/" in name:
            return name.rpartition(f"{PACKAGE}/")[2], frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]
    return "", 0


# -- batches on a device that does not exist


class FakeTraining:
    """The callback's recording of a `Setting` on the device that does not exist; use it `with FakeTensorMode()`."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.model = Answers(setting.width, setting.classes, "cuda")
        self.counts = Counts(setting)
        self.tally = Tally(self.counts)
        self.step = 0
        layers = ["avgpool"] if setting.layers else None
        self.recorded = Recorded(self.model, setting.reader, layers, conventions=setting.conventions)

    def begin_epoch(self) -> None:
        """Begin another pass; sketches begin from nothing."""
        with self.tally.of(self.step, "start"):
            self.recorded.begin()

    def batch(self) -> None:
        """One step."""
        images = self.setting.images()
        labels = torch.zeros(self.setting.batch, dtype=torch.int64, device="cuda")
        with self.tally.of(self.step, "open"):
            self.recorded.open(images, labels)
        with self.tally.of(self.step, "forward"):
            self.model(images)
        with self.tally.of(self.step, "close"):
            self.recorded.close()
        self.step += 1
        del images
        self.counts.kept = self.tally.live


def counted(setting: Setting, batches: int = 40, epochs: int = 1) -> Counts:
    """What is asked of the device in so many batches, epoch after epoch; batches are numbered through."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        training = FakeTraining(setting)
        for epoch in range(epochs):
            if epoch:
                training.begin_epoch()
            for _ in range(batches):
                training.batch()
        training.counts.problems = training.recorded.problems.messages
        return training.counts


def counted_windows(setting: Setting, windows: int = 3, batches: int = 2) -> Counts:
    """What a monitor's windows ask of the device; each counts as one batch. None of them is judged."""
    measuring = Measuring(_reference(setting))
    measuring._settings["task"] = "logits"  # that they are is else read from the first rows, which have no values here
    counts = Counts(setting)
    tally = Tally(counts)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        images = setting.images()
        labels = torch.zeros(setting.batch, dtype=torch.int64, device="cuda")
        outputs = torch.zeros(setting.batch, setting.classes, device="cuda")
        layers = {"avgpool": torch.zeros(setting.batch, setting.width, device="cuda")}
        for window in range(windows):
            with tally.of(window, "window"):
                profiler = measuring.profiler()
                for _ in range(batches):
                    profiler.update(inputs=images, outputs=outputs, embeddings=layers, labels=labels)
    return counts


def _reference(setting: Setting) -> Profile:
    """Some rows of such a model, in host memory."""
    rng = np.random.default_rng(0)
    profiler = Profiler(inputs=setting.reader, task="logits", seed=[0])
    images = rng.random((64, 3, 8, 8), np.float32)
    profiler.update(
        inputs=images if setting.dtype != "uint8" else (255 * images).astype(np.uint8),
        outputs=rng.normal(size=(64, setting.classes)).astype(np.float32),
        embeddings={"avgpool": rng.normal(size=(64, setting.width)).astype(np.float32)},
        labels=rng.integers(0, setting.classes, 64),
    )
    return profiler.profile()


# -- what is printed


#: What the files of the package do in a batch; one that is not here goes by its name.
PARTS: Final = {
    "profiling/batch_reading.py": "copies of images and labels",
    "torch/taps.py": "hooks",
    "measures/embeddings.py": "hooks",
    "measures/kernels.py": "image kernels",
    "measures/pixels.py": "image formulas",
    "measures/images.py": "image formulas",
    "measures/inputs.py": "image formulas",
    "measures/edge.py": "image formulas",
    "sketches/counts.py": "256-bin counts",
    "sketches/bank.py": "banks of quantiles",
    "sketches/moments.py": "moments",
    "sketches/kernel_mean.py": "kernel mean",
    "sketches/rows.py": "sample of rows",
    "sketches/categories.py": "classes",
    "measures/outputs.py": "softmax and scores",
    "profiling/measuring.py": "putting together",
    "profiling/profiler.py": "putting together",
    "arrays/namespaces.py": "copies from the host",
}
LARGE: Final = 1 << 20


def part_of(operation: Operation) -> str:
    """What an operation is for. The formulas over pixels are told apart from those over a few numbers an image."""
    part = PARTS.get(operation.file, operation.file)
    if part == "image formulas":
        part += ", pixels" if operation.bytes >= LARGE else ", a few numbers an image"
    return part


def table(counts: Counts, first: int = STEADY) -> list[dict[str, Any]]:
    """Means a batch by part, those with the most bytes first, and `total`."""
    by_part: dict[str, list[Operation]] = {}
    for operation in counts.between(first):
        by_part.setdefault(part_of(operation), []).append(operation)
    number = max(counts.batches - first, 1)
    lines = []
    for part, operations in sorted(by_part.items(), key=lambda item: -sum(op.bytes for op in item[1])):
        lines.append(_line(part, operations, number))
    return [*lines, _line("total", counts.between(first), number)]


def _line(part: str, operations: list[Operation], number: int) -> dict[str, Any]:
    line: dict[str, Any] = {"part": part}
    line["calls"] = sum(1 for _ in operations) / number
    line["launches"] = sum(op.launches for op in operations) / number
    line["MB"] = sum(op.bytes for op in operations) / number / 1e6
    line["M keys"] = sum(op.keys for op in operations) / number / 1e6
    for name, assumption in ASSUMPTIONS.items():
        line[f"us {name}"] = 1e6 * sum(map(assumption.seconds, operations)) / number
    return line


def copies_in_words(copies: Sequence[Copy]) -> list[str]:
    """Copies by kind, the largest first."""
    alike = Counter(copies)
    lines = []
    for copy, times in sorted(alike.items(), key=lambda item: -item[0].bytes):
        way = "to the device" if copy.to_device else "TO THE HOST"
        memory = "pinned" if copy.pinned else "pageable"
        lines.append(f"{times} x {copy.bytes:,} B {way}, {memory}{'' if copy.non_blocking else ', BLOCKING'}")
    return lines


def report(counts: Counts, first: int = STEADY) -> str:
    """A table and the copies, for people."""
    lines = [f"{counts.setting.name}: batches {first} to {counts.batches - 1}, mean a batch", ""]
    rows = table(counts, first)
    names = list(rows[0])
    lines.append(f"{names[0]:36}" + "".join(f"{name:>11}" for name in names[1:]))
    lines += [f"{row['part']:36}" + "".join(f"{row[name]:11.1f}" for name in names[1:]) for row in rows]
    step = counts.setting.batch / IMAGES_A_SECOND * 1e3
    shares = ", ".join(f"{name} {counts.milliseconds(each, first) / step:.1%}" for name, each in ASSUMPTIONS.items())
    lines.append(f"of a step of {step:.1f} ms ({IMAGES_A_SECOND:,} images/s), estimated: {shares}")
    by_batch = counts.launches_by_batch()
    lines.append(f"launches: first batch {by_batch[0]}, then {min(by_batch[first:])} to {max(by_batch[first:])}")
    peak = max(bytes_ for number, bytes_ in counts.peak.items() if number >= first)
    lines.append(f"memory: {peak / 2**20:.0f} MiB at most, {counts.kept / 2**20:.1f} MiB kept by sketches")
    for title, copies in (("first batch", counts.copies(0, 1)), ("later", counts.copies(first))):
        size = sum(copy.bytes for copy in copies)
        lines.append(f"copies, {title}: {len(copies)}, {size / 1e6:.2f} MB")
        lines += [f"    {line}" for line in copies_in_words(copies)[:8]]
    waits = {f"{op.name} in {op.file}:{op.line}" for op in counts.between(first) if op.waits}
    lines.append(f"reads a value back: {', '.join(sorted(waits)) or 'nothing'}")
    return "\n".join([*lines, f"problems: {counts.problems or 'none'}", ""])


def figures(counts: Counts, first: int = STEADY) -> dict[str, Any]:
    """For `results.write`."""
    copies = counts.copies(first)
    return {
        "setting": asdict(counts.setting),
        "by part": {row.pop("part"): row for row in table(counts, first)},
        "copies a batch": len(copies) / max(counts.batches - first, 1),
        "bytes copied a batch": sum(copy.bytes for copy in copies) / max(counts.batches - first, 1),
        "bytes copied in the first batch": sum(copy.bytes for copy in counts.copies(0, 1)),
    }


#: What the issue of cost is decided by, and what is beside it.
SETTINGS: Final = (
    Setting(),
    Setting(batch=256),
    Setting(dtype="uint8"),
    Setting(channels_last=True),
    Setting(dtype="bfloat16", channels_last=True),
    Setting(layers=False),
    Setting(kernels=False),
)


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--dtype")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--all", action="store_true", help="all the settings that are in the docs")
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--list", type=int, metavar="BATCH", help="every operation of this batch")
    results.add_argument(parser)
    options = parser.parse_args()
    chosen = {"batch": options.batch, "dtype": options.dtype, "channels_last": options.channels_last}
    setting = replace(Setting(), **{name: value for name, value in chosen.items() if value})
    found: dict[str, Any] = {}
    for each in SETTINGS if options.all else (setting,):
        counts = counted(each, options.batches)
        print(report(counts), flush=True)
        found[each.name] = figures(counts)
        for op in counts.between(options.list, options.list + 1) if options.list is not None else ():
            print(f"{op.phase:8}{op.name:28}{op.launches:3}{op.bytes / 1e6:10.2f} MB {op.file}:{op.line} {op.shapes}")
    results.write(options.json, "gpu/counting", found)


if __name__ == "__main__":
    main()
