"""Data baselines as a by-product of training.

Public names are loaded when first used, so that `import lensai_integrations` costs milliseconds and imports no
framework: a training script pays only for what it touches.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
