"""The data of a comparison: images, ground truth and proposals.

OUT/proposals/train.npz, val.npz   the proposals of selective search, where none are given
OUT/proposals/stopwatch.json       how long the search took
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rcnn_keras.comparison.settings import Settings
from rcnn_keras.comparison.stopwatch import stopwatch
from rcnn_keras.data.coco import load_coco
from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.evaluation import box_iou, check_segmentations
from rcnn_keras.proposals import METHODS, check_proposals, load_proposals, propose
from rcnn_keras.proposals.proposal_file import read_into
from rcnn_keras.proposals.propose import method_named

FOUND_IOU = 0.5  # an object is found by a proposal that overlaps it by more
FOLDER, STOPWATCH = "proposals", "stopwatch.json"


class Sources:
    """Training and validation images, checked when they are read.

    Args:
        settings: of the comparison.
        out: its folder.
        classes: of the models that are given, in their order; None if there are none.

    Attributes:
        classes: of all detectors.
        has_masks: whether every object of both parts has a segmentation.

    Raises:
        DatasetError: if a file cannot be used.
        ValueError: if the parts have different classes, or proposals are of other images.
    """

    def __init__(self, settings: Settings, out: Path, classes: tuple[str, ...] | None = None):
        self.settings, self.folder = settings, out / FOLDER
        self._sets: dict[str, DetectionDataset] = {}
        for part, file, images in (
            ("train", settings.data, settings.images),
            ("val", settings.val, settings.val_images),
        ):
            if file is not None:
                self._sets[part] = load_coco(file, images, classes=classes)
                classes = self._sets[part].classes
        self.classes = self._sets["val"].classes
        self.has_masks = all(map(_has_masks, self._sets.values()))
        for part, dataset in self._sets.items():
            if (given := self._given(part)) is not None:
                check_proposals(load_proposals(given), dataset)

    @property
    def train(self) -> dict[str, Any]:
        """Files of the training data, as a configuration names them."""
        return self._files("train", self.settings.data, self.settings.images)

    @property
    def val(self) -> dict[str, Any]:
        """Files of the validation data, as a configuration names them."""
        return self._files("val", self.settings.val, self.settings.val_images)

    def train_set(self, proposals: bool = False) -> DetectionDataset:
        """Return the training images, with their proposals if they are wanted."""
        return self._set("train", proposals)

    def val_set(self, proposals: bool = False) -> DetectionDataset:
        """Return the validation images, with their proposals if they are wanted."""
        return self._set("val", proposals)

    def propose(self) -> None:
        """Search the images of which no proposals are given; what was searched stays."""
        missing = [part for part in self._sets if not self.proposals(part).exists()]
        if missing:
            with stopwatch(self.folder / STOPWATCH):
                for part in missing:
                    print(f"selective search of {len(self._sets[part])} images", flush=True)
                    workers = self.settings.threads
                    propose(self._sets[part], self.proposals(part), workers=workers)

    def proposals(self, part: str) -> Path:
        """Return the file of the proposals of `"train"` or `"val"`."""
        return self._given(part) or self.folder / f"{part}.npz"

    def search(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """Return what made the validation images' proposals, None if that cannot be run again."""
        header = load_proposals(self.proposals("val")).header
        if header["method"] not in METHODS:
            return None
        return partial(method_named(header["method"]), **header["arguments"])

    def recall(self) -> dict[str, float]:
        """Return the `recall` of the validation objects by proposals, and `boxes` an image."""
        dataset = self.val_set(proposals=True)
        best, counts = [], []
        for record in dataset:
            assert record.proposals is not None
            counts.append(len(record.proposals))
            objects = record.boxes[~record.crowd]
            if len(objects) and len(record.proposals):
                best.append(box_iou(record.proposals, objects).max(axis=0))
            else:
                best.append(np.zeros(len(objects)))
        found = np.concatenate(best) > FOUND_IOU
        return {"recall": float(found.mean()), "boxes": float(np.mean(counts))}

    def _given(self, part: str) -> Path | None:
        return self.settings.proposals if part == "train" else self.settings.val_proposals

    def _files(self, part: str, annotations: Path | None, images: Path | None) -> dict[str, Any]:
        return {
            "annotations": str(annotations),
            "images": None if images is None else str(images),
            "proposals": str(self.proposals(part)),
        }

    def _set(self, part: str, proposals: bool) -> DetectionDataset:
        dataset = self._sets[part]
        if not proposals:
            return dataset
        return read_into(dataset, self.proposals(part), self.settings.most_proposals)


def _has_masks(dataset: DetectionDataset) -> bool:
    try:
        check_segmentations(dataset)
    except ValueError:
        return False
    return True
