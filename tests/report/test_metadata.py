"""What came with delivered images is one section of a baseline's page: numbers as rows, categories as bars."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lensai_integrations import Baseline
from lensai_integrations.profiling.delivered_images import Collector
from lensai_integrations.report import baseline_html
from lensai_integrations.report.pages import metadata_section
from lensai_integrations.report.streams import Source


@pytest.fixture
def sources():
    found = []
    for number, name in enumerate(("validation", "training")):
        collector = Collector(metadata={"hour": lambda sample: sample[0], "site": lambda sample: sample[1]})
        for hour in range(12):
            image = np.full((8, 8 + hour, 3), hour, np.uint8)
            collector.add(image, (hour + number, "north" if hour < 3 else "south"))
        found.append(Source(number, name, collector.profile(name)))
    return found


def test_numbers_are_rows_and_categories_bars_of_both_sources(sources):
    section = metadata_section(sources, sources[0].profile.groups)
    assert [row.name for row in section.rows] == ["hour"]
    assert [cell.median for cell in section.rows[0].cells] == ["5.0", "6.0"]
    charts = {chart.noun: chart for chart in section.charts}
    assert set(charts) == {"mode", "site"}
    assert [(row.name, row.shares) for row in charts["site"].rows] == [
        ("south", ("75.0%", "75.0%")),
        ("north", ("25.0%", "25.0%")),
    ]


def test_the_page_has_it_once_and_delivered_images_beside_the_inputs(sources):
    page = baseline_html(Baseline(sources[0].profile, sources[1].profile))
    titles = [re.sub("<[^>]*>", "", title).strip() for title in re.findall("<h2>(.*?)</h2>", page, flags=re.DOTALL)]
    assert titles == ["Raw", "Metadata", "How to use it"]
    assert "12 validation images" in page
