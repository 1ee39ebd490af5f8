from .loops import profiled as profiled
from .watching import watch as watch
