"""Images in host memory are added up in one pass, by the compiled loop of `compiled.py`, where numba is installed.

Without numba the formulas over planes do it, which gives the same numbers up to what float32 leaves, in three to four
times the time. Numba is imported when the first image comes, and once in a process; what it compiles is kept on disk,
in `__pycache__` beside the package or where `NUMBA_CACHE_DIR` says, for other processes to read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from typing import Any, Final

import numpy as np
from array_api_compat import is_numpy_array
from numpy.typing import NDArray

from lensai_integrations.measures.inputs import Images
from lensai_integrations.measures.pixels import BT601, OVERSHOOT, are_bytes, is_uint8
from lensai_integrations.problems import pass_on

#: Numbers of images that are not contiguous, or of another dtype, made so at a time: those of a 224 x 224 image.
_CONVERTED: Final = 3 * 224 * 224
#: Three weighted sums of R, G and B: luma, and the two opponents of `images.COMBINATIONS`.
_LUMA: Final = np.array(BT601)
_OPPONENTS: Final = np.array([(1.0, -1.0, 0.0), (0.5, 0.5, -1.0)])

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Added:
    """What n images came to.

    Attributes:
        sums: As `compiled.py` lays them out, float64 `[n, WIDTH]`.
        shares: How often each 8-bit luma occurs, `[n, 256]`.
        counts: How often each value occurs in each channel of all valid images, `[C, 256]`, if that was wanted.
        valid: bool `[n]`, false for an image with a value that is not finite or far outside 0-255.
        rounded: The pixels of valid images as bytes, `[m, C, H, W]`, if that was wanted.
        size: `(H, W)`.
    """

    sums: NDArray[np.float64]
    shares: NDArray[np.int64]
    counts: NDArray[np.int64]
    valid: NDArray[np.bool_]
    rounded: NDArray[np.uint8]
    size: tuple[int, int]

    def of_luma(self) -> dict[str, Any]:
        """The fields of `images.Sums`."""
        layout, channels, pixels = _kernel(), len(self.counts), self.size[0] * self.size[1]
        means = self.sums / pixels
        first = self.sums[:, layout.FIRST : layout.FIRST + channels]
        mean = means[:, layout.CHANNELS : layout.CHANNELS + channels]
        squares = means[:, layout.SQUARES : layout.SQUARES + channels]
        slope, square, _ = means[:, layout.LAPLACIAN : layout.LAPLACIAN + 3].T
        inner = max((self.size[0] - 2) * (self.size[1] - 2), 1)
        fields = {
            "mean": first + mean,
            "variance": np.maximum(squares - mean * mean, 0.0),
            "laplacian_variance": np.maximum(square - slope * slope, 0.0) * 1e-6,
            "ridge": self.sums[:, layout.LAPLACIAN + 2] / inner * 1e-3,
            "shares": self.shares / pixels,
        }
        if channels == 1:
            fields["luma_variance"] = fields["variance"][:, 0]
        else:
            order = layout.SQUARES + np.array([(0, 3, 4), (3, 1, 5), (4, 5, 2)])
            covariance = means[:, order] - mean[:, :, None] * mean[:, None, :]
            fields["luma_variance"] = np.maximum(_LUMA @ covariance @ _LUMA, 0.0)
            spreads = [weights @ covariance @ weights for weights in _OPPONENTS]
            fields["opponents_variance"] = np.maximum(sum(spreads), 0.0)
            fields["saturation"] = means[:, layout.SATURATION]
        missing = {"opponents_variance": None, "saturation": None}
        return missing | {name: values.astype(np.float32) for name, values in fields.items()} | {"size": self.size}

    def of_gray(self) -> dict[str, NDArray[np.float32]]:
        """The fields of `edge.EdgeSums`."""
        layout, channels = _kernel(), len(self.counts)
        means = self.sums / (self.size[0] * self.size[1])
        gray, square = means[:, layout.GRAYS : layout.GRAYS + 2].T
        slope, of_slopes, _ = means[:, layout.GRAY_LAPLACIAN : layout.GRAY_LAPLACIAN + 3].T
        low, high = self.sums[:, layout.GRAY_ENDS : layout.GRAY_ENDS + 2].T
        fields = {
            "mean": means[:, layout.BYTES : layout.BYTES + channels],
            "gray_mean": gray,
            "gray_variance": np.maximum(square - gray * gray, 0.0),
            "gray_low": low,
            "gray_high": high,
            "laplacian_variance": np.maximum(of_slopes - slope * slope, 0.0),
        }
        return {name: values.astype(np.float32) for name, values in fields.items()}


@lru_cache(maxsize=1)
def _kernel() -> Any:
    return import_module("lensai_integrations.measures.compiled")


@lru_cache(maxsize=2)
def _adder(dtype: str) -> Callable[..., None] | None:
    """The compiled loop for pixels of this dtype; None where there is none, which is logged."""
    try:
        numba = import_module("numba")
    except ModuleNotFoundError:
        log.info("images in host memory are measured three to four times as fast with numba: pip install numba")
        return None
    except Exception as error:  # noqa: BLE001  what it raises where numpy is too new for it
        pass_on(error)
        log.warning("images in host memory are measured without numba, which cannot be imported: %s", error)
        return None
    if numba.config.DISABLE_JIT:  # Python would run the loop: a second for an image
        log.info("images in host memory are measured without numba, which NUMBA_DISABLE_JIT turns off")
        return None
    try:
        adder: Callable[..., None] = _kernel().adder(dtype)
        return adder
    except Exception as error:  # noqa: BLE001  a compiler has many
        pass_on(error)
        log.warning("images in host memory are measured without numba, which cannot compile the loop: %s", error)
        return None


def warm() -> None:
    """Have the loops compiled or read from disk, so that processes that are forked from this one need not.

    Example:
        >>> warm()
    """
    for dtype in ("uint8", "float32"):
        _adder(dtype)


def add_up(images: Images, *, luma: bool, gray: bool, counts: bool = False, rounded: bool = False) -> Added | None:
    """One pass over a batch in host memory; None of other batches, of none, and where numba is not installed.

    Args:
        images: What `ImageInputs.read` returned.
        luma: Whether `Added.of_luma` is wanted.
        gray: Whether `Added.of_gray` is.
        counts: Whether `Added.counts` are.
        rounded: Whether `Added.rounded` is.

    Example:
        >>> from lensai_integrations.measures.inputs import ImageInputs
        >>> added = add_up(ImageInputs().read(np.full((2, 8, 8), 9, np.uint8)), luma=False, gray=False, counts=True)
        >>> added is None or bool(added.counts[0, 9] == 128)
        True
    """
    if not is_numpy_array(images.pixels) or not images.n or not images.height * images.width:
        return None
    adder = _adder("uint8" if is_uint8(images.pixels) else "float32")
    if adder is None:
        return None
    layout, n, channels, size = _kernel(), images.n, images.channels, (images.height, images.width)
    wanted = luma * layout.LUMA + gray * layout.GRAY + counts * layout.COUNTS + rounded * layout.ROUNDED
    added = Added(
        sums=np.zeros((n, layout.WIDTH)),
        shares=np.zeros((n if luma else 0, 256), np.int64),
        counts=np.zeros((channels, 256), np.int64),
        valid=np.empty(n, np.bool_),
        rounded=np.empty((n if rounded else 0, channels, *size), np.uint8),
        size=size,
    )
    undo = np.array([images.gain, images.offset], np.float32)
    inside = (np.float32(-OVERSHOOT), np.float32(255 + OVERSHOOT))
    kind = (are_bytes(images.pixels, images.gain, images.offset), images.whole)
    flat = added.rounded.reshape(len(added.rounded), channels * size[0] * size[1])
    taken = 0
    for part, memory, starts, step in _contiguous(images):
        bytes_of_part = flat[taken:]
        adder(
            memory, starts, step, size, undo, inside, kind, wanted, added.sums[part], added.shares[part],
            added.counts, added.valid[part], bytes_of_part,
        )  # fmt: skip
        taken += int(np.count_nonzero(added.valid[part]))
    return replace(added, rounded=added.rounded[:taken]) if rounded else added


def _contiguous(images: Images) -> Iterator[tuple[slice, NDArray[Any], NDArray[np.int64], int]]:
    """Images as `[n, numbers of one]`, not copied where that can be; where channels begin; the step in one."""
    n, channels = images.n, images.channels
    pixels, whole, plane = images.pixels, slice(0, n), images.height * images.width
    in_turn = pixels.transpose(0, 2, 3, 1)
    order, reverse = np.arange(channels), in_turn[..., ::-1]
    if pixels.dtype in (np.uint8, np.float32):
        if pixels.flags.c_contiguous:
            yield whole, pixels.reshape(n, -1), order * plane, 1
            return
        if in_turn.flags.c_contiguous:
            yield whole, in_turn.reshape(n, -1), order, channels
            return
        if reverse.flags.c_contiguous:
            yield whole, reverse.reshape(n, -1), order[::-1].copy(), channels
            return
    dtype = np.uint8 if is_uint8(pixels) else np.float32
    step = max(1, _CONVERTED // (channels * plane))
    for start in range(0, n, step):
        part = slice(start, min(start + step, n))
        with np.errstate(over="ignore", invalid="ignore"):
            block = np.ascontiguousarray(pixels[part], dtype)
        yield part, block.reshape(len(block), -1), order * plane, 1
