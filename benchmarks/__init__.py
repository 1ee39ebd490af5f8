"""What is measured, a folder per subject; run from the repository's root: `python -m benchmarks.sketches.bank`.

Every script prints its figures and takes `--json FILE` (`results.py`); `compare_results.py` compares two such files.
A figure is a ratio of two things that took turns in one run, wherever that can be.
"""
