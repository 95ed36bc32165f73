"""The parts of an explanation: what one detector computed for one image, without padding.

All boxes but those of `Explanation.detections` are `xyxy` in pixels of the network's input.
H and W are its height and width, R the proposals, D the detections, K the classes, C the channels
of a feature map, S the side of pooled features, M that of a mask, k the anchors at a position.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from rcnn_keras.data.detections import Detections
from rcnn_keras.explain import pictures
from rcnn_keras.utils.atomic import atomic_write
from rcnn_keras.utils.output_paths import check_output_file


@dataclass(frozen=True, eq=False)
class Input:
    """The image as it was given, and as the network reads it.

    Attributes:
        image: `(H', W', 3)` uint8, upright, as it was given.
        pixels: `(H, W, 3)` float32 in 0..255, resized, with zeros below and on the right.
        size: height and width of the part that is no padding.
        padded_size: height and width to which the network pads it, so that all its maps fit.
    """

    image: np.ndarray
    pixels: np.ndarray
    size: tuple[int, int]
    padded_size: tuple[int, int]

    @property
    def resized(self) -> np.ndarray:
        """The resized image without padding, `(h, w, 3)` uint8."""
        pixels = self.pixels[: self.size[0], : self.size[1]]
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """One level of features.

    Attributes:
        values: `(H_l, W_l, C)` float32.
        stride: pixels a position.
    """

    values: np.ndarray
    stride: int


@dataclass(frozen=True, eq=False)
class Suppression:
    """What non-maximum suppression did with its n candidates, the best first.

    Attributes:
        boxes: `(n, 4)` float32.
        scores: `(n,)` float32 in 0..1.
        groups: `(n,)` int32, the level or the label: boxes suppress those of their group alone.
        by: `(n,)` int32, the place of the box that removed each one; a kept one's own; -1 where the
            greatest number of boxes was reached before.
        overlaps: `(n,)` float32, the IoU with it.
        kept: `(m,)` int32, places of those kept, the best first.
        iou_threshold: above which a weaker box is removed.
        limit: boxes kept at the most.
    """

    boxes: np.ndarray
    scores: np.ndarray
    groups: np.ndarray
    by: np.ndarray
    overlaps: np.ndarray
    kept: np.ndarray
    iou_threshold: float
    limit: int

    def removed_by(self, place: int) -> np.ndarray:
        """Return the places of the candidates that a kept one removed, the best first."""
        places = np.flatnonzero(self.by == place)
        return places[places != place]


@dataclass(frozen=True, eq=False)
class Proposals:
    """The regions that the second stage looks at, the best first.

    Attributes:
        boxes: `(R, 4)` float32.
        source: where they come from, a few words.
        scores: `(R,)` float32, objectness in 0..1; None of proposals that have none.
        levels: `(R,)` int32, the level of each one's anchor; None without an RPN.
        anchors: `(R, 4)` float32, the anchor that each one was; likewise.
        suppression: the candidates of the RPN before NMS; likewise.
    """

    boxes: np.ndarray
    source: str
    scores: np.ndarray | None = None
    levels: np.ndarray | None = None
    anchors: np.ndarray | None = None
    suppression: Suppression | None = None


@dataclass(frozen=True, eq=False)
class RoI:
    """Where one detection's features were read.

    Attributes:
        number: of its proposal, 0..R-1.
        box: `(4,)` of the proposal; in a cascade as its last stage reads it.
        pooled: `(S, S, C)` float32, what the box head got; of R-CNN pool5.
        kind: "RoIAlign", "RoIPool", "crop" of R-CNN, or the name of another layer.
        level: the feature map that was read; None of R-CNN and of other layers.
        rows: of RoIAlign `(S * r,)` float32, where its samples lie in positions of the map, the
            centre of the first one being 0; of RoIPool `(S, 2)` int32, the first position of each
            cell and the one after the last. None otherwise.
        columns: the same across.
        offset: what a position of RoIAlign needs added to be a place in strides of the image, 0.5
            with `roi_aligned`, and 0 without, where the RoI is laid half a position off.
        crop: `(s, s, 3)` uint8, the warped image that R-CNN's network reads; None of others.
    """

    number: int
    box: np.ndarray
    pooled: np.ndarray
    kind: str
    level: int | None = None
    rows: np.ndarray | None = None
    columns: np.ndarray | None = None
    offset: float = 0.0
    crop: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Path:
    """The way of one detection.

    Attributes:
        anchor: `(4,)`, where it began; None without an RPN.
        proposal: `(4,)`, the anchor after the RPN's deltas, clipped to the image.
        box: `(4,)`, the proposal after the deltas of its class, clipped; in a cascade after those
            of all stages.
        level: of the anchor; None without an RPN.
        objectness: of the proposal, 0..1; None where there is none.
        label: 0..K-1.
        score: 0..1.
        candidate: its place among the candidates of `Explanation.suppressed`.
        stages: what each stage of a cascade but the last made of the proposal, `(4,)` each.
    """

    anchor: np.ndarray | None
    proposal: np.ndarray
    box: np.ndarray
    level: int | None
    objectness: float | None
    label: int
    score: float
    candidate: int
    stages: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True, eq=False)
class SampledAnchors:
    """The RPN's samples, S of them.

    Attributes:
        match_labels: `(A,)` int32 of all anchors, level after level: 1 positive, 0 negative, -1
            neither.
        matches: `(A,)` int32, the object that each overlaps most.
        boxes: `(S, 4)` of the samples.
        labels: `(S,)` int32, 1 and 0.
        losses: `(S,)` float32 of each loss, which is the mean of these; that of boxes is 0 where
            the label is 0.
    """

    match_labels: np.ndarray
    matches: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    losses: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class SampledRoIs:
    """The second stage's samples, S of them, drawn from the proposals and the objects themselves.

    Attributes:
        boxes: `(S, 4)`.
        classes: `(S,)` int32, 0 the background, otherwise the label + 1.
        matches: `(S,)` int32, the object that each overlaps most.
        losses: `(S,)` float32 of each loss. That of classes, and that of boxes, which only objects
            have, are the means of these over all samples; that of masks over the objects, that of
            keypoints, the sum of a RoI's, over the keypoints. Those of a cascade's later stages are
            0 for samples that an earlier stage left without an area, which do not count there.
    """

    boxes: np.ndarray
    classes: np.ndarray
    matches: np.ndarray
    losses: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Training:
    """What a training step would take from the image, with the draw of step 0.

    Attributes:
        boxes: `(N, 4)` float32, the objects.
        labels: `(N,)` int32.
        crowd: `(N,)` bool.
        best_overlaps: `(N,)` float32, the IoU of each object with the proposal nearest to it.
        losses: as `evaluate` gives them for this image.
        anchors: None without an RPN.
        rois: None of R-CNN, which is trained in stages of its own.
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    best_overlaps: np.ndarray
    losses: Mapping[str, float]
    anchors: SampledAnchors | None = None
    rois: SampledRoIs | None = None


@dataclass(frozen=True, eq=False)
class Explanation:
    """What one detector computed for one image; `explain` makes it.

    Each part is an attribute, and each has a method that draws it as a Pillow image.

    Attributes:
        architecture: name of the detector's class.
        name: of the image.
        classes: the K class names.
        detections: as `detect` gives them, in pixels of the image that was given.
        input: the image, resized and padded.
        features: the levels, finest first; empty for R-CNN, which has features of regions alone.
        anchors: `(H_l * W_l * k, 4)` of each level; empty without an RPN.
        objectness: `(H_l, W_l, k)` of each level in 0..1, likewise.
        proposals: before and after NMS.
        rois: one a detection: where its features were read.
        probabilities: `(R, K + 1)` of each proposal, the background first; of R-CNN's SVMs
            `(R, K)`, the sigmoid of each one's margin.
        paths: one a detection: from the anchor to the final box.
        suppressed: the boxes of all classes before NMS that score enough, and what removed them.
        masks: `(D, M, M)` float32 in 0..1, inside the boxes; None of detectors of boxes.
        training: with ground truth, otherwise None.
        score_threshold: detections score more than this.
    """

    architecture: str
    name: str
    classes: tuple[str, ...]
    detections: Detections
    input: Input
    features: tuple[FeatureMap, ...]
    anchors: tuple[np.ndarray, ...]
    objectness: tuple[np.ndarray, ...]
    proposals: Proposals
    rois: tuple[RoI, ...]
    probabilities: np.ndarray
    paths: tuple[Path, ...]
    suppressed: Suppression
    masks: np.ndarray | None
    training: Training | None
    score_threshold: float

    @property
    def class_probabilities(self) -> np.ndarray:
        """`probabilities` without the background, `(R, K)`."""
        return self.probabilities[:, -len(self.classes) :]

    @property
    def top_rois(self) -> np.ndarray:
        """The numbers of all proposals, those most sure of a class first; `(R,)` int64."""
        best = self.class_probabilities.max(axis=1, initial=0)
        return np.argsort(-best, kind="stable")

    @property
    def why_empty(self) -> str:
        """Why there is no detection, in a sentence; "" where there is one."""
        if len(self.detections):
            return ""
        if len(self.proposals.boxes) == 0:
            return "Nothing was detected: there are no proposals to look at."
        roi = int(self.top_rois[0])
        label = int(self.class_probabilities[roi].argmax())
        best = float(self.class_probabilities[roi, label])
        found = f"the best score is {best:.3f}, {self.classes[label]} of proposal {roi + 1}"
        if best > self.score_threshold:
            return f"Nothing was detected: {found}, but its box has no area inside the image."
        return f"Nothing was detected: {found}, and detections score above {self.score_threshold:g}"

    def draw_input(self) -> Image.Image:
        """Draw the image as it was given beside the network's input, its padding hatched."""
        return pictures.draw_input(self)

    def draw_features(self, level: int = 0, channels: int = 8) -> Image.Image:
        """Draw a level: the mean of its channels' magnitudes, and the channels that vary most.

        Raises:
            ValueError: if there is no such level.
        """
        return pictures.draw_features(self, level, channels)

    def draw_anchors(self, level: int = 0) -> Image.Image:
        """Draw the centres of a level's anchors, and those at the position in the middle.

        Raises:
            ValueError: if there is no such level.
        """
        return pictures.draw_anchors(self, level)

    def draw_objectness(self, level: int = 0) -> Image.Image:
        """Draw the objectness of a level as a heat map: at each position that of its best anchor.

        Raises:
            ValueError: if there is no such level.
        """
        return pictures.draw_objectness(self, level)

    def draw_proposals(self, top: int = 50, *, before_nms: bool = False) -> Image.Image:
        """Draw the best proposals, or the best candidates before NMS, the best one brightest.

        Raises:
            ValueError: `before_nms` of proposals that come from outside, or a `top` below 1.
        """
        return pictures.draw_proposals(self, top, before_nms)

    def draw_roi(self, detection: int = 0) -> Image.Image:
        """Draw where a detection's features were read, on the image and on the map, and they.

        Raises:
            ValueError: if there is no such detection.
        """
        return pictures.draw_roi(self, detection)

    def draw_probabilities(self, top: int = 8) -> Image.Image:
        """Draw the class probabilities of the proposals that are most sure of a class.

        Raises:
            ValueError: for a `top` below 1.
        """
        return pictures.draw_probabilities(self, top)

    def draw_path(self, detection: int = 0) -> Image.Image:
        """Draw the way from anchor to proposal to final box as arrows.

        Raises:
            ValueError: if there is no such detection.
        """
        return pictures.draw_path(self, detection)

    def draw_suppressed(self, detection: int = 0) -> Image.Image:
        """Draw a detection and the boxes that NMS removed because of it.

        Raises:
            ValueError: if there is no such detection.
        """
        return pictures.draw_suppressed(self, detection)

    def draw_mask(self, detection: int = 0) -> Image.Image:
        """Draw a detection's mask as the network gives it, `(M, M)`, and pasted into the image.

        Raises:
            ValueError: if there is no such detection, or it has no mask.
        """
        return pictures.draw_mask(self, detection)

    def draw_matches(self) -> Image.Image:
        """Draw the objects, and the anchors that are positive for each in its colour.

        Raises:
            ValueError: without ground truth.
        """
        return pictures.draw_matches(self)

    def draw_samples(self) -> Image.Image:
        """Draw the RoIs that the second stage would train on, the greater its loss the stronger.

        Raises:
            ValueError: without ground truth, and for R-CNN.
        """
        return pictures.draw_samples(self)

    def html(self) -> str:
        """Return all of it as one HTML page that needs no other file and no network."""
        from rcnn_keras.explain.page import page_of

        return page_of(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page, see `html`; an older file is replaced once all is written.

        Raises:
            OSError: if it cannot be written.
        """
        check_output_file(path)
        page = self.html()
        with atomic_write(path) as aside:
            aside.write_text(page, encoding="utf-8", errors="backslashreplace")
