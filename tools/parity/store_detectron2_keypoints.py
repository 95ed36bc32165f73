"""Cut out of Detectron2's stored numbers what a quick test of keypoints compares with.

    python tools/parity/store_detectron2_keypoints.py ../shared/oracle/detectron2

Heat maps of one detection and the keypoints read off them; ground truth, positive RoIs and the
cells that they are trained on.
"""

import argparse
from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parents[2] / "tests" / "parity" / "detectron2_keypoints.npz"


def main() -> None:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of Detectron2's numbers")
    folder = parser.parse_args().folder
    found = np.load(folder / "keypoint_rcnn_R_50_FPN.npz")
    kept = {"heatmap": found["img1/keypoint_heatmap_first"]}
    for name in ("boxes_network", "keypoints_network", "keypoint_margin"):
        kept[name] = found[f"img1/det_{name}"][0]
    trained = np.load(folder / "keypoint_rcnn_R_50_FPN_train.npz")
    for k in range(2):
        for name in ("gt/{}/boxes", "gt/{}/keypoints", *(
            f"full/keypoint_fg/{{}}/{part}" for part in ("boxes", "target_index", "valid")
        )):  # fmt: skip
            kept[name.format(k)] = trained[name.format(k)]
    np.savez_compressed(OUT, **kept)
    print(f"{OUT}: {OUT.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
