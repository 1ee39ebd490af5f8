"""Batches that look like photos, on the host: torch tensors, as a loader has them."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from lensai_integrations import ImageInputs

#: ImageNet's.
MEAN: Final = (0.485, 0.456, 0.406)
STD: Final = (0.229, 0.224, 0.225)
BYTES: Final = ImageInputs(layout="NCHW", scale=1.0, kind="uint8")
NORMALISED: Final = ImageInputs(layout="NCHW", scale=255.0, kind="float", mean=MEAN, std=STD, whole=True)


def photos(n: int, side: int, seed: int = 0) -> Tensor:
    """Smooth colours with noise, uint8 `[n, 3, side, side]`: neither constant nor white noise."""
    generator = torch.Generator().manual_seed(seed)
    cells = max(2, side // 16)
    smooth = nn.functional.interpolate(
        torch.rand(n, 3, cells, cells, generator=generator), size=(side, side), mode="bicubic", align_corners=False
    )
    noisy = smooth + 0.05 * torch.randn(smooth.shape, generator=generator)
    return (noisy.clamp(0, 1) * 255).round().to(torch.uint8)


def normalised(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """As a training transform leaves bytes: `(pixels / 255 - MEAN) / STD`."""
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (MEAN, STD))
    return ((pixels.float() / 255 - mean) / std).to(dtype)
