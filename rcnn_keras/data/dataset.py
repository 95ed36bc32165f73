"""A detection dataset: records of images with their ground truth, and class names."""

import difflib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from rcnn_keras.data.keypoints import Skeleton, check_keypoints, num_labelled, numbered_skeleton
from rcnn_keras.data.masks import Segmentations
from rcnn_keras.data.problems import Problem
from rcnn_keras.data.tfrecord_images import TFRecordImage, TFRecordSegmentations
from rcnn_keras.utils.hashing import sha256

if TYPE_CHECKING:
    from rcnn_keras.data.pipeline import Batches


@dataclass(frozen=True, eq=False)
class Record:
    """One image and the objects in it; n is the number of objects.

    Attributes:
        image_id: unique in the dataset; COCO's own id, or the image's place in the list from 1 on.
        path: the image file, as it was given.
        height: of the upright image (EXIF orientation applied) in pixels, as `read_image` gives it.
        width: likewise.
        boxes: `(n, 4)` float32 `xyxy` in pixels, inside the image.
        labels: `(n,)` int32 in 0..K-1.
        crowd: `(n,)` bool; true for regions of objects that are not separated. Training leaves
            them out, so what lies in them counts as background; scoring ignores them.
        segmentations: per object COCO polygons (list of flat lists), an RLE dict or None; or None
            if no object has one. Those in a TFRecord file are read when they are asked for.
        areas: `(n,)` float64 in square pixels as the file states them (in COCO, the mask's area,
            by which it sorts objects into small, medium and large); None stands for the boxes'.
        proposals: `(r, 4)` float32 `xyxy` in pixels, regions in which R-CNN and Fast R-CNN look for
            objects, best first; None if nobody looked for any.
        pixels: `(H, W, 3)` uint8 RGB of an image that is in memory and in no file; `path` then is
            a name for messages.
        tfrecord: where the image lies if it is in a TFRecord file; `path` then is a name for
            messages.
        difficult: `(n,)` bool; those of `crowd` that are single objects, which Pascal VOC marks as
            difficult and scores by their own IoU. None stands for none.
        keypoints: `(n, P, 3)` float32, x and y in pixels and COCO's visibility of each keypoint of
            each object: 0 not labelled (x and y become 0), 1 labelled and hidden, 2 in sight. None
            if no object has any.

    Raises:
        ValueError: if the arrays do not fit each other.
    """

    image_id: int
    path: str
    height: int
    width: int
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    segmentations: tuple | Segmentations | TFRecordSegmentations | None = None
    areas: np.ndarray | None = None
    proposals: np.ndarray | None = None
    pixels: np.ndarray | None = None
    difficult: np.ndarray | None = None
    tfrecord: TFRecordImage | None = None
    keypoints: np.ndarray | None = None

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, np.float32)
        boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
        arrays = {
            "boxes": boxes,
            "labels": np.asarray(self.labels, np.int32),
            "crowd": np.asarray(self.crowd, bool),
        }
        if self.areas is not None:
            arrays["areas"] = np.asarray(self.areas, np.float64)
        if self.difficult is not None:
            arrays["difficult"] = np.asarray(self.difficult, bool)
        for name, array in arrays.items():
            shape = (len(boxes), 4) if name == "boxes" else (len(boxes),)
            if array.shape != shape:
                raise ValueError(f"{self.path}: {name} has shape {array.shape}, not {shape}")
            object.__setattr__(self, name, array)
        if self.proposals is not None:
            proposals = np.asarray(self.proposals, np.float32)
            if proposals.ndim != 2 or proposals.shape[1] != 4:
                raise ValueError(f"{self.path}: proposals have shape {proposals.shape}, not (r, 4)")
            object.__setattr__(self, "proposals", proposals)
        if self.keypoints is not None:
            try:
                keypoints = check_keypoints(self.keypoints, len(boxes))
            except ValueError as error:
                raise ValueError(f"{self.path}: {error}") from None
            object.__setattr__(self, "keypoints", keypoints)
        if self.difficult is not None and np.any(self.difficult & ~self.crowd):
            raise ValueError(f"{self.path}: a difficult object must be among those of crowd")
        if self.segmentations is not None and len(self.segmentations) != len(boxes):
            raise ValueError(
                f"{self.path}: {len(self.segmentations)} segmentations for {len(boxes)} boxes"
            )

    def __len__(self) -> int:
        """Number of objects."""
        return len(self.labels)

    @property
    def image(self) -> str | np.ndarray | TFRecordImage:
        """What `read_image` reads the image from."""
        if self.pixels is not None:
            return self.pixels
        return self.path if self.tfrecord is None else self.tfrecord

    def select(self, keep: np.ndarray, labels: np.ndarray | None = None) -> "Record":
        """Return the record with the objects that `keep` (bool or indices) names, relabelled."""
        index = np.arange(len(self))[keep]
        return replace(
            self,
            boxes=self.boxes[index],
            labels=(self.labels if labels is None else labels)[index],
            crowd=self.crowd[index],
            segmentations=self._segmentations_at(index),
            areas=None if self.areas is None else self.areas[index],
            difficult=None if self.difficult is None else self.difficult[index],
            keypoints=None if self.keypoints is None else self.keypoints[index],
        )

    def _segmentations_at(
        self, index: np.ndarray
    ) -> tuple | Segmentations | TFRecordSegmentations | None:
        if isinstance(self.segmentations, Segmentations | TFRecordSegmentations):
            return self.segmentations.take(index)
        return self.segmentations and tuple(self.segmentations[i] for i in index)


class DetectionDataset(Sequence[Record]):
    """Images with their ground truth; K is the number of classes.

    Args:
        records: one for each image; images without objects are kept, they train as background.
        classes: K different names; label i is `classes[i]`.
        category_ids: K ids that stand for the classes in COCO files; 1..K by default.
        problems: what was repaired while the dataset was read, and what is suspicious about it.
        name: a short name for reports.
        skeleton: names of the keypoints that the records have; by default "keypoint_0" and so on.

    Raises:
        ValueError: for repeated image ids, class names or category ids, labels not in 0..K-1, and
            records of another number of keypoints.
    """

    def __init__(
        self,
        records: Iterable[Record],
        classes: Iterable[str],
        *,
        category_ids: Iterable[int] | None = None,
        problems: Iterable[Problem] = (),
        name: str = "",
        skeleton: Skeleton | None = None,
    ):
        self._records = tuple(records)
        self.classes = check_names(classes)
        if category_ids is None:
            category_ids = range(1, len(self.classes) + 1)
        self.category_ids = tuple(category_ids)
        self.problems = tuple(problems)
        self.name = name
        self.skeleton = self._skeleton(skeleton)
        if len(set(self.category_ids)) != len(self.classes):
            raise ValueError(f"category_ids must be {len(self.classes)} different ids, one a class")
        seen: dict[int, str] = {}
        for record in self._records:
            if record.image_id in seen:
                first = seen[record.image_id]
                raise ValueError(f"image id {record.image_id} is both {first} and {record.path}")
            seen[record.image_id] = record.path
            if len(record) and not 0 <= record.labels.min() <= record.labels.max() < len(
                self.classes
            ):
                raise ValueError(f"{record.path}: labels must be in 0..{len(self.classes) - 1}")
        self.max_objects = max((len(record) for record in self._records), default=1) or 1

    def _skeleton(self, skeleton: Skeleton | None) -> Skeleton | None:
        """Return the keypoints' names; raise ValueError for records that have not as many."""
        for record in self._records:
            if record.keypoints is None:
                continue
            count = record.keypoints.shape[1]
            skeleton = skeleton or numbered_skeleton(count)
            if count != len(skeleton):
                raise ValueError(
                    f"{record.path}: objects have {count} keypoints, and {len(skeleton)} are "
                    f"expected: {list(skeleton.names)}"
                )
        return skeleton

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> "DetectionDataset": ...
    def __getitem__(self, index: int | slice) -> "Record | DetectionDataset":
        if isinstance(index, slice):
            return self._with_records(self._records[index])
        return self._records[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def __add__(self, other: "DetectionDataset") -> "DetectionDataset":
        """Return both datasets as one; if image ids collide, the second one's are renumbered.

        Warns:
            UserWarning: if both have an image with different objects, as files of one class each
                do: what one entry of the image lacks trains as background.
        """
        if not isinstance(other, DetectionDataset):
            return NotImplemented
        if self.classes != other.classes:
            raise ValueError(
                f"only datasets of the same classes can be added: {list(self.classes)} and "
                f"{list(other.classes)}; with_classes(names) brings them in line"
            )
        if self.skeleton and other.skeleton and self.skeleton != other.skeleton:
            raise ValueError(
                f"only datasets of the same keypoints can be added: {self.skeleton} and "
                f"{other.skeleton}"
            )
        _warn_of_partial_truth(self, other)
        added = other._records
        ids = {record.image_id for record in self}
        if any(record.image_id in ids for record in added):
            start = max(ids | {record.image_id for record in added}) + 1
            added = tuple(replace(record, image_id=start + i) for i, record in enumerate(added))
        return DetectionDataset(
            self._records + added,
            self.classes,
            category_ids=self.category_ids,
            problems=self.problems + other.problems,
            name=" + ".join(filter(None, [self.name, other.name])),
            skeleton=self.skeleton or other.skeleton,
        )

    def __repr__(self) -> str:
        objects = sum(len(record) for record in self)
        name = f"{self.name!r}, " if self.name else ""
        return (
            f"DetectionDataset({name}{len(self)} images, {objects} objects, "
            f"{len(self.classes)} classes)"
        )

    def split(self, share: float) -> tuple["DetectionDataset", "DetectionDataset"]:
        """Return two datasets, the first with a share of the images and the second with the rest.

        Which image is in which depends on its file name alone, so the parts are the same at every
        call and on every machine, whatever folder the images are in. Each keeps the order.

        Args:
            share: of the images that the first part has, above 0 and below 1; each part gets at
                least one.

        Raises:
            ValueError: for another share, and for fewer than two images.
        """
        if not 0 < share < 1:
            raise ValueError(f"share must be above 0 and below 1; received {share!r}")
        if len(self) < 2:
            raise ValueError(f"{self.name}: {len(self)} image cannot be split in two")
        names = [(sha256([Path(r.path).name.encode()]), r.image_id) for r in self]
        count = min(max(round(share * len(self)), 1), len(self) - 1)
        first = {image_id for _, image_id in sorted(names)[:count]}
        return (
            self._with_records(record for record in self if record.image_id in first),
            self._with_records(record for record in self if record.image_id not in first),
        )

    def with_classes(self, classes: Iterable[str]) -> "DetectionDataset":
        """Return the dataset with these classes, in this order; objects of others are left out.

        Raises:
            ValueError: for a name that is not a class of the dataset; names the nearest one.
        """
        classes = check_names(classes)
        check_known(classes, self.classes)
        old = [self.classes.index(name) for name in classes]
        new_label = np.full(len(self.classes), -1, np.int32)
        new_label[old] = np.arange(len(classes))
        records = []
        for record in self:
            labels = new_label[record.labels]
            records.append(record.select(labels >= 0, labels))
        return DetectionDataset(
            records,
            classes,
            category_ids=[self.category_ids[i] for i in old],
            problems=self.problems,
            name=self.name,
            skeleton=self.skeleton,
        )

    def with_proposals(
        self, proposals: Mapping[int, np.ndarray], most: int | None = None
    ) -> "DetectionDataset":
        """Return the dataset with regions for R-CNN and Fast R-CNN to look at.

        Args:
            proposals: for each image id `(r, 4)` boxes `xyxy` in pixels of the upright image, best
                first, as `rcnn_keras.proposals.load_proposals` reads them.
            most: how many to keep of each image; default all.

        Raises:
            TypeError: if `proposals` is no mapping, such as the path of a file.
            ValueError: for an image without an entry, boxes that are not finite, or that reach more
                than a pixel over the border; names the image.
        """
        if not isinstance(proposals, Mapping):
            raise TypeError(
                f"proposals must map image ids to boxes, as load_proposals reads them from a file; "
                f"received a {type(proposals).__name__}"
            )
        records = []
        for record in self:
            if record.image_id not in proposals:
                raise ValueError(f"no proposals for image id {record.image_id}, {record.path}")
            boxes = np.asarray(proposals[record.image_id], np.float32)[:most]
            changed = replace(record, proposals=boxes)
            whole = np.array([record.width, record.height] * 2, np.float32)
            if not np.all((boxes >= -1) & (boxes <= whole + 1)):
                raise ValueError(
                    f"{record.path}: proposals outside the image of "
                    f"{record.width} x {record.height} pixels"
                )
            records.append(changed)
        return self._with_records(records)

    def to_coco(self) -> dict[str, list]:
        """Return the dataset as a COCO dict: `images`, `annotations` and `categories`.

        Boxes are `[x, y, width, height]` in pixels of the upright image; `area` is the one that
        was read, or the box's. Annotations are numbered from 1.
        """
        return self._to_coco(lambda path: path)

    def save_coco(self, path: str | PathLike) -> None:
        """Write the dataset as a COCO JSON file that `load_coco` reads back.

        An image below the folder of `path` is named relative to it, any other by its full path.
        """
        folder = Path(path).resolve().parent

        def file_name(image: str) -> str:
            full = Path(image).resolve()
            inside = full.is_relative_to(folder)
            return (full.relative_to(folder) if inside else full).as_posix()

        Path(path).write_text(json.dumps(self._to_coco(file_name)), encoding="utf-8")

    def batches(
        self,
        batch_size: int,
        shuffle: bool | Literal["shards"] = False,
        augment: Callable | None = None,
        *,
        min_size: int | Sequence[int] | None = None,
        max_size: int | None = None,
        max_objects: int | None = None,
        seed: int = 0,
        masks: bool = False,
        keypoints: bool = False,
        proposals: bool = False,
    ) -> "Batches":
        """Return the dataset as batches of `(inputs, targets)`; see `Batches`."""
        from rcnn_keras.data.pipeline import Batches  # batches is built on this module

        return Batches(
            self,
            batch_size,
            shuffle=shuffle,
            augment=augment,
            min_size=min_size,
            max_size=max_size,
            max_objects=max_objects,
            seed=seed,
            masks=masks,
            keypoints=keypoints,
            proposals=proposals,
        )

    def _with_records(self, records: Iterable[Record]) -> "DetectionDataset":
        return DetectionDataset(
            records,
            self.classes,
            category_ids=self.category_ids,
            problems=self.problems,
            name=self.name,
            skeleton=self.skeleton,
        )

    def _to_coco(self, file_name: Callable[[str], str]) -> dict[str, list]:
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for record in self:
            images.append(
                {
                    "id": record.image_id,
                    "file_name": file_name(record.path),
                    "height": record.height,
                    "width": record.width,
                }
            )
            for i in range(len(record)):
                # in float64, x1 + (x2 - x1) comes back as the float32 x2
                x1, y1, x2, y2 = record.boxes[i].tolist()
                area = (x2 - x1) * (y2 - y1) if record.areas is None else float(record.areas[i])
                annotation = {
                    "id": len(annotations) + 1,
                    "image_id": record.image_id,
                    "category_id": self.category_ids[record.labels[i]],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": area,
                    "iscrowd": int(record.crowd[i]),
                }
                if record.segmentations is not None and record.segmentations[i] is not None:
                    annotation["segmentation"] = plain(record.segmentations[i])
                if record.difficult is not None and record.difficult[i]:
                    annotation["difficult"] = 1
                if record.keypoints is not None:
                    keypoints = record.keypoints[i]
                    annotation["keypoints"] = coco_keypoints(keypoints)
                    annotation["num_keypoints"] = int(num_labelled(keypoints))
                annotations.append(annotation)
        keypoints = {} if self.skeleton is None else self.skeleton.to_coco()
        categories = [
            {"id": id, "name": name, **keypoints}
            for id, name in zip(self.category_ids, self.classes, strict=True)
        ]
        return {"images": images, "annotations": annotations, "categories": categories}


def coco_keypoints(keypoints: np.ndarray) -> list[float]:
    """Return an object's keypoints `(P, 3)` as COCO lists them, whole numbers without a point."""
    return [int(v) if v.is_integer() else v for v in keypoints.astype(np.float64).ravel().tolist()]


def plain(segmentation: Any) -> Any:
    """Return a segmentation that JSON can hold: pycocotools gives RLE counts as bytes."""
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], bytes):
        return {**segmentation, "counts": segmentation["counts"].decode("ascii")}
    return segmentation


def _warn_of_partial_truth(one: DetectionDataset, other: DetectionDataset) -> None:
    """Warn of images that two datasets have with different objects; see `__add__`."""
    known = {os.path.abspath(r.path): r for r in one if r.pixels is None}
    differ = []
    for record in other:
        first = None if record.pixels is not None else known.get(os.path.abspath(record.path))
        if first is not None and not (
            np.array_equal(first.boxes, record.boxes)
            and np.array_equal(first.labels, record.labels)
        ):
            differ.append(record.path)
    if differ:
        warnings.warn(
            f"{len(differ)} images are in both datasets with different objects, as {differ[0]}: "
            f"what an entry lacks trains as background; merge the annotation files by image first",
            stacklevel=3,
        )


def check_names(classes: Iterable[str]) -> tuple[str, ...]:
    """Return class names as a tuple; ValueError for a bare string or a repeated name."""
    if isinstance(classes, str):
        raise ValueError(f"classes must be a list of names, not the string {classes!r}")
    names = tuple(classes)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"class names are repeated: {repeated}")
    return names


def check_known(wanted: Iterable[str], known: Iterable[str]) -> None:
    """Raise ValueError for wanted class names that are not known, with the nearest known ones."""
    known = list(known)
    unknown = []
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            unknown.append(f"{name!r} (nearest: {near[0]!r})" if near else repr(name))
    if unknown:
        raise ValueError(f"unknown classes {', '.join(unknown)}; the data has {known}")
