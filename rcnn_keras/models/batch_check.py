"""Checks of the batches that users' own pipelines give, before a model trains on them.

`Batches` are made of records that were validated and do not come here. Everything else is checked
on its way to the model: its form (names, ranks, types) and the values of every batch, and in the
first batch also the range of the images. The check runs in the data pipeline, so it also holds
where a step is compiled by XLA, which drops assertions, and under `tf.distribute`; nothing is read
twice, and the order of the data stays as it is.

B images a batch, H and W their padded height and width, N objects, K classes.
"""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rcnn_keras.models.errors import BatchError

TOLERANCE = 2.0  # pixels that a box may lie outside its image: resizing rounds
SYNONYMS = {
    "boxes": ("bboxes", "bbox", "bounding_boxes", "box"),
    "labels": ("classes", "class_ids", "category_ids", "label", "category_id"),
    "crowd": ("iscrowd", "is_crowd", "crowds"),
    "masks": ("mask", "segmentation_masks", "segmentations"),
    "images": ("image", "pixels"),
    "image_sizes": ("image_size", "sizes", "image_shapes", "image_shape"),
    "image_ids": ("image_id", "ids"),
    "proposals": ("proposal", "rois"),
    "num_proposals": ("num_proposal", "num_rois"),
}
RANKS = {
    "images": (4, "(B, H, W, 3)"),
    "image_sizes": (2, "(B, 2)"),
    "image_ids": (1, "(B,)"),
    "proposals": (3, "(B, R, 4)"),
    "num_proposals": (1, "(B,)"),
    "boxes": (3, "(B, N, 4)"),
    "labels": (2, "(B, N)"),
    "crowd": (2, "(B, N)"),
    "masks": (4, "(B, N, H, W)"),
}
INTEGERS = ("image_sizes", "image_ids", "num_proposals", "labels")


def checked(model: Any, x: Any, y: Any = None, *, source: str, targets: bool = True) -> Any:
    """Return data whose batches are checked as they are read.

    Args:
        model: the detector that reads them.
        x: as `keras.Model.fit` takes it. Arrays are checked here and now; a `tf.data.Dataset`, a
            generator and a `keras.utils.PyDataset` as they are read.
        y: targets beside arrays.
        source: what to call the data in a message, `"training data"`.
        targets: whether the data must have targets.

    Raises:
        BatchError: at once for data of a wrong form and for arrays; else while they are read.
    """
    check = BatchCheck(model, source, targets)
    if x is None or _is_distributed(x):
        return x
    if isinstance(x, tf.data.Dataset):
        return check.dataset(x)
    if isinstance(x, keras.utils.PyDataset):
        return CheckedPyDataset(x, check)
    if isinstance(x, Iterator):
        return check.generator(x)
    if isinstance(x, (Mapping, np.ndarray, tf.Tensor, tf.RaggedTensor, list, tuple)):
        check.form((x, y) if targets else x)
        check.values(0, (x, y) if targets else x)
    return x


class CheckedPyDataset(keras.utils.PyDataset):
    """A `PyDataset` whose batches are checked."""

    def __init__(self, data: keras.utils.PyDataset, check: "BatchCheck") -> None:
        super().__init__(data.workers, data.use_multiprocessing, data.max_queue_size)
        self.data, self.check = data, check

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.data)

    @property
    def num_batches(self) -> int | None:
        """Batches an epoch, None without end."""
        return self.data.num_batches

    def __getitem__(self, index: int) -> Any:
        """A batch, once it is checked."""
        batch = self.data[index]
        self.check.form(batch)
        self.check.values(index, batch)
        return batch

    def on_epoch_begin(self) -> None:
        """Pass it on."""
        self.data.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Pass it on."""
        self.data.on_epoch_end()


class BatchCheck:
    """The rules for batches of one model.

    Args:
        model: the detector.
        source: what to call the data.
        targets: whether they must have targets.
    """

    def __init__(self, model: Any, source: str, targets: bool) -> None:
        self.classes = tuple(model.classes)
        self.masks, self.proposals = model.has_masks, model.takes_proposals
        self.source, self.targets = source, targets

    def dataset(self, data: tf.data.Dataset) -> tf.data.Dataset:
        """Return the pipeline with a check behind it; its form is checked now."""
        self.form(data.element_spec)

        def passed(number: tf.Tensor, batch: Any) -> Any:
            inputs, targets = self._pair(batch)
            # The range of the images is looked at once.
            images = inputs["images"]
            first = tf.cond(number == 0, lambda: images, lambda: images[:0])
            shape = tf.shape(images, tf.int64)
            named = {k: v for k, v in inputs.items() if k in RANKS} | {"images": first}
            named |= {k: v for k, v in targets.items() if k in RANKS}
            names = list(named)

            def look(number: np.ndarray, shape: np.ndarray, *arrays: np.ndarray) -> np.bool_:
                self._values(int(number), dict(zip(names, arrays, strict=True)), tuple(shape))
                return np.bool_(True)

            done = tf.numpy_function(look, [number, shape, *named.values()], tf.bool)
            with tf.control_dependencies([done]):
                return tf.nest.map_structure(tf.identity, batch)

        return data.enumerate().map(passed)

    def generator(self, data: Iterator[Any]) -> Iterator[Any]:
        """Yield the batches, each once it is checked."""
        for number, batch in enumerate(data):
            self.form(batch)
            self.values(number, batch)
            yield batch

    def form(self, batch: Any) -> None:
        """Check names, ranks and types of arrays, or of the specs of a pipeline."""
        inputs, targets = self._pair(batch)
        parts = [("inputs", inputs, ["images", *["proposals"][: self.proposals]])]
        if self.targets:
            needed = ["boxes", "labels", *["masks"][: self.masks]]
            parts.append(("targets", targets, needed))
        for part, arrays, needed in parts:
            self._names(part, arrays, needed)
            for name, array in arrays.items():
                if name in RANKS:
                    self._array_form(name, array)

    def values(self, number: int, batch: Any) -> None:
        """Check the values of a batch of arrays."""
        inputs, targets = self._pair(batch)
        shape = tuple(np.shape(inputs["images"]))
        named = inputs | targets if self.targets else inputs
        arrays = {k: _numpy(v) for k, v in named.items() if k in RANKS and k != "images"}
        images = inputs["images"][:32] if number == 0 else np.zeros((0, 1, 1, 3))
        self._values(number, arrays | {"images": _numpy(images)}, shape)

    def _pair(self, batch: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return inputs and targets as dicts."""
        x, y = batch, None
        if isinstance(batch, tuple):
            if len(batch) > 2 and batch[2] is not None:
                self._fail("sample weights are not supported: give (inputs, targets)")
            x, y = batch[0], batch[1] if len(batch) > 1 else None
        if isinstance(x, list | tuple):
            self._fail(
                "the images must be one array (B, H, W, 3), padded to one size, not a "
                f"{type(x).__name__}; `detect` takes images of different sizes"
            )
        inputs = dict(x) if isinstance(x, Mapping) else {"images": x}
        if not self.targets:
            return inputs, {}
        if not isinstance(y, Mapping):
            kind = "nothing" if y is None else f"a {type(y).__name__}"
            self._fail(
                "a detector needs (inputs, targets), the targets a dict of 'boxes' (B, N, 4) and "
                f"'labels' (B, N), padded with label -1; the targets are {kind}"
            )
        return inputs, dict(y or {})

    def _names(self, part: str, arrays: Mapping[str, Any], needed: list[str]) -> None:
        """Check that all is there, under its name."""
        optional = ("image_sizes", "image_ids", "num_proposals") if part == "inputs" else ("crowd",)
        for name in (*needed, *optional):
            if arrays.get(name) is not None:
                continue
            others = [str(key) for key in arrays if key not in RANKS]
            near = [key for key in others if key.lower() in SYNONYMS[name]]
            near = near or difflib.get_close_matches(name, others, 1, 0.8)
            if near:
                self._fail(f"the {part} have {near[0]!r}, which must be called {name!r}")
            if name in needed:
                self._fail(f"the {part} have no {name!r}; they have {sorted(map(str, arrays))}")

    def _array_form(self, name: str, array: Any) -> None:
        if isinstance(array, tf.RaggedTensor | tf.RaggedTensorSpec):
            value = "default_value=-1" if name == "labels" else ""
            self._fail(
                f"{name!r} is ragged: pad it by .to_tensor({value}), labels with "
                f"-1, which marks the rows that are no objects"
            )
        if isinstance(array, tf.SparseTensor | tf.SparseTensorSpec):
            self._fail(f"{name!r} is sparse; a dense array is needed")
        array = array if hasattr(array, "shape") and hasattr(array, "dtype") else np.asarray(array)
        shape = tf.TensorShape(array.shape)
        rank, form = RANKS[name]
        if shape.rank is not None and shape.rank != rank:
            one = shape.rank == rank - 1
            hint = ": not batched? dataset.padded_batch makes batches" if one else ""
            self._fail(f"{name!r} has shape {_plain(shape)}, not {form}{hint}")
        last = {"images": 3, "image_sizes": 2, "proposals": 4, "boxes": 4}.get(name)
        if shape.rank and last and shape[-1] not in (None, last):
            self._fail(f"{name!r} has shape {_plain(shape)}, not {form}")
        kind = tf.as_dtype(array.dtype)
        if name in INTEGERS and not kind.is_integer:
            self._fail(f"{name!r} is {kind.name}; whole numbers are needed: cast it to int32")
        if kind in (tf.string, tf.complex64, tf.complex128):
            self._fail(f"{name!r} is {kind.name}; numbers are needed")

    def _values(self, number: int, arrays: dict[str, np.ndarray], shape: tuple[int, ...]) -> None:
        """Check a batch whose images have a shape; of the images there may be none."""
        where = f"batch {number}"
        images = np.asarray(arrays["images"])
        if images.size:
            self._image_range(images, where)
        ids = arrays.get("image_ids")
        names = [f"image id {i}" for i in ids] if ids is not None else None
        names = names or [f"image {i}" for i in range(shape[0])]
        sizes = arrays.get("image_sizes")
        if sizes is None:
            sizes = np.tile(np.array(shape[1:3]), (shape[0], 1))
        for name, array in arrays.items():
            if name != "images" and len(array) != shape[0]:
                self._fail(f"{where}: {name!r} is of {len(array)} images, 'images' of {shape[0]}")
        bad = ((sizes < 1) | (sizes > np.array(shape[1:3]))).any(axis=1)
        if bad.any():
            i = int(bad.argmax())
            self._fail(
                f"{where}, {names[i]}: image_sizes {sizes[i].tolist()} must be (height, width) "
                f"within the {shape[1]} x {shape[2]} (height x width) of the batch"
            )
        if "labels" in arrays:
            self._objects(arrays, sizes, names, where)
        if "masks" in arrays and self.masks:
            self._masks(arrays["masks"], arrays["labels"], shape, where)

    def _image_range(self, images: np.ndarray, where: str) -> None:
        low, high = float(images.min()), float(images.max())
        if not np.isfinite([low, high]).all():
            self._fail(f"{where}: the images have values that are not finite")
        if low < 0 or high > 255:
            hint = "; leave out a normalization, which is inside the model" if low < 0 else ""
            self._fail(f"{where}: the images' values from {low:g} to {high:g} are not 0..255{hint}")
        if np.issubdtype(images.dtype, np.floating) and 0 < high <= 1:
            self._fail(
                f"{where}: the images' values from {low:g} to {high:g} look like 0..1; multiply by "
                f"255 for 0..255"
            )

    def _objects(
        self, arrays: Mapping[str, np.ndarray], sizes: np.ndarray, names: list[str], where: str
    ) -> None:
        """Check labels and boxes; rows of label -1 are padding."""
        labels, boxes = np.asarray(arrays["labels"]), np.asarray(arrays["boxes"], np.float64)
        if labels.shape != boxes.shape[:2]:
            self._fail(f"{where}: 'labels' {labels.shape} do not fit 'boxes' {boxes.shape}")
        count, real = len(self.classes), labels != -1
        bad = (labels < -1) | (labels >= count)
        if bad.any():
            i, n = np.argwhere(bad)[0]
            hint = ""
            if labels.max() == count and labels.min() >= -1:
                hint = ". They look counted from 1: subtract 1, so that padding is -1"
            self._fail(
                f"{where}, {names[i]}: label {labels[i, n]} of object {n} is not in 0..{count - 1} "
                f"(-1 is padding){hint}"
            )
        height, width = sizes[:, None, 0], sizes[:, None, 1]
        x1, y1, x2, y2 = np.moveaxis(boxes, -1, 0)
        outside = (np.minimum(x1, y1) < -TOLERANCE) | (x2 > width + TOLERANCE)
        outside |= y2 > height + TOLERANCE
        as_xywh = (x1 + x2 <= width + TOLERANCE) & (y1 + y2 <= height + TOLERANCE)
        xywh = " Or are they (x, y, width, height)?" if (as_xywh | ~real).all() else ""
        rules = (
            (~np.isfinite(boxes).all(axis=-1), "is not finite"),
            (
                (x2 <= x1) | (y2 <= y1),
                f"has no area: boxes are (x1, y1, x2, y2) with x2 > x1 and y2 > y1.{xywh} A row of "
                f"padding has the label -1",
            ),
            (outside, "is outside the image, which is {w} x {h} pixels (width x height)"),
        )
        for broken, rule in rules:
            broken = broken & real
            if broken.any():
                i, n = np.argwhere(broken)[0]
                box = [round(float(v), 4) for v in boxes[i, n]]
                more = int(broken.sum()) - 1
                rule = rule.replace("{w}", str(sizes[i, 1])).replace("{h}", str(sizes[i, 0]))
                also = f"; the same is true of {more} more of this batch" if more else ""
                self._fail(f"{where}, {names[i]}: box {n} {box} {rule}{also}")
        if real.any() and boxes[real].max() <= 1:
            i, n = np.argwhere(real)[0]
            box = [round(float(v), 4) for v in boxes[i, n]]
            self._fail(
                f"{where}, {names[i]}: box {n} {box} and all others are within 0..1; boxes are in "
                f"pixels: multiply by width and height"
            )

    def _masks(
        self, masks: np.ndarray, labels: np.ndarray, shape: tuple[int, ...], where: str
    ) -> None:
        height, width = shape[1:3]
        packed = masks.dtype == np.uint8 and masks.shape[3] == -(-width // 8)
        if masks.shape[:2] != labels.shape or masks.shape[2] != height:
            fits = False
        else:
            fits = packed or masks.shape[3] == width
        if not fits:
            self._fail(
                f"{where}: 'masks' {masks.shape} must be {(*labels.shape, height, width)}, as "
                f"large as the images, or packed along the width by numpy.packbits"
            )

    def _fail(self, problem: str) -> None:
        raise BatchError(f"{self.source}: {problem}")


def _is_distributed(data: Any) -> bool:
    return isinstance(data, tf.distribute.DistributedDataset)


def _numpy(array: Any) -> np.ndarray:
    return np.asarray(array)


def _plain(shape: tf.TensorShape) -> str:
    return str(tuple(shape.as_list()))
