"""Reports as one HTML file that needs nothing else.

A report is looked at inside MLflow's sandboxed frame, in a mail, from a disk ten years later: so it has no links, no
anchors, no network and no stored state. Names of layers, classes and streams come from models and data sets and are
nobody's to trust: templates escape everything, and a content security policy lets only our own script run, should an
escape ever be forgotten.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Final

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lensai_integrations.drift.result import DriftReport
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.report.baseline import baseline_page
from lensai_integrations.report.drift import drift_page
from lensai_integrations.report.page import Page

#: The package whose templates and style every page of ours shares.
REPORT: Final = "lensai_integrations.report"


def baseline_html(baseline: Baseline | Profile) -> str:
    """The report of a baseline or of a lone profile, as one self-contained HTML page.

    Its size depends on the number of streams, not on the number of rows: about 100 kB, below 2 MB for any model.

    Example:
        >>> baseline_html(Profile(info={"source": "production"})).startswith("<!DOCTYPE html>")
        True
    """
    return render(baseline_page(baseline))


def drift_html(report: DriftReport, baseline: Baseline | Profile, window: Profile) -> str:
    """A drift report as one self-contained HTML page, what moved worst first.

    Args:
        report: What `compare(baseline, window)` returned.
        baseline: What the window was held against.
        window: The window.

    Example:
        >>> import numpy as np
        >>> from lensai_integrations import Profiler, compare
        >>> profiler = Profiler()
        >>> profiler.update(inputs=np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3), dtype=np.uint8))
        >>> profile = profiler.profile()
        >>> "NO DRIFT" in drift_html(compare(profile, profile), profile, profile)
        True
    """
    return render(drift_page(report, baseline, window))


def render(page: Page) -> str:
    """Mark a page up."""
    own = parts_of_page((asset(REPORT, "style.css"),), asset(REPORT, "script.js"))
    return environment(REPORT).get_template("page.html.j2").render(page=page, **own).lstrip()


def parts_of_page(styles: Sequence[str], script: str) -> dict[str, str]:
    """What every page's head needs: `style`, `script`, and `script_hash` for its content security policy.

    Args:
        styles: Our own style sheets, in order.
        script: Our own script, the only one that runs.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    marked = {"style": Markup("\n".join(styles)), "script": Markup(script)}  # noqa: S704  files of this package
    return {**marked, "script_hash": f"sha256-{digest}"}


def breakable(name: str) -> Markup:
    """A name, escaped, that may be broken after `_`, `/`, `.` and `-`.

    Example:
        >>> breakable("<a>_b")
        Markup('&lt;a&gt;_<wbr>b')
    """
    return Markup("<wbr>").join(re.findall(r"[^_/.-]+[_/.-]*|[_/.-]+", name))


@cache
def environment(*packages: str) -> Environment:
    """Templates that escape everything, of the `templates` folders of these packages, looked for in this order."""
    found = Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["breakable"] = breakable
    return found


@cache
def asset(package: str, name: str) -> str:
    """Text of a file in a package's `templates` folder."""
    return (files(package) / "templates" / name).read_text(encoding="utf-8")
