"""Kill one of a training's workers again and again, and compare what it ends with.

    python tools/reliability/kill_workers.py --kills 5 --out runs/killed

Draws scenes, trains a small Faster R-CNN on them in two workers (`rcnn launch`), once undisturbed
and once with workers that are killed at random, one at a time, and says whether both runs end with
the same weights and the same history: of it the means of losses, which are added up over the
workers, to 1e-6. With `--one-process` also compares with a run of one process.
"""

import argparse
import csv
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import yaml

os.environ["RCNN_KERAS_LEAN"] = "1"  # no process of this tool but the workers needs TensorFlow

from rcnn_keras.cli.launch import RCNN
from rcnn_keras.runs.launch import launch, say

CONFIG = {
    "model": {
        "architecture": "faster_rcnn",
        "backbone": "zf",
        "recompute_stages": 0,
        "min_size": 64,
        "max_size": 64,
        "anchor_sizes": [[8, 16, 32]],
        "box_units": 8,
        "rpn_pre_nms_top_n_train": 50,
        "rpn_post_nms_top_n_train": 20,
        "rpn_pre_nms_top_n_test": 50,
        "rpn_post_nms_top_n_test": 20,
        "box_batch_size_per_image": 16,
        "box_detections_per_img": 5,
    },
    "data": {
        "format": "coco",
        "train": {"annotations": "train/annotations.json"},
        "val": {"annotations": "val/annotations.json"},
        "batch_size": 4,
        "augment": [{"RandomFlip": {}}, {"ScaleJitter": {"low": 0.6, "high": 1.2}}],
    },
    "optimizer": {"name": "sgd", "learning_rate": 0.001, "clip_global_norm": 5.0},
    "training": {"epochs": 3, "checkpoint": {"every_steps": 3}},
}
DRAW = """
from rcnn_keras.data import draw_shapes
draw_shapes(40, size=(64, 64), out=f"{out}/train")
draw_shapes(4, size=(64, 64), seed=1, out=f"{out}/val")
"""
COMPARE = """
import sys, keras, numpy as np, rcnn_keras
a, b = ([w.numpy() for w in keras.models.load_model(p).variables] for p in sys.argv[1:])
print(max(float(np.abs(x.astype(float) - y).max()) for x, y in zip(a, b, strict=True)))
"""


class Killer:
    """Kills a random worker of each start, until it has killed so many.

    Args:
        checkpoints: the run's folder of checkpoints, by which its progress is seen.
        steps: of the whole run.
        kills: how many.
        seed: of the choice of worker and moment.
    """

    def __init__(self, checkpoints: Path, steps: int, kills: int, seed: int):
        self.checkpoints = checkpoints
        self.random = random.Random(seed)
        self.moments = sorted(self.random.randrange(1, steps - 3) for _ in range(kills))
        self.killed: list[str] = []

    def __call__(self, processes: list[subprocess.Popen]) -> None:
        """Watch the workers of a start."""
        if len(self.killed) < len(self.moments):
            threading.Thread(target=self._watch, args=(processes,), daemon=True).start()

    def _watch(self, processes: list[subprocess.Popen]) -> None:
        before, moment = self._step(), self.moments[len(self.killed)]
        while self._step() < max(moment, before + 1):
            if any(process.poll() is not None for process in processes):
                return
            time.sleep(0.05)
        time.sleep(self.random.uniform(0, 2))
        worker = self.random.randrange(len(processes))
        if processes[worker].poll() is None:
            self.killed.append(f"worker {worker} after the checkpoint of step {self._step()}")
            say(f"killing {self.killed[-1]}")
            processes[worker].send_signal(signal.SIGKILL)

    def _step(self) -> int:
        """Return the step of the last checkpoint, -1 if there is none."""
        found = [int(path.name[5:]) for path in self.checkpoints.glob("step_*")]
        return max(found, default=-1)


def python(code: str, *arguments: str) -> str:
    """Run a program of its own, and return what it printed."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def train(out: Path, name: str, killer: Killer | None = None, kills: int = 0) -> Path:
    """Train in two workers and return the run's folder."""
    folder = out / name
    arguments = ["train", str(out / "config.yaml"), "--out", str(folder)]
    status = launch(
        [sys.executable, "-c", RCNN, *arguments],
        workers=2,
        retries=kills,
        started=killer or (lambda processes: None),
    )
    if status:
        sys.exit(f"the run {name} ended with status {status}")
    return folder


def rows(folder: Path) -> list[dict[str, float]]:
    """Return a run's history."""
    with (folder / "history.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def alike(first: list[dict[str, float]], second: list[dict[str, float]]) -> bool:
    """Return whether two histories are the same but for the rounding of a sum."""
    if [[*row] for row in first] != [[*row] for row in second]:
        return False
    pairs = ((a[k], b[k]) for a, b in zip(first, second, strict=True) for k in a)
    return all(math.isclose(x, y, rel_tol=1e-6) for x, y in pairs)


def difference(first: Path, second: Path) -> float:
    """Return the largest difference of any two weights of two models, optimizers not counted."""
    return float(python(COMPARE, str(first), str(second)).split()[-1])


def main() -> None:
    """Run and compare."""
    parser = argparse.ArgumentParser(prog=Path(__file__).name, description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one-process", action="store_true")
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True)
    (out / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    python(f"out = {str(out)!r}" + DRAW)
    undisturbed = train(out, "undisturbed")
    killer = Killer(out / "killed" / "checkpoints", 30, options.kills, options.seed)
    killed = train(out, "killed", killer, options.kills)
    print(f"{len(killer.killed)} kills: {'; '.join(killer.killed)}")
    same = [alike(rows(undisturbed), rows(killed))]
    print(f"history the same: {same[0]}")
    for name in ("last.keras", "best.keras"):
        largest = difference(undisturbed / name, killed / name)
        same.append(largest == 0)
        print(f"{name}: largest difference of a weight {largest}")
    if options.one_process:
        alone = out / "one_process"
        python(RCNN, "train", str(out / "config.yaml"), "--out", str(alone))
        largest = difference(undisturbed / "last.keras", alone / "last.keras")
        print(f"last.keras of one process: largest difference of a weight {largest}")
    if len(killer.killed) < options.kills or not all(same):
        sys.exit("not as it should be")


if __name__ == "__main__":
    main()
