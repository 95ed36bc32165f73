"""Checks of the batches that users' own pipelines give, before a model trains on them.

`Batches` come here if they have an augmentation. Everything else is checked on its way to the
model: its form (names, ranks, types), and the values by `batch_rules`, of the first batch all and
of each later one the boxes, labels and a part of the pixels. The check runs in the data pipeline,
so it also holds where a step is compiled by XLA, which drops assertions, and under `tf.distribute`;
nothing is read twice, and the order of the data stays as it is.

B images a batch, H and W their padded height and width, N objects, K classes.
"""

import difflib
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.models import batch_rules
from rcnn_keras.models.batch_rules import PADDING_LABEL, Broken
from rcnn_keras.models.errors import BatchError

SYNONYMS = {
    "boxes": ("bboxes", "bbox", "bounding_boxes", "box"),
    "labels": (
        *("label", "classes", "class", "class_ids", "class_id"),
        *("categories", "category", "category_ids", "category_id"),
    ),
    "crowd": ("iscrowd", "is_crowd", "crowds"),
    "masks": ("mask", "segmentation_masks", "segmentations", "segmentation"),
    "keypoints": ("keypoint", "kps", "kpts", "joints", "landmarks", "points"),
    "images": ("image", "pixels", "x"),
    "image_sizes": ("image_size", "sizes", "image_shapes", "image_shape"),
    "image_ids": ("image_id", "ids", "id"),
    "proposals": ("proposal", "rois"),
    "num_proposals": ("num_proposal", "num_rois"),
}
TRUTH = ("boxes", "labels", "masks", "keypoints")
PREFIX = re.compile(r"(gt|true|groundtruth|ground_truth|target|input)_")
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
    "keypoints": (4, "(B, N, P, 3)"),
}
LAST = {"images": 3, "image_sizes": 2, "proposals": 4, "boxes": 4, "keypoints": 3}
INTEGERS = ("image_sizes", "image_ids", "num_proposals", "labels")
STRIDES = {"images": (1, 8, 8), "masks": (1, 1, 4, 4)}  # of the pixels of a later batch
AT_ONCE = 32  # images of an array


def checked(
    model: Any, x: Any, y: Any = None, *, source: str, targets: bool = True, finite: bool = True
) -> Any:
    """Return data whose batches are checked as they are read.

    Args:
        model: the detector that reads them.
        x: as `keras.Model.fit` takes it. Arrays are checked here and now; a `tf.data.Dataset`, a
            generator and a `keras.utils.PyDataset` as they are read. A dataset that the user has
            distributed to workers is read as it stands.
        y: targets beside arrays.
        source: what to call the data in a message, `"training data"`.
        targets: whether the data must have targets.
        finite: as in `BatchCheck`.

    Raises:
        BatchError: at once for data of a wrong form and for arrays; else while they are read.

    Warns:
        UserWarning: of what is suspicious in the first batch.
    """
    check = BatchCheck(model, source, targets, finite)
    if isinstance(x, tf.data.Dataset):
        return check.dataset(x)
    if isinstance(x, keras.utils.PyDataset):
        return CheckedPyDataset(x, check)
    if isinstance(x, Iterator):
        return check.generator(x)
    if isinstance(x, Mapping | list | tuple) or hasattr(x, "shape"):
        check.arrays((x, y) if targets else x)
    return x


def check_call(model: Any, inputs: Any, *, values: bool) -> None:
    """Check the inputs of a direct call: their form, and their values if they are at hand.

    Args:
        model: the detector that is called.
        inputs: arrays, or tensors of a graph.
        values: whether to check them, too; those of tensors in a graph are not known.

    Raises:
        BatchError: if a rule is broken.
    """
    check = BatchCheck(model, type(model).__name__, targets=False)
    if values and tf.executing_eagerly():
        check.arrays(inputs)
    else:
        check.form(inputs)


def check_records(dataset: DetectionDataset) -> None:
    """Check the boxes of records, which a user may have made: those of a reader are sound.

    Raises:
        BatchError: for a box that is not finite, has no area or is outside its image, and if all
            are in fractions.
    """
    records = [record for record in dataset if len(record)]
    if not records:
        return
    counts = [len(record) for record in records]
    boxes = np.concatenate([record.boxes for record in records])[:, None]
    sizes = np.repeat([(record.height, record.width) for record in records], counts, axis=0)
    every = np.ones((len(boxes), 1), bool)
    if broken := batch_rules.boxes_fit(boxes, every, sizes, len(boxes) == 1, "object"):
        starts = np.cumsum([0, *counts])
        number = broken.image or 0
        i = int(np.searchsorted(starts, number, side="right")) - 1
        broken = broken._replace(row=number - int(starts[i]))
        raise BatchError(f"{records[i].path}: {broken}")


class CheckedPyDataset(keras.utils.PyDataset):
    """A `PyDataset` whose batches are checked."""

    def __init__(self, data: keras.utils.PyDataset, check: "BatchCheck") -> None:
        super().__init__(data.workers, data.use_multiprocessing, data.max_queue_size)
        self.data, self.check = data, check

    @property
    def num_batches(self) -> int | None:
        """Batches an epoch, None without end."""
        return self.data.num_batches

    def __getitem__(self, index: int) -> Any:
        """A batch, once it is checked."""
        batch = self.data[index]
        batch = tuple(batch) if isinstance(batch, list) else batch  # as Keras reads it
        self.check.batch(index, batch)
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
        finite: whether images and boxes must be finite; otherwise the step says so, which knows
            the files of `Batches`.
    """

    def __init__(self, model: Any, source: str, targets: bool, finite: bool = True) -> None:
        self.num_classes = len(model.classes)
        self.masks, self.proposals = model.has_masks, model.takes_proposals
        self.skeleton = model.skeleton
        self.source, self.targets, self.finite = source, targets, finite

    def dataset(self, data: tf.data.Dataset) -> tf.data.Dataset:
        """Return the pipeline with a check behind it; its form is checked now."""
        self.form(data.element_spec)

        def passed(number: tf.Tensor, batch: Any) -> Any:
            tensors = self._named(batch)
            # Strided here and not in numpy, so that what is not looked at is not copied.
            looked_at = {name: _part(name, x, number == 0) for name, x in tensors.items()}
            shapes = {name: tf.shape(x, tf.int64) for name, x in tensors.items()}

            def look(number: np.ndarray, *values: np.ndarray) -> np.bool_:
                arrays = dict(zip(tensors, values[: len(tensors)], strict=True))
                sizes = dict(zip(tensors, values[len(tensors) :], strict=True))
                self._values(int(number), arrays, {k: tuple(v.tolist()) for k, v in sizes.items()})
                return np.bool_(True)

            done = tf.numpy_function(look, [number, *looked_at.values(), *shapes.values()], tf.bool)
            ranks = {id(x): RANKS[name][0] for name, x in tensors.items()}
            with tf.control_dependencies([done]):
                return tf.nest.map_structure(lambda x: _identity(x, ranks.get(id(x))), batch)

        return data.enumerate().map(passed)

    def generator(self, data: Iterator[Any]) -> Iterator[Any]:
        """Yield the batches, each once it is checked."""
        for number, batch in enumerate(data):
            self.batch(number, batch)
            yield batch

    def arrays(self, batch: Any) -> None:
        """Check arrays of any number of images, a part at a time."""
        self.form(batch)
        named = self._named(batch)
        count = len(named["images"])
        for name, array in named.items():
            if len(array) != count:
                self._fail(f"{name!r} is of {len(array)} images, 'images' of {count}")
        for first in range(0, count, AT_ONCE):
            part = {name: x[first : first + AT_ONCE] for name, x in named.items()}
            self._part_values(first // AT_ONCE, part, first)

    def batch(self, number: int, batch: Any) -> None:
        """Check a batch of arrays."""
        self.form(batch)
        self._part_values(number, self._named(batch))

    def form(self, batch: Any) -> None:
        """Check names, ranks and types of arrays, or of the specs of a pipeline."""
        inputs, targets = self._pair(batch)
        parts = [("inputs", inputs, ["images", *["proposals"][: self.proposals]])]
        if self.targets:
            keypoints = ["keypoints"] if self.skeleton is not None else []
            needed = ["boxes", "labels", *["masks"][: self.masks], *keypoints]
            parts.append(("targets", targets, needed))
        for part, arrays, needed in parts:
            self._names(part, arrays, needed)
            for name, array in arrays.items():
                if name in RANKS and array is not None:
                    self._array_form(name, array)

    def _named(self, batch: Any) -> dict[str, Any]:
        """Return what has rules of a batch of the right form, by name."""
        inputs, targets = self._pair(batch)
        named = {k: v for k, v in (inputs | targets).items() if k in RANKS and v is not None}
        if not self.masks:
            named.pop("masks", None)
        if self.skeleton is None:
            named.pop("keypoints", None)
        return {k: v if hasattr(v, "shape") else np.asarray(v) for k, v in named.items()}

    def _part_values(self, number: int, named: dict[str, Any], first: int | None = None) -> None:
        shapes = {name: tuple(np.shape(x)) for name, x in named.items()}
        arrays = {name: np.asarray(_part(name, x, number == 0)) for name, x in named.items()}
        self._values(number, arrays, shapes, first)

    def _pair(self, batch: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return inputs and targets as dicts."""
        x, y = batch, None
        if isinstance(batch, tuple):
            if self.targets and len(batch) > 2 and batch[2] is not None:
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
            inside = [name for name in inputs if _meant(name) in TRUTH]
            if y is None and inside:
                kind = f"nothing, and {inside} are among the inputs"
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
            near = [key for key in others if _meant(key) == name]
            near = near or difflib.get_close_matches(name, others, 1, 0.8)
            if near and isinstance(arrays[near[0]], Mapping):
                inside = sorted(map(str, arrays[near[0]]))
                self._fail(
                    f"the {part} have a dict {near[0]!r} of {inside}: they must have {needed} "
                    f"themselves"
                )
            if near:
                self._fail(f"the {part} have {near[0]!r}, which must be called {name!r}")
            if name in needed:
                self._fail(f"the {part} have no {name!r}; they have {sorted(map(str, arrays))}")

    def _array_form(self, name: str, array: Any) -> None:
        """Check rank, last axis and type of an array, a tensor or the spec of one."""
        if isinstance(array, tf.RaggedTensor | tf.RaggedTensorSpec):
            value = f"default_value={PADDING_LABEL}" if name == "labels" else ""
            self._fail(
                f"{name!r} is ragged: pad it by .to_tensor({value}), labels with "
                f"-1, which marks the rows that are no objects"
            )
        if isinstance(array, tf.SparseTensor | tf.SparseTensorSpec):
            self._fail(f"{name!r} is sparse; a dense array is needed")
        if not (hasattr(array, "shape") and hasattr(array, "dtype")):
            try:
                array = np.asarray(array)
            except ValueError:  # lists of different lengths
                array = np.zeros(0, object)
        if isinstance(array.dtype, np.dtype) and array.dtype.kind == "O":
            self._fail(f"{name!r} is no array of numbers {RANKS[name][1]}: pad all to one length")
        self._shape(name, tf.TensorShape(array.shape))
        kind = tf.as_dtype(array.dtype)
        if kind in (tf.string, tf.complex64, tf.complex128):
            self._fail(f"{name!r} is {kind.name}; numbers are needed")
        if name in INTEGERS and not kind.is_integer:
            self._fail(f"{name!r} is {kind.name}; whole numbers are needed: cast it to int32")

    def _shape(self, name: str, shape: tf.TensorShape) -> None:
        """Check rank and last axis."""
        rank, form = RANKS[name]
        if shape.rank is None:  # known when the batch is there
            return
        hint = ""
        if shape.rank == rank - 1:
            hint = ": not batched? dataset.padded_batch makes batches"
        elif name == "labels" and shape.rank == 3:
            hint = ": the class of each object, not one-hot: numpy.argmax(labels, axis=-1)"
        if shape.rank != rank or (name in LAST and shape[-1] not in (None, LAST[name])):
            self._fail(f"{name!r} has shape {_plain(shape)}, not {form}{hint}")

    def _values(
        self,
        number: int,
        arrays: dict[str, np.ndarray],
        shapes: Mapping[str, tuple[int, ...]],
        first: int | None = None,
    ) -> None:
        """Check a batch.

        Args:
            number: of the batch, from 0.
            arrays: what has rules, by name; of a later batch a part of the pixels.
            shapes: of the whole arrays.
            first: number of its first image, if the batch is a part of arrays.
        """
        batch = [] if first is not None else [f"batch {number} (from 0)"]
        shape = shapes["images"]
        for name, its in shapes.items():
            self._shape(name, tf.TensorShape(its))
            if its[0] != shape[0]:
                counts = f"{name!r} is of {its[0]} images, 'images' of {shape[0]}"
                self._fail(": ".join([*batch, counts]))
        if (sizes := arrays.get("image_sizes")) is None:
            sizes = np.tile(np.array(shape[1:3]), (shape[0], 1))
        if broken := self._broken(number == 0, arrays, shapes, sizes):
            image, ids = broken.image, arrays.get("image_ids")
            if image is not None:
                number_of = image + (first or 0)
                batch.append(f"image {number_of}" if ids is None else f"image id {ids[image]}")
            self._fail(": ".join(filter(None, [", ".join(batch), str(broken)])))
        if number == 0 and "labels" in arrays:
            for problem in batch_rules.suspicions(arrays, sizes):
                warnings.warn(f"{self.source}, first batch: {problem}", stacklevel=2)

    def _broken(
        self,
        is_first: bool,
        arrays: dict[str, np.ndarray],
        shapes: Mapping[str, tuple[int, ...]],
        sizes: np.ndarray,
    ) -> Broken | None:
        """Return the first rule that is broken."""
        if not (self.finite or all(np.isfinite(arrays[n]).all() for n in ("images", "boxes"))):
            return None
        rules = batch_rules
        broken = rules.image_values(arrays["images"], is_first)
        broken = broken or rules.sizes_fit(sizes, shapes["images"])
        if not broken and (proposals := arrays.get("proposals")) is not None:
            count = arrays.get("num_proposals", np.full(len(proposals), proposals.shape[1]))
            real = np.arange(proposals.shape[1]) < count[:, None]
            broken = rules.boxes_fit(proposals, real, sizes, is_first, "proposal")
        if broken or "labels" not in arrays:
            return broken
        labels, boxes = arrays["labels"], arrays["boxes"]
        for name in ("boxes", "crowd", "masks", "keypoints"):
            if name in shapes and shapes[name][:2] != labels.shape:
                return Broken(None, f"'labels' {labels.shape} do not fit {name!r} {shapes[name]}")
        real = labels != PADDING_LABEL
        broken = rules.labels_fit(labels, self.num_classes)
        broken = broken or rules.boxes_fit(boxes, real, sizes, is_first)
        objects = real
        if not broken and (crowd := arrays.get("crowd")) is not None:
            broken = rules.crowd_fits(crowd, real)
            objects = real & (crowd != 1)
        if not broken and self.skeleton is not None:
            names = self.skeleton.names
            broken = rules.keypoints_fit(arrays["keypoints"], boxes, objects, sizes, names)
        if broken or (masks := arrays.get("masks")) is None:
            return broken
        height, width = shapes["images"][1:3]
        is_packed = masks.dtype == np.uint8 and shapes["masks"][3] == -(-width // 8) != width
        if shapes["masks"][2] != height or not (is_packed or shapes["masks"][3] == width):
            return Broken(
                None,
                f"'masks' {shapes['masks']} must be {(*labels.shape, height, width)}, as large as "
                f"the images, or packed along the width by numpy.packbits",
            )
        broken = None if is_packed else rules.mask_values(masks, real)
        if is_first and not broken:
            broken = rules.masks_meet_boxes(masks, boxes, objects, is_packed)
        return broken

    def _fail(self, problem: str) -> NoReturn:
        raise BatchError(f"{self.source}: {problem}")


def _meant(name: Any) -> str | None:
    """Return the name that a detector has for what other tools call this."""
    name = PREFIX.sub("", str(name).lower())
    return next((ours for ours, theirs in SYNONYMS.items() if name in (ours, *theirs)), None)


def _part(name: str, array: Any, is_first: Any) -> Any:
    """Return the part of a batch's array that is looked at: all, or of later batches some pixels.

    Args:
        name: of the array.
        array: of numpy, or a tensor.
        is_first: a bool, or a tensor beside tensors.
    """
    rank = RANKS[name][0]
    if name not in STRIDES or tf.TensorShape(array.shape).rank != rank:
        return array
    places = tuple(slice(None, None, stride) for stride in STRIDES[name])
    if tf.is_tensor(is_first):
        return tf.cond(is_first, lambda: array, lambda: array[places])
    return array if is_first else array[places]


def _identity(tensor: tf.Tensor, rank: int | None) -> tf.Tensor:
    """Return the same tensor, behind the check, of the rank that it was found to have."""
    tensor = tf.identity(tensor)
    if rank is not None and tensor.shape.rank is None:
        tensor.set_shape([None] * rank)
    return tensor


def _plain(shape: tf.TensorShape) -> str:
    return str(tuple(shape.as_list()))
