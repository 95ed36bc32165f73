"""Write the pasted masks of torchvision that the tests of `rcnn_keras.data.masks` compare with.

    pip install torch torchvision
    python tools/parity/store_masks.py

Run it in an environment of its own: it needs torch, torchvision and numpy, and neither TensorFlow
nor this package. It writes `tests/data/torchvision_masks.npz`: for masks of 28 and of 14 positions
a side, `masks<M>` and `pasted<M>`, and `boxes` and `size`, which both have in common.
"""

import argparse
from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parents[2] / "tests" / "data" / "torchvision_masks.npz"
SIZE = (53, 70)  # height and width of the image
BOXES = [
    [10, 8, 38, 36],  # a pixel a position, where M is 28
    [3.4, 5.7, 61.2, 47.9],  # enlarged
    [20.6, 30.1, 29.3, 36.8],  # shrunk
    [0, 0, 70, 53],  # the whole image
    [-12.5, -7.2, 20.3, 15.9],  # over the upper left corner
    [55.5, 40.2, 88.8, 71.3],  # over the lower right corner
    [-30, -30, 120, 100],  # around the image
    [30.7, 20.2, 31.2, 20.6],  # inside one pixel
    [30.5, 20.5, 30.5, 20.5],  # a point
    [25.3, 5.1, 25.9, 45.2],  # less than a pixel wide
]


def smooth(rng, count, side):
    """Draw `(count, side, side)` masks in 0..1: blobs with soft edges, as mask heads give them."""
    rows, columns = np.mgrid[:side, :side] / side
    centres, widths = rng.uniform(0.2, 0.8, (2, count, 1, 1)), rng.uniform(3, 9, (count, 1, 1))
    far = np.hypot(rows - centres[0], columns - centres[1])
    noise = rng.normal(0, 0.5, (count, side, side))
    return (1 / (1 + np.exp(widths * 3 * (far - 0.35) + noise))).astype("f4")


def main() -> None:
    """Write the file and say what it holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    import torch
    import torchvision
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    boxes = np.array(BOXES, "f4")
    numbers = {"versions": np.array(versions), "boxes": boxes, "size": np.array(SIZE)}
    rng = np.random.default_rng(0)
    for side in (28, 14):
        masks = smooth(rng, len(boxes), side)
        pasted = paste_masks_in_image(torch.tensor(masks)[:, None], torch.tensor(boxes), SIZE)
        numbers |= {f"masks{side}": masks, f"pasted{side}": pasted[:, 0].numpy()}
    np.savez_compressed(args.out, **numbers)
    print(f"{args.out}: {args.out.stat().st_size / 1e3:.0f} kB, {versions}")


if __name__ == "__main__":
    main()
