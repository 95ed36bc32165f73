"""Score a detector on a dataset, and write down what came out."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rcnn_keras import visualize
from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.detections import Detections
from rcnn_keras.evaluation import CocoScores, check_segmentations, coco_results
from rcnn_keras.evaluation.report import write_report
from rcnn_keras.models import Detector

PICTURES = 8
MIN_SIDE = 400  # pixels that a picture should have for its tags to be read
NOTE = "In the pictures: ground truth on the left, detections of score 0.5 and more on the right."


@dataclass(frozen=True)
class Evaluation:
    """A detector's detections on a dataset, and their scores.

    Attributes:
        dataset: the images and their ground truth.
        detections: by image id.
        results: the detections as COCO result rows.
        scores: of the boxes.
        mask_scores: of the masks, None for a detector of boxes alone.
    """

    dataset: DetectionDataset
    detections: dict[int, Detections]
    results: list[dict[str, Any]]
    scores: CocoScores
    mask_scores: CocoScores | None = None

    def summary(self) -> dict[str, float]:
        """Return all scores by name; those of masks begin with `mask_`, as `mask_AP/<class>`."""
        return summary_of(self.scores, self.mask_scores)

    def write(
        self,
        out: str | Path,
        *,
        title: str,
        history: Mapping[str, Sequence[float]] | None = None,
        command: str = "",
    ) -> None:
        """Write `detections.json`, `scores.json` and `report.html` with its pictures into a folder.

        Detections are COCO result rows; a score over no ground truth is null.

        Args:
            out: the folder, made if missing.
            title: heading of the report.
            history: losses and scores of each epoch, for its curves.
            command: what made the results.
        """
        out = Path(out)
        out.mkdir(parents=True, exist_ok=True)
        (out / "detections.json").write_text(json.dumps(self.results), "utf-8")
        summary = self.summary().items()
        scores = {name: None if math.isnan(value) else value for name, value in summary}
        (out / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", "utf-8")
        masks = self.mask_scores
        write_report(
            out,
            title=title,
            scores=self.scores.summary(),
            history=history,
            precision_recall=self.scores.precision_recall(),
            mask_scores=masks.summary() if masks else None,
            mask_precision_recall=masks.precision_recall() if masks else None,
            pictures=self._draw_some(out / "pictures"),
            command=command,
            notes=[f"{self.dataset.name}: {len(self.dataset)} images.", NOTE],
        )

    def _draw_some(self, folder: Path) -> list[Path]:
        """Draw images from all over the dataset, ground truth and detections side by side."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for i in range(0, len(self.dataset), math.ceil(len(self.dataset) / PICTURES)):
            record = self.dataset[i]
            zoom = max(1, MIN_SIDE // max(record.height, record.width))
            truth = visualize.draw(record.path, record, classes=self.dataset.classes, zoom=zoom)
            found = visualize.draw(record.path, self.detections[record.image_id], zoom=zoom)
            paths.append(folder / f"{Path(record.path).stem}_{record.image_id}.png")
            visualize.grid([truth, found], columns=2).save(paths[-1])
        return paths


def summary_of(scores: CocoScores, mask_scores: CocoScores | None) -> dict[str, float]:
    """Return scores of boxes and, named `mask_..`, of masks as one dict."""
    of_masks = mask_scores.summary() if mask_scores else {}
    return scores.summary() | {f"mask_{name}": value for name, value in of_masks.items()}


def evaluate(model: Detector, dataset: DetectionDataset, *, batch_size: int = 1) -> Evaluation:
    """Detect in every image of a dataset of the model's classes, and score as COCO does.

    Raises:
        ValueError: before any work, if the model finds masks and an object of the dataset has none.
    """
    if model.has_masks:
        check_segmentations(dataset)
    found = model.detect(dataset, batch_size=batch_size)
    detections = {record.image_id: d for record, d in zip(dataset, found, strict=True)}
    results = coco_results(dataset, detections)
    most = model.detection_layer.max_detections
    scores = CocoScores(dataset, results, most)
    mask_scores = CocoScores(dataset, results, most, "segm") if model.has_masks else None
    return Evaluation(dataset, detections, results, scores, mask_scores)
