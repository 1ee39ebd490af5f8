"""Profiles and drift reports as pages a person opens: self-contained HTML.

In: profiles, baselines, reports of comparisons. Out: one file of HTML that loads nothing from anywhere. Decides
nothing: what it shows was decided before.
"""

from lensai_integrations.report.html import baseline_html, drift_html

__all__ = ["baseline_html", "drift_html"]
