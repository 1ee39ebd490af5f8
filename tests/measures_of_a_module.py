"""Measures at the top of a module, as other processes find them."""

from __future__ import annotations

from lensai_integrations import measure


@measure("travel-glare", range=(0, 1))
def glare(images):
    return (images > 245).mean((1, 2, 3))


def _darkest(images):
    return images.min((1, 2, 3))


darkest = measure("travel-darkest")(_darkest)
