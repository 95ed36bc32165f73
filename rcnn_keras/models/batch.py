"""A batch as a detector reads it, with all that a caller may leave out.

B images a batch, of which a replica has its part; N ground-truth boxes.
"""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from keras import ops

from rcnn_keras.ops import gather_replicas, num_replicas, to_bitmasks
from rcnn_keras.ops.types import Tensor

MIN_SIDE = 64  # pixels of a blank image that every backbone can make maps of


def complete_inputs(inputs: Any) -> dict[str, Tensor]:
    """Return the inputs as a dict with sizes, ids and counts made up where left out.

    Boxes of any type of numbers become float32, which the layers compute in.
    """
    inputs = dict(inputs) if isinstance(inputs, dict) else {"images": inputs}
    batch, height, width = ops.shape(inputs["images"])[:3]
    if inputs.get("image_sizes") is None:
        size = ops.stack([ops.cast(height, "int32"), ops.cast(width, "int32")])
        inputs["image_sizes"] = ops.tile(size[None], [batch, 1])
    inputs["image_sizes"] = ops.cast(inputs["image_sizes"], "int32")
    if inputs.get("image_ids") is None:
        inputs["image_ids"] = ops.arange(batch)
    inputs["image_ids"] = ops.cast(inputs["image_ids"], "int64")  # dropout multiplies them
    if inputs.get("proposals") is not None:
        inputs["proposals"] = ops.cast(inputs["proposals"], "float32")
        if inputs.get("num_proposals") is None:
            inputs["num_proposals"] = ops.full((batch,), ops.shape(inputs["proposals"])[1], "int32")
    return inputs


def complete_targets(
    targets: Mapping[str, Tensor], height: Tensor | int, width: Tensor | int
) -> dict[str, Tensor]:
    """Return the targets with `crowd`, packed masks, and one more row of padding.

    Matching looks for the best of N boxes and so needs one, also in a batch that has none.
    """
    boxes, labels = ops.cast(targets["boxes"], "float32"), ops.cast(targets["labels"], "int32")
    crowd = targets.get("crowd")
    crowd = ops.zeros_like(labels, "bool") if crowd is None else ops.cast(crowd, "bool")
    row = ((0, 0), (0, 1))
    masks = {}
    if "masks" in targets:
        packed = to_bitmasks(targets["masks"], height, width)
        masks = {"masks": ops.pad(packed, (*row, (0, 0), (0, 0)))}
    keypoints = {}
    if "keypoints" in targets:
        points = ops.cast(targets["keypoints"], "float32")
        keypoints = {"keypoints": ops.pad(points, (*row, (0, 0), (0, 0)))}
    return (
        masks
        | keypoints
        | {
            "boxes": ops.pad(boxes, (*row, (0, 0))),
            "labels": ops.pad(labels, row, constant_values=-1),
            "crowd": ops.pad(crowd, row, constant_values=False),
        }
    )


def pad_to_common_shape(inputs: dict[str, Tensor], targets: Any) -> tuple[dict[str, Tensor], Any]:
    """Fill up a replica's part of a batch, so that the parts together are the batch of one device.

    What an image is padded to decides which anchors there are, so all parts are padded to one
    height and width. A replica for which no image was left gets a blank one.

    Args:
        inputs: complete, see `complete_inputs`.
        targets: as the model takes them.

    Returns:
        Inputs, with `num_images`, how many of the part are not blank, and `mean_images`, how many
        a replica has on average; and targets.
    """
    if num_replicas() == 1:
        return inputs, targets
    size = tf.shape(inputs["images"])[1:3]
    shapes = gather_replicas(tf.shape(inputs["images"])[:3])
    largest = tf.reduce_max(shapes[:, 1:], axis=0)
    mean = tf.reduce_mean(tf.cast(shapes[:, 0], tf.float32))
    targets = dict(targets)
    if "masks" in targets:
        masks = to_bitmasks(targets["masks"], *tf.unstack(size))
        columns = -(-largest[1] // 8) - tf.shape(masks)[3]
        targets["masks"] = _filled(masks, 2, tf.stack([largest[0] - size[0], columns]))
    labels = {"labels": _with_row(targets["labels"], -1)}
    targets = {name: _with_row(values) for name, values in targets.items()} | labels
    return ensure_nonempty(inputs, largest) | {"mean_images": mean}, targets


def ensure_nonempty(inputs: dict[str, Tensor], size: Tensor | None = None) -> dict[str, Tensor]:
    """Return inputs with a blank image where there is none, and `num_images`, how many there were.

    Args:
        inputs: complete, see `complete_inputs`.
        size: `(2,)` int32, to which images are filled up; None leaves them as they are.
    """
    images = inputs["images"]
    if size is None:
        size = tf.where(tf.shape(images)[0] > 0, 0, MIN_SIDE)
    more = tf.maximum(size - tf.shape(images)[1:3], 0)
    filled = {name: _with_row(values) for name, values in inputs.items()}
    filled["images"] = _with_row(_filled(images, 1, more))
    filled["image_sizes"] = _with_row(inputs["image_sizes"], MIN_SIDE)
    return filled | {"num_images": tf.shape(images)[0]}


def _with_row(x: Tensor, value: int = 0) -> Tensor:
    """Add a row to a tensor that has none."""
    return _filled(x, 0, tf.maximum(1 - tf.shape(x)[:1], 0), value)


def _filled(x: Tensor, axis: int, more: Tensor, value: int = 0) -> Tensor:
    """Add `more` `(n,)` values at the end of a tensor's axes from `axis` on."""
    rank, count = x.shape.rank, more.shape[0]
    paddings = tf.pad(more[:, None], [[axis, rank - axis - count], [1, 0]])
    filled = tf.pad(x, paddings, constant_values=tf.cast(value, x.dtype))
    changed = range(axis, axis + count)
    return tf.ensure_shape(filled, [None if i in changed else n for i, n in enumerate(x.shape)])
