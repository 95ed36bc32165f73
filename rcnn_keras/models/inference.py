"""Inference of a detector: padded detections of batches, and `Detections` in an image's own pixels.

B images a batch, D detections, R proposals of an image, K classes.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import keras
import numpy as np
import tensorflow as tf

from rcnn_keras.data.dataset import DetectionDataset, Record
from rcnn_keras.data.detections import Detections
from rcnn_keras.data.image_rule import ImageRule
from rcnn_keras.data.images import read_image, resize_image, resized_size
from rcnn_keras.data.inputs import (
    Images,
    Proposals,
    input_batches,
    unlabelled,
    with_given_proposals,
)
from rcnn_keras.data.keypoints import Skeleton
from rcnn_keras.data.pipeline import Batches, check_packed, padded_image, require_proposals
from rcnn_keras.data.value_range import ValueRange
from rcnn_keras.models.batch_check import checked
from rcnn_keras.models.distribution import predict_in_turn
from rcnn_keras.models.errors import check_process, plain_errors

if TYPE_CHECKING:
    from rcnn_keras.models.fast_rcnn import FastRCNN

SCALES = (480, 576, 688, 864, 1200)  # lengths of the shorter side, as in SPPnet
MAX_SIZE = 2000  # of the longer side
ROI_AREA = 224**2  # pixels, of the crops on which networks are pre-trained

_traced: WeakSet = WeakSet()  # the models' predict functions that take images of any size


class Inference(keras.Model):
    """The part of `Detector` that detects.

    Attributes:
        image_rule: a rule by which images are seen, in place of `min_size`, `max_size` and
            `antialias`; None for these.
        mask_pasting: the rule by which masks become pixels of the image, see `data.paste_masks`.
    """

    classes: tuple[str, ...]
    has_masks: bool
    skeleton: Skeleton | None
    takes_proposals: bool
    min_size: int | None  # None: images keep their size
    max_size: Any  # pixels of the longer side, None where `min_size` is
    antialias: bool
    image_rule: ImageRule | None = None
    training_rule: ImageRule | None = None
    mask_pasting: str = "torchvision"
    value_range: ValueRange
    _process: int

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> dict[str, np.ndarray]:
        """Return padded detections as `keras.Model.predict` does, also on `Batches`."""
        check_process(self._process)
        with plain_errors(x.dataset if isinstance(x, Batches) else None):
            if not isinstance(x, Batches):
                x = checked(self, x, source="data", targets=False)
                return super().predict(x, *args, **kwargs)
            predict = super().predict
            return predict_in_turn(self, lambda x: predict(x, *args, **kwargs), self._sized(x))

    def predict_on_batch(self, x: Any) -> dict[str, np.ndarray]:
        """Return padded detections as `keras.Model.predict_on_batch` does, of a checked batch.

        Raises:
            BatchError: for a batch that a detector cannot detect in.
        """
        check_process(self._process)
        with plain_errors():
            checked(self, x, source="data", targets=False)
            return super().predict_on_batch(x)

    def detect(
        self,
        images: Images,
        batch_size: int = 1,
        proposals: Proposals | None = None,
    ) -> list[Detections]:
        """Detect objects in image files, folders and arrays of any size.

        Args:
            images: one image or many: paths, folders (their images, sorted by name), Pillow
                images, uint8 or float arrays or tensors in 0..255 (`(H, W)`, `(H, W, 3)`,
                `(H, W, 4)`, of several `(B, H, W, C)`), lists of those; or a dataset or some of its
                records.
            batch_size: images that run together. Images of different sizes are padded to the
                largest, which can move their boxes a little, as the padding is in reach of the
                convolutions.
            proposals: for R-CNN and Fast R-CNN, where to look: a function from an image,
                `(H, W, 3)` uint8, to `(r, 4)` boxes in its pixels; or the boxes themselves, a list
                with an entry an image or a dict by the dataset's image ids. None if the dataset's
                records have them.

        Returns:
            One `Detections` an image, in pixels of the image that was given.

        Raises:
            ImageError: for an image that cannot be read, and for what is none, such as None and
                bytes; names it.
            ValueError: for proposals that are missing or do not fit the images, or that this
                detector does not take.
        """
        return list(self.detect_each(images, batch_size, proposals))

    def detect_each(
        self,
        images: Images,
        batch_size: int = 1,
        proposals: Proposals | None = None,
    ) -> Iterator[Detections]:
        """Detect as `detect` does, but yield each image's `Detections` and keep none of them."""
        check_process(self._process)
        dataset = self.dataset_of(images, proposals)
        if len(dataset) == 0:
            return iter(())
        batches = self._sized(Batches(dataset, batch_size, max_objects=dataset.max_objects))
        found = zip(dataset, predictions(self, batches), strict=True)
        return (self._in_given_pixels(one, record) for record, one in found)

    def dataset_of(
        self,
        images: Images,
        proposals: Proposals | None = None,
    ) -> DetectionDataset:
        """Return images and proposals, in all forms that `detect` takes, as a dataset."""
        if not isinstance(images, DetectionDataset):
            images = unlabelled(images, self.classes, self.value_range)
        if proposals is None or len(images) == 0:
            return images
        if not self.takes_proposals:
            raise ValueError(f"{type(self).__name__} finds its own proposals and takes no others")
        return with_given_proposals(images, proposals, self.value_range)

    def _in_given_pixels(self, found: dict[str, np.ndarray], record: Record) -> Detections:
        """Undo the resizing of one image's detections, and drop their padding."""
        size = (record.height, record.width)
        seen = seen_size(self, *size)
        scale = np.array([size[1] / seen[1], size[0] / seen[0]] * 2, np.float32)
        moved = {"boxes": found["boxes"] * scale}
        if self.image_rule is not None:
            moved = {"boxes": np.asarray(self.image_rule.restore(found["boxes"], seen, size))}
        if self.skeleton is not None:
            moved["keypoints"] = found["keypoints"] * np.append(scale[:2], np.float32(1))
        detections = self.as_detections(found | moved, size)
        if self.image_rule is None:
            return detections
        sides = detections.boxes[:, 2:] - detections.boxes[:, :2]
        return detections.take(sides.min(axis=1, initial=1) > 0)  # nothing is left of some

    def as_detections(self, found: dict[str, np.ndarray], size: tuple[int, int]) -> Detections:
        """Return an image's padded detections, in its pixels, as `Detections`."""
        count = int(found["num_detections"])
        return Detections(
            boxes=found["boxes"][:count],
            scores=found["scores"][:count],
            labels=found["labels"][:count],
            classes=self.classes,
            image_size=size,
            masks=found["masks"][:count] if self.has_masks else None,
            mask_pasting=self.mask_pasting,
            keypoints=found["keypoints"][:count] if self.skeleton is not None else None,
            skeleton=self.skeleton,
        )

    def _sized(self, batches: Batches) -> Batches:
        """Fill in the model's image size, and bring in the proposals that it takes."""
        check_packed(batches.dataset, self.value_range)
        if self.image_rule is not None and (batches.min_size or batches.max_size):
            raise ValueError(
                f"{type(self).__name__} resizes images by a rule of its own: batches for it take "
                f"no min_size and max_size; received {batches.min_size!r} and {batches.max_size!r}"
            )
        if self.image_rule is None:
            batches = batches.sized(self.min_size, self.max_size)
        sized = batches.with_proposals(self.takes_proposals)
        sized.antialias = batches.antialias or self.antialias
        sized.value_range, sized.image_rule = self.value_range, self.image_rule
        return sized


def seen_size(model: Inference, height: int, width: int) -> tuple[int, int]:
    """Return the height and width in which a detector sees an image of this size."""
    if model.image_rule is not None:
        return model.image_rule.size(height, width)
    if model.min_size is None:
        return height, width
    return resized_size(height, width, model.min_size, model.max_size)


def predictions(model: keras.Model, batches: Batches) -> Iterator[dict[str, np.ndarray]]:
    """Yield the padded detections of each image, without its place in the batch.

    Args:
        model: the detector; its network is traced once, for images of every number and size.
        batches: the images, sized for the model.

    Raises:
        ImageError: for an image that cannot be read; names it.
    """
    with plain_errors():
        if model.distribute_strategy.num_replicas_in_sync > 1:  # they share what `predict` reads
            yield from _each(model.predict(batches, verbose=0))
            return
        for inputs in input_batches(batches):
            _trace(model, inputs)
            # Keras' own, as `read_image` has checked these.
            yield from _each(keras.Model.predict_on_batch(model, inputs))


def _each(found: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    for i in range(len(found["boxes"])):
        yield {name: values[i] for name, values in found.items()}


def _trace(model: keras.Model, inputs: dict[str, np.ndarray]) -> None:
    """Trace for inputs of any size; Keras would trace again for each new size at first."""
    model.make_predict_function()
    function = model.predict_function
    if function in _traced or not isinstance(function, tf.types.experimental.PolymorphicFunction):
        return  # the latter if the model runs eagerly
    spec = {
        name: tf.TensorSpec((None, *[None] * (value.ndim - 2), *value.shape[1:][-1:]), value.dtype)
        for name, value in inputs.items()
    }
    function.get_concrete_function([(spec,)])
    _traced.add(function)


def detect_at_scales(
    model: "FastRCNN",
    images: Images,
    min_sizes: Sequence[int] = SCALES,
    *,
    max_size: int = MAX_SIZE,
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
    from rcnn_keras.models.fast_rcnn import FastRCNN  # which stands on this module

    if not isinstance(model, FastRCNN):
        raise ValueError(f"detect_at_scales is of FastRCNN, not of {type(model).__name__}")
    check_process(model._process)
    for side in (*min_sizes, max_size):
        if not isinstance(side, int | np.integer) or side < 1:
            raise ValueError(f"sizes must be whole numbers above 0; received {side!r}")
    if not min_sizes:
        raise ValueError("min_sizes must have at least one size")
    dataset = model.dataset_of(images, proposals)
    require_proposals(dataset)
    predict_boxes = tf.function(
        lambda **inputs: model.predict_boxes(model.extract_features(inputs, training=False)),
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
        # One row of padding, so that there is something to gather.
        count = len(boxes)
        logits = np.zeros((count + 1, len(model.classes) + 1), np.float32)
        deltas = np.zeros((count + 1, len(model.classes), 4), np.float32)
        for number in np.unique(chosen):
            rows = np.flatnonzero(chosen == number)
            height, width = sizes[number]
            resized = resize_image(image, height, width, antialias=model.antialias)
            ratio = np.tile([width / size[1], height / size[0]], 2).astype(np.float32)
            of_rows = predict_boxes(
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
