"""Run our operations on the inputs that torch_ops.py wrote, and measure the distance."""

import numpy as np
import tensorflow as tf
from compare import Row

from rcnn_keras import ops
from rcnn_keras.ops.roi_pool import roi_pool

VALUES = 1e-4  # of the largest value
GRADIENTS = 1e-5  # of the gradient's norm


def compare(arrays) -> list[Row]:
    """Return a row for each operation's values and one for its gradients."""
    found = {}
    for key, value in arrays.items():
        operation, number, name = key.split("/")
        found.setdefault((operation, int(number)), {})[name] = value
    rows = []
    for (operation, number), stored in sorted(found.items(), key=lambda item: item[0]):
        rows += globals()[f"_{operation}"](f"operations, {operation} {number}", stored)
    return rows


def _roi_align(case, stored):
    size, scale, ratio, aligned = stored["how"]
    how = (int(size), float(scale), int(ratio), bool(aligned))
    note = f"S {how[0]}, {'aligned, ' if aligned else ''}{how[2] or 'adaptive'} samples"
    return _pooled(case, stored, lambda f: ops.roi_align(f, stored["boxes"], *how), VALUES, note)


def _roi_pool(case, stored):
    size, scale = int(stored["how"][0]), float(stored["how"][1])
    return _pooled(
        case, stored, lambda f: roi_pool(f, stored["boxes"], size, scale), 0, f"S {size}"
    )


def _pooled(case, stored, run, allowed, note):
    def flat(features):
        return tf.reshape(run(features), stored["result"].shape)

    return _differentiated(case, stored, flat, stored["features"], allowed, note)


def _box_iou(case, stored):
    note = "x".join(map(str, stored["result"].shape))
    return _differentiated(case, stored, lambda a: ops.iou(a, stored["b"]), stored["a"], 1e-6, note)


def _differentiated(case, stored, run, inputs, allowed, note):
    inputs = tf.constant(inputs)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        result = run(inputs)
        total = tf.reduce_sum(result * stored["weights"])
    gradient = tape.gradient(total, inputs)
    expected = stored["gradient"]
    value = np.abs(result - stored["result"]).max() / np.abs(stored["result"]).max()
    slope = np.linalg.norm(gradient - expected) / np.linalg.norm(expected)
    return [
        Row(case, "values", float(value), allowed, note),
        Row(case, "gradient", float(slope), GRADIENTS, note),
    ]


def _suppression(case, stored):
    boxes, scores = tf.constant(stored["boxes"][None]), tf.constant(stored["scores"][None])
    threshold, count = float(stored["threshold"]), len(stored["scores"])
    rows = []
    for name, kept in (
        ("kept", ops.nms(boxes, scores, threshold, count)),
        ("kept_in_groups", ops.grouped_nms(boxes, scores, stored["groups"], threshold, count)),
    ):
        ours, expected = kept[0][0, : int(kept[1][0])].numpy(), stored[name]
        differing = len(ours) != len(expected) or int((ours != expected).sum())
        note = f"{len(expected)} of {count} at IoU {threshold}"
        rows.append(Row(case, name.replace("_", " "), float(differing), 0, note))
    return rows
