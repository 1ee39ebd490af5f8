"""Small mergeable summaries of streams: numpy, datasketches and the array API, no framework and no files.

In: rows `[n, D]` or categories, on the host or on an accelerator. Out: sketches that merge, answer questions, and
become plain arrays and Apache DataSketches' bytes. Knows no image, no group and no file.
"""
