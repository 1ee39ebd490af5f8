"""Drift: how far production's streams have moved from the baseline's, and whether that is more than chance."""
