"""Bytes on disk and over the wire: arrays, JSON, folders, posts.

In: arrays, plain values and paths. Out: files that are there whole or not at all, and what was read of them, bounded
and believed in nothing. Knows nothing of what the arrays mean: no sketch, no profile.
"""
