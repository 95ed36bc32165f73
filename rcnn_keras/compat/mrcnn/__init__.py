"""The modules of matterport/Mask_RCNN (Abdulla 2017), by their names, on this package's models.

A program runs after `from mrcnn import ...` became `from rcnn_keras.compat.mrcnn import ...`, and
`import mrcnn.model as modellib` became `import rcnn_keras.compat.mrcnn.model as modellib`.
"""

import importlib
from typing import Any

__version__ = "2.1"  # of the interface
MODULES = ("config", "model", "utils", "visualize")


def __getattr__(name: str) -> Any:
    # Programs also say `mrcnn.utils` after `import mrcnn` alone.
    if name not in MODULES:
        raise AttributeError(f"module 'rcnn_keras.compat.mrcnn' has no attribute {name!r}")
    return importlib.import_module(f"rcnn_keras.compat.mrcnn.{name}")
