"""What a detector found in one image.

D is the number of detections in the image, M the side of a mask inside its box, P the number of
keypoints; nothing here is padded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rcnn_keras.data.keypoints import Skeleton, numbered_skeleton
from rcnn_keras.data.masks import encode_masks, paste_masks


@dataclass(frozen=True)
class Detections:
    """Detections of one image, in the pixels of the image that was given, best score first.

    Attributes:
        boxes: `(D, 4)` float32 `xyxy` in pixels.
        scores: `(D,)` float32 in 0..1.
        labels: `(D,)` int32 in 0..K-1.
        classes: the K class names of the model.
        image_size: height and width H and W of the image in pixels.
        masks: `(D, M, M)` float32 in 0..1, each object's mask in the frame of its box; None from
            detectors of boxes alone.
        mask_pasting: the rule by which masks become pixels of the image, see `data.paste_masks`.
        keypoints: `(D, P, 3)` float32 x and y in pixels and the score of each keypoint; None from
            detectors without.
        skeleton: names and edges of the keypoints, by default numbers alone.

    Raises:
        ValueError: if there are not as many masks or keypoints as boxes.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]
    image_size: tuple[int, int]
    masks: np.ndarray | None = None
    keypoints: np.ndarray | None = None
    skeleton: Skeleton | None = None
    mask_pasting: str = "torchvision"

    def __post_init__(self) -> None:
        for name in ("masks", "keypoints"):
            rows = getattr(self, name)
            if rows is not None and len(rows) != len(self.boxes):
                raise ValueError(f"{len(rows)} {name} for {len(self.boxes)} boxes")
        if self.keypoints is not None and self.skeleton is None:
            object.__setattr__(self, "skeleton", numbered_skeleton(self.keypoints.shape[1]))

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.scores)

    @property
    def class_names(self) -> list[str]:
        """The name of each detection's class."""
        return [self.classes[label] for label in self.labels]

    def above(self, score: float) -> "Detections":
        """Return the detections whose score is at least `score`."""
        return self.take(self.scores >= score)

    def take(self, index: np.ndarray) -> "Detections":
        """Return the detections at `index`: places in the order wanted, or `(D,)` bool."""
        return replace(
            self,
            boxes=self.boxes[index],
            scores=self.scores[index],
            labels=self.labels[index],
            masks=None if self.masks is None else self.masks[index],
            keypoints=None if self.keypoints is None else self.keypoints[index],
        )

    def summary(self) -> str:
        """Return how many there are of each class, as "2 circle, 1 star"."""
        names = self.class_names
        counts = [f"{names.count(name)} {name}" for name in self.classes if name in names]
        return ", ".join(counts) or "nothing found"

    def coco_rows(self, image_id: int, file: str) -> list[dict[str, Any]]:
        """Return COCO's result rows, with the names of file and class added.

        Boxes are x, y, width, height in pixels, category i is the model's i-th class, masks, set
        above 0.5, are run lengths in "segmentation", and "keypoints" x, y and score of each.
        """
        rows = [
            {
                "image_id": image_id,
                "category_id": int(label) + 1,
                "bbox": [float(v) for v in (x1, y1, x2 - x1, y2 - y1)],
                "score": float(score),
                "file": file,
                "class": self.classes[label],
            }
            for (x1, y1, x2, y2), score, label in zip(
                self.boxes, self.scores, self.labels, strict=True
            )
        ]
        if self.masks is not None:
            for row, mask in zip(rows, self.rle_masks(), strict=True):
                row["segmentation"] = mask
        if self.keypoints is not None:
            for row, keypoints in zip(rows, self.keypoints, strict=True):
                row["keypoints"] = [float(value) for value in keypoints.ravel()]
        return rows

    def bool_masks(self, threshold: float = 0.5) -> np.ndarray:
        """Return `(D, H, W)` bool masks in the image's pixels, true above `threshold`.

        Raises:
            ValueError: if the detector has no masks.
        """
        return paste_masks(self._masks(), self.boxes, self.image_size, threshold, self.mask_pasting)

    def soft_masks(self) -> np.ndarray:
        """Return `(D, H, W)` float32 masks in the image's pixels, in 0..1.

        Raises:
            ValueError: if the detector has no masks.
        """
        return paste_masks(self._masks(), self.boxes, self.image_size, rule=self.mask_pasting)

    def rle_masks(self, threshold: float = 0.5) -> list[dict[str, Any]]:
        """Return `bool_masks` as D COCO run-length dicts, `counts` as text; needs little memory.

        Raises:
            ValueError: if the detector has no masks.
        """
        return encode_masks(
            self._masks(), self.boxes, self.image_size, threshold, self.mask_pasting
        )

    def _masks(self) -> np.ndarray:
        if self.masks is None:
            raise ValueError("these detections have no masks: their detector gives boxes alone")
        return self.masks
