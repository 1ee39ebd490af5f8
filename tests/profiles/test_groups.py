"""What a group tells of its measures, however many there are."""

from __future__ import annotations

from typing import Any

import pytest

from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.profile import Profile, to_bytes
from lensai_integrations.sketches.bank import KLLBank


def test_measures_are_looked_up_once_and_not_for_each_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 300 kB with 20,000 of them took minutes to merge, to save and to show."""
    looked: list[str] = []
    custom: Any = vars(Group)["custom"]
    monkeypatch.setattr(Group, "custom", property(lambda group: looked.append(group.name) or custom.fget(group)))
    ids = {f"m{number}": f"custom/m{number}@1" for number in range(50)}
    group = Group("inputs", definitions=ids, info={"measures": {name: {"id": id} for name, id in ids.items()}})
    group.merge(group)
    assert list(group.known(ids.values())) == [*ids.values()]
    to_bytes(Profile({"inputs": group}))
    assert len(looked) < 10


def test_one_measure_of_its_own_is_as_among_all() -> None:
    group = Group("inputs", sketches={"bank/noise": KLLBank(1), "bank/hue": KLLBank(2)})
    assert {name: group.own(name) for name in ("noise", "hue")} == group.apart
    hue = group.own("hue")
    assert hue is not None
    assert hue.streams == ("hue/0", "hue/1")
    assert group.own("glare") is None


def test_what_a_group_tells_of_a_measure_is_read_once_for_each_id() -> None:
    told = {"id": "custom/a@1", "name": "a", "unit": "1", "description": "a", "formula": "a", "source": "a"}
    measures: dict[str, Any] = {
        "a": {**told, "range": [None, None]},
        "b": {**told, "name": "b", "range": [0, 1]},
        "c": {"id": [1]},
    }
    found = Group("inputs", info={"measures": measures}).known(["custom/a@1", "custom/x@1", "lensai/mean@1"])
    assert [each and each.name for each in found.values()] == ["a", None, "mean"]
