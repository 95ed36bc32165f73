"""Run a detector for long, and see what it leaves behind: memory, traces, files, processes.

    python tools/reliability/soak.py --detects 10000 --steps 2000
    python tools/reliability/soak.py --detects 300 --steps 0      # a look

A small Mask R-CNN (ResNet-18-FPN, a quarter of the channels, random weights) detects in one image a
call, every image of another size, half of them from files; then it trains on drawn scenes of
different sizes, with COCO scores of 20 others every `--every` steps. Counted are resident memory,
open file handles, threads, child processes, and the graphs that TensorFlow traced: of the model, of
tf.data pipelines and of what is inside them. The first `--warm-up` calls, and the first epoch of
training, do not count. Linux only. Ends with 1 if a graph was traced after that, if memory grew by
more than `--most-mb`, or if a file or a process was left.
"""

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np
from PIL import Image
from tensorflow.python.framework import func_graph

import rcnn_keras as rk

FOLDER = Path("/proc/self")
SAMPLES = 20  # of each part of the run


@dataclass(frozen=True)
class State:
    """What the process holds after so many calls or steps."""

    work: str
    done: int
    seconds: float
    rss_mb: float
    graphs: int
    files: int
    threads: int
    children: int


class Traces:
    """Counts the graphs that TensorFlow makes from Python functions, of every kind."""

    def __init__(self) -> None:
        self.count, self.names = 0, []
        make = func_graph.func_graph_from_py_func

        def counted(name, *args, **kwargs):
            self.count += 1
            self.names.append(name)
            return make(name, *args, **kwargs)

        func_graph.func_graph_from_py_func = counted


class Soak:
    """The states of a run, each printed as it is taken."""

    def __init__(self) -> None:
        self.traces, self.states, self.start = Traces(), [], time.perf_counter()
        print("| work | done | s | RSS, MB | graphs | files | threads | children |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")

    def note(self, work: str, done: int) -> State:
        """Take the state of the process."""
        gc.collect()
        pages = int((FOLDER / "statm").read_text().split()[1])
        state = State(
            work,
            done,
            round(time.perf_counter() - self.start, 1),
            round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1),
            self.traces.count,
            len(os.listdir(FOLDER / "fd")),
            len(os.listdir(FOLDER / "task")),
            len((FOLDER / f"task/{os.getpid()}/children").read_text().split()),
        )
        self.states.append(state)
        print(f"| {' | '.join(map(str, asdict(state).values()))} |", flush=True)
        return state

    def faults(self, work: str, most_mb: float) -> list[str]:
        """Say what a part of the run left behind, from its first state to its last."""
        states = [state for state in self.states if state.work == work]
        if len(states) < 2:
            return []
        first, last = states[0], states[-1]
        grown = last.rss_mb - first.rss_mb
        print(
            f"\n{work}: after warm-up ({first.done}) {first.rss_mb:.0f} MB, at the end "
            f"({last.done}) {last.rss_mb:.0f} MB, {grown:+.0f} MB, at most "
            f"{max(state.rss_mb for state in states):.0f} MB; graphs traced since: "
            f"{last.graphs - first.graphs}; files {last.files - first.files:+d}, threads "
            f"{last.threads - first.threads:+d}, children {last.children - first.children:+d}"
        )
        found = {
            "graphs were traced": last.graphs - first.graphs,
            "file handles are left": last.files - first.files,
            "processes are left": last.children - first.children,
            f"MB more than {most_mb:.0f} were taken": max(0, round(grown - most_mb)),
        }
        return [f"{work}: {count} {what}" for what, count in found.items() if count > 0]


class Noting(keras.callbacks.Callback):
    """Notes the state while a model trains, once it has trained and been scored for an epoch."""

    def __init__(self, soak: Soak, every: int) -> None:
        super().__init__()
        self.soak, self.every, self.step, self.warm = soak, every, 0, False

    def on_train_batch_end(self, batch, logs=None):
        """Note every so many steps."""
        self.step += 1
        if self.warm and self.step % self.every == 0:
            self.soak.note("training", self.step)

    def on_epoch_end(self, epoch, logs=None):
        """Note after each evaluation."""
        self.warm = True
        self.soak.note("training", self.step)


def detect(model: rk.models.Detector, soak: Soak, folder: Path, calls: int, warm_up: int) -> None:
    """Detect in images of changing sizes, of arrays and of files in turn."""
    draw = np.random.default_rng(0)
    for call in range(1, calls + 1):
        image = draw.integers(0, 256, (*draw.integers(64, 161, 2), 3), np.uint8)
        given = image
        if call % 2:
            given = folder / f"{call % 50}.png"
            Image.fromarray(image).save(given)
        model.detect(given)
        if call == warm_up or (call > warm_up and call % max(calls // SAMPLES, 1) == 0):
            soak.note("detect", call)


def train(model: rk.models.Detector, soak: Soak, folder: Path, steps: int, every: int) -> None:
    """Train on scenes of changing sizes, and score now and then."""
    sizes = [(64, 96), (96, 64), (128, 160), (160, 128), (96, 96), (128, 96)]
    sets = [
        rk.data.draw_shapes(8, size=size, seed=i, out=folder / f"train{i}")
        for i, size in enumerate(sizes)
    ]
    scenes = sum(sets[1:], sets[0])
    val = rk.data.draw_shapes(20, size=(96, 128), seed=99, out=folder / "val")
    model.compile(keras.optimizers.SGD(0.002, momentum=0.9, global_clipnorm=5.0))
    model.fit(
        scenes.batches(1, shuffle=True, augment=rk.data.RandomFlip()),
        epochs=steps // every,
        steps_per_epoch=every,
        callbacks=[
            rk.callbacks.CocoEvaluation(val, batch_size=4),
            Noting(soak, max(steps // SAMPLES, 1)),
        ],
        verbose=0,
    )


def main() -> None:
    """Run both parts and print a table."""
    options = parse_arguments()
    keras.utils.set_random_seed(0)
    classes = rk.data.draw_shapes(1, size=(64, 64)).classes
    model = rk.models.MaskRCNN(
        "resnet18_fpn",
        classes,
        backbone_width=0.25,
        fpn_channels=64,
        box_units=128,
        min_size=options.size,
        max_size=2 * options.size,
        rpn_post_nms_top_n_test=100,
        box_score_thresh=0.0,
        box_detections_per_img=20,
    )
    soak, faults = Soak(), []
    with tempfile.TemporaryDirectory() as folder:
        if options.detects:
            detect(model, soak, Path(folder), options.detects, options.warm_up)
            faults += soak.faults("detect", options.most_mb)
        if options.steps:
            train(model, soak, Path(folder), options.steps, options.every)
            faults += soak.faults("training", options.most_mb)
    if options.out:
        rows = [asdict(state) for state in soak.states]
        Path(options.out).write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    sys.exit("\n".join(faults) or None)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--detects", type=int, default=10_000, help="calls of detect")
    parser.add_argument("--steps", type=int, default=2_000, help="training steps")
    parser.add_argument("--every", type=int, default=500, help="steps between evaluations")
    parser.add_argument("--size", type=int, default=96, help="pixels of the shorter side")
    parser.add_argument("--warm-up", type=int, default=100, help="calls that do not count")
    parser.add_argument("--most-mb", type=float, default=50, help="growth that is let pass")
    parser.add_argument("--out", help="JSON file for the states")
    return parser.parse_args()


if __name__ == "__main__":
    main()
