from .callback import BaselineCallback as BaselineCallback
from .drift import DriftCallback as DriftCallback
