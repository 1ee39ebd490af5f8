"""PyTorch modules from inside: plain loops, a monitor beside a module, hooks on layers, what a model's answer is.

A module and batches come in, rows for a profiler or a monitor go out. Needs torch, which importing this package does
not load, and knows of no Lightning.
"""

import lazy_loader

from lensai_integrations.errors import saying_what_to_install

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = saying_what_to_install(__getattr__, torch="torch")
