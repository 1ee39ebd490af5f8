"""Models whose code is not run as it stands: compiled, recorded as CUDA graphs, checkpointed, on a stream of their own.

Each is profiled beside the same model as it is; what is the same is said, and what cannot be seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks.gpu.data import NORMALISED, normalised, photos
from benchmarks.gpu.recorded import Recorded
from benchmarks.gpu.running import Run
from lensai_integrations.profiles.profile import Profile

STEPS, BATCH, SIDE = 12, 16, 32


class SmallNet(nn.Module):
    """A convolution, a batch norm, an activation in place, a pooled layer and an answer."""

    def __init__(self, *, checkpointed: bool = False) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(inplace=True)
        self.avgpool, self.fc, self._checkpointed = nn.AdaptiveAvgPool2d(1), nn.Linear(32, 10), checkpointed

    def body(self, images: Tensor) -> Tensor:
        """What is given to the last layer."""
        return torch.flatten(self.avgpool(self.relu(self.norm(self.conv(images)))), 1)

    def forward(self, images: Tensor) -> Tensor:
        """Outputs `[n, 10]`."""
        features = checkpoint(self.body, images, use_reentrant=False) if self._checkpointed else self.body(images)
        return self.fc(features)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Way:
    """How the model is run.

    Attributes:
        wrapped: Makes of the model, with its hooks, what is called.
        replaced: Makes of the model what is hooked.
        checkpointed: Whether its body runs a second time.
        own_stream: Whether it runs on a stream of its own.
        views: Whether it is called twice in a step, without gradients, as where views of an image are averaged.
    """

    wrapped: Callable[[nn.Module], Any] = lambda model: model
    replaced: Callable[[nn.Module], nn.Module] = lambda model: model
    checkpointed: bool = False
    own_stream: bool = False
    views: bool = False


def graphs(run: Run) -> dict[str, Any]:
    """How far the rows of each way are from those of the model as it is, and what was said."""
    backend = {} if run.on_gpu else {"backend": "eager"}
    ways = {
        "as it is": Way(),
        "checkpointed": Way(checkpointed=True),
        "compiled": Way(wrapped=lambda model: torch.compile(model, fullgraph=True, **backend)),
    }
    if run.on_gpu:
        images = normalised(photos(BATCH, SIDE)).to(run.device)

        def reduced(model: nn.Module) -> Any:
            return torch.compile(model, mode="reduce-overhead", fullgraph=True)

        def graphed(model: nn.Module) -> Any:
            return torch.cuda.make_graphed_callables(model, (images,))

        ways |= {
            "on a stream of its own": Way(own_stream=True),
            "compiled, reduce-overhead": Way(wrapped=reduced),
            "two views": Way(views=True),
            "two views, compiled, reduce-overhead": Way(wrapped=reduced, views=True),
            "make_graphed_callables, hooked before": Way(wrapped=graphed),
            "make_graphed_callables, hooked after": Way(replaced=graphed),
        }
    found: dict[str, Any] = {}
    usual: dict[bool, Profile] = {}
    for name, way in ways.items():
        try:
            profile, problems = _profiled(run, way)
        except Exception as error:  # noqa: BLE001  the others go on
            found[name] = {"raised": repr(error)[:300]}
            continue
        eager = usual.setdefault(way.views, profile)
        found[name] = {
            "rows": {group: each.n for group, each in profile.groups.items()},
            "apart from the model as it is": {
                key: _apart(rows, profile.rows.data.get(key) if profile.rows is not None else None)
                for key, rows in (eager.rows.data.items() if eager.rows is not None else ())
            },
            "said": [*problems, *profile.info.get("warnings", [])],
        }
    return found


def _profiled(run: Run, way: Way) -> tuple[Profile, list[str]]:
    torch.compiler.reset()
    torch.manual_seed(0)
    model = way.replaced(SmallNet(checkpointed=way.checkpointed).to(run.device))
    recorded = Recorded(model, NORMALISED, ["avgpool", "fc.input", "conv"], rows=4000)
    called = way.wrapped(model)
    stream = torch.cuda.Stream() if way.own_stream else None
    for step in range(4 if run.quick else STEPS):
        images = normalised(photos(BATCH, SIDE, step)).to(run.device)
        labels = torch.arange(BATCH, device=run.device) % 10
        recorded.open(images, labels)
        with torch.autocast(run.device.type, torch.bfloat16):
            if way.views:
                with torch.no_grad():
                    called(images)
                    called(images.flip(3) + 1)
            else:
                scores = _on(stream, called, images)
                nn.functional.cross_entropy(scores, labels).backward()
        recorded.close()
    profile = recorded.finish()
    recorded.remove()
    return profile, list(recorded.problems.messages)


def _on(stream: Any, called: Any, images: Tensor) -> Tensor:
    if stream is None:
        return called(images)  # type: ignore[no-any-return]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        scores: Tensor = called(images)
    torch.cuda.current_stream().wait_stream(stream)
    return scores


def _apart(rows: Any, others: Any) -> Any:
    if others is None or others.shape != rows.shape:
        return "missing"
    return round(float(np.nanmax(np.abs(rows - others))), 4)
