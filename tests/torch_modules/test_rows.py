"""Rows are followed by what operations make of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lensai_integrations.torch.finding import calls_of
from lensai_integrations.torch.trace import Trace

WHOLE = tuple(range(6))
X = torch.zeros(6, 3, 4, 4)

FOLLOWED = {
    "slice": (lambda x: x[2:5], (2, 3, 4)),
    "step": (lambda x: x[::2], (0, 2, 4)),
    "split": (lambda x: x.split(4)[1], (4, 5)),
    "narrow": (lambda x: x.narrow(0, 1, 2), (1, 2)),
    "narrow columns": (lambda x: x.narrow(1, 0, 2), WHOLE),
    "one": (lambda x: x[3][None], (3,)),
    "one of a loop": (lambda x: next(iter(x))[None], (0,)),
    "stacked": (lambda x: torch.stack([x[5], x[1]]), (5, 1)),
    "joined": (lambda x: torch.cat([x[4:], x[:1]]), (4, 5, 0)),
    "index": (lambda x: x[torch.tensor([4, 2])], (4, 2)),
    "index_select": (lambda x: x.index_select(0, torch.tensor([1, 0])), (1, 0)),
    "columns": (lambda x: x[:, torch.tensor([0, 2])], WHOLE),
    "mirrored": (lambda x: x.flip(-1), WHOLE),
    "reversed": (lambda x: x.flip(0), WHOLE[::-1]),
    "shifted": (lambda x: x.roll((1, 2), dims=(2, 3)), WHOLE),
    "computed": (lambda x: torch.relu((x - 0.5) / 2), WHOLE),
    "mixed": (lambda x: 0.7 * x + 0.3 * x[torch.arange(5, -1, -1)], WHOLE),
    "twice each": (lambda x: torch.stack([x, x], 1).flatten(0, 1), tuple(i for i in WHOLE for _ in range(2))),
    "apart and together": (lambda x: x.view(2, 3, 3, 4, 4).flatten(0, 1), None),
    "to another axis": (lambda x: x.permute(1, 0, 2, 3), None),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLLOWED)
def test_rows(name):
    operation, expected = FOLLOWED[name]
    model = nn.Identity()
    trace = Trace(model, (X, torch.zeros(6)))
    trace.start()
    model(operation(X))
    trace.stop()

    assert trace.is_sound()
    (call,) = trace.calls
    assert trace.nodes[call.inputs[0]].rows.places == expected


@pytest.mark.parametrize(
    ("batch", "operation"),
    [
        ((list(X), [torch.tensor(0)] * 6), lambda batch: [each[None] for each in batch[0]]),
        ([(each, 0) for each in X], lambda batch: torch.stack([each for each, _ in batch]).chunk(3)),
        ({"image": X}, lambda batch: batch["image"].tensor_split(2)),
    ],
)
def test_parts_of_batches_of_any_kind(batch, operation):
    model = nn.Sequential(nn.Flatten())
    trace = Trace(model, batch)
    trace.start()
    parts = [model(part) for part in operation(batch)]
    trace.stop()
    calls = calls_of(trace, model, 6)

    assert (calls.way, calls.total) == ("parts", len(parts))
    assert calls.rows(parts).shape == (6, 48)
