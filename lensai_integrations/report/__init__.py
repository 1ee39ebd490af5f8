"""Profiles and drift reports as pages a person opens: self-contained HTML."""

from lensai_integrations.report.html import baseline_html, drift_html

__all__ = ["baseline_html", "drift_html"]
