"""Bytes on disk and over the wire: arrays, JSON, folders, posts.

In: arrays, plain values and paths. Out: files that are there whole or not at all, and what was read of them, bounded
and believed in nothing. Knows nothing of what the arrays mean: no sketch, no profile.
"""

from lensai_integrations.storage.folders import read_files, read_folder, write_files, write_folder
from lensai_integrations.storage.npz import pack, unpack

__all__ = ["pack", "read_files", "read_folder", "unpack", "write_files", "write_folder"]
