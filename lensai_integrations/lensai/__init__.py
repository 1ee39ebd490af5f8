"""The calls of LensAI's Python profiler, over the measures and sketches of this package.

Code written for `lensai_profiler` runs once its import line is changed; see docs/moving-from-lensai-profiler.md.
"""
