"""State dicts of PyTorch models, from the files that people share them in."""

from os import PathLike
from pathlib import Path

import numpy as np

from rcnn_keras.convert.pth import read_pth


def read_state_dict(path: str | PathLike) -> dict[str, np.ndarray]:
    """Read the tensors of a `.safetensors` file or of a file of `torch.save`.

    Args:
        path: file whose name ends in `.safetensors`; anything else is read by `read_pth`.

    Returns:
        Array of each tensor, by its name; bfloat16 is widened to float32.

    Raises:
        ValueError: if the file is damaged, or holds anything but named tensors.
        OSError: if the file cannot be opened.
    """
    if Path(path).suffix == ".safetensors":
        return _read_safetensors(path)
    return read_pth(path)


def _read_safetensors(path) -> dict[str, np.ndarray]:
    import ml_dtypes
    from safetensors import SafetensorError, safe_open

    arrays = {}
    try:
        with safe_open(path, "numpy") as file:
            for name in file.keys():  # noqa: SIM118, it is no dictionary
                array = file.get_tensor(name)
                widen = array.dtype == ml_dtypes.bfloat16
                arrays[name] = array.astype("float32") if widen else array
    except SafetensorError as error:
        raise ValueError(f"{path}: not readable as safetensors ({error})") from error
    return arrays
