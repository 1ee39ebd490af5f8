"""Baselines in MLflow: to log one to a run or a logged model, to load one, and to monitor a served model with one.

MLflow takes seconds to import and reads the environment when it does, so neither this package nor its functions'
modules import it before a function is called; loading from a folder works without it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
