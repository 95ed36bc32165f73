"""Time a detector beside torchvision's of the same architecture, in one run on one machine.

    python tools/benchmark.py                                # ours alone
    python tools/benchmark.py --torch-python .oracle/python  # beside torchvision

`--torch-python` is a Python with `pip install torch torchvision pycocotools`. The two sides take
turns, each in a process of its own with the same number of threads, so that a busy machine hurts
both; the table gives the median over all rounds and the ratio ours / torchvision's.

Both models are untrained, so nearly every proposal scores enough to reach the last NMS, and both
get the same images in memory, already of the size that they resize to. A step is what a user calls:

    ours         `model(inputs)` or `model.train_step(data)` in a `tf.function`; images in 0..255
    torchvision  `model(images)`, its transform included (normalising, a resize by 1, padding), or
                 that with backward pass and SGD step; images in 0..1

Each step is waited for. With a GPU that both see, both run on it.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time

CASES = {
    # name: backbone depth, height, width, images a batch, RoIs an image
    "resnet18_fpn 240x320 inference": (18, 240, 320, 1, 64),
    "resnet18_fpn 240x320 training step, batch 4": (18, 240, 320, 4, 64),
    "resnet50_fpn 800x1216 inference": (50, 800, 1216, 1, 512),
    "resnet50_fpn 512x512 training step, batch 2": (50, 512, 512, 2, 512),
}
CLASSES, OBJECTS = 3, 20


def scene(height, width, batch):
    """Return the same random images `(B, H, W, 3)` in 0..1, boxes and labels for both sides."""
    import numpy as np

    rng = np.random.default_rng(0)
    images = rng.uniform(0, 1, (batch, height, width, 3)).astype("float32")
    corner = rng.uniform(0, 0.7, (batch, OBJECTS, 2)) * [width, height]
    size = rng.uniform(0.05, 0.3, (batch, OBJECTS, 2)) * [width, height]
    boxes = np.concatenate([corner, corner + size], axis=-1).astype("float32")
    return images, boxes, rng.integers(0, CLASSES, (batch, OBJECTS)).astype("int32")


def keras_case(case, steps, threads):
    """Return the seconds of each timed step of ours."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import tensorflow as tf

    import rcnn_keras as rk

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    depth, height, width, batch, rois = CASES[case]
    names = [f"class {k}" for k in range(CLASSES)]
    model = rk.models.FasterRCNN(
        f"resnet{depth}_fpn",
        names,
        min_size=min(height, width),
        max_size=max(height, width),
        box_batch_size_per_image=rois,
    )
    images, boxes, labels = scene(height, width, batch)
    inputs = {
        "images": tf.constant(images * 255),
        "image_sizes": tf.constant([[height, width]] * batch),
        "image_ids": tf.range(batch, dtype=tf.int64),
    }
    if "training" in case:
        model.compile(keras.optimizers.SGD(1e-4, momentum=0.9))
        targets = {
            "boxes": tf.constant(boxes),
            "labels": tf.constant(labels),
            "crowd": tf.zeros(labels.shape, tf.bool),
        }
        run = tf.function(lambda: model.train_step((inputs, targets)))
    else:
        run = tf.function(lambda: model(inputs, training=False))

    def step():
        keras.tree.flatten(run())[0].numpy()  # waits for the device

    return timed(step, steps)


def torch_case(case, steps, threads):
    """Return the seconds of each timed step of torchvision's."""
    import torch
    from torch import nn
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    depth, height, width, batch, rois = CASES[case]
    backbone = resnet_fpn_backbone(
        backbone_name=f"resnet{depth}",
        weights=None,
        trainable_layers=5,
        norm_layer=nn.BatchNorm2d,
    )
    model = FasterRCNN(
        backbone,
        num_classes=CLASSES + 1,
        min_size=min(height, width),
        max_size=max(height, width),
        box_batch_size_per_image=rois,
    ).to(device)
    images, boxes, labels = scene(height, width, batch)
    images = [torch.tensor(i, device=device).permute(2, 0, 1).contiguous() for i in images]

    def wait():
        if device == "cuda":
            torch.cuda.synchronize()

    if "training" not in case:
        model.eval()

        def step():
            with torch.inference_mode():
                model(images)
            wait()

        return timed(step, steps)
    targets = [
        {
            "boxes": torch.tensor(b, device=device),
            "labels": torch.tensor(c, device=device).long() + 1,
        }
        for b, c in zip(boxes, labels, strict=True)
    ]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    model.train()

    def step():
        loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wait()

    return timed(step, steps)


def timed(step, steps):
    """Warm up twice, then time each call."""
    step(), step()
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return seconds


def run_side(python, side, case, args):
    """Run one side of one case in a process of its own; return its seconds and peak memory."""
    command = [python, __file__, "--side", side, "--case", case]
    command += ["--steps", str(args.steps), "--threads", str(args.threads)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{side}, {case}:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def compare(args):
    """Print a Markdown table of every case."""
    print(f"{processor()}, {args.threads} threads, Python {platform.python_version()}\n")
    print("| case | ours s | torchvision s | ratio | ours peak MB | torchvision peak MB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for case in args.cases or CASES:
        results = {"keras": [], "torch": []}
        for _ in range(args.rounds):
            results["keras"].append(run_side(sys.executable, "keras", case, args))
            if args.torch_python:
                results["torch"].append(run_side(args.torch_python, "torch", case, args))
        cells = {}
        for side, runs in results.items():
            if runs:
                median = statistics.median(s for run in runs for s in run["seconds"])
                cells[side] = (median, max(run["peak_mb"] for run in runs))
        ours, theirs = cells["keras"], cells.get("torch")
        row = [case, f"{ours[0]:.3f}", f"{theirs[0]:.3f}" if theirs else "-"]
        row += [f"{ours[0] / theirs[0]:.2f}" if theirs else "-", f"{ours[1]:.0f}"]
        row += [f"{theirs[1]:.0f}" if theirs else "-"]
        print(f"| {' | '.join(row)} |", flush=True)


def processor():
    """Return the processor's name."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        return f"{names[0]}, {len(names)} cores"
    except (OSError, IndexError):
        return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", help="a Python that has torch and torchvision")
    parser.add_argument("--cases", nargs="*", choices=CASES, help="default: all")
    parser.add_argument("--steps", type=int, default=5, help="timed steps a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--side", choices=("keras", "torch"), help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        run = keras_case if args.side == "keras" else torch_case
        seconds = run(args.case, args.steps, args.threads)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "peak_mb": peak}))
    else:
        compare(args)


if __name__ == "__main__":
    main()
