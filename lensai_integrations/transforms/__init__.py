"""torchvision: images profiled where a pipeline delivers them, before resizing and augmentation hide what they were.

from lensai_integrations.transforms import ProfileImages

pipeline = v2.Compose([ProfileImages(), v2.Resize(224), ...])
"""

import lazy_loader

from lensai_integrations.errors import saying_what_to_install

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = saying_what_to_install(
    __getattr__, torch="lensai-integrations[torchvision]", torchvision="lensai-integrations[torchvision]"
)
