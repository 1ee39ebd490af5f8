"""Networks of two layers, alone and as a part of something, and a baseline of each."""

from __future__ import annotations

import torch
from torch import nn

from lensai_integrations import Baseline
from lensai_integrations.torch import profiled


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 3)

    def forward(self, images):
        return self.fc(torch.relu(self.conv(images)).mean((2, 3)))


class Inside(nn.Module):
    """The network as a part of something, under any name."""

    def __init__(self, *path, net):
        super().__init__()
        first, *rest = path
        setattr(self, first, Inside(*rest, net=net) if rest else net)
        self.first = first

    def forward(self, images):
        return getattr(self, self.first)(images)


class Twins(nn.Module):
    """Two of them, of which one answers."""

    def __init__(self, net):
        super().__init__()
        self.left, self.right = net, Net()

    def forward(self, images):
        return self.left(images)


def net_of(seed=0):
    """One in evaluation."""
    torch.manual_seed(seed)
    return Net().eval()


def images(n=100, seed=0):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def baseline_of(model, **arguments):
    with torch.no_grad(), profiled(model, task="classification", **arguments) as profiler:
        model(images())
    assert profiler.profile().warnings == []
    return Baseline(profiler.profile())
