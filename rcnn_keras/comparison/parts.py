"""Time the parts of a detector on an image: proposals, features, regions, masks.

Each part runs as a graph of its own on what the part before it gave. Reading and resizing the image
are in none.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from rcnn_keras.models import RCNN, Detector, FasterRCNN, MaskRCNN
from rcnn_keras.models.two_stage import TwoStageDetector

PARTS = ("proposals", "features", "regions", "masks")
ENOUGH = 60.0  # seconds of one part on one image, after which it is not repeated
FEW = 64  # proposals of a warm-up of R-CNN, whose every crop costs the same


def time_parts(model: Detector, inputs: dict[str, Any], repeats: int) -> dict[str, float]:
    """Return the median seconds of each part of a detector on a batch of one image.

    Args:
        model: one of the four detectors.
        inputs: a batch as `Batches` gives it, with proposals for models that take them.
        repeats: how often each part runs, after a warm-up; fewer once a part took a minute.

    Returns:
        `features`, which R-CNN has none of, and `regions`, all that is done for each proposal; of
        Faster and Mask R-CNN also `proposals`, of Mask R-CNN also `masks`. `cpu` are the seconds
        that all threads together worked on these parts, which other programs change less.
    """
    if isinstance(model, RCNN):
        few = {"proposals": inputs["proposals"][:, :FEW]}
        few["num_proposals"] = tf.minimum(inputs["num_proposals"], FEW)
        regions = tf.function(
            lambda x: model.second_stage(model.first_stage(x, training=False)),
            input_signature=[{name: _of_any_size(x) for name, x in inputs.items()}],
            autograph=False,
        )
        regions(inputs | few)
        seconds, cpu, _ = _median(regions, repeats, inputs)
        return {"regions": seconds, "cpu": cpu}
    assert isinstance(model, TwoStageDetector)
    found: dict[str, float] = {"cpu": 0.0}

    def step(part: str, function: Callable[..., Any], *arguments: Any) -> Any:
        run = tf.function(function, autograph=False)
        run(*arguments)
        found[part], cpu, result = _median(run, repeats, *arguments)
        found["cpu"] += cpu
        return result

    def features(x):
        first = model.features_of(x, training=False)
        return {name: first[name] for name in ("images", "features", "image_sizes")}

    first = step("features", features, inputs)
    if isinstance(model, FasterRCNN):
        rois, count = step("proposals", lambda first: _proposals(model, first), first)
    else:
        rois, count = inputs["proposals"], inputs["num_proposals"]
    first = first | {"proposals": rois, "num_proposals": count}
    boxes = step("regions", lambda first: TwoStageDetector.second_stage(model, first), first)
    if isinstance(model, MaskRCNN):
        step("masks", lambda maps, boxes: _masks(model, maps, boxes), first["features"], boxes)
    return found


def _proposals(model: FasterRCNN, first: dict[str, Any]) -> tuple[Any, Any]:
    """Run the RPN as `FasterRCNN.first_stage` does."""
    logits, deltas = model.rpn_head(first["features"])
    anchors = model.anchor_generator(first["images"], first["features"])
    return model.proposal_layer(logits, deltas, anchors, first["image_sizes"], training=False)


def _masks(model: MaskRCNN, features: list[Any], found: dict[str, Any]) -> Any:
    """Run the mask branch as `MaskRCNN.second_stage` does."""
    rois, image = model.real_rois(found["boxes"], found["labels"])
    logits = model.mask_head(model.mask_roi_align(features, rois, image))
    return model.mask_layer(logits, found["labels"])


def _of_any_size(x: Any) -> tf.TensorSpec:
    """Return the signature of a tensor whose last axis alone is fixed."""
    shape = [None] * max(len(x.shape) - 1, 1) + list(x.shape[1:][-1:])
    return tf.TensorSpec(shape, x.dtype)


def _median(
    function: Callable[..., Any], repeats: int, *arguments: Any
) -> tuple[float, float, Any]:
    """Return the median seconds and CPU seconds of a function, and its last result."""
    seconds: list[float] = []
    cpu: list[float] = []
    while len(seconds) < repeats and sum(seconds) < ENOUGH:
        start, cpu_start = time.perf_counter(), time.process_time()
        result = function(*arguments)
        tf.test.experimental.sync_devices()
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - cpu_start)
    return statistics.median(seconds), statistics.median(cpu), result
