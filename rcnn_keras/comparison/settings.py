"""What a comparison is to do; all of it is checked before anything is trained."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """The arguments of `compare`.

    Attributes:
        val: COCO file that all are scored on.
        data: COCO file to train on; None where every detector is given.
        images: folder of the training images; default the file's folder, or `images/` there.
        val_images: the same for `val`.
        proposals: file of `rcnn proposals` for `data`; by default selective search is run.
        val_proposals: the same for `val`.
        models: trained detectors by their place in the comparison, loaded instead of trained.
        skip: places that stay empty.
        epochs: of each trained detector but R-CNN; in four steps, half as many of each.
        steps: of R-CNN's fine-tuning.
        min_size: pixels of an image's shorter side, for all but R-CNN, which takes it as it is.
        most_proposals: that R-CNN and Fast R-CNN look at, an image.
        timed_images: on how many the parts are timed.
        repeats: how often each part is timed on an image.
        vgg16_images: on how many the papers' network is timed; 0 leaves it out.
        threads: of TensorFlow and OpenCV.
        seed: of weights, order and sampling.
    """

    val: Path
    data: Path | None = None
    images: Path | None = None
    val_images: Path | None = None
    proposals: Path | None = None
    val_proposals: Path | None = None
    models: dict[str, Path] = field(default_factory=dict)
    skip: tuple[str, ...] = ()
    epochs: int = 8
    steps: int = 1000
    min_size: int = 240
    most_proposals: int = 2000
    timed_images: int = 5
    repeats: int = 5
    vgg16_images: int = 1
    threads: int = 2
    seed: int = 0

    def training(self) -> dict[str, str]:
        """Return the values that a trained detector depends on, as text to compare by."""
        names = ("data", "images", "proposals", "epochs", "steps", "min_size", "most_proposals")
        values = {name: getattr(self, name) for name in (*names, "seed")}
        return {k: str(v.resolve() if isinstance(v, Path) else v) for k, v in values.items()}
