"""A detector between what a client sends and what it gets back, all inside the graph.

Image files are decoded, images resized, boxes and keypoints put back and masks pasted. Decoded
pixels are those of `data.read_image`, bit by bit: libjpeg's accurate transform makes them of a
JPEG, CMYK included, alpha is dropped and gray is repeated. Two things differ, as TensorFlow's
decoders have no notion of them: EXIF orientation is not followed, and 16 bits become 8 by cutting
off the lower ones, which is up to 1 of 255 from rounding.

B images of a batch, H, W as they were sent, h, w as the detector sees them, R proposals, D
detections, M mask size, P keypoints.
"""

from collections.abc import Callable

import tensorflow as tf

from rcnn_keras.data.images import MAX_PIXELS, resize_image
from rcnn_keras.data.value_range import FULL, LEAST_RANGE, PERCENTILES, ValueRange, fixed_bounds
from rcnn_keras.models import Detector
from rcnn_keras.ops import after, gather_valid, scatter_valid
from rcnn_keras.ops.interpolation import weights_at

JPEG_START = b"\xff\xd8\xff"

PNG_START = b"\x89PNG\r\n\x1a\n"

PNG_SIZE = 16  # where a PNG has width and height, four bytes each, the highest first

PNG_HEADER = PNG_SIZE + 8

PNG_16_BITS = b"\x10"  # the byte after width and height

BIG_ENDIAN = (2**24, 2**16, 2**8, 1)


def decode_image(
    contents: tf.Tensor, place: tf.Tensor, value_range: ValueRange = FULL
) -> tf.Tensor:
    """Return a JPEG or PNG file as `(H, W, 3)` uint8 RGB.

    Args:
        contents: the whole file, a string scalar.
        place: the image's place in its batch, for messages.
        value_range: of PNGs of 16 bits, as `read_image` has it.

    Raises:
        tf.errors.InvalidArgumentError: while the graph runs, for anything but JPEG and PNG, for
            a damaged file, and, before it is decoded, for an image of more than `MAX_PIXELS`.
    """
    jpeg = tf.equal(tf.strings.substr(contents, 0, len(JPEG_START)), JPEG_START)
    png = tf.equal(tf.strings.substr(contents, 0, len(PNG_START)), PNG_START)
    png &= tf.strings.length(contents) >= PNG_HEADER
    known = tf.debugging.Assert(
        jpeg | png,
        [
            "image",
            place,
            "of the batch is neither JPEG nor PNG; bytes:",
            tf.strings.length(contents),
        ],
    )
    contents = after(known, contents)
    size = tf.cond(jpeg, lambda: _jpeg_size(contents), lambda: _png_size(contents))
    contents = after(check_pixels(size, place), contents)

    # The decoder recognises the format by itself.
    def decode() -> tf.Tensor:
        return tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE")

    if value_range == FULL:
        return tf.ensure_shape(decode(), (None, None, 3))
    is_wide = png & tf.equal(tf.strings.substr(contents, PNG_HEADER, 1), PNG_16_BITS)
    image = tf.cond(is_wide, lambda: _wide_png(contents, value_range), decode)
    return tf.ensure_shape(image, (None, None, 3))


def _wide_png(contents: tf.Tensor, value_range: ValueRange) -> tf.Tensor:
    """Return a PNG of 16 bits as `to_8_bits` would."""
    values = tf.cast(tf.io.decode_png(contents, channels=3, dtype=tf.uint16), tf.float64)
    if value_range == "max":
        low, high = tf.constant(0.0, tf.float64), tf.reduce_max(values)
    elif value_range == "percentiles":
        ordered = tf.sort(tf.reshape(values, [-1]))
        last = tf.cast(tf.size(ordered) - 1, tf.float64)
        low, high = (ordered[tf.cast(tf.round(last * p / 100), tf.int32)] for p in PERCENTILES)
    else:
        low, high = (tf.constant(v, tf.float64) for v in fixed_bounds(value_range))
    scaled = (values - low) * (255 / tf.maximum(high - low, LEAST_RANGE))
    return tf.cast(tf.round(tf.clip_by_value(scaled, 0, 255)), tf.uint8)


def check_pixels(size: tf.Tensor, place: tf.Tensor | str) -> tf.Operation | None:
    """Return the check that an image of `size` `(2,)` is not over the limit of `MAX_PIXELS`."""
    pixels = tf.reduce_prod(tf.cast(size, tf.int64))
    message = f"pixels are more than the limit of {MAX_PIXELS}; height and width:"
    return tf.debugging.Assert(
        pixels <= MAX_PIXELS, ["image", place, "of the batch:", message, size]
    )


def _jpeg_size(contents: tf.Tensor) -> tf.Tensor:
    return tf.io.extract_jpeg_shape(contents)[:2]


def _png_size(contents: tf.Tensor) -> tf.Tensor:
    numbers = tf.io.decode_raw(tf.strings.substr(contents, PNG_SIZE, 8), tf.uint8)
    width, height = tf.unstack(
        tf.reduce_sum(tf.reshape(tf.cast(numbers, tf.int64), (2, 4)) * BIG_ENDIAN, axis=1)
    )
    return tf.cast(tf.minimum([height, width], 2**31 - 1), tf.int32)


THRESHOLD = 0.5


def paste_masks(found: dict[str, tf.Tensor], height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Return the pixels that each detection covers, where its mask is above one half.

    Interpolation acts on rows and columns separately, so a mask is its grid between two small
    matrices. One detection at a time is drawn, and padding not at all.

    Args:
        found: detections, `masks` `(B, D, M, M)` in 0..1 and `boxes` `(B, D, 4)` in pixels.
        height: H of the images, a scalar tensor.
        width: W.

    Returns:
        `(B, D, H, W)` uint8 of 0 and 1, zeros for padding.
    """
    real = found["labels"] >= 0
    _, boxes, masks = gather_valid(real, found["boxes"], found["masks"])
    # torchvision's rule: a border of zeros around the grid, the box grown with it and cut to pixels
    cells = masks.shape[-1] + 2
    masks = tf.pad(masks, [[0, 0], [1, 1], [1, 1]])
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * (cells / (cells - 2))
    centre = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    first = tf.cast(centre - half, tf.int32)
    sides = tf.maximum(tf.cast(centre + half, tf.int32) - first + 1, 1)

    def one(detection: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        mask, corner, box_sides = detection
        (left, top), (wide, high) = tf.unstack(corner), tf.unstack(box_sides)
        rows = _weights(top, high, height, cells)
        columns = _weights(left, wide, width, cells)
        drawn = tf.matmul(tf.matmul(rows, mask), columns, transpose_b=True)
        return tf.cast(drawn > THRESHOLD, tf.uint8)

    spec = tf.TensorSpec((None, None), tf.uint8)
    drawn = tf.map_fn(one, (masks, first, sides), fn_output_signature=spec, parallel_iterations=4)
    return scatter_valid(real, drawn)


def paste_resized_masks(
    found: dict[str, tf.Tensor], height: tf.Tensor, width: tf.Tensor
) -> tf.Tensor:
    """`paste_masks` by the rule "matterport": each mask resized to its box of whole pixels."""
    real = found["labels"] >= 0
    _, boxes, masks = gather_valid(real, found["boxes"], found["masks"])
    cells = masks.shape[-1]
    first = tf.cast(boxes[:, :2], tf.int32)
    sides = tf.maximum(tf.cast(boxes[:, 2:], tf.int32) - first, 1)

    def weights(start: tf.Tensor, side: tf.Tensor, extent: tf.Tensor) -> tf.Tensor:
        pixels = tf.range(extent) - start
        inside = tf.cast((pixels >= 0) & (pixels < side), tf.float32)
        points = (tf.cast(pixels, tf.float32) + 0.5) * (cells / tf.cast(side, tf.float32)) - 0.5
        return weights_at(points, tf.range(cells, dtype=tf.float32)) * inside[:, None]

    def one(detection: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        mask, (left, top), (wide, high) = detection[0], *map(tf.unstack, detection[1:])
        rows, columns = weights(top, high, height), weights(left, wide, width)
        drawn = tf.matmul(tf.matmul(rows, mask), columns, transpose_b=True)
        return tf.cast(drawn >= THRESHOLD, tf.uint8)

    spec = tf.TensorSpec((None, None), tf.uint8)
    drawn = tf.map_fn(one, (masks, first, sides), fn_output_signature=spec, parallel_iterations=4)
    return scatter_valid(real, drawn)


PASTING = {"torchvision": paste_masks, "matterport": paste_resized_masks}


def _weights(first: tf.Tensor, side: tf.Tensor, extent: tf.Tensor, cells: int) -> tf.Tensor:
    """Return `(extent, cells)` weights of the grid's cells in each pixel along an axis.

    Args:
        first: the first pixel of the grown box, which may lie outside of the image.
        side: pixels of the grown box.
        extent: pixels of the image.
        cells: of the grid.
    """
    pixels = tf.range(extent) - first
    inside = tf.cast((pixels >= 0) & (pixels < side), tf.float32)
    points = (tf.cast(pixels, tf.float32) + 0.5) * (cells / tf.cast(side, tf.float32)) - 0.5
    points = tf.clip_by_value(points, 0.0, cells - 1.0)
    return weights_at(points, tf.range(cells, dtype=tf.float32)) * inside[:, None]


Tensors = dict[str, tf.Tensor]


class ServedDetector:
    """A detector whose images are resized, and whose boxes are put back, as `Detector.detect` does.

    Args:
        model: the detector.
        pasted: `on_images` returns masks of whole images, `(B, D, H, W)` uint8, in place of
            `(B, D, M, M)` float32.
    """

    def __init__(self, model: Detector, pasted: bool = False):
        self.model = model
        self.pasted = pasted
        # Traced once, whatever the number of signatures.
        self._detect = tf.function(
            lambda inputs: dict(model(inputs, training=False)),
            input_signature=[
                {
                    tensor.name: tf.TensorSpec(tensor.shape, tensor.dtype, tensor.name)
                    for tensor in model.inputs
                }
            ],
            autograph=False,
        )

    def signatures(
        self, detection_names: bool = False
    ) -> dict[str, tuple[Callable[[Tensors], Tensors], dict[str, tf.TensorSpec]]]:
        """Return the function and the inputs of each signature; the first is the default one."""
        native = "images" if detection_names else "serving_default"
        functions = {
            native: (self.on_images, "images"),
            "image_bytes": (self.on_files, "image_bytes"),
        }
        if detection_names:
            api = (self.with_detection_names, "input_tensor")
            functions = {"serving_default": api} | functions
        return {name: (f, self._inputs(images)) for name, (f, images) in functions.items()}

    def _inputs(self, images: str) -> dict[str, tf.TensorSpec]:
        """Return what a signature takes whose images have this name."""
        specs = [tf.TensorSpec((None, None, None, 3), tf.uint8, images)]
        if images == "image_bytes":
            specs = [tf.TensorSpec((None,), tf.string, images)]
        if self.model.takes_proposals:
            specs.append(tf.TensorSpec((None, None, 4), tf.float32, "proposals"))
        return {spec.name: spec for spec in specs}

    def on_images(self, inputs: Tensors) -> Tensors:
        """Detect in a batch of images of one size.

        Args:
            inputs: `images` `(B, H, W, 3)` uint8 RGB. For detectors that take them `proposals`
                `(B, R, 4)` in pixels of the images; boxes without area are padding.

        Returns:
            Detections, padded to D; boxes in pixels of the images.

        Raises:
            tf.errors.InvalidArgumentError: while the graph runs, for a batch without images, and
                for images without pixels or with too many.
        """
        found = self._detections(inputs)
        if self.pasted:
            height, width = tf.unstack(tf.shape(inputs["images"])[1:3])
            found["masks"] = PASTING[self.model.mask_pasting](found, height, width)
        return found

    def on_files(self, inputs: Tensors) -> Tensors:
        """Detect in JPEG and PNG files of any sizes, as `Detector.detect` does in one batch.

        Args:
            inputs: `image_bytes` `(B,)`, files; `proposals` as in `on_images`.

        Returns:
            Detections, padded to D; boxes in pixels of the files, masks `(B, D, M, M)`.

        Raises:
            tf.errors.InvalidArgumentError: while the graph runs, as `decode_image`, and for a batch
                without files.
        """
        files = inputs["image_bytes"]
        count = tf.shape(files)[0]

        def one(
            numbered: tuple[tf.Tensor, tf.Tensor],
        ) -> tuple[tf.RaggedTensor, tf.Tensor, tf.Tensor]:
            contents, place = numbered
            image = decode_image(contents, place, self.model.value_range)
            seen = self._resized(image)
            rows = tf.RaggedTensor.from_tensor(seen, ragged_rank=1)
            return rows, tf.shape(seen)[:2], tf.shape(image)[:2]

        size = tf.TensorSpec((2,), tf.int32)
        images = tf.RaggedTensorSpec((None, None, 3), tf.float32, ragged_rank=1)
        files = after(_check_any(count), files)
        seen, sizes, sent = tf.map_fn(
            one, (files, tf.range(count)), fn_output_signature=(images, size, size)
        )
        padded = seen.to_tensor(shape=(None, None, None, 3))
        return self._put_back(padded, sizes, sent, inputs.get("proposals"))

    def with_detection_names(self, inputs: Tensors) -> Tensors:
        """Detect as `on_images` does, under the names of TensorFlow's object detection API.

        Args:
            inputs: `input_tensor` `(B, H, W, 3)` uint8 RGB; `proposals` as in `on_images`.

        Returns:
            `detection_boxes` `(B, D, 4)`, y1, x1, y2, x2 in 0..1 of the image; `detection_scores`;
            `detection_classes` float32 from 1 on, 0 for padding; `num_detections` float32;
            `detection_masks` `(B, D, M, M)`, each inside its box; `detection_keypoints`
            `(B, D, P, 2)`, y and x in 0..1 of the image, and `detection_keypoint_scores`.
        """
        images = inputs["input_tensor"]
        found = self._detections({**inputs, "images": images})
        height, width = tf.unstack(tf.cast(tf.shape(images)[1:3], tf.float32))
        x1, y1, x2, y2 = tf.unstack(found["boxes"], axis=-1)
        named = {
            "detection_boxes": tf.stack(
                [y1 / height, x1 / width, y2 / height, x2 / width], axis=-1
            ),
            "detection_scores": found["scores"],
            "detection_classes": tf.cast(found["labels"] + 1, tf.float32),
            "num_detections": tf.cast(found["num_detections"], tf.float32),
        }
        if "masks" in found:
            named["detection_masks"] = found["masks"]
        if "keypoints" in found:
            x, y, scores = tf.unstack(found["keypoints"], axis=-1)
            named["detection_keypoints"] = tf.stack([y / height, x / width], axis=-1)
            named["detection_keypoint_scores"] = scores
        return named

    def _detections(self, inputs: Tensors) -> Tensors:
        """Return what `on_images` does, with masks inside their boxes."""
        images = inputs["images"]
        batch, sent = tf.shape(images)[0], tf.shape(images)[1:3]
        some = tf.debugging.Assert(
            tf.reduce_all(sent > 0), ["images without pixels; height and width:", sent]
        )
        for check in (_check_any(batch), some, check_pixels(sent, 0)):
            images = after(check, images)
        seen = self._resized(images)
        size = tf.shape(seen)[1:3]
        sizes, sents = (tf.tile(pair[None], [batch, 1]) for pair in (size, sent))
        return self._put_back(seen, sizes, sents, inputs.get("proposals"))

    def _resized(self, images: tf.Tensor) -> tf.Tensor:
        """Resize `(..., H, W, 3)` images of one size as the detector sees them: float32."""
        if self.model.min_size is None:
            return tf.cast(images, tf.float32)
        sent = tf.shape(images)[-3:-1]
        if self.model.image_rule is not None:
            rule = self.model.image_rule
            return rule.resize(images, *tf.unstack(rule.size_in_graph(sent)))
        height, width = tf.unstack(resized_size(sent, self.model.min_size, self.model.max_size))
        return resize_image(images, height, width, antialias=self.model.antialias)

    def _put_back(
        self, images: tf.Tensor, sizes: tf.Tensor, sent: tf.Tensor, proposals: tf.Tensor | None
    ) -> Tensors:
        """Detect, and return boxes in the pixels that were sent.

        Args:
            images: `(B, h, w, 3)` float32, resized and padded.
            sizes: `(B, 2)` of the valid part of each.
            sent: `(B, 2)` sizes of the images as they were sent.
            proposals: `(B, R, 4)` in pixels as they were sent, or None.
        """
        inputs = {"images": images, "image_sizes": sizes}
        if proposals is not None:
            inputs["proposals"] = proposals * _per_box(sizes / sent)
            inputs["num_proposals"] = count_proposals(proposals)
        found = self._detect(inputs)
        ratios = _per_box(sent / sizes)
        if self.model.image_rule is None:
            found["boxes"] *= ratios
        else:
            boxes = self.model.image_rule.restore(found["boxes"], sizes, sent)
            found["boxes"] = tf.where(found["labels"][..., None] >= 0, boxes, 0.0)
        if "keypoints" in found:
            scores = tf.ones_like(ratios[..., :1])
            found["keypoints"] *= tf.concat([ratios[..., :2], scores], axis=-1)[:, None]
        return found


def resized_size(size: tf.Tensor, min_size: int, max_size: int) -> tf.Tensor:
    """Return `data.resized_size` of `(2,)` int32 height and width, in the same float64."""
    sides = tf.cast(size, tf.float64)
    scale = tf.minimum(min_size / tf.reduce_min(sides), max_size / tf.reduce_max(sides))
    return tf.maximum(tf.cast(tf.floor(sides * scale), tf.int32), 1)


def count_proposals(proposals: tf.Tensor) -> tf.Tensor:
    """Return how many proposals come before the padding, boxes without area: `(B,)` int32."""
    x1, y1, x2, y2 = tf.unstack(proposals, axis=-1)
    places = tf.range(1, tf.shape(proposals)[1] + 1)
    return tf.reduce_max(
        tf.pad(tf.where((x2 > x1) & (y2 > y1), places, 0), [[0, 0], [0, 1]]), axis=1
    )


def _per_box(ratios: tf.Tensor) -> tf.Tensor:
    """Return `(B, 2)` ratios of heights and widths as `(B, 1, 4)` factors of boxes."""
    return tf.tile(tf.cast(ratios, tf.float32)[:, None, ::-1], [1, 1, 2])


def _check_any(count: tf.Tensor) -> tf.Operation | None:
    return tf.debugging.Assert(count > 0, ["a batch without images; images:", count])
