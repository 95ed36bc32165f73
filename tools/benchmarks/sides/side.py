"""What both sides of the benchmark share: weights, images, objects and the clock. Needs numpy."""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from workloads import Workload

sys.path.append(str(Path(__file__).resolve().parents[2] / "parity"))
import cases
import seeded

WARM_UP = 2  # calls before the clock runs


def tensor_of(workload: Workload, name: str, shape) -> np.ndarray:
    """Return the values of a weight, by its name in PyTorch."""
    return seeded.seeded_tensor(name, tuple(shape), class_gain=workload.class_gain)


def images_of(workload: Workload) -> np.ndarray:
    """Return the uint8 RGB images `(B, H, W, 3)`."""
    size = workload.height, workload.width
    return np.stack([seeded.seeded_image(*size, seed) for seed in range(workload.batch)])


def objects_of(workload: Workload) -> list[dict[str, np.ndarray]]:
    """Return each image's boxes `(N, 4)`, labels from 0 and masks `(N, H, W)` of 0 and 1."""
    batch, size = workload.batch, (workload.height, workload.width)
    case = cases.Case("", 0, 0.0, (size,) * batch, objects=(workload.objects,) * batch)
    drawn = [cases.drawn_objects(case, number) for number in range(batch)]
    return [truth | {"labels": truth["labels"] % workload.classes} for truth in drawn]


def found(scores) -> str:
    """Return in words what was detected, to see that both sides did the same work."""
    scores = np.asarray(scores)
    return f"{len(scores)} at {scores.mean():.4f}" if len(scores) else "0"


class Clock:
    """Times calls, each waited for."""

    def __init__(self, steps: int, wait: Callable[[], None]):
        self.steps = steps
        self.wait = wait
        self.seconds: dict[str, list[float]] = {}

    def time(self, name: str, function: Callable, *inputs, warm_up: int = WARM_UP):
        """Time `steps` calls of a function after those that warm it up; return its first result."""
        result, seconds = None, []
        for call in range(warm_up + self.steps):
            start = time.perf_counter()
            given = function(*inputs)
            self.wait()
            seconds.append(time.perf_counter() - start)
            result = given if call == 0 else result
        self.seconds[name] = seconds[warm_up:]
        return result


def main(build: Callable, works: dict[str, Callable], description: str) -> None:
    """Run one side and print its times, its peak memory and its result as a line of JSON.

    Args:
        build: from the arguments to a model and the function that waits for its device.
        works: by the kind of work, a function of workload, model and clock to a result in words.
        description: of the program.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("workload", type=lambda text: Workload(**json.loads(text)), help="JSON")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--folded", action="store_true", help="batch norm into the convolutions")
    args = parser.parse_args()
    model, wait = build(args)
    clock = Clock(args.steps, wait)
    result = works[args.workload.work](args.workload, model, clock)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": clock.seconds, "peak_mb": peak, "result": result}))
