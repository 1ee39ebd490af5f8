"""What all corruptions share: what a picture is, how it comes back as it was, and random numbers of their own.

Every picture, whatever its type, becomes floats in [0, 1], is changed, and is cut off and rounded once, at the end: so
a PIL image, its bytes and its floats are corrupted alike, and alpha is never mistaken for a colour.
"""

from __future__ import annotations

import operator
import os
from typing import Any, ClassVar, Final, cast

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import get_worker_info
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from lensai_integrations.errors import InputError
from lensai_integrations.measures.pixels import OVERSHOOT

MODES: Final = ("L", "LA", "RGB", "RGBA")

_COLOURS = {1: 1, 2: 1, 3: 3, 4: 3}  # channels -> how many of them are colours; the other is alpha
_FRAMES = (tv_tensors.Image, tv_tensors.Video)


class Corruption(v2.Transform):  # type: ignore[misc]
    """Base of the corruptions: what a picture is, and how it comes back as it was.

    Takes PIL images of mode L, LA, RGB or RGBA, and tensors, `tv_tensors.Image` and `tv_tensors.Video`
    `[..., C, H, W]`, C = 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA), uint8 or float in [0, 1], any device. Floats
    that cubic resizing took outside are cut off. Each image of a batch, each frame of a video is corrupted for itself.

    Args:
        severity: 1 (slight) to 5 (strong).

    Attributes:
        levels: What severity 1 to 5 mean, a number each; in what unit, `corruptions.SEVERITIES` says.
        level: What this one's severity means.

    Raises:
        InputError: If the severity is not a whole number from 1 to 5; when called, if there is no picture, or it is of
            another mode, dtype, shape or range.

    Example:
        >>> class Dark(Corruption):
        ...     levels = (0.9, 0.7, 0.5, 0.3, 0.1)
        ...
        ...     def _change(self, pixels):
        ...         return pixels * self.level
        >>> Dark(severity=5)(torch.full((1, 1, 2), 100, dtype=torch.uint8)).tolist()
        [[[10, 10]]]
    """

    levels: ClassVar[tuple[float, ...]]

    def __init__(self, severity: int = 3) -> None:
        super().__init__()
        self.severity = _whole("severity", severity, 1, 5)
        self.level = self.levels[self.severity - 1]

    def check_inputs(self, flat_inputs: list[Any]) -> None:
        """Refuse a sample without a picture, which torchvision would hand back as it is."""
        if not any(_is_picture(each) for each in flat_inputs):
            kinds = ", ".join(sorted({type(each).__name__ for each in flat_inputs})) or "nothing"
            raise InputError(
                f"{type(self).__name__} was given no picture but {kinds}; pass a PIL image or a tensor [..., C, H, W]"
            )

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Corrupt one part of a sample; what is no picture comes back as it is."""
        if isinstance(inpt, Image):
            return self._corrupt_pil(inpt)
        return self._corrupt_tensor(inpt) if _is_picture(inpt) else inpt

    def _corrupt_pil(self, image: Image) -> Image:
        if image.mode not in MODES:
            raise InputError(
                f"PIL images should be of mode {', '.join(MODES)}, got {image.mode!r}; pass image.convert('RGB')"
            )
        changed = functional.to_pil_image(self._corrupt_tensor(functional.pil_to_tensor(image)), mode=image.mode)
        changed.info = dict(image.info)
        return cast(Image, changed)

    def _corrupt_tensor(self, image: Tensor) -> Tensor:
        pixels = _unit_floats(image.as_subclass(Tensor))
        changed = self._change_all(pixels) if image.numel() else pixels
        changed = as_bytes(changed) if image.dtype == torch.uint8 else changed.clamp(0, 1).to(image.dtype)
        return tv_tensors.wrap(changed, like=image) if isinstance(image, tv_tensors.TVTensor) else changed

    def _change_all(self, pixels: Tensor) -> Tensor:
        colours = _COLOURS[pixels.shape[-3]]
        changed = self._change(pixels[..., :colours, :, :])
        return torch.cat([changed, pixels[..., colours:, :, :]], dim=-3)

    def _change(self, pixels: Tensor) -> Tensor:
        """From float `[..., C, H, W]` in [0, 1], C = 1 or 3, to the same; may leave [0, 1]."""
        raise NotImplementedError


class RandomCorruption(Corruption):
    """Base of the corruptions that draw random numbers, from a generator of their own.

    torch's and numpy's global generators are neither used nor moved. Numbers are drawn on the CPU, so that they are the
    same on every device. A copy, a pickled or a forked one too, begins its sequence anew.

    Args:
        severity: 1 (slight) to 5 (strong).
        seed: A whole number of at least 0: the same calls in the same order give the same pictures. A worker process
            of a `DataLoader` draws from the seed and its worker id together, so no two workers draw the same, and the
            same number of workers gives the same pictures again, in every epoch that starts its workers anew. None:
            every process seeds itself from the operating system.

    Raises:
        InputError: If the severity is not a whole number from 1 to 5, or the seed not one of at least 0.

    Example:
        >>> class Flicker(RandomCorruption):
        ...     levels = (0.1, 0.2, 0.3, 0.4, 0.5)
        ...
        ...     def _change(self, pixels):
        ...         return pixels + self.level * self._normal(1)
        >>> grey = torch.full((1, 1, 1), 0.5)
        >>> Flicker(seed=1)(grey) == Flicker(seed=1)(grey)
        tensor([[[True]]])
    """

    def __init__(self, severity: int = 3, seed: int | None = None) -> None:
        super().__init__(severity)
        self.seed = None if seed is None else _whole("seed", seed, 0, None)
        self._generator: tuple[tuple[int, int | None], torch.Generator] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_generator": None}

    def _normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, float32 on the CPU."""
        worker = get_worker_info()
        place = (os.getpid(), None if worker is None else worker.id)
        if self._generator is None or self._generator[0] != place:  # a forked process has its parent's generator
            branch = () if worker is None else (worker.id,)
            (state,) = np.random.SeedSequence(self.seed, spawn_key=branch).generate_state(1, np.uint64)
            self._generator = (place, torch.Generator().manual_seed(int(state)))
        return torch.randn(shape, generator=self._generator[1])


def _is_picture(value: Any) -> bool:
    plain = isinstance(value, Tensor) and not isinstance(value, tv_tensors.TVTensor)
    return plain or isinstance(value, (Image, *_FRAMES))


def _unit_floats(image: Tensor) -> Tensor:
    """The pixels as float32, or float64 if they are, in [0, 1]."""
    if image.ndim < 3 or image.shape[-3] not in _COLOURS:
        raise InputError(
            f"images should be [..., C, H, W] with C of 1 to 4, got {tuple(image.shape)}; move the channels first"
        )
    if image.dtype == torch.uint8:
        return image.to(torch.float32) / 255
    if not image.is_floating_point():
        raise InputError(
            f"images should be uint8 or float, got {image.dtype}; convert with v2.ToDtype(torch.uint8, scale=True)"
        )
    return _checked(image if image.dtype == torch.float64 else image.to(torch.float32))


def _checked(pixels: Tensor) -> Tensor:
    low, high = (each.item() for each in pixels.aminmax()) if pixels.numel() else (0.0, 1.0)
    if not (low >= -OVERSHOOT / 255 and high <= 1 + OVERSHOOT / 255):
        raise InputError(f"float images should be in [0, 1], got {low:g} to {high:g}; corrupt them before v2.Normalize")
    return pixels.clamp(0, 1)


def as_bytes(pixels: Tensor) -> Tensor:
    """From floats to uint8: cut off at 0 and 1, rounded.

    Example:
        >>> as_bytes(torch.tensor([-1, 0.501, 2])).tolist()
        [0, 128, 255]
    """
    return (255 * pixels.clamp(0, 1)).round().to(torch.uint8)


def _whole(name: str, value: Any, low: int, high: int | None) -> int:
    accepted = f"from {low} to {high}" if high is not None else f"of at least {low}"
    try:
        number = operator.index(value)
    except TypeError:
        number = low - 1
    if isinstance(value, bool) or number < low or (high is not None and number > high):
        raise InputError(f"{name}={value!r} should be a whole number {accepted}")
    return number
