"""What today's code makes of fixed seeds, for `test_pins.py`, which holds it against the files in `golden/pins/`.

Everything here is made of numpy alone, by public names, so that it can be made again wherever the code has moved to.
What differs from one run or machine to the next is settled in one place, `settled`, for the made and the kept alike.
"""

from __future__ import annotations

import gzip
import io
import lzma
import re
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lensai_integrations import Baseline, DriftMonitor, Profile, Profiler, calibrate, measure

CLASSES, ROWS = 3, 100
KINDS = ("inputs", "outputs", "embeddings", "labels")
CREATED = "2026-01-02T03:04:05+00:00"

_MIX = np.random.default_rng(7).normal(size=(2, 2))


@measure("pinned_glare")
def glare(images: Any) -> Any:
    """The lightest value."""
    return images.max((1, 2, 3))


def batch(rng: np.random.Generator, n: int, shift: float, channels: int = 1) -> dict[str, Any]:
    """Images of 8 x 8 pixels, the answers of a classifier, a layer's answer and labels; all but labels shifted."""
    labels = rng.integers(0, CLASSES, n)
    base = rng.uniform(60, 180, (n, 1, 1, channels)) + rng.normal(0, 20, (n, 8, 8, channels))
    logits = rng.normal(size=(n, CLASSES)) + (2 - shift) * np.eye(CLASSES)[labels]
    return {
        "inputs": np.clip(base * (1 + shift / 4), 0, 255).astype(np.uint8),
        "outputs": logits.astype(np.float32),
        "embeddings": {"pool": (rng.normal(size=(n, 2)) @ _MIX + shift).astype(np.float32)},
        "labels": labels,
    }


def profile(
    source: str, seed: int, *, n: int = ROWS, shift: float = 0.0, channels: int = 1, kinds: Any = KINDS, **settings: Any
) -> Profile:
    """A profile with some of everything: two conventions, a custom measure, class names, segments."""
    settings = {"measures": [glare], "segment_by": "site", "convention": ("lensai", "lensai-edge")} | settings
    rng, profiler = np.random.default_rng(seed), Profiler(source=source, seed=seed, **settings)
    profiler.describe("outputs", class_names=["ant", "bee", "cat"])
    for start in range(0, n, 40):
        given = batch(rng, min(40, n - start), shift, channels)
        sites = np.where(given["labels"] > 0, "north", "south").tolist() if settings["segment_by"] else None
        profiler.update(**{name: given[name] for name in kinds}, segments=sites)
    made = profiler.profile()
    made.info["created"] = CREATED
    return made


def baseline() -> Baseline:
    """A calibrated baseline with a training profile."""
    info = {"epoch": 3, "created": CREATED, "weights_of": "the last epoch"}
    training = profile("training", 2, n=40, shift=0.2, kinds=("inputs", "labels"), segment_by=None)
    pair = Baseline(profile("validation", 1), training, info)
    return calibrate(pair, draws=100)


def window() -> Profile:
    """Production that has moved."""
    return profile("production", 3, n=60, shift=0.8)


def device() -> Profile:
    """What a device would measure."""
    return profile("device", 4, channels=3, convention="lensai-edge", measures=[], segment_by=None)


def monitor_state(folder: Path) -> bytes:
    """Let a monitor judge sliding windows, the last of them moved, tell a function of it, and stop.

    Returns:
        Its `head.json` while it tells what was told last of a window.
    """
    heads: dict[str, bytes] = {}

    def tell(event: Any) -> None:
        heads[event.type] = (folder / "head.json").read_bytes()

    reference = profile("validation", 5, segment_by=None)
    with DriftMonitor(
        reference, 20, stride=10, sinks=[tell], state=folder, name="door", clock=lambda: 1.7e9
    ) as monitor:
        rng = np.random.default_rng(6)
        for shift in (0.0, 0.0, 0.0, 3.0, 3.0):
            monitor.update(**batch(rng, 11, shift))
    return heads["notice"]


def settled(content: bytes) -> Any:
    """What is compared of a file: texts without what another run or machine makes otherwise; archives file by file.

    Left out are the time of now, versions of packages, ids of events, digests and lengths of what is compared itself,
    and what zlib makes of it.
    """
    if content.startswith(_XZ):
        content = lzma.decompress(content)
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            return {name: _array(packed.read(name)) for name in packed.namelist()}
    if content.startswith(b"{") and _GZIP in content:  # an upload that waits: one line, then what is sent
        head, _, archive = content.partition(b"\n")
        return {"head": settled(head), "archive": settled(archive)}
    if content.startswith(_GZIP):
        tar = gzip.decompress(content)
        with tarfile.open(fileobj=io.BytesIO(tar)) as packed:
            members = [(member, packed.extractfile(member)) for member in packed.getmembers()]
            read = {f"{m.name} {m.mode} {m.mtime}": file.read() for m, file in members if file is not None}
        return {"form": tar[257:265], **read}
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return content
    for pattern, constant in _UNSETTLED.items():
        text = re.sub(pattern, constant, text)
    return text


def kept(content: bytes) -> bytes:
    """A file as it is kept: pages in a seventh of their size, archives of hundreds of small arrays in a half."""
    if content.startswith(b"<!"):
        return lzma.compress(content, preset=9)
    if not content.startswith(b"PK"):
        return content
    stored = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as packed, zipfile.ZipFile(stored, "w") as plain:
        for name in packed.namelist():
            plain.writestr(zipfile.ZipInfo(name), packed.read(name))
    return lzma.compress(stored.getvalue(), preset=9)


_GZIP = b"\x1f\x8b"
_XZ = b"\xfd7zXZ"
_UNSETTLED = {
    r"20[2-9]\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00": "<time>",
    r'(?<="sha256": ")[0-9a-f]{64}|[0-9a-f]{64}(?=\.npz")': "<digest>",
    r'(?<="bytes": )\d+': "<length>",
    r'(?<="versions": )\{[^{}]*\}': "<versions>",
    r"\b[0-9a-f]{16}-[0-9a-f]{12}\b": "<id>",
}


def _array(content: bytes) -> Any:
    array = np.load(io.BytesIO(content), allow_pickle=False)
    text = bytes(array) if array.dtype == np.uint8 else b""
    return settled(text) if text.startswith(b"{") else array  # the manifest of profiles that are kept as bytes


#: A number with a fraction, in a text: of these the last digits are the processor's own.
_NUMBER = re.compile(r"(-?\d+\.\d+(?:e[+-]?\d+)?|(?<![\w.])-?\d+e[+-]?\d+(?!\w))")


def differences(made: Any, kept: Any, at: str = "") -> Iterator[str]:
    """Where two settled contents differ.

    Whole numbers, names and the form are the same; numbers with a fraction may differ by a little, for sums depend on
    the processor: on one without AVX p-values were other by 2e-5 and measures of images by 1e-7.
    """
    if isinstance(made, Mapping) and isinstance(kept, Mapping):
        if list(made) != list(kept):
            yield f"{at}: {list(made)} instead of {list(kept)}"
            return
        for name in made:
            yield from differences(made[name], kept[name], f"{at}/{name}")
    elif isinstance(made, np.ndarray) and isinstance(kept, np.ndarray):
        if (made.dtype, made.shape) != (kept.dtype, kept.shape):
            yield f"{at}: {made.dtype} {made.shape} instead of {kept.dtype} {kept.shape}"
        elif not (_same_numbers(made, kept) if made.dtype.kind == "f" else np.array_equal(made, kept)):
            yield f"{at}: other numbers"
    elif isinstance(made, str) and isinstance(kept, str):
        yield from _text_differences(made, kept, at)
    elif type(made) is not type(kept) or not (made == kept or _same_sketch(made, kept)):
        yield f"{at}: {made[:80]!r} instead of {kept[:80]!r}"


def _same_numbers(made: np.ndarray, kept: np.ndarray) -> bool:
    """Within a ten-thousandth of each number, and of the largest: small ones are differences of large ones."""
    largest = np.abs(kept[np.isfinite(kept)]).max(initial=0)
    return np.allclose(made, kept, rtol=1e-4, atol=1e-4 * largest, equal_nan=True)


def _same_sketch(made: bytes, kept: bytes) -> bool:
    """Whether words of four bytes are equal, or float32 of almost the same number; counts are none, read as such."""
    if len(made) != len(kept) or len(kept) % 4:
        return False
    words = [np.frombuffer(content, np.uint32) for content in (made, kept)]
    numbers = [each.view(np.float32) for each in words]
    is_number = np.abs(numbers[1]) > 1e-30
    return bool(np.all((words[0] == words[1]) | (is_number & np.isclose(*numbers, rtol=1e-5, atol=0))))


def _text_differences(made: str, kept: str, at: str) -> Iterator[str]:
    lines = made.split("\n"), kept.split("\n")
    if len(lines[0]) != len(lines[1]):
        yield f"{at}: {len(lines[0])} lines instead of {len(lines[1])}"
    for number, (one, other) in enumerate(zip(*lines, strict=False), 1):
        pieces = _NUMBER.split(one), _NUMBER.split(other)
        numbers = [np.array(each[1::2], np.float64) for each in pieces]
        same_form = pieces[0][::2] == pieces[1][::2] and len(numbers[0]) == len(numbers[1])
        if not same_form or not _same_told(*numbers):
            yield f"{at}, line {number}: {one[:160]!r} instead of {other[:160]!r}"


def _same_told(made: np.ndarray, kept: np.ndarray) -> bool:
    """Within a thousandth, more for tiny p-values: of 1e-239 the exponent is what a sum has made."""
    digits = -np.log10(np.clip(np.abs(kept), 1e-300, 0.1))
    return bool(np.all(np.abs(made - kept) <= 1e-3 * digits * np.abs(kept)))
