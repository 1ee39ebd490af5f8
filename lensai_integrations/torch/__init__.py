"""PyTorch modules from inside: hooks on layers, what a model's answer is, passes, a monitor beside a module.

A module and batches come in, rows for a profiler or a monitor go out. Needs torch, and knows of no Lightning.
"""
