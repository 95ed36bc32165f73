"""What the benchmark runs on both sides. Needs nothing but Python."""

from dataclasses import dataclass, replace

SIZE_MULTIPLE = 32  # pixels; both sides pad images to such sizes
SMALLEST_SIDE = 64


@dataclass(frozen=True)
class Workload:
    """One detector on one batch of images.

    `work` is "inference", "stages" (the same part by part), "training" or "memory" (two training
    steps, of which the peak memory counts). `norm` is "batch" for batch norm that is trained, or
    "frozen_batch" for what fine-tuning published weights has: frozen batch norm and a frozen stem
    and first stage. `rois` are sampled, and `objects` annotated, in each image while training.
    `class_gain` goes to the drawing of weights, so that about a hundred objects are found.
    """

    work: str
    depth: int  # of the ResNet under the feature pyramid
    masks: bool
    height: int
    width: int
    batch: int = 1
    norm: str = "batch"
    classes: int = 90
    rois: int = 512
    objects: int = 20
    class_gain: float = 1.2

    @property
    def label(self) -> str:
        """The detector and its images in words."""
        detector = f"{'Mask' if self.masks else 'Faster'} R-CNN, ResNet-{self.depth}-FPN"
        images = f"{self.height}x{self.width}"
        images += f", batch {self.batch}" if self.batch > 1 else ""
        return f"{detector}, {images}" + (", frozen norm" if self.norm == "frozen_batch" else "")

    def scaled(self, factor: float) -> "Workload":
        """Return the same work on images smaller or larger by a factor."""

        def side(pixels):
            return max(round(pixels * factor / SIZE_MULTIPLE) * SIZE_MULTIPLE, SMALLEST_SIDE)

        if factor == 1:
            return self
        return replace(self, height=side(self.height), width=side(self.width))


FASTER_TRAINING = Workload("training", 50, False, 512, 512, batch=2)
MASK_INFERENCE = Workload("inference", 50, True, 800, 1216)
MASK_TRAINING = replace(FASTER_TRAINING, masks=True)
RESNET18 = Workload("inference", 18, False, 240, 320, classes=3, rois=64)

WORKLOADS = {
    "resnet18-inference": RESNET18,
    "faster-inference": replace(MASK_INFERENCE, masks=False),
    "mask-inference": MASK_INFERENCE,
    "mask-stages": replace(MASK_INFERENCE, work="stages"),
    "resnet18-training": replace(RESNET18, work="training", batch=4),
    "faster-training": FASTER_TRAINING,
    "mask-training": MASK_TRAINING,
    "faster-finetuning": replace(FASTER_TRAINING, norm="frozen_batch"),
    "mask-finetuning": replace(MASK_TRAINING, norm="frozen_batch"),
    "mask-memory": replace(MASK_INFERENCE, work="memory", batch=2, objects=60),
}
