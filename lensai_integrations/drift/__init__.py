"""Drift: how far production's streams have moved from the baseline's, and whether that is more than chance.

In: two profiles. Out: a calibrated baseline, and the report of one comparison. Knows nothing of time: what a verdict
means over many windows is for `monitoring` to say.
"""
