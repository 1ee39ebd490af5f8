"""The page on monitoring: every snippet runs, in order, and prints what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from lensai_integrations import Baseline, Profiler

torch = pytest.importorskip("torch")
PAGE = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text(encoding="utf-8")


#: What the snippets on rows with times print.
TIMES = ["[2, 1] 0", "[0.0, 1.0, 2.0, 3.0, 4.0] [40, 40, 40, 40, 40]"]


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 4)

    def forward(self, images):
        return self.linear(images.mean((2, 3)))


def test_every_snippet_runs(tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    model = Net().eval()

    def photos(n):
        base = rng.uniform(80, 200, (n, 3, 1, 1)) + rng.normal(0, 20, (n, 3, 8, 8))
        return torch.from_numpy(np.clip(base, 0, 255) / 255).float()

    def answer(images):
        with torch.no_grad():
            return model(images)

    profiler = Profiler(source="validation", seed=1)
    reference = photos(600)
    profiler.describe("outputs", linear=True)
    profiler.update(inputs=reference, outputs=answer(reference))
    Baseline(profiler.profile()).save("lensai_baseline")

    requests = [(images, answer(images)) for images in photos(200).split(40)]
    image = reference[:1]
    given = {"requests": lambda: requests, "image": image, "logit": answer(image), "model": model}
    page = PAGE.split("\n## Lightning")[0]  # the rest is for the frameworks' own tests
    snippets = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(snippets) == 13
    for number, snippet in enumerate(snippets):
        exec(compile(snippet, f"docs/monitoring.md, snippet {number}", "exec"), given)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[:2]] == ["1", "2"]
    assert printed[2:] == [
        "1 None",
        "8 600",
        "Running 0 {'inputs': 1}",
        "ok 50 49",
        "True False",
        "2 1",
        *TIMES,
        "200 {}",
    ]
