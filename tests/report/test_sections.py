"""Sections hold what the profiles hold: every stream once, none left out without a word."""

from __future__ import annotations

import numpy as np
import pytest

from lensai_integrations import Baseline, Profile, Profiler
from lensai_integrations.measures.definitions import DEFINITIONS
from lensai_integrations.profiles.groups import Group
from lensai_integrations.report.pages import (
    MOST_FOLDED,
    Section,
    axis,
    data_sections,
    definitions_used,
    legend,
    rows_noun,
)
from lensai_integrations.report.streams import Source, parts_of


def sources_of(what: Baseline | Profile) -> list[Source]:
    return [Source(i, name, profile) for i, (name, profile) in enumerate(what.sources().items())]


def sections_of(what: Baseline | Profile) -> dict[str, Section]:
    return {section.title: section for section in data_sections(sources_of(what))}


def profile_of(**batch: object) -> Profile:
    profiler = Profiler(source="production")
    profiler.update(**batch)
    return profiler.profile()


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_the_order_of_the_sections(photos: Baseline) -> None:
    assert list(sections_of(photos)) == ["Inputs", "Outputs", "Embeddings"]


def test_every_input_stream_has_a_row(photos: Baseline) -> None:
    inputs = sections_of(photos)["Inputs"]
    assert [row.name for row in inputs.rows] == list(photos.reference.groups["inputs"].streams)
    assert all(len(row.cells) == 2 for row in inputs.rows)
    assert len(inputs.pixels) == 3
    assert inputs.legend == ((0, "validation, 220 images"), (1, "training, 300 images"))


def test_brighter_training_images_are_told(photos: Baseline) -> None:
    inputs = sections_of(photos)["Inputs"]
    assert inputs.lead[0].startswith("Training differs from validation most in ")
    assert [column.label for column in inputs.columns] == ["gap"]
    assert "bold from 0.1" in inputs.legend_note


def test_a_lone_profile_has_no_gaps(photos: Baseline) -> None:
    for section in sections_of(photos.reference).values():
        assert section.columns == ()
        assert section.legend_note == ""
        assert not any("differs" in sentence or "alike" in sentence for sentence in section.lead)


def test_outputs_confidences_first_classes_as_bars(photos: Baseline) -> None:
    outputs = sections_of(photos)["Outputs"]
    confidences = ["margin_confidence", "least_confidence", "ratio_confidence", "entropy_confidence"]
    assert [row.name for row in outputs.rows if "conf" in row.name] == confidences
    assert outputs.lead[0] == "Outputs of layer fc read as logits: labels are one class per image."
    assert all((row.low, row.high) == ("0", "1") for row in outputs.rows)
    assert [chart.columns for chart in outputs.charts] == [("predicted", "labels", "training labels")]


def test_few_classes_are_open_and_many_are_folded() -> None:
    few = sections_of(profile_of(outputs=normal(60, 4)))["Outputs"]
    assert [row.name for row in few.rows if row.name.startswith("softmax/")] == [f"softmax/{i}" for i in range(4)]
    assert few.folded == ()
    many = sections_of(profile_of(outputs=normal(60, 12)))["Outputs"]
    assert not any(row.name.startswith("softmax/") for row in many.rows)
    assert [row.name for row in many.folded[0].rows] == [f"softmax/{i}" for i in range(12)]
    assert many.folded[0].note == "12 streams"


def test_of_a_thousand_classes_the_predicted_ones_are_shown() -> None:
    outputs = normal(60, 1000)
    outputs[:, 900] += 20
    section = sections_of(profile_of(outputs=outputs))["Outputs"]
    (folded,) = section.folded
    assert len(folded.rows) == MOST_FOLDED
    assert "softmax/900" in [row.name for row in folded.rows]
    assert folded.note.startswith(f"{MOST_FOLDED} of 1,000 streams")


def test_regression_outputs_beside_numeric_labels() -> None:
    section = sections_of(profile_of(outputs=100 * normal(60, 1), labels=100 * normal(60, seed=1)))["Outputs"]
    assert [row.name for row in section.rows] == ["value/0", "labels/value/0"]
    assert section.charts == ()
    assert float(section.rows[0].high) > 1


def test_the_legend_names_every_source_that_has_a_row() -> None:
    hot = np.eye(3)[[0, 1, 2, 0]] + np.eye(3)[[1, 1, 0, 2]] > 0
    reference = profile_of(outputs=normal(4, 3), labels=hot.astype(np.float32))
    training = profile_of(labels=hot.astype(np.float32))
    training.info["source"] = "training"
    outputs = sections_of(Baseline(reference, training))["Outputs"]
    assert [number for number, _ in outputs.legend] == [0, 1]
    reference, training = (
        profile_of(labels=[0, 1, 2, 1]) for _ in "ab"
    )  # classes are bars, with a legend of their own
    reference.groups |= profile_of(outputs=normal(4, 3)).groups
    training.info["source"] = "training"
    (alone,) = sections_of(Baseline(reference, training)).values()
    assert [number for number, _ in alone.legend] == [0]
    assert {cell.number for row in outputs.rows for cell in row.cells} == {0, 1}


def test_labels_without_outputs() -> None:
    sections = sections_of(profile_of(labels=np.arange(60) % 3))
    assert list(sections) == ["Labels"]
    assert sections["Labels"].charts[0].columns == ("labels",)


def test_embeddings_get_one_fan_per_layer(photos: Baseline) -> None:
    section = sections_of(photos)["Embeddings"]
    assert [fan.name for fan in section.fans] == ["avgpool"]
    assert "quantiles of training" in section.lead[1]
    assert len(sections_of(photos.reference)["Embeddings"].lead) == 1


def test_groups_of_other_kinds_are_shown_too(photos: Baseline) -> None:
    group = photos.reference.groups["inputs"]
    profile = Profile({"raw": Group("raw", group.streams, group.definitions, group.sketches, group.info)})
    assert [row.name for row in sections_of(profile)["Raw"].rows] == list(group.streams)


def test_a_group_without_sketches_has_no_section() -> None:
    assert sections_of(Profile({"inputs": Group("inputs"), "raw": Group("raw")})) == {}


def test_different_ways_of_reading_are_told(photos: Baseline) -> None:
    group = photos.training.groups["inputs"]
    other = Group("inputs", group.streams, group.definitions, group.sketches, {**group.info, "note": "NCHW floats"})
    mixed = Baseline(photos.reference, Profile({"inputs": other}, info={"source": "training"}))
    lead = sections_of(mixed)["Inputs"].lead
    assert "NCHW floats (training)" in lead[0]
    assert "(validation)" in lead[0]


def test_rows_left_out_stand_in_the_legend() -> None:
    values = normal(20, 3)
    values[4] = np.nan
    (part,) = parts_of(sources_of(profile_of(embeddings={"fc": values})), "embeddings/fc")
    assert legend([part]) == ((0, "production, 19 rows, 1 left out"),)


def test_probabilities_share_an_axis_and_other_numbers_do_not(photos: Baseline) -> None:
    sources = sources_of(photos)
    assert axis(parts_of(sources, "outputs")) == (0.0, 1.0)
    assert axis(parts_of(sources, "inputs")) is None
    assert axis([]) is None


def test_definitions_are_all_there_once(photos: Baseline) -> None:
    found = definitions_used(sources_of(photos))
    used = {id for p in photos.sources().values() for g in p.groups.values() for id in g.definitions.values()}
    assert {entry.id for entry in found} == used
    assert len(found) == len(used)
    assert all(entry == DEFINITIONS[entry.id] for entry in found)


@pytest.mark.parametrize(("id", "name"), [("custom/tilt@1", "tilt"), ("<b>nonsense", "<b>nonsense")])
def test_unknown_definitions_are_named(id: str, name: str) -> None:
    profile = Profile({"inputs": Group("inputs", definitions={"x": id})})
    assert [entry.name for entry in definitions_used(sources_of(profile))] == [name]


def test_words_for_rows() -> None:
    assert rows_noun(["raw"]) == "image"
    assert rows_noun(["labels"]) == "row"
