"""Test times an image of several detectors, on the same images.

OUT/timing.json   medians over the images, of each detector by its name, and when they were taken
"""

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from rcnn_keras.comparison.parts import time_parts
from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.images import read_image
from rcnn_keras.models import Detector

Search = Callable[[np.ndarray], np.ndarray]


def spread(dataset: DetectionDataset, count: int) -> DetectionDataset:
    """Return `count` images, evenly over a data set."""
    places = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    chosen = [dataset[int(place)] for place in places]
    return DetectionDataset(chosen, dataset.classes, name=dataset.name)


def time_search(search: Search, dataset: DetectionDataset, repeats: int) -> float:
    """Return the median seconds of a search for proposals in an image, decoding left out."""
    medians = []
    for record in dataset:
        image = read_image(record.image)
        search(image)
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            search(image)
            seconds.append(time.perf_counter() - start)
        medians.append(statistics.median(seconds))
    return statistics.median(medians)


def time_detector(model: Detector, dataset: DetectionDataset, repeats: int) -> dict[str, float]:
    """Return the median seconds of each part of a detector over the images of a data set.

    Args:
        model: one of the four detectors.
        dataset: images, with proposals for models that take them.
        repeats: how often each part runs on an image.
    """
    batches = model._sized(dataset.batches(1)).tf_dataset()
    return _medians(time_parts(model, inputs, repeats) for inputs, _ in batches)


def count_proposals(model: Detector, dataset: DetectionDataset) -> float:
    """Return the mean number of regions that the second stage sees in an image."""
    if model.takes_proposals:
        return float(np.mean([0 if r.proposals is None else len(r.proposals) for r in dataset]))
    run = tf.function(lambda x: model.first_stage(x, training=False)["num_proposals"])
    batches = model._sized(dataset.batches(1)).tf_dataset()
    return float(np.mean([run(inputs)[0] for inputs, _ in batches]))


def _medians(parts: Iterable[dict[str, Any]]) -> dict[str, float]:
    every = list(parts)
    return {name: statistics.median(one[name] for one in every) for name in every[0]}
