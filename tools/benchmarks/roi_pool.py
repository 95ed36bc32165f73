"""Time RoIPool beside torchvision's, forward and with its gradient, and compare what they give.

    python tools/benchmarks/roi_pool.py --torch-python torch-env/bin/python

The same map of stride 16 (an image of 800x1216), RoIs of 20 to 400 pixels and upstream gradient on
both sides; the sides take turns, each in a process of its own. A time is the median over all
rounds.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np

IMAGES, HEIGHT, WIDTH, POOLED, STRIDE = 2, 50, 76, 7, 16
WARM_UP = 2


def drawn(rois, channels):
    """Return the map `(B, H, W, C)`, boxes `(n, 4)`, the image of each, and a gradient."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(IMAGES, HEIGHT, WIDTH, channels)).astype(np.float32)
    low = rng.uniform(0, [1000, 650], (rois, 2))
    high = np.minimum(low + rng.uniform(20, 400, (rois, 2)), [1215, 799])
    image = np.arange(rois) * IMAGES // rois
    upstream = rng.normal(size=(rois, POOLED, POOLED, channels)).astype(np.float32)
    return features, np.hstack([low, high]).astype(np.float32), image.astype(np.int32), upstream


def ours(threads, features, boxes, image, upstream):
    """Return functions to the pooled values, and to those and the gradient."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    from rcnn_keras.ops import listed_roi_pool

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    features, boxes, image, upstream = map(tf.constant, (features, boxes, image, upstream))
    pool = tf.function(lambda features: listed_roi_pool(features, boxes, image, POOLED, 1 / STRIDE))

    @tf.function
    def with_gradient(features):
        with tf.GradientTape() as tape:
            tape.watch(features)
            pooled = pool(features)
        return pooled, tape.gradient(pooled, features, upstream)

    return (
        lambda: pool(features).numpy(),
        lambda: [x.numpy() for x in with_gradient(features)],
    )


def theirs(threads, features, boxes, image, upstream):
    """Return the same two functions of torchvision."""
    import torch
    import torchvision

    torch.set_num_threads(threads)
    features, upstream = (
        torch.from_numpy(x).permute(0, 3, 1, 2).contiguous() for x in (features, upstream)
    )
    rois = torch.from_numpy(np.hstack([image[:, None], boxes]).astype(np.float32))

    def pool(features):
        return torchvision.ops.roi_pool(features, rois, POOLED, 1 / STRIDE)

    @torch.no_grad()
    def values():
        return pool(features).permute(0, 2, 3, 1).numpy()

    def with_gradient():
        leaf = features.clone().requires_grad_()
        pooled = pool(leaf)
        pooled.backward(upstream)
        return pooled.detach().permute(0, 2, 3, 1).numpy(), leaf.grad.permute(0, 2, 3, 1).numpy()

    return values, with_gradient


def run_side(args):
    """Time one side and print its seconds and what it gave as a line of JSON."""
    side = ours if args.side == "ours" else theirs
    values, with_gradient = side(args.threads, *drawn(args.rois, args.channels))
    found = {"seconds": {}}
    for name, run in (("forward", values), ("forward and backward", with_gradient)):
        seconds = []
        for _ in range(WARM_UP + args.steps):
            start = time.perf_counter()
            result = run()
            seconds.append(time.perf_counter() - start)
        found["seconds"][name] = seconds[WARM_UP:]
    pooled, gradient = result
    found["pooled"] = hashlib.sha256(np.ascontiguousarray(pooled)).hexdigest()
    found["gradient"] = float(np.square(gradient, dtype=np.float64).sum())
    print(json.dumps(found))


def compare(args):
    """Let the sides take turns and print a table."""
    pythons = {"ours": sys.executable, "torchvision": args.torch_python}
    runs = {side: [] for side in pythons}
    for _ in range(args.rounds):
        for side, python in pythons.items():
            command = [python, __file__, "--side", side]
            for name in ("rois", "channels", "steps", "threads"):
                command += [f"--{name}", str(getattr(args, name))]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{side} ended with {done.returncode}\n{done.stderr[-2000:]}")
            runs[side].append(json.loads(done.stdout.splitlines()[-1]))
    print(f"{args.rois} RoIs x {args.channels} channels, {args.threads} threads\n")
    print("| | ours, s | torchvision, s | ratio |\n| --- | --- | --- | --- |")
    for name in runs["ours"][0]["seconds"]:
        times = [
            statistics.median(s for run in side for s in run["seconds"][name])
            for side in runs.values()
        ]
        print(f"| {name} | {times[0]:.3f} | {times[1]:.3f} | {times[0] / times[1]:.2f} |")
    mine, other = (side[0] for side in runs.values())
    same = "equal bit by bit" if mine["pooled"] == other["pooled"] else "DIFFERENT"
    share = abs(mine["gradient"] / other["gradient"] - 1)
    print(f"\nvalues {same}; the gradients' squared norms differ by {share:.0e} of it")


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", help="a Python that has torch and torchvision")
    parser.add_argument("--side", choices=("ours", "torchvision"), help=argparse.SUPPRESS)
    parser.add_argument("--rois", type=int, default=512)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--steps", type=int, default=9, help="timed steps a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    if args.side:
        run_side(args)
    elif args.torch_python:
        compare(args)
    else:
        parser.error("--torch-python is needed: the other side")


if __name__ == "__main__":
    main()
