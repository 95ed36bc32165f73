"""Draw the figures of docs/review, with what the package computes on drawn scenes.

    python tools/draw_figures.py                    # all of them, a few minutes
    python tools/draw_figures.py iou nms            # these
    python tools/draw_figures.py --out other/folder

`make figures` calls it. Everything is seeded: the same versions of the packages draw the same.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

OUT = Path(__file__).parents[1] / "docs" / "review" / "figures"


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all figures")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    from figures.all_figures import FIGURES  # heavy, and beside this file

    by_name = {Path(file).stem: file for file in FIGURES}
    unknown = sorted(set(args.names) - set(by_name))
    if unknown:
        parser.error(f"no figure is named {', '.join(unknown)}; there are {', '.join(by_name)}")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.names or by_name:
        path = args.out / by_name[name]
        FIGURES[path.name](path)
        print(f"{path} {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
