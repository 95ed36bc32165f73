"""Write torchvision's ResNet features to a file, for tests/backbones/test_resnet.py.

    python tools/parity/store_backbone.py tests/backbones/resnet_torchvision.npz

Needs torch and torchvision (2.13 and 0.28 wrote the file that is stored). The weights are no
trained ones but numbers drawn from each parameter's name, so that both sides can make them.
"""

import argparse
import zlib
from pathlib import Path

import numpy as np

SIZE = (48, 64)  # odd maps from C4 on: 12 x 16, 6 x 8, 3 x 4, 2 x 2
LEVELS = {f"layer{k}": f"c{k + 1}" for k in range(1, 5)}


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the numbers that belong to a name: `(..)` float32 of the shape that torch has."""
    values = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).random(shape)
    if len(shape) == 4:  # a kernel that keeps the signal's size
        values = (2 * values - 1) * np.sqrt(6 / np.prod(shape[1:]))
    elif name.endswith(("weight", "running_var")):
        values = 0.5 + values
    elif name.endswith(("bias", "running_mean")):
        values = 0.4 * values - 0.2
    return values.astype(np.float32)


def features(depth: int, image: np.ndarray) -> dict[str, np.ndarray]:
    """Return `{"c2": (H, W, C), ..}` of a ResNet with the drawn weights, at inference."""
    import torch
    from torchvision import models
    from torchvision.models.feature_extraction import create_feature_extractor

    network = getattr(models, f"resnet{depth}")(weights=None).eval()
    state = {
        name: torch.from_numpy(drawn(name, tuple(value.shape)))
        for name, value in network.state_dict().items()
        if not name.startswith("fc.") and value.ndim
    }
    network.load_state_dict(state, strict=False)
    with torch.no_grad():
        maps = create_feature_extractor(network, LEVELS)(
            torch.from_numpy(image.transpose(2, 0, 1)[None])
        )
    return {level: value[0].permute(1, 2, 0).numpy() for level, value in maps.items()}


def main() -> None:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    image = drawn("image", (*SIZE, 3)) * 2 - 1
    arrays = {f"resnet18_{level}": value for level, value in features(18, image).items()}
    arrays["resnet50_c5"] = features(50, image)["c5"]
    np.savez_compressed(out, **arrays)
    for name, value in arrays.items():
        print(name, value.shape, "standard deviation", value.std())
    print(f"{out}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
