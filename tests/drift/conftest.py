"""Profiles made by hand."""

from made_profiles import build, rng  # noqa: F401
