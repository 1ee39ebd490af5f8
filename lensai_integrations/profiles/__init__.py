"""Profiles and baselines: groups of streams, what is known of them, how they merge and how they are kept.

In: groups with their sketches. Out: `Profile` and `Baseline`, merged, saved, loaded, as a table. Knows nothing of
batches and of how rows are made, and nothing of comparing.
"""
