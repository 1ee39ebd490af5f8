"""Images on CUDA are measured by three kernels instead of some six hundred operations; see `pixel_kernels.py`.

The formulas of `images.py` and `edge.py` say what is measured, and are what runs everywhere else. An operation over
arrays reads and writes all pixels, and each formula is several; a kernel reads them once, for all measures of all
conventions. That takes what an accelerator needs a millisecond and more for below a tenth of one.

Triton compiles the kernels. It comes with torch on Linux and is imported when the first CUDA tensor arrives. Where it
is missing, or cannot compile them, that is said once and the formulas run there too. A kernel is made for each dtype,
number of channels and choice of conventions, and for sizes and strides that are divisible by 16 and those that are not;
that takes seconds, once, since Triton keeps what it has made on disk.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, Final

from array_api_compat import is_torch_array

from lensai_integrations.arrays.namespaces import Array, dtype_name
from lensai_integrations.measures.inputs import Images
from lensai_integrations.problems import Problems, pass_on

#: Pixels of a block: the more, the fewer additions to counts in memory; but a pixel takes some fifty registers, and
#: threads with four pixels each leave enough of them for others, which work while these wait for memory.
BLOCK: Final = 2048
#: Blocks that are added up at once.
TOGETHER: Final = 64
#: Threads that share a block, in groups of 32.
WARPS: Final = {"point": 16, "stencil": 16, "finish": 2}
#: Pixels measured at once, whose luma takes 4 bytes each and is best still in the accelerator's cache when it is read.
MOST_PIXELS: Final = 1 << 24

_DTYPES: Final = {"uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"}
_COLUMNS: Final = {
    "lensai": (
        "brightness", "contrast", "sharpness", "snr", "noise_sigma", "saturation", "hue", "colourfulness", "entropy",
        "near_black", "near_white", "mean", "std", "height", "width", "aspect_ratio",
    ),
    "lensai-edge": ("brightness", "sharpness", "noise", "contrast", "mean"),
}  # fmt: skip
_COLOURS: Final = ("saturation", "hue", "colourfulness")
_PER_CHANNEL: Final = ("mean", "std")
_LARGEST: Final = 1 << 31

_problems = Problems()
_failed: list[str] = []


@lru_cache(maxsize=64)
def columns(convention: str, channels: int) -> tuple[str, ...]:
    """Stream names of the rows that the kernels make, in order; none of conventions that they do not know.

    Example:
        >>> columns("lensai-edge", 1)
        ('brightness', 'sharpness', 'noise', 'contrast', 'mean/0')
        >>> columns("mine", 3)
        ()
    """
    names = [name for name in _COLUMNS.get(convention, ()) if channels > 1 or name not in _COLOURS]
    return tuple(
        stream
        for name in names
        for stream in ([f"{name}/{channel}" for channel in range(channels)] if name in _PER_CHANNEL else [name])
    )


def runs_on(pixels: Array) -> bool:
    """Whether the kernels can read an array: a tensor that lies on CUDA, and no stand-in for one that has no memory.

    Example:
        >>> import numpy as np
        >>> runs_on(np.zeros((1, 3, 8, 8), np.uint8))
        False
    """
    if not is_torch_array(pixels) or pixels.device.type != "cuda" or dtype_name(pixels) not in _DTYPES or _failed:
        return False
    return _has_memory(pixels) and _can_compile()


def _has_memory(pixels: Array) -> bool:
    """Whether it is a tensor, or of a class that only adds to one, and none that stands for others."""
    return bool(type(pixels).__torch_dispatch__ is sys.modules["torch"].Tensor.__torch_dispatch__)


@lru_cache(maxsize=1)
def _can_compile() -> bool:
    if sys.modules["torch"].version.hip is not None:  # AMD's accelerators are called cuda too; nobody has tried them
        return False
    if "tensorflow" in sys.modules and "triton" not in sys.modules:
        # Both bring LLVM, and the process aborts if TensorFlow's is there first.
        _fail("has to be imported before TensorFlow: import triton first")
        return False
    try:
        _functions()
    except ModuleNotFoundError:
        _fail("is not installed")
    except Exception as error:  # noqa: BLE001  an installation that is broken is as good as none
        pass_on(error)
        _fail(f"failed with {error!r}")
    return not _failed


def _fail(how: str) -> None:
    """From now on the formulas do the work."""
    _failed.append(how)
    _problems.remark(
        "images on CUDA are measured by operations over arrays, which takes several times as long as by kernels:"
        f" Triton, which makes these, {how}",
        topic="kernels",
    )


@lru_cache(maxsize=1)
def _functions() -> dict[str, Any]:
    from lensai_integrations.measures import pixel_kernels

    return {name: getattr(pixel_kernels, name) for name in WARPS}


def launch(kernel: str, programs: int, tensors: dict[str, Array | None], numbers: dict[str, Any]) -> None:
    """Start a kernel on the stream that is current; nothing is waited for. All kernels are started here.

    Args:
        kernel: `"point"`, `"stencil"` or `"finish"`.
        programs: How many blocks, or images, there are.
        tensors: What it reads and writes, by the names of its arguments, on one device; None for what is not wanted.
        numbers: Its other arguments.
    """
    place = next(tensor.device for tensor in tensors.values() if tensor is not None)
    with sys.modules["torch"].cuda.device(place) if place.type == "cuda" else nullcontext():
        # A product is rounded before it is added to, as in the formulas, so that pixels come out as the same bytes.
        _functions()[kernel][(programs,)](**tensors, **numbers, num_warps=WARPS[kernel], enable_fp_fusion=False)


def measured(images: Images, conventions: Sequence[str]) -> tuple[dict[str, Array], Array, Array] | None:
    """Rows by convention, and the pixel counts of the images that are valid.

    Args:
        images: Of which `runs_on` the pixels; at least one.
        conventions: Those of which there are `columns`.

    Returns:
        float32 rows `[n, D]` by convention, NaN for an image that is not valid; int64 counts `[C, 256]`, red first; and
        of how many images those are, int64 `[]` on the device. None if the kernels failed.
    """
    torch = sys.modules["torch"]
    pixels = images.pixels.as_subclass(torch.Tensor) if _has_memory(images.pixels) else images.pixels
    n, channels, height, width = map(int, pixels.shape)
    if height * width + BLOCK >= _LARGEST:
        return None
    some = max(1, MOST_PIXELS // max(height * width, BLOCK))
    try:
        with torch.no_grad():
            rows = {
                name: pixels.new_empty((n, len(columns(name, channels))), dtype=torch.float32) for name in conventions
            }
            size = min(n, some) * (channels + 1) * 128  # of two counts each
            zeros = pixels.new_zeros(size + channels * 256 + 1, dtype=torch.int64)  # in one go
            counts, totals = zeros[:size].view(torch.int32), zeros[size:]
            batch = _Batch(images, pixels, tuple(conventions), min(n, some))
            for start in range(0, n, some):
                if start:
                    counts.zero_()
                batch.measure(start, min(start + some, n), rows, counts, totals)
    except Exception as error:  # noqa: BLE001  whatever a compiler or a driver raises
        pass_on(error)
        if "out of memory" not in str(error).lower():  # that may be otherwise at the next batch
            _fail(f"failed with {error!r}")
        return None
    return rows, totals[:-1].view(channels, 256), totals[-1]


class _Batch:
    """The buffers of a batch's kernels, and the arguments that stay the same for all of its images."""

    def __init__(self, images: Images, pixels: Array, conventions: tuple[str, ...], some: int) -> None:
        torch = sys.modules["torch"]
        _, self.channels, self.height, self.width = map(int, pixels.shape)
        self.pixels, self.size = pixels, self.height * self.width
        self.blocks = -(-self.size // BLOCK)
        lensai, edge = "lensai" in conventions, "lensai-edge" in conventions
        self.common = {"C": self.channels, "LENSAI": lensai, "EDGE": edge, "BLOCK": BLOCK}
        self.planes = {
            "luma": pixels.new_empty((some, self.size), dtype=torch.float32) if lensai else None,
            "gray": pixels.new_empty((some, self.size), dtype=torch.uint8) if edge else None,
        }
        self.parts = pixels.new_empty((some, 4 * self.channels + 9, self.blocks), dtype=torch.float32)
        self.wholes = pixels.new_empty((some, 5, self.blocks), dtype=torch.int32)
        self.numbers = _reading(images, pixels)

    def measure(self, start: int, stop: int, rows: dict[str, Array], counts: Array, totals: Array) -> None:
        """Fill some of the rows, and add to the counts."""
        n, of_luma = stop - start, counts.numel() // (self.channels + 1)
        counts, luma_counts = counts[of_luma:], counts[:of_luma]
        shape = {"height": self.height, "width": self.width, "size": self.size, "blocks": self.blocks}
        left = {"parts": self.parts, "wholes": self.wholes}
        counted = {"luma_counts": luma_counts, "counts": counts}
        reading = {"width": self.width, "size": self.size, "blocks": self.blocks, **self.numbers, **self.common}
        launch("point", n * self.blocks, {"pixels": self.pixels[start:stop], **self.planes, **left, **counted}, reading)
        launch("stencil", n * self.blocks, {**self.planes, "parts": self.parts}, {**shape, **self.common})
        answers = {name: rows[name][start:stop] if name in rows else None for name in _COLUMNS}
        tensors = {"rows": answers["lensai"], "edge_rows": answers["lensai-edge"], "totals": totals}
        del shape["size"]
        launch("finish", n, {**left, **counted, **tensors}, {**shape, **self.common, "TOGETHER": TOGETHER})


def _reading(images: Images, pixels: Array) -> dict[str, Any]:
    """How the pixels lie and what they mean."""
    _, channels, height, width = map(int, pixels.shape)
    of_image, of_channel, of_row, of_column = map(int, pixels.stride())
    if width == 1 and height > 1:  # the column's stride means nothing
        of_column = of_row
    follow = height == 1 or of_row == width * of_column
    reach = (channels - 1) * of_channel + (height - 1) * of_row + (width - 1) * of_column
    # What is not used is 0, so that another number makes no other kernel.
    of_row, of_channel = (0 if follow else of_row), (0 if channels == 1 else of_channel)
    more = (0.0,) * (3 - channels)
    gains = {f"gain_{i}": float(gain) for i, gain in enumerate((*images.gain, *more))}
    offsets = {f"offset_{i}": float(offset) for i, offset in enumerate((*images.offset, *more))}
    strides = {"image_stride": of_image, "channel_stride": of_channel, "row_stride": of_row, "column_stride": of_column}
    ways = {"WHOLE": images.whole, "ROWS": not follow, "WIDE": reach + BLOCK * of_column >= _LARGEST}
    return {**strides, **gains, **offsets, **ways}


def traffic(kernel: str, tensors: dict[str, Array | None]) -> int:
    """Bytes that a launch moves at the least: each tensor once, that of counts twice, since they are added to.

    Example:
        >>> import numpy as np
        >>> traffic("stencil", {"luma": np.zeros((2, 64), np.float32), "gray": None})
        512
    """
    times = {name: 2 if "counts" in name and kernel == "point" else 1 for name in tensors}
    return sum(
        times[name] * math.prod(tensor.shape) * tensor.dtype.itemsize
        for name, tensor in tensors.items()
        if tensor is not None
    )
