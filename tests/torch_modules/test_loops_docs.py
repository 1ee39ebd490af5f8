"""What README and docs say of plain loops runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from snippets import run_section
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lensai_integrations import Baseline

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
GROUPS = ["inputs", "outputs", "embeddings/2.input", "labels"]


@pytest.fixture
def given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)).eval()
    data = TensorDataset(torch.rand(120, 3, 8, 8), torch.arange(120) % 3)
    return {"torch": torch, "model": model, "loader": DataLoader(data, 50)}


def test_the_readmes_loop(given):
    (snippet,) = (each for each in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "profiled" in each)
    exec(compile(snippet, "README.md", "exec"), given)
    baseline = Baseline.load("lensai_baseline")
    assert {name: group.n for name, group in baseline.reference.groups.items()} == dict.fromkeys(GROUPS, 120)
    assert baseline.warnings == []


def test_the_section_on_plain_loops(given, capsys):
    run_section("baseline.md", "Plain loops", given)
    assert capsys.readouterr().out.strip() == f"{GROUPS} []"
    assert given["baseline"].calibration is not None
