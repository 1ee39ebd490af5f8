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
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lensai_integrations.profile import Baseline, Profile
from lensai_integrations.report.baseline import baseline_page
from lensai_integrations.report.page import Page

if TYPE_CHECKING:
    from lensai_integrations.drift.compare import DriftReport


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
    from lensai_integrations.report.drift import drift_page

    return render(drift_page(report, baseline, window))


def render(page: Page) -> str:
    """Mark a page up."""
    script = _asset("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = _environment().get_template("page.html.j2")
    own = {"style": Markup(_asset("style.css")), "script": Markup(script)}  # noqa: S704  files of this package
    return template.render(page=page, script_hash=f"sha256-{digest}", **own).lstrip()


def breakable(name: str) -> Markup:
    """A name, escaped, that may be broken after `_`, `/`, `.` and `-`.

    Example:
        >>> breakable("<a>_b")
        Markup('&lt;a&gt;_<wbr>b')
    """
    return Markup("<wbr>").join(re.findall(r"[^_/.-]+[_/.-]*|[_/.-]+", name))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lensai_integrations.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    return environment


@cache
def _asset(name: str) -> str:
    return (files("lensai_integrations.report") / "templates" / name).read_text(encoding="utf-8")
