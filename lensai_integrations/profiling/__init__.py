"""From batches to profiles: the profiler, its recorders, data sets, and images as a file or camera delivers them.

In: batches, folders, data sets. Out: a `Profile`. Decides from counts the host has and waits for no accelerator. Knows
neither training nor comparing.
"""
