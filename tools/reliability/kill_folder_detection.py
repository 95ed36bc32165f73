"""Draw a folder of images, detect in all of them into one file, stop once by a kill, watch memory.

    python tools/reliability/kill_folder_detection.py                       # 10,000 images of 96x96
    python tools/reliability/kill_folder_detection.py --count 2000 --workers 2 --engine ray

The model is `shapes`, which comes with the package. `rcnn detect` is killed with all its workers
after a share of the images (--kill-at), and started again; what was done by then must stay. Prints
the resident memory of the program and of its largest worker over time, images a second, and the
hash of the file, which must be the same in every run over the same images, however they end.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

from rcnn_keras.data.synthetic import draw_shapes
from rcnn_keras.parallel.folder_detection import SHARD_SIZE

MB = 1 << 20
FIRST = 5  # samples to leave out of the growth: imports, tracing, first shards


def main() -> None:
    """Read the command line, draw, detect twice and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="images")
    parser.add_argument("--size", type=int, default=96, help="height and width")
    parser.add_argument("--model", default="shapes")
    parser.add_argument("--engine", default="processes", choices=("processes", "ray"))
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--kill-at", type=float, default=0.4, help="share of the images")
    parser.add_argument("--every", type=float, default=5, help="seconds between samples")
    parser.add_argument("--out", type=Path, default=Path("runs/detect_folder"))
    args = parser.parse_args()
    images, results = args.out / "images", args.out / "results.json"
    if len(list(images.glob("*.png"))) != args.count:
        draw_shapes(args.count, size=(args.size, args.size), out=images)
    results.unlink(missing_ok=True)
    command = [sys.executable, "-c", "from rcnn_keras.cli import main; main()", "detect"]
    command += [str(images), "--model", args.model, "--out", str(results)]
    command += ["--engine", args.engine, "--workers", str(args.workers)]
    parts = results.with_name("results.json.parts")
    kill_at = int(args.kill_at * args.count / SHARD_SIZE)
    if kill_at:
        watch(command, parts, args.every, kill_at)
        kept = {part: part.stat().st_mtime_ns for part in parts.glob("*.jsonl")}
        print(f"killed with {len(kept)} parts of {SHARD_SIZE} images done", flush=True)
    samples = watch(command, parts, args.every)
    rows = json.loads(results.read_text("utf-8"))
    growth = [late[1] - early[1] for early, late in pairwise(samples[FIRST:])]
    print(f"rows: {len(rows)} of {len({row['image_id'] for row in rows})} images")
    print(f"memory after the first {FIRST} samples: {sum(growth) / MB:+.0f} MB in the program")
    print(f"sha256: {hashlib.sha256(results.read_bytes()).hexdigest()}")


def watch(
    command: list[str], parts: Path, every: float, kill_at: int = 0
) -> list[tuple[float, int, int]]:
    """Run a command to its end, or until so many parts are there; return time and memory."""
    samples, start = [], time.monotonic()
    process = subprocess.Popen(
        command, start_new_session=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    )
    print(f"\n{'seconds':>8} {'parts':>6} {'program, MB':>12} {'worker, MB':>11}", flush=True)
    while process.poll() is None:
        own, workers = resident(process.pid), family(process.pid)
        largest = max(map(resident, workers), default=0)
        done = len(list(parts.glob("*.jsonl")))
        samples.append((time.monotonic() - start, own, largest))
        print(f"{samples[-1][0]:8.0f} {done:6} {own / MB:12.0f} {largest / MB:11.0f}", flush=True)
        if kill_at and done >= kill_at:
            os.killpg(process.pid, signal.SIGKILL)
            for worker in workers:  # Ray puts its workers into groups of their own
                if resident(worker):
                    os.kill(worker, signal.SIGKILL)
            process.wait()
            return samples
        time.sleep(every)
    if process.returncode:
        sys.exit(f"rcnn detect ended with {process.returncode}")
    return samples


def family(process: int) -> list[int]:
    """Return all processes below one."""
    found, pending = [], [process]
    while pending:
        parent = pending.pop()
        try:
            below = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except OSError:  # it has ended
            continue
        found += map(int, below)
        pending += map(int, below)
    return found


def resident(process: int) -> int:
    """Return the bytes of memory that a process holds, 0 if it has ended."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
