"""Reports as one HTML file that needs nothing else; and the page of a baseline.

That page says what was profiled, from what, how many rows, and what it looked like.

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
from typing import Any, Final

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lensai_integrations.drift.calibration import calibration_of
from lensai_integrations.drift.result import DriftReport
from lensai_integrations.errors import FormatError
from lensai_integrations.profiles.conventions import inputs_of, is_images, title_of
from lensai_integrations.profiles.coverage import coverage_text
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.names import OUTPUTS, is_labels, is_outputs
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.profiling.sampling import measured_lines
from lensai_integrations.report.drift import drift_page
from lensai_integrations.report.pages import (
    KINDS,
    Commands,
    Fact,
    Page,
    data_sections,
    definitions_used,
    rows_noun,
    when,
)
from lensai_integrations.report.streams import Source, reading
from lensai_integrations.report.words import count, interval, number

_USE = "Profile what production sends in the same way, then hold it against this baseline."


def baseline_page(baseline: Baseline | Profile) -> Page:
    """Everything the report of a baseline, or of a lone profile, says."""
    sources = [Source(number, name, profile) for number, (name, profile) in enumerate(baseline.sources().items())]
    info = {**sources[0].profile.info, **baseline.info}
    return Page(
        kind="Data baseline" if isinstance(baseline, Baseline) else "Data profile",
        headline=headline(sources, info),
        made=f"Made {when(str(info['created']))}" if info.get("created") else "",
        warnings=tuple(baseline.warnings),
        facts=(*key_facts(sources), *_weights(info), *_calibration(baseline)),
        sections=tuple(data_sections(sources)),
        definitions=definitions_used(sources),
        use_title="How to use it",
        use=_USE,
        commands=_commands(info, inputs_of(sources[0].profile)),
    )


def headline(sources: Sequence[Source], info: dict[str, Any]) -> str:
    """What this is in one sentence.

    Example:
        >>> headline([Source(0, "production", Profile())], {})
        '0 production rows'
    """
    texts = [count(s.profile.n, f"{s.name} {rows_noun(s.profile.groups)}") for s in sources]
    if info.get("epoch") is not None:
        texts[0] += f" of epoch {info['epoch']}"
    return ", held against ".join(texts)


def key_facts(sources: Sequence[Source]) -> list[Fact]:
    """Rows, how inputs, outputs and labels were read, and which layers were profiled."""
    facts = [Fact(source.name.capitalize(), _rows(source)) for source in sources]
    groups: dict[str, Group] = {}
    for source in sources:
        for name, group in source.profile.groups.items():
            groups.setdefault(name, group)
    makers = {"inputs": (is_images, _inputs), "outputs": (is_outputs, _outputs), "labels": (is_labels, _labels)}
    for name, (belongs, make) in makers.items():
        members = [group for group_name, group in groups.items() if belongs(group_name)]
        facts += [
            Fact(title_of(group.name, [group]) if len(members) > 1 else name.capitalize(), make(group))
            for group in members
        ]
    layers = [_layer(group) for name, group in groups.items() if name.startswith("embeddings/")]
    return facts + ([Fact("Embeddings", tuple(layers))] if layers else [])


def _weights(info: dict[str, Any]) -> list[Fact]:
    """Whose weights the model had."""
    return [Fact("Weights", (str(info["weights_of"]),))] if info.get("weights_of") else []


def _calibration(what: Baseline | Profile) -> list[Fact]:
    """What drift is judged by, of a baseline."""
    if not isinstance(what, Baseline):
        return []
    try:
        calibration = calibration_of(what)
    except FormatError:
        calibration = None
    if calibration is None:
        return [Fact("Calibration", ("none: drift is judged by formulas",))]
    lines = [
        f"{count(calibration.draws, 'clean window')} of each size",
        f"{calibration.sizes[0]} to {calibration.sizes[-1]:,} rows",
    ]
    for name, confidence in calibration.confidences.items():
        of = "" if name == OUTPUTS else f" of {name}"
        lines.append(f"accuracy{of} {number(100 * confidence.accuracy)}% by its labels")
    return [Fact("Calibration", tuple(lines))]


def _rows(source: Source) -> tuple[str, ...]:
    """Rows seen, and how many of which group were left out."""
    lines = [count(source.profile.n, rows_noun(source.profile.groups))]
    left_out = {name: group.invalid for name, group in source.profile.groups.items() if group.invalid}
    lines += [f"of {of}"] if (of := coverage_text(source.profile.info)) else []
    lines += measured_lines(source.profile)
    lines += [f"{count(n, 'row')} of {name} left out: not finite" for name, n in left_out.items()]
    return tuple(lines if left_out else [*lines, "no invalid row"])


def _inputs(group: Group) -> tuple[str, ...]:
    lines = [f"read as {group.info['note']}"] if group.info.get("note") else []
    size = _size(group)
    lines += [size] if size else []
    convention = group.info.get("convention")
    lines += [f"measured by convention {convention}"] if convention else []
    return tuple(lines or [count(group.n, "row")])


def _size(group: Group) -> str:
    """Height and width of the images, from their streams."""
    if group.bank is None or group.bank.n == 0 or not {"height", "width"} <= set(group.streams):
        return ""
    columns = [group.streams.index(name) for name in ("height", "width")]
    ends = np.asarray(group.bank.min)[columns], np.asarray(group.bank.max)[columns]
    height, width = (interval(float(low), float(high)) for low, high in zip(*ends, strict=True))
    return f"{height} × {width} pixels (height × width)"


def _outputs(group: Group) -> tuple[str, ...]:
    info = group.info
    lines = [f"layer {info['layer']}"] if info.get("layer") else []
    kind = str(info.get("kind", "unknown"))
    columns = info.get("classes", info.get("columns"))
    noun = ("value", "values") if kind == "values" else ("label", "labels") if kind in KINDS else ("class", "classes")
    read = f"read as {KINDS.get(kind, kind)}"
    lines.append(read if columns is None else f"{read}, {count(int(columns), *noun)}")
    lines += [str(info[key]).rstrip(".") for key in ("why", "found") if info.get(key)]
    return tuple(lines)


def _labels(group: Group) -> tuple[str, ...]:
    lines = [f"from {group.info['read_from']}"] if group.info.get("read_from") else []
    if group.streams and not group.categories:
        lines.append(f"{count(group.n, 'row')} of {count(len(group.streams), 'number')}")
    for sketch in group.categories.values():
        several = f" of {count(group.n, 'row')}, several at once" if group.streams else ""
        lines.append(f"{count(sketch.n, 'label')}{several}, {count(round(sketch.distinct), 'class', 'classes')}")
    return tuple(lines) or (count(group.n, "label"),)


def _layer(group: Group) -> str:
    name = str(group.info.get("layer") or group.name.removeprefix("embeddings/"))
    how = reading(group)
    return f"{name}: {how}" if how else name


def _commands(info: dict[str, Any], names: Sequence[str] = ()) -> tuple[Commands, ...]:
    where = f"runs:/{info['run_id']}" if info.get("run_id") else "runs:/<run id>"
    shell = (
        "# exits 0: no drift, 1: drift, 2: error; takes folders, runs:/ and models:/\n"
        f"lensai compare {where} folder_of_production_profile\n\n"
        f"# all streams as a table\nlensai show {where}"
    )
    by_name = f"  # images: {{{', '.join(f'{name!r}: ...' for name in names)}}}" if any(names) else ""
    python = (
        "from lensai_integrations import Profiler, compare\n"
        "from lensai_integrations.mlflow import load_baseline\n\n"
        f'baseline = load_baseline("{where}")\n'
        "profiler = Profiler(like=baseline)          # reads and sketches as the baseline did\n"
        "for images, outputs in production:\n"
        f"    profiler.update(inputs=images, outputs=outputs){by_name}\n"
        "print(compare(baseline, profiler.profile()).to_text())"
    )
    return (Commands("On the command line", shell), Commands("In Python", python))


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
    assets = parts_of_page((asset(REPORT, "style.css"),), asset(REPORT, "script.js"))
    return environment(REPORT).get_template("page.html.j2").render(page=page, **assets).lstrip()


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
    templates = Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["breakable"] = breakable
    return templates


@cache
def asset(package: str, name: str) -> str:
    """Text of a file in a package's `templates` folder."""
    return (files(package) / "templates" / name).read_text(encoding="utf-8")
