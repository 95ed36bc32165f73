from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def torchvision_numbers():
    """What `tools/parity/store_ops.py` wrote, by `part/name`."""
    with np.load(Path(__file__).parent / "torchvision_ops.npz") as file:
        return {key: file[key] for key in file}
