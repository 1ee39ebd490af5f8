"""Drift made to order, for demonstrations and tests: nine ways in which a camera's images go bad, in five severities.

Each is a torchvision v2 transform. What comes out is of the type, mode, dtype and size of what came in. Every picture,
whatever its type, becomes floats in [0, 1], is changed, and is cut off and rounded once, at the end: so a PIL image,
its bytes and its floats are corrupted alike. An alpha channel is never mistaken for a colour; it stays as it is, and so
do boxes, masks and labels of a sample; only `Zoom` moves alpha, boxes and masks along.

The severities are those of ImageNet-C where it has the corruption (D. Hendrycks, T. Dietterich, Benchmarking neural
network robustness to common corruptions and perturbations, ICLR 2019), made for images of 224 x 224. Blur, pixelate and
JPEG count in pixels: corrupt images in the size in which they are to be judged.
"""

from __future__ import annotations

import math
import operator
import os
from typing import Any, ClassVar, Final, TypeVar, cast

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate
from torch.utils.data import get_worker_info
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from lensai_integrations.errors import InputError
from lensai_integrations.measures.pixels import OVERSHOOT

MODES: Final = ("L", "LA", "RGB", "RGBA")
_COLOURS = {1: 1, 2: 1, 3: 3, 4: 3}  # channels -> how many of them are colours; the other is alpha
_FRAMES = (tv_tensors.Image, tv_tensors.Video)
#: What severity 1 to 5 mean. "ImageNet-C" is its table for 224 x 224; "own" was chosen by eye to be as far apart.
SEVERITIES: Final[dict[str, tuple[float, ...]]] = {
    "blur": (1, 2, 3, 4, 6),  # standard deviation of the Gaussian in pixels; ImageNet-C, gaussian_blur
    "brightness": (1.2, 1.4, 1.6, 1.8, 2.0),  # factor; does to a value of 0.5 what ImageNet-C's added 0.1 to 0.5 do
    "noise": (0.08, 0.12, 0.18, 0.26, 0.38),  # standard deviation, of the full scale; ImageNet-C, gaussian_noise
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),  # factor of the distance from the mean; ImageNet-C
    "jpeg": (25, 18, 15, 10, 7),  # quality, 1 to 100; ImageNet-C
    "pixelate": (2, 3, 4, 6, 8),  # side of a block in pixels; own: ImageNet-C's, 1.7 to 4, are of uneven sides
    "occlusion": (0.05, 0.1, 0.2, 0.3, 0.45),  # share of the picture behind dirt; own
    "colour_cast": (0.1, 0.2, 0.3, 0.4, 0.5),  # added to red's factor of 1, taken from blue's; own
    "zoom": (1.1, 1.25, 1.5, 1.75, 2.0),  # magnification; own
}
_PLACED = tuple(
    getattr(tv_tensors, name) for name in ("BoundingBoxes", "Mask", "KeyPoints") if hasattr(tv_tensors, name)
)
_REACH = 4  # standard deviations from the middle of a Gaussian to its end, as in scipy.ndimage
_GRID = 48  # points along the longer side at which the thickness of dirt is drawn
_SPECK = 1.6  # how far it is alike: the standard deviation of the Gaussian over the grid
_RIM = 0.05  # how soft the rims of the specks are, in thickness, whose standard deviation is 1 / (2 sqrt(pi) _SPECK)
_OPAQUE = 0.85  # share of the light that dirt takes
Picture = TypeVar("Picture", bound=Image | Tensor)


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
        if not any(_is_picture(value) for value in flat_inputs):
            kinds = ", ".join(sorted({type(value).__name__ for value in flat_inputs})) or "nothing"
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
        process = (os.getpid(), None if worker is None else worker.id)
        if self._generator is None or self._generator[0] != process:  # a forked process has its parent's generator
            branch = () if worker is None else (worker.id,)
            (state,) = np.random.SeedSequence(self.seed, spawn_key=branch).generate_state(1, np.uint64)
            self._generator = (process, torch.Generator().manual_seed(int(state)))
        return torch.randn(shape, generator=self._generator[1])


class Blur(Corruption):
    """A lens out of focus: a Gaussian, its standard deviation in pixels, the border mirrored.

    Args:
        severity: 1 (slight) to 5 (strong).

    Raises:
        InputError: As `Corruption` does.

    Example:
        >>> edge = torch.tensor([0, 0, 0, 255, 255, 255], dtype=torch.uint8).repeat(1, 6, 1)
        >>> Blur(severity=1)(edge)[0, 0].tolist()
        [2, 15, 77, 178, 240, 253]
    """

    levels = SEVERITIES["blur"]

    def _change(self, pixels: Tensor) -> Tensor:
        return _gaussian(pixels, self.level)


class Brightness(Corruption):
    """Too long an exposure: every value times a factor, cut off at white.

    Args:
        severity: 1 (slight) to 5 (strong).

    Raises:
        InputError: As `Corruption` does.

    Example:
        >>> Brightness(severity=1)(torch.tensor([[[0, 100, 250]]], dtype=torch.uint8)).tolist()
        [[[0, 120, 255]]]
    """

    levels = SEVERITIES["brightness"]

    def _change(self, pixels: Tensor) -> Tensor:
        return cast(Tensor, functional.adjust_brightness(pixels, self.level))


class Noise(RandomCorruption):
    """A sensor in the dark: normal noise added to every value, each channel its own.

    Args:
        severity: 1 (slight) to 5 (strong).
        seed: As `RandomCorruption` takes it.

    Raises:
        InputError: As `RandomCorruption` does.

    Example:
        >>> noisy = Noise(severity=1, seed=0)(torch.full((3, 64, 64), 0.5))
        >>> round(noisy.std().item(), 2)
        0.08
    """

    levels = SEVERITIES["noise"]

    def _change(self, pixels: Tensor) -> Tensor:
        return pixels + self.level * self._normal(*pixels.shape).to(pixels)


class Contrast(Corruption):
    """Fog or glare: every value moves towards the mean luma of its picture.

    Args:
        severity: 1 (slight) to 5 (strong).

    Raises:
        InputError: As `Corruption` does.

    Example:
        >>> Contrast(severity=3)(torch.tensor([[[0, 100, 200]]], dtype=torch.uint8)).tolist()
        [[[80, 100, 120]]]
    """

    levels = SEVERITIES["contrast"]

    def _change(self, pixels: Tensor) -> Tensor:
        return cast(Tensor, functional.adjust_contrast(pixels, self.level))


class JPEG(Corruption):
    """Saved as JPEG and read again; colours are stored at half the resolution. Floats become 8 bits on the way.

    On an accelerator this waits for the picture and goes through host memory.

    Args:
        severity: 1 (slight) to 5 (strong).

    Raises:
        InputError: As `Corruption` does.

    Example:
        >>> JPEG(severity=5)(torch.full((3, 16, 16), 128, dtype=torch.uint8)).unique().tolist()
        [128]
    """

    levels = SEVERITIES["jpeg"]

    def _change(self, pixels: Tensor) -> Tensor:
        images = as_bytes(pixels).reshape(-1, *pixels.shape[-3:]).cpu()
        changed = torch.stack([self._saved(image) for image in images])
        return changed.reshape(pixels.shape).to(pixels) / 255

    def _saved(self, image: Tensor) -> Tensor:
        # By way of Pillow: torchvision's own codec is deprecated since 0.29.
        saved = functional.jpeg(functional.to_pil_image(image), int(self.level))
        return cast(Tensor, functional.pil_to_tensor(saved))


class Pixelate(Corruption):
    """Too low a resolution: square blocks, each of the mean of its pixels; smaller ones at the right and lower border.

    Args:
        severity: 1 (slight) to 5 (strong).

    Raises:
        InputError: As `Corruption` does.

    Example:
        >>> Pixelate(severity=1)(torch.tensor([[[0, 100, 7]]], dtype=torch.uint8)).tolist()
        [[[50, 50, 7]]]
    """

    levels = SEVERITIES["pixelate"]

    def _change(self, pixels: Tensor) -> Tensor:
        side, (height, width) = int(self.level), pixels.shape[-2:]
        means = avg_pool2d(pixels.reshape(-1, *pixels.shape[-3:]), side, ceil_mode=True)
        blocks = means.repeat_interleave(side, dim=-2).repeat_interleave(side, dim=-1)
        return blocks[..., :height, :width].reshape(pixels.shape)


class Occlusion(RandomCorruption):
    """A dirty lens: dark specks with soft rims over a share of the picture, elsewhere in every picture.

    With the same seed the specks of a lower severity lie within those of a higher one.

    Args:
        severity: 1 (slight) to 5 (strong).
        seed: As `RandomCorruption` takes it.

    Raises:
        InputError: As `RandomCorruption` does.

    Example:
        >>> dirty = Occlusion(severity=3, seed=0)(torch.ones(1, 64, 64))
        >>> round((dirty < 0.575).float().mean().item(), 2)
        0.2
    """

    levels = SEVERITIES["occlusion"]

    def _change(self, pixels: Tensor) -> Tensor:
        size, area = pixels.shape[-2:], math.prod(pixels.shape[-2:])
        grid = [max(1, _GRID * side // max(size)) for side in size]
        smooth = _gaussian(self._normal(math.prod(pixels.shape[:-3]), 1, *grid), _SPECK)
        dirt = interpolate(smooth.to(pixels), size=size, mode="bicubic", align_corners=False)
        clean = max(1, round((1 - self.level) * area))
        rim = dirt.flatten(1).kthvalue(clean).values.reshape(-1, 1, 1, 1)
        light = 1 - _OPAQUE * torch.sigmoid((dirt - rim) / _RIM)
        return pixels * light.reshape(*pixels.shape[:-3], 1, *size)


class ColourCast(Corruption):
    """A wrong white balance, as in lamp light: more red, less blue. A grey picture has no colours and comes back equal.

    Args:
        severity: 1 (slight) to 5 (strong).

    Raises:
        InputError: As `Corruption` does.

    Example:
        >>> ColourCast(severity=5)(torch.full((3, 1, 1), 100, dtype=torch.uint8)).flatten().tolist()
        [150, 100, 50]
    """

    levels = SEVERITIES["colour_cast"]

    def _change(self, pixels: Tensor) -> Tensor:
        if pixels.shape[-3] == 1:
            return pixels
        return pixels * pixels.new_tensor([1 + self.level, 1, 1 - self.level]).reshape(3, 1, 1)


class Zoom(Corruption):
    """A camera too close: the middle of the picture, magnified to its size.

    Boxes, masks and key points move along as `torchvision.transforms.v2.functional.resized_crop` moves them: boxes end
    at the border, and those that left the picture are empty. An alpha channel is magnified too.

    Args:
        severity: 1 (slight) to 5 (strong).

    Raises:
        InputError: As `Corruption` does.

    Example:
        >>> columns = torch.arange(8).repeat(1, 8, 1) / 8
        >>> (Zoom(severity=5)(columns)[0, 0] * 8).tolist()
        [2.0, 2.25, 2.75, 3.25, 3.75, 4.25, 4.75, 5.0]
    """

    levels = SEVERITIES["zoom"]

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Magnify a picture, and what lies in it."""
        return self._change(inpt) if isinstance(inpt, _PLACED) else super().transform(inpt, params)

    def _change_all(self, pixels: Tensor) -> Tensor:
        return self._change(pixels)

    def _change(self, pixels: Tensor) -> Tensor:
        size = functional.get_size(pixels)
        height, width = (max(1, round(side / self.level)) for side in size)
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        return cast(Tensor, functional.resized_crop(pixels, top, left, height, width, size))


def corrupt(image: Picture, name: str, severity: int = 3, seed: int | None = None) -> Picture:
    """Corrupt a picture, or a batch of them.

    Args:
        image: What `Corruption` takes.
        name: A key of `CORRUPTIONS`.
        severity: 1 (slight) to 5 (strong).
        seed: For `"noise"` and `"occlusion"`: the same seed gives the same picture. The others draw nothing.

    Returns:
        A new picture of the same type, mode, dtype and size.

    Raises:
        InputError: If an argument is not one of these.

    Example:
        >>> import PIL.Image
        >>> corrupt(PIL.Image.new("RGB", (2, 2), (100, 100, 100)), "brightness", severity=5).getpixel((0, 0))
        (200, 200, 200)
    """
    if name not in CORRUPTIONS:
        raise InputError(f"name={name!r} is no corruption; pass one of {', '.join(map(repr, CORRUPTIONS))}")
    kind = CORRUPTIONS[name]
    made = kind(severity, seed) if issubclass(kind, RandomCorruption) else kind(severity)
    return cast(Picture, made(image))


def as_bytes(pixels: Tensor) -> Tensor:
    """From floats to uint8: cut off at 0 and 1, rounded.

    Example:
        >>> as_bytes(torch.tensor([-1, 0.501, 2])).tolist()
        [0, 128, 255]
    """
    return (255 * pixels.clamp(0, 1)).round().to(torch.uint8)


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
    low, high = (end.item() for end in pixels.aminmax()) if pixels.numel() else (0.0, 1.0)
    if not (low >= -OVERSHOOT / 255 and high <= 1 + OVERSHOOT / 255):
        raise InputError(f"float images should be in [0, 1], got {low:g} to {high:g}; corrupt them before v2.Normalize")
    return pixels.clamp(0, 1)


def _gaussian(pixels: Tensor, spread: float) -> Tensor:
    # Over columns, then over rows: the same as over both, in a tenth of the time. Mirroring needs a narrower kernel.
    sides = [2 * min(int(_REACH * spread + 0.5), side - 1) + 1 for side in pixels.shape[-2:]]
    across = functional.gaussian_blur(pixels, [sides[1], 1], [spread, spread])
    return cast(Tensor, functional.gaussian_blur(across, [1, sides[0]], [spread, spread]))


def _whole(name: str, value: Any, low: int, high: int | None) -> int:
    accepted = f"from {low} to {high}" if high is not None else f"of at least {low}"
    try:
        number = operator.index(value)
    except TypeError:
        number = low - 1
    if isinstance(value, bool) or number < low or (high is not None and number > high):
        raise InputError(f"{name}={value!r} should be a whole number {accepted}")
    return number


#: The corruptions by name.
CORRUPTIONS: Final[dict[str, type[Corruption]]] = {
    "blur": Blur,
    "brightness": Brightness,
    "noise": Noise,
    "contrast": Contrast,
    "jpeg": JPEG,
    "pixelate": Pixelate,
    "occlusion": Occlusion,
    "colour_cast": ColourCast,
    "zoom": Zoom,
}
