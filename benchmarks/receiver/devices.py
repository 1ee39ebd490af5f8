"""Devices for `load.py`: what they upload, and what a receiver should have made of it.

An upload has 14 sketches in a gzipped tar archive, as devices send them: generated ones, and those of the shared LensAI
data where they are. Some archives are made and sent again and again under other names and times; a sensor sends one
every minute.
"""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from datasketches import kll_floats_sketch

from lensai_integrations import Baseline, Profiler
from lensai_integrations.edge.uploads import read_upload
from lensai_integrations.server.records import hour_of

#: Uploads, and values of each sketch, by sensor and hour.
Hours = dict[tuple[str, int], tuple[int, Counter[str]]]

BOUNDARY: Final = "lensai-benchmark"
CONTENT_TYPE: Final = f"multipart/form-data; boundary={BOUNDARY}"
#: Seconds from one upload of a sensor to the next.
EVERY: Final = 60
PIXELS: Final = 1000  # of an image: the sketch of more is hardly larger

_MEASURES: Final = {"noise": (12, 2), "brightness": (110, 30), "sharpness": (30, 10)}
_SCORES: Final = ("marginconfidence", "leastconfidence", "ratioconfidence", "entropyconfidence")


@dataclass(frozen=True)
class Archive:
    """An archive, and how many values each of its sketches has seen, by the newest name of its file."""

    content: bytes
    values: Counter[str]


@dataclass(frozen=True)
class Upload:
    """One upload of a sensor."""

    sensor: str
    timestamp: int
    archive: Archive

    @property
    def body(self) -> bytes:
        """The request's, in the newer dialect."""
        fields = {"sensor_id": self.sensor, "timestamp": str(self.timestamp), "file_type": "stats"}
        form = "".join(
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        )
        form += (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="stats.tar.gz"\r\n'
            "Content-Type: application/gzip\r\n\r\n"
        )
        return form.encode() + self.archive.content + f"\r\n--{BOUNDARY}--\r\n".encode()


def archive_of(files: dict[str, bytes]) -> Archive:
    """Files as a device packs them."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=tarfile.GNU_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return Archive(packed.getvalue(), values_of(read_upload(packed.getvalue()).sketches))


def values_of(sketches: Mapping[str, bytes]) -> Counter[str]:
    """How many values each sketch has seen, as DataSketches says."""
    return Counter({path: kll_floats_sketch.deserialize(content).n for path, content in sketches.items()})


def made_up(seed: int) -> Archive:
    """14 sketches of 20 to 60 images."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(20, 61))
    values = {f"imgstats/{name}": rng.normal(mean, std, n) for name, (mean, std) in _MEASURES.items()}
    for channel in range(3):
        values[f"imgstats/mean_{channel}"] = rng.uniform(60, 160, n)
        values[f"imgstats/pixel_{channel}"] = rng.integers(0, 256, n * PIXELS)
    values |= {f"samples/{name}": rng.beta(2, 5, n) for name in _SCORES}
    values["modelstats/net_0"] = rng.uniform(0, 1, n)
    files = {}
    for name, each in values.items():
        sketch = kll_floats_sketch(200)
        sketch.update(each.astype(np.float32))
        files[f"{name}.bin"] = sketch.serialize()
    return archive_of(files)


def real(folder: Path) -> list[Archive]:
    """The uploads of the shared data's sensors, of which the first 14 files are taken."""
    uploads = sorted(path.parent.parent for path in folder.glob("sensor*/*/imagestats/noise.bin"))
    found = []
    for upload in uploads:
        files = sorted(upload.rglob("*.bin"))[:14]
        found.append(archive_of({path.relative_to(upload).as_posix(): path.read_bytes() for path in files}))
    return found


def uploads_of(archives: Sequence[Archive], n: int, sensors: int, start: int) -> list[Upload]:
    """Uploads in the order they are sent: every sensor's turn comes again after all others'.

    Args:
        archives: What is sent, in turn.
        n: How many uploads.
        sensors: How many sensors.
        start: Unix time in seconds of the first.
    """
    return [Upload(f"door-{i % sensors}", start + i // sensors * EVERY, archives[i % len(archives)]) for i in range(n)]


def expected(uploads: Sequence[Upload]) -> Hours:
    """What a receiver should have of every sensor and hour."""
    number: Counter[tuple[str, int]] = Counter()
    values: dict[tuple[str, int], Counter[str]] = {}
    for upload in uploads:
        key = upload.sensor, hour_of(upload.timestamp)
        number[key] += 1
        values.setdefault(key, Counter()).update(upload.archive.values)
    return {key: (number[key], values[key]) for key in number}


def baseline() -> Baseline:
    """Of noise, which no device's images are like."""
    profiler = Profiler(convention="lensai-edge", source="validation", seed=0)
    images = np.random.default_rng(0).integers(0, 256, (256, 32, 32, 3), dtype=np.uint8)
    profiler.update(inputs=images)
    return Baseline(profiler.profile())
