"""Kill a training again and again, and compare its end with that of an uninterrupted one.

    python tools/reliability/kill_training.py --architecture faster_rcnn --kills 20

A small detector learns drawn shapes in a process of its own: twice undisturbed, and once killed by
SIGKILL and started again until the kills are used up. Kills come at random moments: of a step, of
the start, and, every third, of the writing of a checkpoint, of which the hidden folder has been
seen. In the end every variable of the model and of its optimizer must be the same to the last bit,
and so must the history of all epochs; of R-CNN the SVMs and the box regressors. Exit status 1 if
not, or if the training ended before the kills were used up.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

SIDE = 64
RESULTS = ("step_*", "*.npz", "*_norms.npy")  # each an atomic write
MODELS = {"fast_rcnn": "FastRCNN", "faster_rcnn": "FasterRCNN", "mask_rcnn": "MaskRCNN"}
ARCHITECTURES = ("rcnn", *MODELS)
FEW = {
    "rpn_pre_nms_top_n_train": 50,
    "rpn_post_nms_top_n_train": 20,
    "rpn_pre_nms_top_n_test": 50,
    "rpn_post_nms_top_n_test": 20,
}
SMALL = {
    "min_size": SIDE,
    "max_size": SIDE,
    "recompute_stages": 0,
    "box_units": 8,
    "box_batch_size_per_image": 16,
    "box_detections_per_img": 5,
}


@dataclass(frozen=True)
class Training:
    """What is trained: one image a step, and after each step a checkpoint."""

    architecture: str
    eager: bool = False
    images: int = 20
    epochs: int = 3


@dataclass(frozen=True)
class Outcome:
    """What became of the killed training.

    Attributes:
        kills: how many processes were killed.
        writing: how many of them while the folder of a checkpoint was being written.
        torn: how many left such a folder behind.
        result: of the process that came to the end.
    """

    kills: int
    writing: int
    torn: int
    result: dict


def victim(training: Training, out: Path) -> None:
    """Train in a folder, go on with what is there, and write `result.json`."""
    import keras
    import numpy as np

    import rcnn_keras as rk
    from rcnn_keras.utils.atomic import atomic_write

    keras.utils.set_random_seed(0)
    architecture, steps = training.architecture, training.images * training.epochs
    data = rk.data.draw_shapes(training.images, size=(SIDE, SIDE), seed=1)
    if architecture in ("rcnn", "fast_rcnn"):
        data = data.with_proposals({r.image_id: proposals(r) for r in data})
    if architecture == "rcnn":
        small = {"crop_size": 67, "context": 6, "channels": (8, 8, 8, 8, 16), "units": 32}
        model = rk.models.RCNN("alexnet", data.classes, **small)
        few = 2 * training.images + 5  # steps; the other stages have results of their own
        how = {"steps": few, "positives": 4, "negatives": 8, "every_steps": 1}
        trained = rk.training.train_rcnn(
            model, data, out / "stages", learning_rate=0.01, svm_c=0.01, **how
        )
        variables, history = trained.model.variables, trained.mining
    else:
        rpn = {} if architecture == "fast_rcnn" else FEW
        kind = getattr(rk.models, MODELS[architecture])
        model = kind("zf", data.classes, **(SMALL | rpn))
        rate = keras.optimizers.schedules.CosineDecay(0.01, steps)
        model.compile(keras.optimizers.SGD(rate, momentum=0.9), run_eagerly=training.eager)
        history = model.fit(
            data.batches(1, shuffle=True, augment=rk.data.RandomFlip()),
            epochs=training.epochs,
            callbacks=[
                rk.callbacks.Checkpoint(out / "checkpoints", every_steps=1),
                keras.callbacks.EarlyStopping(monitor="loss", patience=2),
            ],
            verbose=0,
        ).history
        variables = [*model.variables, *model.optimizer.variables]
    digest = hashlib.sha256()
    for variable in variables:
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    result = {"variables": digest.hexdigest(), "history": history}
    with atomic_write(out / "result.json") as aside:
        aside.write_text(json.dumps(result))


def proposals(record) -> list:
    """Return boxes on and around the objects of an image, and some anywhere."""
    import numpy as np

    rng = np.random.default_rng(record.image_id)
    near = np.repeat(record.boxes, 3, axis=0)
    near = near + rng.normal(0, 2, near.shape)
    corners = rng.uniform(0, SIDE, (12, 2, 2))
    anywhere = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    boxes = np.clip(np.concatenate([near, anywhere]), 0, SIDE)
    return boxes[np.all(boxes[:, 2:] - boxes[:, :2] >= 4, axis=1)]


def start(training: Training, folder: Path) -> multiprocessing.process.BaseProcess:
    """Start the training in a process of its own, in which all is imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rcnn_keras"])
    process = context.Process(target=victim, args=(training, folder))
    process.start()
    return process


def finished(process: multiprocessing.process.BaseProcess, folder: Path) -> dict:
    """Wait for a training's end and return its result."""
    process.join()
    if process.exitcode:
        raise RuntimeError(f"the training in {folder} ended with status {process.exitcode}")
    return json.loads((folder / "result.json").read_text())


def undisturbed(training: Training, folder: Path) -> dict:
    """Train without a kill and return the result."""
    return finished(start(training, folder), folder)


def killed(training: Training, folder: Path, kills: int, seed: int = 0) -> Outcome:
    """Train with kills, and return what came of it."""
    rng = random.Random(seed)
    done = writing = torn = 0
    while True:
        before = hidden_folders(folder)
        process = start(training, folder)
        while_writing = done % 3 == 2
        if done < kills:
            if while_writing:
                wait(process, folder, rng.randint(1, 3), hidden=True)
                time.sleep(rng.uniform(0, 0.01))
            elif done % 10 == 4:  # before the first step
                process.join(rng.uniform(0.5, 5))
            else:
                wait(process, folder, rng.randint(1, 2), hidden=False)
                time.sleep(rng.uniform(0, 0.3))
            process.kill()
            process.join()
            if process.exitcode == -9:
                done += 1
                writing += while_writing
                torn += bool(hidden_folders(folder) - before)
                print(f"  kill {done}: {state(folder)}", flush=True)
                continue
        return Outcome(done, writing, torn, finished(process, folder))


def wait(process, folder: Path, count: int, *, hidden: bool) -> None:
    """Wait until so many checkpoints, or folders in which one is being written, have appeared."""
    find = hidden_folders if hidden else whole_folders
    seen = find(folder)
    new: set[Path] = set()
    while process.is_alive() and len(new) < count:
        new |= find(folder) - seen
        time.sleep(0.001)


def whole_folders(folder: Path) -> set[Path]:
    """Return the checkpoints that are there, and of R-CNN the results of stages."""
    found = [path for pattern in RESULTS for path in below(folder) if path.match(pattern)]
    return {path for path in found if not path.parent.name.startswith((".", "step_"))}


def hidden_folders(folder: Path) -> set[Path]:
    """Return the folders in which something is being written, or was."""
    return {path for path in below(folder) if path.name.startswith(".") and path.is_dir()}


def below(folder: Path) -> list[Path]:
    """Return all paths in a folder in which another process writes, renames and removes."""
    walk = os.walk(folder)  # unlike `rglob` it goes on where a folder is gone
    return [Path(parent, name) for parent, *names in walk for name in (*names[0], *names[1])]


def state(folder: Path) -> str:
    """Return what a kill left: the checkpoints, and what was being written."""
    left = sorted(path.name for path in whole_folders(folder) if path.is_dir())
    torn = sorted(path.name for path in hidden_folders(folder))
    return f"{', '.join(left) or 'no checkpoint'}" + (f"; torn {', '.join(torn)}" if torn else "")


def main() -> None:
    """Run the test and print a row of a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architecture", choices=ARCHITECTURES, nargs="+", default=ARCHITECTURES)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--eager", action="store_true", help="do without graphs: a quicker start")
    arguments = parser.parse_args()
    rows = []
    for architecture in arguments.architecture:
        print(architecture, flush=True)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            began = time.monotonic()
            training = Training(architecture, arguments.eager)
            whole = [undisturbed(training, folder / name) for name in "ab"]
            outcome = killed(training, folder / "c", arguments.kills, arguments.seed)
            rows.append(
                {
                    "architecture": architecture,
                    "two undisturbed runs equal": whole[0] == whole[1],
                    "kills": outcome.kills,
                    "aimed at writing": outcome.writing,
                    "torn folders": outcome.torn,
                    "equal to undisturbed": outcome.result == whole[0],
                    "minutes": round((time.monotonic() - began) / 60, 1),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    print("\n| " + " | ".join(rows[0]) + " |\n" + "| --- " * len(rows[0]) + "|")
    for row in rows:
        words = [("no", "yes")[v] if isinstance(v, bool) else v for v in row.values()]
        print("| " + " | ".join(map(str, words)) + " |")
    asked = ("equal to undisturbed", "two undisturbed runs equal")
    if not all(
        row["kills"] == arguments.kills and all(row[name] for name in asked) for row in rows
    ):
        sys.exit(1)


if __name__ == "__main__":
    main()
