from .callback import BaselineCallback as BaselineCallback
from .data import profile_dataset as profile_dataset
from .data import profile_images as profile_images
from .drift import DriftCallback as DriftCallback
