"""What is compared: nine detectors, several weights, sizes and batches. Needs numpy only."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Gains of the class outputs that give scores above the threshold, for each detector.
CLASS_GAINS = {
    "fasterrcnn_resnet50_fpn": 1.2,
    "fasterrcnn_resnet50_fpn_v2": 6.0,
    "fasterrcnn_mobilenet_v3_large_fpn": 12.0,
    "fasterrcnn_mobilenet_v3_large_320_fpn": 12.0,
    "keypointrcnn_resnet50_fpn": 1.2,
    "maskrcnn_resnet50_fpn": 1.2,
    "maskrcnn_resnet50_fpn_v2": 6.0,
    "fasterrcnn_efficientnet_lite0_fpn": 0.5,
    "maskrcnn_efficientnet_lite0_fpn": 0.5,
}
# The last two are torchvision's classes on `lite_backbone.LiteBackbone`, with maps of 128 channels.
LITE_CHANNELS, LITE_UNITS = 128, 1024  # the latter of the box head, torchvision's default
# Of torchvision's constructors, samplers that take every anchor and RoI there is.
ALL_SAMPLES = 10**6
SAMPLES = 400  # values kept of an array that the tests compare with
PROPOSALS = 200  # an image while training, to keep that affordable


@dataclass(frozen=True)
class Case:
    """One batch through one detector.

    `sizes` are heights and widths of its images; `min_size` and `max_size` are the model's, None
    for torchvision's own, as `detections`, the most in an image. `objects` are ground-truth objects
    an image; with them the case is about losses and gradients. `class_gain` goes to `seeded_state`.
    """

    model: str
    seed: int
    class_gain: float
    sizes: tuple[tuple[int, int], ...]
    min_size: int | None = None
    max_size: int | None = None
    objects: tuple[int, ...] | None = None
    detections: int | None = None

    @property
    def lite(self) -> bool:
        """Whether the backbone is EfficientNet-Lite0."""
        return "efficientnet_lite0" in self.model

    @property
    def name(self) -> str:
        """The case in words."""
        images = " ".join(f"{height}x{width}" for height, width in self.sizes)
        objects = "" if self.objects is None else f", {'+'.join(map(str, self.objects))} objects"
        return f"{self.model}, seed {self.seed}, {images}{objects}"

    @property
    def arguments(self) -> dict[str, int]:
        """The constructor's arguments, of the same names on both sides."""
        found = {
            "min_size": self.min_size,
            "max_size": self.max_size,
            "box_detections_per_img": self.detections,
        }
        if self.objects is not None:
            found["rpn_post_nms_top_n_train"] = PROPOSALS
        return {name: value for name, value in found.items() if value is not None}


def cases(model: str, seeds=(0, 1), class_gain: float | None = None) -> list[Case]:
    """Return the cases of a model: inference for all seeds, training for the first."""
    gain = CLASS_GAINS[model] if class_gain is None else class_gain
    found = []
    for seed in seeds:
        for sizes in (((210, 317),), ((300, 260), (190, 333))):
            found.append(Case(model, seed, gain, sizes, min_size=256, max_size=416))
    found.append(Case(model, seeds[0], gain, ((427, 640),)))
    for objects in ((0, 12), (1, 3), (25, 1)):
        found.append(training_case(model, seeds[0], gain, objects))
    return found


def stored_cases() -> list[Case]:
    """Return the small cases whose results are kept with the tests."""
    mobile, v1, v2 = (
        ("fasterrcnn_mobilenet_v3_large_320_fpn", 12.0),
        ("maskrcnn_resnet50_fpn", 1.2),
        ("maskrcnn_resnet50_fpn_v2", 6.0),
    )
    sizes = ((96, 141), (113, 84))
    found = [
        Case(model, 0, gain, sizes, min_size=128, max_size=192) for model, gain in (mobile, v2)
    ]
    keypoints = "keypointrcnn_resnet50_fpn", 1.2
    found.append(
        Case(*keypoints[:1], 0, keypoints[1], sizes, min_size=128, max_size=192, detections=12)
    )
    trained = (mobile, v1, keypoints)
    return [*found, *(training_case(model, 0, gain, (3, 1)) for model, gain in trained)]


def training_case(model: str, seed: int, class_gain: float, objects: tuple[int, ...]) -> Case:
    """Return a case of losses, on two images that neither side needs to resize."""
    sizes = ((192, 256), (256, 192))
    return Case(model, seed, class_gain, sizes, min_size=192, max_size=256, objects=objects)


def sampled(array: np.ndarray) -> np.ndarray:
    """Return `SAMPLES` values of an array, evenly spread, for the results kept with the tests."""
    flat = np.ravel(array)
    return flat[np.linspace(0, flat.size - 1, SAMPLES).astype(int)]


def load_module(path: Path):
    """Return the module of a file that defines `seeded_state` and `seeded_image`."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawn_objects(case: Case, number: int) -> dict[str, np.ndarray]:
    """Return the ground truth of an image: boxes, labels from 0, masks of ellipses, keypoints."""
    (height, width), count = case.sizes[number], case.objects[number]
    rng = np.random.default_rng([case.seed, number, count])
    side = np.exp(rng.uniform(np.log(12), np.log(min(height, width)), (count, 2)))
    corner = rng.uniform(0, 1, (count, 2)) * ((width, height) - side)
    boxes = np.concatenate([corner, corner + side], axis=1).astype(np.float32)
    y, x = np.mgrid[:height, :width] + 0.5
    masks = np.zeros((count, height, width), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        across, down = (2 * x - x1 - x2) / (x2 - x1), (2 * y - y1 - y2) / (y2 - y1)
        mask[across**2 + down**2 <= 1] = 1
    labels = rng.integers(0, 90, count)
    # Some are outside of the box, and count nowhere.
    points = corner[:, None] + rng.uniform(-0.1, 1.1, (count, 17, 2)) * side[:, None]
    visibility = rng.integers(0, 3, (count, 17, 1))
    keypoints = np.concatenate([points, visibility], axis=2).astype(np.float32)
    if case.model.startswith("keypoint"):
        labels = np.zeros_like(labels)
    return {"boxes": boxes, "labels": labels, "masks": masks, "keypoints": keypoints}
