"""Keras: one callback, and the baseline is a by-product of `model.fit`; another holds production against it.

Importing this package imports neither Keras nor a backend: which backend it is, the user's own import decides.
"""

import lazy_loader

from lensai_integrations.errors import saying_what_to_install

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = saying_what_to_install(__getattr__, keras="lensai-integrations[keras]")
