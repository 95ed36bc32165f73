"""Score a detector on a dataset, and write the results into a folder."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rcnn_keras import visualize
from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.detections import Detections
from rcnn_keras.data.value_range import FULL, ValueRange
from rcnn_keras.evaluation import (
    CocoScores,
    ConfusionMatrix,
    DetectionErrors,
    VocScores,
    coco_results,
)
from rcnn_keras.evaluation.report.gallery import draw_worst
from rcnn_keras.evaluation.report.page import (
    Curves,
    Section,
    confusion_section,
    error_section,
    voc_section,
    write_report,
)
from rcnn_keras.models import Detector
from rcnn_keras.models.scorable import warn_unscorable
from rcnn_keras.training.callbacks import BOXES, KEYPOINTS, MASKS, check_truth, summary_of

PICTURES = 8
PROTOCOLS = ("coco", "voc07", "voc")
MIN_SIDE = 400  # pixels of a picture, so that its tags are readable
VOC_NOTES = {
    "voc07": "Scores as Pascal VOC 2007 counts them: mean of 11 points of the curve, IoU 0.50.",
    "voc": "Scores as Pascal VOC 2010 to 2012 counts them: area under the curve, IoU 0.50.",
}
NOTE = "In the pictures: ground truth on the left, detections of score 0.5 and more on the right."


@dataclass(frozen=True)
class Evaluation:
    """A detector's detections on a dataset, and their scores by one protocol.

    Attributes:
        dataset: the images and their ground truth.
        detections: by image id.
        results: the detections as COCO result rows.
        scores: of the boxes.
        mask_scores: of the masks, None for a detector without masks.
        keypoint_scores: of the keypoints by COCO's protocol, None for a detector without.
        value_range: of the detector.
    """

    dataset: DetectionDataset
    detections: dict[int, Detections]
    results: list[dict[str, Any]]
    scores: CocoScores | VocScores
    mask_scores: CocoScores | VocScores | None = None
    keypoint_scores: CocoScores | None = None
    value_range: ValueRange = FULL

    def summary(self) -> dict[str, float]:
        """Return all scores by name, those of masks as `mask_AP`, of keypoints `keypoint_AP`."""
        parts = {BOXES: self.scores, MASKS: self.mask_scores, KEYPOINTS: self.keypoint_scores}
        return summary_of({name: part for name, part in parts.items() if part is not None})

    def write(
        self,
        out: str | Path,
        *,
        title: str,
        history: Mapping[str, Sequence[float]] | None = None,
        command: str = "",
        sections: Sequence[Section] = (),
    ) -> None:
        """Write detections, scores, errors and `report.html` with its pictures into a folder.

        `detections.json` has COCO result rows, `scores.json` the scores, null for one without
        ground truth, `errors.json` the table of errors and the confusion matrix, at an IoU and a
        score of 0.5; of masks if the detector predicts them.

        Args:
            out: the folder, created if missing.
            title: heading of the report.
            history: losses and scores of each epoch, for its curves.
            command: the command that made the results.
            sections: further sections of the report, before those of the errors.
        """
        out = Path(out)
        out.mkdir(parents=True, exist_ok=True)
        (out / "detections.json").write_text(json.dumps(self.results), "utf-8")
        summary = self.summary().items()
        scores = {name: None if math.isnan(value) else value for name, value in summary}
        (out / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", "utf-8")
        sections = [*sections, *self._sections(out)]
        masks, keypoints = self.mask_scores, self.keypoint_scores
        write_report(
            out,
            title=title,
            scores=self.scores.summary(),
            history=history,
            precision_recall=_coco_curves(self.scores),
            mask_scores=masks.summary() if masks else None,
            mask_precision_recall=_coco_curves(masks),
            keypoint_scores=keypoints.summary() if keypoints else None,
            keypoint_precision_recall=_coco_curves(keypoints),
            sections=sections,
            pictures=self._draw_samples(out / "pictures"),
            command=command,
            notes=[f"{self.dataset.name}: {len(self.dataset)} images.", *self._protocol(), NOTE],
        )

    def _protocol(self) -> list[str]:
        """Return the report's note on the protocol of the scores."""
        return [VOC_NOTES[self.scores.protocol]] if isinstance(self.scores, VocScores) else []

    def _sections(self, out: Path) -> list[Section]:
        """Classify the errors, write `errors.json`, and return the sections of the report."""
        kind: Literal["box", "mask"] = "box" if self.mask_scores is None else "mask"
        errors = DetectionErrors(self.dataset, self.results, kind=kind)
        confusion = ConfusionMatrix(self.dataset, self.results, kind=kind)
        tables = {"kind": kind, "errors": errors.table(), "confusion": confusion.table()}
        (out / "errors.json").write_text(json.dumps(tables, indent=2) + "\n", "utf-8")
        how = self.value_range
        worst = draw_worst(out / "pictures", errors, self.dataset, self.detections, value_range=how)
        sections = [error_section(errors, worst), confusion_section(confusion)]
        if isinstance(self.scores, VocScores):
            masks = self.mask_scores if isinstance(self.mask_scores, VocScores) else None
            sections.insert(0, voc_section(self.scores, masks))
        return sections

    def _draw_samples(self, folder: Path) -> list[Path]:
        """Draw images spread over the dataset, ground truth and detections side by side."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for i in range(0, len(self.dataset), math.ceil(len(self.dataset) / PICTURES)):
            record = self.dataset[i]
            zoom = max(1, MIN_SIDE // max(record.height, record.width))
            image = visualize.read_image(record.image, self.value_range)
            classes, skeleton = self.dataset.classes, self.dataset.skeleton
            truth = visualize.draw(image, record, classes=classes, skeleton=skeleton, zoom=zoom)
            detected = visualize.draw(image, self.detections[record.image_id], zoom=zoom)
            paths.append(folder / f"{Path(record.path).stem}_{record.image_id}.png")
            visualize.grid([truth, detected], columns=2).save(paths[-1])
        return paths


def evaluate(
    model: Detector,
    dataset: DetectionDataset,
    *,
    batch_size: int = 1,
    protocol: Literal["coco", "voc07", "voc"] = "coco",
) -> Evaluation:
    """Detect in every image of a dataset of the model's classes, and score the detections.

    Args:
        model: the detector.
        dataset: images with ground truth.
        batch_size: images per forward pass.
        protocol: of COCO, of Pascal VOC 2007, or of VOC 2010 and later.

    Raises:
        ValueError: before any work, for another protocol, or if the model predicts masks and
            an object of the dataset has none, or keypoints and the dataset has none or others.

    Warns:
        UserWarning: as `warn_unscorable`.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"evaluate: protocol must be one of {PROTOCOLS}, not {protocol!r}")
    check_truth(model, dataset)
    warn_unscorable(model, dataset)
    images = model.detect(dataset, batch_size=batch_size)
    detections = {record.image_id: d for record, d in zip(dataset, images, strict=True)}
    results = coco_results(dataset, detections)
    scores: CocoScores | VocScores
    mask_scores: CocoScores | VocScores | None = None
    keypoint_scores = None
    if protocol == "coco":
        max_detections = model.detection_layer.max_detections
        scores = CocoScores(dataset, results, max_detections)
        if model.has_masks:
            mask_scores = CocoScores(dataset, results, max_detections, "segm")
        if model.skeleton is not None:
            keypoint_scores = CocoScores(dataset, results, kind="keypoints")
    else:
        scores = VocScores(dataset, results, protocol=protocol)
        if model.has_masks:
            mask_scores = VocScores(dataset, results, protocol=protocol, kind="mask")
    parts = scores, mask_scores, keypoint_scores
    return Evaluation(dataset, detections, results, *parts, model.value_range)


def _coco_curves(scores: CocoScores | VocScores | None) -> Curves | None:
    """Return precision at COCO's recalls; VOC's curves have their own section."""
    return scores.precision_recall() if isinstance(scores, CocoScores) else None
