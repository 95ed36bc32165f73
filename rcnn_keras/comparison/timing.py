"""How long things take: the stages of a detector, and a search for proposals."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow as tf

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.images import read_image
from rcnn_keras.models import RCNN, Detector, FasterRCNN
from rcnn_keras.models.two_stage import TwoStageDetector

STAGES = ("proposals", "features", "regions", "masks")
ENOUGH = 60.0  # seconds of one stage on one image, after which it is not repeated
FEW = 64  # proposals in a warm-up of R-CNN, whose every crop costs the same
CPU_INFO = Path("/proc/cpuinfo")  # of Linux
PACKAGES = ("tensorflow", "keras", "opencv-contrib-python-headless")


def use_threads(count: int) -> None:
    """Have TensorFlow and OpenCV work with so many threads.

    Raises:
        RuntimeError: TensorFlow has begun with another number.
    """
    tf.config.threading.set_intra_op_parallelism_threads(count)
    # Operations side by side would share the same threads, and make a stage's time unsteady.
    tf.config.threading.set_inter_op_parallelism_threads(1)
    cv2.setNumThreads(count)


def circumstances(threads: int) -> dict[str, str]:
    """Return when and on which machine times are measured, as rows of a table."""
    processor = platform.processor() or platform.machine()
    if CPU_INFO.exists():
        lines = CPU_INFO.read_text("utf-8").splitlines()
        names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
        processor = next(names, processor)
    versions = (f"{name} {metadata.version(name)}" for name in PACKAGES)
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return {
        "measured on": time.strftime("%Y-%m-%d"),
        "processor": f"{processor}, {os.cpu_count()} cores, {threads} threads",
        "versions": ", ".join((platform.system(), *versions)),
        "load average of the last minute": load,
    }


def spread(dataset: DetectionDataset, count: int) -> DetectionDataset:
    """Return `count` images, evenly over a data set."""
    places = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    chosen = [dataset[int(place)] for place in places]
    return DetectionDataset(chosen, dataset.classes, name=dataset.name)


def time_search(
    search: Callable[[np.ndarray], np.ndarray], dataset: DetectionDataset, repeats: int
) -> float:
    """Return the median seconds of a search for proposals in an image, without decoding it."""
    medians = []
    for record in dataset:
        image = read_image(record.image)
        search(image)
        medians.append(_median(search, repeats, image)[0])
    return statistics.median(medians)


def time_detector(model: Detector, dataset: DetectionDataset, repeats: int) -> dict[str, float]:
    """Return the medians of `time_stages` over images, with proposals for models that take them."""
    batches = model._sized(dataset.batches(1)).tf_dataset()
    found = [time_stages(model, inputs, repeats) for inputs, _ in batches]
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def time_stages(model: Detector, inputs: dict[str, Any], repeats: int) -> dict[str, float]:
    """Return the median seconds of each stage of a detector on a batch of one image.

    Each stage is a graph of its own. Reading and resizing the image are in none.

    Args:
        model: one of the four detectors.
        inputs: a batch as `Batches` gives it, with proposals for models that take them.
        repeats: how often each stage runs, after a warm-up; fewer once a stage took a minute.

    Returns:
        `features` but for R-CNN, `regions`, all that is done for each proposal; of Faster and Mask
        R-CNN also `proposals`, of Mask R-CNN also `masks`. `cpu` is the CPU time of all threads in
        them, which other programs change less, and `boxes` the number of regions.
    """
    found: dict[str, float] = {"cpu": 0.0}

    def step(stage: str, run: Callable[..., Any], *arguments: Any, warm_up: Any = None) -> Any:
        run(*(arguments if warm_up is None else warm_up))
        found[stage], cpu, result = _median(run, repeats, *arguments)
        found["cpu"] += cpu
        return result

    if isinstance(model, RCNN):
        few = {"proposals": inputs["proposals"][:, :FEW]}
        few["num_proposals"] = tf.minimum(inputs["num_proposals"], FEW)
        regions = tf.function(
            lambda x: model.detections_of(model.extract_features(x, training=False)),
            input_signature=[{name: _of_any_size(x) for name, x in inputs.items()}],
            autograph=False,
        )
        step("regions", regions, inputs, warm_up=[inputs | few])
        return found | {"boxes": float(inputs["num_proposals"][0])}
    assert isinstance(model, TwoStageDetector)

    @tf.function(autograph=False)
    def features(x: Any) -> Any:
        first = model.run_backbone(x, training=False)
        return {name: first[name] for name in ("images", "features", "image_sizes")}

    @tf.function(autograph=False)
    def proposals(first: Any) -> Any:  # as in `FasterRCNN.extract_features`
        logits, deltas = model.rpn_head(first["features"])
        anchors = model.anchor_generator(first["images"], first["features"])
        return model.proposal_layer(logits, deltas, anchors, first["image_sizes"], training=False)

    @tf.function(autograph=False)
    def boxes(first: Any) -> Any:
        first = model.refine_proposals(first)
        logits, deltas = model.predict_boxes(first)
        return Detector.select_detections(model, first, logits, deltas)

    @tf.function(autograph=False)
    def masks(features: Any, found: Any) -> Any:  # as in `MaskRCNN.select_detections`
        rois, image = model.real_rois(found["boxes"], found["labels"])
        logits = model.mask_head(model.mask_roi_align(features, rois, image))
        return model.mask_layer(logits, found["labels"])

    first = step("features", features, inputs)
    if isinstance(model, FasterRCNN):
        rois, count = step("proposals", proposals, first)
    else:
        rois, count = inputs["proposals"], inputs["num_proposals"]
    found["boxes"] = float(count[0])
    detected = step("regions", boxes, first | {"proposals": rois, "num_proposals": count})
    if model.has_masks:
        step("masks", masks, first["features"], detected)
    return found


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
