"""One image and its ground truth."""

from dataclasses import dataclass, replace

import numpy as np

from rcnn_keras.data.packed_images import PackedImage, PackedSegmentations
from rcnn_keras.data.polygons import Segmentations


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
        crowd: `(n,)` bool; true for regions of objects that are not told apart. Training leaves
            them out, so what lies in them counts as background; scoring ignores them.
        segmentations: per object COCO polygons (list of flat lists), an RLE dict or None; or None
            if no object has one. Those in a record file are read when they are asked for.
        areas: `(n,)` float64 in square pixels as the file states them (in COCO, the mask's area,
            by which it sorts objects into small, medium and large); None stands for the boxes'.
        proposals: `(r, 4)` float32 `xyxy` in pixels, regions in which R-CNN and Fast R-CNN look for
            objects, best first; None if nobody looked for any.
        pixels: `(H, W, 3)` uint8 RGB of an image that is in memory and in no file; `path` then is
            a name for messages.
        packed: where the image lies if it is in a record file; `path` then is a name for messages.
        difficult: `(n,)` bool; those of `crowd` that are single objects, which Pascal VOC marks as
            hard to tell and scores by their own IoU. None stands for none.

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
    segmentations: tuple | Segmentations | PackedSegmentations | None = None
    areas: np.ndarray | None = None
    proposals: np.ndarray | None = None
    pixels: np.ndarray | None = None
    difficult: np.ndarray | None = None
    packed: PackedImage | None = None

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
    def image(self) -> str | np.ndarray | PackedImage:
        """What `read_image` reads the image from."""
        if self.pixels is not None:
            return self.pixels
        return self.path if self.packed is None else self.packed

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
        )

    def _segmentations_at(
        self, index: np.ndarray
    ) -> tuple | Segmentations | PackedSegmentations | None:
        if isinstance(self.segmentations, Segmentations | PackedSegmentations):
            return self.segmentations.take(index)
        return self.segmentations and tuple(self.segmentations[i] for i in index)
