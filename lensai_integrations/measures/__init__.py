"""What is measured: functions from a batch to numbers per row, each formula written once.

In: batches of images, answers of models, outputs of layers. Out: float32 rows `[n, D]` where the batch lies, and the
definition of each stream. Knows no sketch's inside, no profile and no framework.
"""
