"""Lightning: one callback, and the baseline is a by-product of `Trainer.fit`; another holds production against it.

Importing this package imports neither Lightning nor torch; a callback's name does, when it is asked for.
"""

import lazy_loader

from lensai_integrations.errors import saying_what_to_install

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = saying_what_to_install(__getattr__, torch="lensai-integrations[lightning]")
