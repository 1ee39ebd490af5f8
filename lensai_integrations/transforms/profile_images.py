"""`ProfileImages`: a torchvision transform that changes nothing and remembers what came by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves
from torchvision import tv_tensors
from torchvision.transforms import v2

from lensai_integrations.measures.arguments import COMMON, documented
from lensai_integrations.measures.batches import is_picture
from lensai_integrations.measures.custom import CustomMeasure
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.profiles.names import DEFAULT_SEGMENTS
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.profiling.delivered_images import Collector
from lensai_integrations.profiling.image_reading import Metadata
from lensai_integrations.profiling.raw_rows import RAW
from lensai_integrations.profiling.sampling import BUDGET


@documented(COMMON, only=("measures", "convention", "k", "seed", "max_segments", "budget"))
class ProfileImages(v2.Transform):  # type: ignore[misc]
    """Profiles the images that pass through a pipeline, as they are at that place, and passes on the same objects.

    Put first, it sees what the camera or the file delivered, before resizing, augmentation and normalisation. A
    `BaselineCallback` finds it wherever a Trainer's loader or its data set holds it, and its profile becomes a group of
    the baseline; without one, `profile()` gives it in the main process, whatever processes the images passed through.

    Images are Pillow's, `tv_tensors.Image`, or, in a sample with neither, the first plain tensor: `[C, H, W]` or
    `[n, C, H, W]` of uint8, uint16, or floats inside [0, 1]. They may have any colour mode and size; all are measured
    as RGB. An image that cannot be read counts as invalid; nothing in here raises into the pipeline. What fails is
    logged once, and in the profile's warnings with the number of rows and the first reason, of all processes.

    Args:
        name: Of the group. Several in one pipeline need several names, e.g. `"raw"` and `"resized"`.
        metadata: Functions of the sample by name, each giving a number, a category (a string), or None: kept as
            `metadata/<name>`. With worker processes that are spawned they have to be picklable.
        exif: What of the EXIF data of Pillow's images is kept: some of `"make"`, `"model"`, `"software"`,
            `"orientation"`, `"exposure"` (seconds), `"iso"`. Nothing by default: it can identify people.
        inputs: How tensors are read that are neither bytes nor inside [0, 1]: `ImageInputs(mean=..., std=...)`.
        measures: Each of one number an image.
        convention: One of them.
        segment_by: A name in `metadata` or `exif`, `"mode"` or `"format"`: keeps a profile for each value beside the
            whole, of image measures and metadata, for strings and whole numbers; others are in the segment "other".
        max_segments: They come first over all processes.
        budget: How many images were seen and measured stands in the profile, the report and the log; functions of the
            metadata are called for those that are measured.

    Raises:
        InputError: If an argument is not one of these.

    Example:
        >>> pipeline = v2.Compose([ProfileImages(), v2.Resize(8)])
        >>> small = pipeline(torch.zeros(3, 32, 48, dtype=torch.uint8))
        >>> pipeline.transforms[0].profile().to_pandas().set_index("stream").loc["raw/width", "max"].item()
        48.0
    """

    def __init__(
        self,
        name: str = RAW,
        *,
        metadata: Mapping[str, Metadata] | None = None,
        exif: Sequence[str] = (),
        inputs: ImageInputs | None = None,
        measures: Sequence[CustomMeasure] = (),
        convention: str | Sequence[str] = "lensai",
        k: int = 200,
        seed: int = 0,
        segment_by: str | None = None,
        max_segments: int = DEFAULT_SEGMENTS,
        budget: float | None = BUDGET,
    ) -> None:
        super().__init__()
        self.collector = Collector(
            name=name,
            metadata=metadata,
            exif=exif,
            inputs=inputs,
            measures=measures,
            convention=convention,
            k=k,
            seed=seed,
            segment_by=segment_by,
            max_segments=max_segments,
            labels=False,
            budget=budget,
        )

    def forward(self, *inputs: Any) -> Any:
        """Take in the images of a sample, and return what was given."""
        sample = inputs if len(inputs) > 1 else inputs[0]
        for image in images_of(sample):
            self.collector.add(image, sample)
        return sample

    def profile(self, source: str = "production") -> Profile:
        """What has passed through since the last `reset`, in all processes.

        With loader workers, images count when they are transformed: those that were prefetched and never used, because
        a loop was left early, count too.

        Args:
            source: What the profile is of.
        """
        return self.collector.profile(source)

    def reset(self) -> None:
        """Forget what has passed through."""
        self.collector.reset()

    def extra_repr(self) -> str:
        """Its name, for `print`."""
        return f"name={self.collector.name!r}"


def images_of(sample: Any) -> list[Any]:
    """The images in a sample, by torchvision's rule.

    Example:
        >>> boxes = tv_tensors.BoundingBoxes([[0, 0, 1, 1]], format="XYXY", canvas_size=(8, 8))
        >>> [tuple(image.shape) for image in images_of({"boxes": boxes, "image": torch.zeros(3, 8, 8)})]
        [(3, 8, 8)]
    """
    if is_picture(sample) or (type(sample) is torch.Tensor and sample.ndim >= 2):  # at once, for this takes its time
        return [sample]
    leaves = tree_leaves(sample)
    images = [leaf for leaf in leaves if is_picture(leaf) or isinstance(leaf, tv_tensors.Image | tv_tensors.Video)]
    if images:
        return [leaf.as_subclass(torch.Tensor) if isinstance(leaf, torch.Tensor) else leaf for leaf in images]
    plain = (leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and not isinstance(leaf, tv_tensors.TVTensor))
    return [tensor for tensor in plain if tensor.ndim >= 2][:1]
