from __future__ import annotations

import dataclasses

import pytest

from lensai_integrations.errors import DefinitionError
from lensai_integrations.measures import definitions
from lensai_integrations.measures.definitions import Definition, definition, register
from lensai_integrations.measures.images import CONVENTIONS, image_measures


def make(id: str = "custom/tilt@1", **changes: object) -> Definition:
    made = Definition(id, "tilt", "degrees", "How far the horizon leans.", "the angle", "a test")
    return dataclasses.replace(made, **changes)


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    monkeypatch.setattr(definitions, "DEFINITIONS", dict(definitions.DEFINITIONS))


@pytest.mark.parametrize(
    "id",
    ["", "brightness", "lensai/brightness", "lensai/brightness@0", "lensai/brightness@1.0", "Lensai/b@1", "a/b c@1"],
)
def test_an_id_that_is_not_convention_name_version_is_refused(id):
    with pytest.raises(DefinitionError, match="convention/name@version"):
        make(id)


def test_what_is_registered_is_found():
    register(make(), make("custom/tilt@2"))
    assert definition("custom/tilt@1") == make()
    assert definition("custom/tilt@2").id == "custom/tilt@2"


def test_registering_the_same_again_is_fine_and_changing_it_is_not():
    register(make())
    register(make())
    with pytest.raises(DefinitionError, match=r"custom/tilt@1.*new version"):
        register(make(formula="another angle"))
    assert definition("custom/tilt@1") == make()


def test_an_unknown_id_is_answered_with_the_nearest():
    with pytest.raises(DefinitionError, match=r"lensai/brightnes@1.*nearest.*lensai/brightness@1"):
        definition("lensai/brightnes@1")
    with pytest.raises(DefinitionError, match="none similar"):
        definition("???")


def test_a_definition_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().formula = "another"


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_stream_has_a_full_definition_of_its_name_and_convention(convention, channels):
    for stream, id in image_measures(channels, convention).items():
        found = definition(id)
        assert found.id == f"{convention}/{stream.split('/')[0]}@1"
        assert found.name == stream.split("/")[0]
        assert all([found.unit, found.description.endswith("."), found.formula, found.source])
        low, high = found.range
        assert low is None or high is None or low < high


def test_the_conventions_have_definitions_of_their_own():
    ours, edge = (set(image_measures(3, convention).values()) for convention in ("lensai", "lensai-edge"))
    assert not ours & edge
