"""What a detector found in one image.

D is the number of detections in the image; nothing here is padded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Detections:
    """Detections of one image, in the pixels of the image that was given, best score first.

    Attributes:
        boxes: `(D, 4)` float32 `xyxy` in pixels.
        scores: `(D,)` float32 in 0..1.
        labels: `(D,)` int32 in 0..K-1.
        classes: the K class names of the model.
        image_size: height and width of the image in pixels.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]
    image_size: tuple[int, int]

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.scores)

    @property
    def class_names(self) -> list[str]:
        """The name of each detection's class."""
        return [self.classes[label] for label in self.labels]

    def above(self, score: float) -> "Detections":
        """Return the detections whose score is at least `score`."""
        keep = self.scores >= score
        return Detections(
            self.boxes[keep], self.scores[keep], self.labels[keep], self.classes, self.image_size
        )
