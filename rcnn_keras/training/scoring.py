"""Score a detector on a dataset, and write down what came out."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rcnn_keras import visualize
from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.detections import Detections
from rcnn_keras.evaluation import CocoScores, coco_results
from rcnn_keras.evaluation.report import write_report
from rcnn_keras.models import Detector

PICTURES = 8
MIN_SIDE = 400  # pixels that a picture should have for its tags to be read
NOTE = "In the pictures: ground truth on the left, detections of score 0.5 and more on the right."


@dataclass(frozen=True)
class Evaluation:
    """A detector's detections on a dataset, by image id, and their scores."""

    dataset: DetectionDataset
    detections: dict[int, Detections]
    scores: CocoScores

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
        rows = coco_results(self.dataset, self.detections)
        (out / "detections.json").write_text(json.dumps(rows), "utf-8")
        summary = self.scores.summary()
        scores = {name: None if math.isnan(value) else value for name, value in summary.items()}
        (out / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", "utf-8")
        write_report(
            out,
            title=title,
            scores=summary,
            history=history,
            precision_recall=self.scores.precision_recall(),
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


def evaluate(model: Detector, dataset: DetectionDataset, *, batch_size: int = 1) -> Evaluation:
    """Detect in every image of a dataset of the model's classes, and score as COCO does."""
    found = model.detect(dataset, batch_size=batch_size)
    detections = {record.image_id: d for record, d in zip(dataset, found, strict=True)}
    scores = CocoScores(dataset, detections, model.detection_layer.max_detections)
    return Evaluation(dataset, detections, scores)
