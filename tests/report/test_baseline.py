"""The top of a baseline's page: what it is, of what, how many, how it was read, and what to do with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lensai_integrations import Baseline, Profile, Profiler
from lensai_integrations.profiles.groups import Group
from lensai_integrations.report.html import baseline_page, headline
from lensai_integrations.report.pages import Page
from lensai_integrations.report.streams import Source


def facts(page: Page) -> dict[str, tuple[str, ...]]:
    return {fact.term: fact.lines for fact in page.facts}


def test_headline_of_a_baseline(photos: Baseline) -> None:
    page = baseline_page(photos)
    assert page.kind == "Data baseline"
    assert page.headline == "220 validation images of epoch 4, held against 300 training images"
    assert page.made == "Made 2026-03-01 09:05 UTC"


def test_headline_of_a_profile(photos: Baseline) -> None:
    page = baseline_page(photos.training)
    assert page.kind == "Data profile"
    assert page.headline == "300 training images"


def test_an_epoch_of_the_profile_counts_unless_the_baseline_has_one() -> None:
    profile = Profile(info={"source": "validation", "epoch": 0})
    assert "of epoch 0" in baseline_page(profile).headline
    assert "of epoch 9" in baseline_page(Baseline(profile, info={"epoch": 9})).headline


def test_one_image_is_no_plural() -> None:
    profiler = Profiler(source="test")
    profiler.update(inputs=np.zeros((1, 8, 8, 3), np.uint8))
    assert headline([Source(0, "test", profiler.profile())], {}) == "1 test image"


def test_facts_say_what_was_read_and_how(photos: Baseline) -> None:
    told = facts(baseline_page(photos))
    assert told["Validation"] == ("220 images", "no invalid row")
    assert told["Training"] == ("300 images", "no invalid row")
    assert told["Inputs"][0] == f"read as {photos.reference.groups['inputs'].info['note']}"
    assert told["Inputs"][1:] == ("32 × 32 pixels (height × width)", "measured by convention lensai")
    assert told["Outputs"] == ("layer fc", "read as logits, 5 classes", "labels are one class per image")
    assert told["Labels"] == ("220 labels, 3 classes",)
    assert told["Embeddings"] == ("avgpool: 40 wide",)


def test_rows_left_out_are_told_and_warned_of() -> None:
    images = np.full((10, 8, 8, 3), 0.5, np.float32)
    images[3, 0, 0, 0] = np.nan
    profiler = Profiler(source="validation")
    profiler.update(inputs=images)
    page = baseline_page(profiler.profile())
    assert facts(page)["Validation"] == ("10 images", "1 row of inputs left out: not finite")
    assert len(page.warnings) == 1
    assert "left out" in page.warnings[0]


def test_warnings_of_all_profiles_are_shown_once(photos: Baseline) -> None:
    one = Profile(info={"source": "validation", "warnings": ["same", "one"]})
    two = Profile(info={"source": "training", "warnings": ["same", "two"]})
    assert baseline_page(Baseline(one, two, {"warnings": ["zero"]})).warnings == ("zero", "same", "one", "two")
    assert baseline_page(photos).warnings == ()


def test_images_of_several_sizes() -> None:
    profiler = Profiler()
    for size in (8, 12):
        profiler.update(inputs=np.zeros((2, size, 16, 3), np.uint8))
    assert facts(baseline_page(profiler.profile()))["Inputs"][1] == "8 – 12 × 16 pixels (height × width)"


@pytest.mark.parametrize(
    ("info", "line"),
    [
        ({}, "read as unknown"),
        ({"kind": "values", "columns": 1}, "read as values, 1 value"),
        ({"kind": "logits", "classes": 7}, "read as logits, 7 classes"),
    ],
)
def test_facts_of_outputs_that_say_little(info: dict[str, object], line: str) -> None:
    assert facts(baseline_page(Profile({"outputs": Group("outputs", info=info)})))["Outputs"] == (line,)


def test_an_empty_profile_has_a_page() -> None:
    page = baseline_page(Profile())
    assert page.headline == "0 unknown rows"
    assert page.sections == ()
    assert page.definitions == ()


def test_the_commands_name_the_run(photos: Baseline) -> None:
    known = baseline_page(replace(photos, info={**photos.info, "run_id": "0123abcd"}))
    assert all("runs:/0123abcd" in commands.text for commands in known.commands)
    unknown = baseline_page(photos)
    assert all("runs:/<run id>" in commands.text for commands in unknown.commands)


def test_the_python_commands_are_python(photos: Baseline) -> None:
    text = next(commands.text for commands in baseline_page(photos).commands if "import" in commands.text)
    compile(text, "report", "exec")
    assert "Profiler(like=baseline)" in text
    assert "compare(baseline, profiler.profile())" in text
