"""Fast R-CNN on an image at several scales (Fast R-CNN, 2.4 and 5.2, after SPPnet).

R proposals of an image, K classes.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from rcnn_keras.data.detections import Detections
from rcnn_keras.data.images import read_image, resize_image, resized_size
from rcnn_keras.data.inputs import Images, Proposals
from rcnn_keras.data.pipeline import padded_image, require_proposals
from rcnn_keras.models.fast_rcnn import FastRCNN

SCALES = (480, 576, 688, 864, 1200)  # lengths of the shorter side, as in SPPnet
MOST_PIXELS = 2000  # of the longer side
ROI_AREA = 224**2  # pixels, of the crops on which networks are pre-trained


def detect_at_scales(
    model: FastRCNN,
    images: Images,
    min_sizes: Sequence[int] = SCALES,
    *,
    max_size: int = MOST_PIXELS,
    proposals: Proposals | None = None,
) -> list[Detections]:
    """Detect with each proposal looked at in the scale in which it is nearest to 224 x 224 pixels.

    The features of an image are computed once for each scale that one of its proposals needs, which
    takes as much longer. To train for it, give the same sizes as the model's `min_size`.

    Args:
        model: the detector.
        images: as in `Detector.detect`.
        min_sizes: lengths of the shorter side in pixels; default the paper's.
        max_size: most pixels of the longer side, which may make a scale smaller.
        proposals: as in `Detector.detect`.

    Returns:
        One `Detections` an image, in pixels of the image that was given.

    Raises:
        ValueError: for another model, sizes that are no whole numbers above 0, or proposals that
            are missing or do not fit the images.
        ImageError: for an image that cannot be read; names it.
    """
    if not isinstance(model, FastRCNN):
        raise ValueError(f"detect_at_scales is of FastRCNN, not of {type(model).__name__}")
    for side in (*min_sizes, max_size):
        if not isinstance(side, int | np.integer) or side < 1:
            raise ValueError(f"sizes must be whole numbers above 0; received {side!r}")
    if not min_sizes:
        raise ValueError("min_sizes must have at least one size")
    dataset = model.dataset_of(images, proposals)
    require_proposals(dataset)
    judge = tf.function(
        lambda **inputs: model.judge(model.first_stage(inputs, training=False)),
        autograph=False,
        reduce_retracing=True,
    )
    found = []
    for record in dataset:
        image = read_image(record.image, model.value_range)
        size = (record.height, record.width)
        boxes = np.asarray(record.proposals, np.float32)
        sizes = [resized_size(*size, min_size, max_size) for min_size in min_sizes]
        chosen = nearest_scales(boxes, size, sizes)
        # One row of padding, lest there be nothing to gather.
        count = len(boxes)
        logits = np.zeros((count + 1, len(model.classes) + 1), np.float32)
        deltas = np.zeros((count + 1, len(model.classes), 4), np.float32)
        for number in np.unique(chosen):
            rows = np.flatnonzero(chosen == number)
            height, width = sizes[number]
            resized = resize_image(image, height, width, antialias=model.antialias)
            ratio = np.tile([width / size[1], height / size[0]], 2).astype(np.float32)
            of_rows = judge(
                images=padded_image(resized)[None],
                image_sizes=tf.constant([[height, width]]),
                proposals=tf.constant(boxes[rows] * ratio)[None],
                num_proposals=tf.constant([len(rows)]),
            )
            logits[rows], deltas[rows] = (x[0, :-1].numpy() for x in of_rows)
        rois = np.concatenate([boxes, np.zeros((1, 4), np.float32)])
        # Deltas are in units of the proposals' sides: they hold in the pixels of the given image.
        counts, image_sizes = np.array([count], np.int32), np.array([size], np.int32)
        outputs = model.detection_layer(logits[None], deltas[None], rois[None], counts, image_sizes)
        found.append(model.as_detections({k: v[0].numpy() for k, v in outputs.items()}, size))
    return found


def nearest_scales(
    boxes: np.ndarray, size: tuple[int, int], sizes: Sequence[tuple[int, int]]
) -> np.ndarray:
    """Return which of the sizes brings the area of each box nearest to that of 224 x 224 pixels.

    Args:
        boxes: `(R, 4)` `xyxy` in pixels of an image.
        size: its height and width.
        sizes: heights and widths to choose from.

    Returns:
        `(R,)` int64; of two that are as near the first.
    """
    areas = np.prod(boxes[:, 2:].astype(np.float64) - boxes[:, :2], axis=1)
    factors = np.prod(np.asarray(sizes, np.float64), axis=1) / np.prod(size)
    return np.abs(areas[:, None] * factors - ROI_AREA).argmin(axis=1)
