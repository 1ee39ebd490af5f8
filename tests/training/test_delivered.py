"""`ProfileImages` is found wherever a loader keeps it, without waking anything that is lazy, and in bounded time."""

# ruff: noqa: PLW0108  functions that close over what is looked for

from __future__ import annotations

import functools
from collections import deque
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset
from torchvision.transforms import v2

from lensai_integrations import Profile
from lensai_integrations.problems import Problems
from lensai_integrations.training.delivered import RawImages, collectors_in
from lensai_integrations.transforms import ProfileImages

SHARED = ProfileImages("shared")


class Photos(Dataset):
    """A data set with whatever attributes it is given."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.zeros(3, 4, 4)


class Streamed(IterableDataset):
    def __init__(self, make):
        self.make = make

    def __iter__(self):
        return self.make()


class Slotted:
    __slots__ = ("__weakref__", "empty", "pipeline")

    def __init__(self, pipeline):
        self.pipeline = pipeline


@dataclass
class Config:
    steps: object


class Worker:
    def __init__(self, profiled, other):
        self._tool, self.other = profiled, other

    def collate(self, batch):
        return self._prepare(batch)

    def _prepare(self, batch):
        return [self._tool(each) for each in batch]


class Called:
    def __init__(self, profiled):
        self.profiled = profiled

    def __call__(self, image):
        return self.profiled(image)


class UsesGlobal(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return SHARED(torch.zeros(3, 4, 4))


class OfClass(Photos):
    pipeline = v2.Compose([SHARED])


def closing_over(profiled):
    def generate():
        yield profiled(torch.zeros(3, 4, 4))

    return generate


def by_default(image, *, profiled=SHARED):
    return profiled(image)


def decorated(function):
    @functools.wraps(function)
    def wrapped(*arguments):
        return function(*arguments)

    return wrapped


PLACES = {
    "an attribute": lambda p: Photos(preprocess=p),
    "a Compose": lambda p: Photos(aug=v2.Compose([v2.Identity(), v2.Compose([p])])),
    "a Sequential": lambda p: Photos(aug=torch.nn.Sequential(v2.Identity(), p)),
    "a dict of lists": lambda p: Photos(steps={"train": [None, (p,)]}),
    "a deque and a set": lambda p: Photos(steps=deque([{1}, frozenset([Called(p)])])),
    "slots": lambda p: Photos(config=Slotted(p)),
    "a dataclass": lambda p: Photos(config=Config([p])),
    "a partial": lambda p: Photos(fn=functools.partial(by_default, 1, other=p)),
    "a lambda": lambda p: Photos(fn=lambda image: p(image)),
    "a bound method": lambda p: Photos(fn=p.forward),
    "the method of a Compose": lambda p: Photos(fn=v2.Compose([p]).forward),
    "a decorated function": lambda p: Photos(fn=decorated(lambda image: p(image))),
    "a cached function": lambda p: Photos(fn=functools.lru_cache(lambda image: p(image))),
    "an object that is called": lambda p: Photos(fn=Called(p)),
    "a Subset of a ConcatDataset": lambda p: Subset(ConcatDataset([Photos(), Photos(x=p)]), [0]),
    "300 data sets": lambda p: ConcatDataset([*(Photos() for _ in range(299)), Photos(x=p)]),
    "dataset.dataset.dataset": lambda p: Photos(dataset=Photos(dataset=Photos(dataset=Photos(tf=p)))),
    "a generator function": lambda p: Streamed(closing_over(p)),
    "a generator": lambda p: Streamed(closing_over(closing_over(p)())),
    "a list of samples before it": lambda p: Photos(samples=[(str(i), i) for i in range(10**5)], z=p),
    "itself": lambda p: (data := Photos(z=p)).__dict__.update(own=data) or data,
}


@pytest.mark.parametrize("place", PLACES)
def test_it_is_found_under(place):
    profiled = ProfileImages("mine")
    loader = DataLoader(PLACES[place](profiled), batch_size=2)
    assert [each for each in collectors_in(loader) if each.name == "mine"] == [profiled.collector]


def test_it_is_found_in_the_collate_function():
    profiled, other = ProfileImages("mine"), ProfileImages("other")
    for collate in (Worker(profiled, other).collate, lambda batch: profiled(batch), functools.partial(map, profiled)):
        found = list(collectors_in(DataLoader(Photos(), collate_fn=collate)))
        assert found == [profiled.collector]  # and not what else the method's object holds


@pytest.mark.parametrize("data", [UsesGlobal(), OfClass(), Photos(fn=by_default), Photos(fn=lambda x: SHARED(x))])
def test_it_is_found_in_a_module_or_class(data):
    assert list(collectors_in(DataLoader(data))) == [SHARED.collector]


class Formatted:
    """A data set as Hugging Face's: functions that are set on it are arguments of its format."""

    def set_transform(self, function):
        self._format_type, self._format_kwargs = "custom", {"transform": function}


def test_what_is_set_on_a_data_set_as_its_format():
    profiled, data = ProfileImages("mine"), Formatted()
    data.set_transform(lambda batch: {"image": [profiled(each) for each in batch["image"]]})
    assert list(collectors_in(data)) == [profiled.collector]


class Lazy:
    """Fails whoever asks it anything."""

    def __getattr__(self, name):
        raise AssertionError(f"asked for {name}")

    @property
    def images(self):
        raise AssertionError("loaded the images")

    def __iter__(self):
        raise AssertionError("iterated")

    def __len__(self):
        raise AssertionError("counted")

    def __bool__(self):
        raise AssertionError("judged")

    def __eq__(self, other):
        raise AssertionError("compared")

    __hash__ = None


class LazyList(list):
    def __iter__(self):
        raise AssertionError("iterated")


class Owner:
    """Stands for what knows the data of all passes."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Trainer(Owner):
    pass


def test_nothing_lazy_is_asked_and_what_knows_all_data_is_left_alone():
    mine, others = ProfileImages("mine"), ProfileImages("others")
    data = Photos(lazy=Lazy(), items=LazyList([Lazy()]), array=np.zeros(10**6), z=mine, trainer=Trainer(data=others))
    assert list(collectors_in(DataLoader(data))) == [mine.collector]


def test_each_is_found_once_and_nothing_in_nothing():
    profiled = ProfileImages("mine")
    assert list(collectors_in([Photos(a=profiled, b=[profiled]), profiled])) == [profiled.collector]
    assert collectors_in(None) == collectors_in(Photos()) == {}


@pytest.mark.parametrize("shared", [False, True])
def test_what_is_reached_through_the_configuration_of_all_passes_is_told_apart(shared):
    pipelines = {"training": v2.Compose([ProfileImages()]), "validation": v2.Compose([ProfileImages()])}
    if shared:
        pipelines["validation"] = pipelines["training"]
    raw = RawImages(Problems())
    for n, (source, pipeline) in enumerate(pipelines.items(), start=1):
        raw.find(source, DataLoader(Photos(config=Config(pipelines), preprocess=pipeline)))
        for _ in range(n):
            pipeline(torch.zeros(3, 4, 4, dtype=torch.uint8))
    profiles = {source: Profile() for source in pipelines}
    for source, profile in profiles.items():
        raw.join(source, profile)
    counts = {source: profile.groups["raw"].n for source, profile in profiles.items() if "raw" in profile.groups}
    assert counts == ({} if shared else {"training": 1, "validation": 2})
