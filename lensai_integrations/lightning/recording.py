"""One pass over a loader: each batch is opened before the model sees it and closed after, and a profile comes out.

Measuring happens in `close`, after the forward pass and never in it. All of it runs without gradients and outside
inference mode: a sketch's buffers outlive the pass they were made in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lensai_integrations.lightning.batches import BatchReader, Taken
from lensai_integrations.lightning.problems import Problems
from lensai_integrations.lightning.ranks import padding_of
from lensai_integrations.lightning.taps import LAYER, Taps
from lensai_integrations.lightning.threads import one_blas_thread
from lensai_integrations.profile import Profile
from lensai_integrations.profiler import Profiler


class Recording:
    """Profiles one kind of pass, again and again; every pass begins from nothing.

    Args:
        source: What is profiled: `"validation"`, `"training"`, `"test"`.
        prepare: Given the first pass's loader, makes the reader of its batches and the profiler.
        taps: The layers that are read along, or None.
        problems: Where it is reported what could not be profiled.
    """

    def __init__(
        self,
        source: str,
        prepare: Callable[[Any], tuple[BatchReader, Profiler]],
        taps: Taps | None,
        problems: Problems,
    ) -> None:
        self.source = source
        self._prepare, self._taps, self._problems = prepare, taps, problems
        self._prepared: tuple[BatchReader, Profiler] | None = None
        self._taken: Taken | None = None
        self.started = False

    def start(self, loader: Any) -> None:
        """Begin a pass over the loader, forgetting what there was."""
        self._prepared = self._prepared or self._prepare(loader)
        self._prepared[1].reset()
        self._own, self._padding = padding_of(loader)
        self._rows = self._left_out = self._batches = self._failed = 0
        self._seen: set[str] = set()
        self._taken = None
        self.started = True

    def open(self, batch: Any) -> None:
        """Before the step: take copies of images and labels, and listen to the layers."""
        if not self.started or self._prepared is None:
            return
        with _aside():
            self._taken = self._prepared[0].take(batch)
        if self._taps is not None:
            self._taps.open()

    def close(self) -> None:
        """After the step: hand everything of this batch to the profiler."""
        taken, self._taken = self._taken, None
        if taken is None or self._prepared is None:
            return
        self._batches += 1
        self._failed += 1
        with _aside():
            caught = self._taps.close() if self._taps is not None else {}
            self._describe(caught)
            if taken.place is not None:
                self._prepared[1].describe("labels", read_from=taken.place)
            self._update(self._trimmed({"inputs": taken.images, "labels": taken.labels, **caught}))
        self._failed -= 1

    def _update(self, batch: dict[str, Any]) -> None:
        assert self._prepared is not None
        layers = {key.removeprefix(LAYER): rows for key, rows in batch.items() if key.startswith(LAYER)}
        groups = {key: rows for key, rows in batch.items() if not key.startswith(LAYER)}
        self._prepared[1].update(**groups, embeddings=layers)

    def _describe(self, caught: dict[str, Any]) -> None:
        """Tell the profiler where a group comes from, when its first rows are there."""
        assert self._prepared is not None
        for tap in self._taps or ():
            if tap.key in caught and tap.key not in self._seen:
                self._seen.add(tap.key)
                info: dict[str, Any] = {"layer": tap.layer.path + (".input" if tap.layer.before else "")}
                if tap.reduce is None:
                    info["linear"] = isinstance(tap.layer.module, torch.nn.Linear) and not tap.layer.before
                else:
                    info |= {"reduce": _name(tap.reduce), "axes": self._taps.axes[tap.key]}  # type: ignore[union-attr]
                self._prepared[1].describe(tap.key, **info)

    def _trimmed(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch without the rows that the sampler repeats; if rows are not samples, as it is."""
        n = max((len(rows) for rows in batch.values() if rows is not None), default=0)
        self._rows += n
        excess = self._rows - self._own
        if not 0 < excess <= self._padding:
            return batch
        self._rows -= excess
        self._padding -= excess
        self._left_out += excess
        return {key: rows[: n - excess] for key, rows in batch.items() if rows is not None and n > excess}

    def finish(self, **info: Any) -> Profile:
        """End the pass: its profile, in host memory. Waits for the accelerator, once.

        Args:
            info: JSON values for the profile's info.
        """
        assert self._prepared is not None
        self.started = False
        with _aside():
            profile = self._prepared[1].profile()
        profile.info |= {**info, "padding_left_out": self._left_out}
        profile.info["warnings"] = [*profile.warnings, *self._complaints()]
        return profile

    def _complaints(self) -> list[str]:
        complaints = []
        for tap in self._taps or ():
            if self._batches and tap.key not in self._seen:
                problem = (
                    f"layer {tap.layer.path!r} answered nothing in {self._batches} batches of {self.source}: it is not"
                    " part of the forward pass, or the model was compiled and called before fit; then call"
                    " torch.compiler.reset() before fit"
                )
                self._problems.note(tap.key, problem, listed=False)
                complaints.append(problem)
        if self._failed:
            complaints.append(
                f"{self._failed} of {self._batches} batches of {self.source} were left out after an error"
            )
        return complaints


@contextmanager
def _aside() -> Iterator[None]:
    """Apart from the training: without gradients, outside inference mode, and off its threads' cores."""
    with torch.inference_mode(False), torch.no_grad(), one_blas_thread():
        yield


def _name(reduce: Any) -> str:
    return reduce if isinstance(reduce, str) else str(getattr(reduce, "__qualname__", type(reduce).__name__))
