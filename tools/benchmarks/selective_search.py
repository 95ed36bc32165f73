"""Time the proposals of a data set with one worker process and with more.

    python tools/benchmarks/selective_search.py --data test.json --images images/ --count 24

The numbers of workers take turns; a time is wall clock from the call to the written file, with the
start of the workers, and the best of the rounds. Without --data, scenes are drawn.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Time, compare the files, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="COCO file")
    parser.add_argument("--images", type=Path, help="folder of its images; default: the file's")
    parser.add_argument("--count", type=int, default=24, help="images")
    parser.add_argument("--mode", choices=("fast", "quality"), default="fast")
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    # Not above: the workers import this file again, and are quicker without TensorFlow.
    import rcnn_keras as rk
    from rcnn_keras.comparison.timing import circumstances

    dataset = (
        rk.data.load_coco(args.data, images=args.images)
        if args.data
        else rk.data.draw_shapes(args.count, size=(375, 500))
    )
    dataset = dataset[: args.count]
    cores = os.cpu_count() or 1
    numbers = sorted({1, 2, cores})
    machine = circumstances(threads=1)

    times: dict[int, list[float]] = {workers: [] for workers in numbers}
    files = set()
    with tempfile.TemporaryDirectory() as folder:
        for round_ in range(args.rounds):
            for workers in numbers:
                out = Path(folder) / f"{round_}_{workers}.npz"
                start = time.perf_counter()
                rk.proposals.propose(dataset, out, mode=args.mode, workers=workers)
                times[workers].append(time.perf_counter() - start)
                files.add(out.read_bytes())
    print("\n".join(f"{name}: {value}" for name, value in machine.items()))
    print(f"selective search ({args.mode}) of {len(dataset)} images\n")
    print("| workers | seconds | images a second | against one |\n| --- | --- | --- | --- |")
    best = {workers: min(taken) for workers, taken in times.items()}
    for workers, seconds in best.items():
        rate, gain = len(dataset) / seconds, best[1] / seconds
        print(f"| {workers} | {seconds:.1f} | {rate:.2f} | {gain:.2f} |")
    print(f"\n{'all files are the same' if len(files) == 1 else 'THE FILES DIFFER'}")


if __name__ == "__main__":
    main()
