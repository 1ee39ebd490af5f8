from .callback import BaselineCallback as BaselineCallback
from .data import profile_dataset as profile_dataset
from .drift import DriftCallback as DriftCallback
