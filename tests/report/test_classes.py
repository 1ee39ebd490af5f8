"""Predicted classes and labels: shares are exact, classes are matched by name, long tails are counted."""

from __future__ import annotations

import re

from lensai_integrations import Profile
from lensai_integrations.profiles.groups import Group
from lensai_integrations.report.streams import LABELS, MOST_CLASSES, Source, class_charts, class_series
from lensai_integrations.sketches.categories import Categories


def categories(counts: dict[str, int]) -> Categories:
    sketch = Categories()
    sketch.update([name for name, n in counts.items() for _ in range(n)])
    return sketch


def profile(predicted: dict[str, int] | None = None, labels: dict[str, int] | None = None) -> Profile:
    groups = {}
    if predicted is not None:
        groups["outputs"] = Group("outputs", sketches={"categories/top_class": categories(predicted)})
    if labels is not None:
        groups["labels"] = Group("labels", sketches={"categories/": categories(labels)})
    return Profile(groups)


def charts(*profiles: Profile) -> list:
    names = ("validation", "training")
    return class_charts(class_series([Source(i, names[i], profile) for i, profile in enumerate(profiles)]))


def test_predicted_labels_and_training_labels_in_one_chart() -> None:
    reference = profile({"0": 30, "1": 10}, {"0": 20, "1": 20})
    (chart,) = charts(reference, profile(None, {"1": 99, "0": 1}))
    assert chart.columns == ("predicted", "labels", "training labels")
    assert [number for number, _ in chart.legend] == [0, LABELS, 1]
    assert [(row.name, row.shares) for row in chart.rows] == [
        ("0", ("75.0%", "50.0%", "1.0%")),
        ("1", ("25.0%", "50.0%", "99.0%")),
    ]
    assert chart.rest == ""


def test_training_predictions_are_left_out() -> None:
    (chart,) = charts(profile({"0": 3}), profile({"0": 3}))
    assert chart.columns == ("predicted",)


def test_names_that_do_not_meet_are_not_mixed() -> None:
    predicted, labels = charts(profile({"0": 3, "1": 1}, {"cat": 2, "dog": 2}))
    assert predicted.columns == ("predicted",)
    assert [row.name for row in predicted.rows] == ["0", "1"]
    assert labels.columns == ("labels",)
    assert [row.name for row in labels.rows] == ["cat", "dog"]
    assert labels.legend == ((LABELS, "labels, validation"),)


def test_a_class_never_predicted_is_shown() -> None:
    (chart,) = charts(profile({"0": 4}, {"0": 3, "7": 1}))
    assert chart.rows[1].name == "7"
    assert chart.rows[1].shares == ("0%", "25.0%")


def test_few_numbers_in_their_order_and_names_by_frequency() -> None:
    (numbers,) = charts(profile({"10": 5, "9": 1, "2": 3}))
    assert [row.name for row in numbers.rows] == ["2", "9", "10"]
    (names,) = charts(profile({"cat": 1, "ant": 2, "dog": 5}))
    assert [row.name for row in names.rows] == ["dog", "ant", "cat"]


def test_a_long_tail_is_counted() -> None:
    (chart,) = charts(profile({str(i): 1000 - i for i in range(300)}))
    assert [row.name for row in chart.rows] == [str(i) for i in range(MOST_CLASSES)]
    left = sum(1000 - i for i in range(MOST_CLASSES, 300)) / sum(1000 - i for i in range(300))
    assert chart.rest == f"{300 - MOST_CLASSES} more classes with {100 * left:.1f}% of the rows."


def test_the_longest_bar_fills_the_width() -> None:
    (chart,) = charts(profile({"a": 8, "b": 4}, {"a": 6, "b": 6}))
    widths = [float(re.search(r'width="([\d.]+)"', row.chart)[1]) for row in chart.rows]
    assert widths == [320, 160]
    assert "predicted, validation 66.7%; labels, validation 50.0%" in chart.rows[0].chart


def test_nothing_to_show() -> None:
    assert charts(profile()) == [] == charts(profile({}, {})) == charts(Profile())
