"""Write the small files of `torch.save` that tests/convert reads; run where torch is installed.

python tools/parity/store_torch_files.py tests/convert/files
"""

import argparse
import gzip
import json
from collections import OrderedDict
from pathlib import Path

import numpy as np

CLASSIFIERS = ("resnet18", "resnet50", "mobilenet_v3_large")
DETECTORS = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2",
)


def main(folder: Path) -> None:
    """Write small files with tensors of all kinds, and the shapes of torchvision's models."""
    import torchvision

    write_files(folder)
    shapes = {name: shapes_of(getattr(torchvision.models, name)()) for name in CLASSIFIERS}
    for name in DETECTORS:
        build = getattr(torchvision.models.detection, name)
        shapes[name] = shapes_of(build(weights=None, weights_backbone=None))
    text = json.dumps(shapes)
    (folder / "torchvision_shapes.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


def shapes_of(model) -> dict[str, list[int]]:
    """Return the shape of each tensor of a model's state dict."""
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


def write_files(folder: Path) -> None:
    """Write zip.pth and legacy.pth, the numbers in them, a checkpoint and a whole module."""
    import torch

    torch.manual_seed(0)
    base = torch.arange(24.0).reshape(4, 6)
    state = OrderedDict(
        base=base,
        transposed=base.t(),
        rows=base[1:3, ::2],
        bfloat16=torch.randn(3, 5).bfloat16(),
        half=torch.randn(2).half(),
        double=torch.randn(2, 2).double(),
        int8=torch.tensor([-1, 2], dtype=torch.int8),
        bool=torch.tensor([True, False]),
        scalar=torch.tensor(7),
        empty=torch.empty(0, 3),
        expanded=torch.ones(1, 4).expand(3, 4),
        parameter=torch.nn.Parameter(torch.tensor([1.5, -2.0])),
    )
    torch.save(state, folder / "zip.pth")
    torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    numbers = {name: tensor.detach().float().numpy() for name, tensor in state.items()}
    np.savez(folder / "numbers.npz", **numbers)

    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 4])
    checkpoint = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": schedule.state_dict(),
        "args": argparse.Namespace(lr=0.1, device="cpu"),
        "epoch": 3,
    }
    torch.save(checkpoint, folder / "checkpoint.pth")
    torch.save(model, folder / "module.pth")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write them")
    main(parser.parse_args().folder)
