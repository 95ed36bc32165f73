"""The pictures of an explanation, one function each; `Explanation` has them as methods.

Everything is drawn on the network's input, enlarged or shrunk to a width that fits a phone.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image, ImageColor, ImageDraw

from rcnn_keras.data.masks import paste_masks
from rcnn_keras.utils.fonts import font_for
from rcnn_keras.visualize import PALETTE, grid

if TYPE_CHECKING:
    from rcnn_keras.explain.explanation import Explanation, RoI

WIDTH = 640  # of a picture in pixels
ANCHOR, PROPOSAL, FINAL = "#E69F00", "#56B4E9", "#009E73"  # of a detection's three boxes
KEPT, REMOVED = "#009E73", "#D55E00"  # by NMS
FADED = 0.65  # share of white over an image that something is drawn on
MARGIN = 0.35  # around a box that is shown, as a share of its longer side
MOST_ZOOM = 24  # pixels to which one of the input is enlarged at the most
MAX_DOTS = 4000  # anchor centres in a picture
SHORTEST_MAP = 160  # pixels of a drawn feature map


class Canvas:
    """A part of the network's input as a picture, on which boxes in its pixels are drawn.

    Args:
        image: `(h, w, 3)` uint8.
        window: `xyxy` in pixels of the image, the part to show; default all.
        faded: share of white over it, 0..1.
        width: of the picture in pixels, at the most.
    """

    def __init__(
        self,
        image: np.ndarray,
        window: np.ndarray | None = None,
        faded: float = 0.0,
        width: int = WIDTH,
    ) -> None:
        height, whole = image.shape[:2]
        x1, y1, x2, y2 = (0, 0, whole, height) if window is None else window.tolist()
        self.origin = np.array([x1, y1], np.float64)
        # Also no higher than it is wide, so that a picture fits the screen.
        self.scale = min(width / max(x2 - x1, y2 - y1, 1e-6), MOST_ZOOM)
        part = image[math.floor(y1) : math.ceil(y2), math.floor(x1) : math.ceil(x2)]
        size = [max(round(n * self.scale), 1) for n in (part.shape[1], part.shape[0])]
        shrunk = size[0] < part.shape[1]
        part = cv2.resize(part, size, interpolation=cv2.INTER_AREA if shrunk else cv2.INTER_NEAREST)
        part = np.rint((1 - faded) * part + faded * 255).astype(np.uint8)
        self.picture = Image.fromarray(part)
        self.pen = ImageDraw.Draw(self.picture, "RGBA")

    def at(self, points: np.ndarray) -> np.ndarray:
        """Return where points `(.., 2)` x and y lie on the picture."""
        return (np.asarray(points, np.float64) - self.origin) * self.scale

    def box(self, box: np.ndarray, color: str, width: int = 3, opacity: float = 1.0) -> None:
        """Draw a box's border, inside the picture wherever the box ends."""
        corners = self.at(np.asarray(box).reshape(2, 2))
        last = np.array(self.picture.size) - 1.0
        low = np.clip(corners[0], 0, last)
        high = np.maximum(np.clip(corners[1], 0, last), low)
        ink = (*ImageColor.getrgb(color), round(255 * opacity))
        self.pen.rectangle((*low, *high), outline=ink, width=width)

    def arrow(self, start: np.ndarray, end: np.ndarray, color: str) -> None:
        """Draw an arrow between two points; of no length, a dot."""
        a, b = self.at(start), self.at(end)
        length = float(np.hypot(*(b - a)))
        if length < 4:
            self.pen.ellipse((*(b - 3), *(b + 3)), fill=color)
            return
        along = (b - a) / length
        across = np.array([-along[1], along[0]])
        head = min(12.0, length)
        neck = b - head * along
        self.pen.line((*a, *neck), fill=color, width=3)
        points = [b, neck + 0.45 * head * across, neck - 0.45 * head * across]
        self.pen.polygon([tuple(point) for point in points], fill=color)

    def dots(self, points: np.ndarray, color: str, radius: float = 2.0) -> None:
        """Draw points `(n, 2)`."""
        for x, y in self.at(points):
            self.pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)

    def tag(self, text: str, corner: np.ndarray, color: str) -> None:
        """Write on a ground of a colour, above a corner, moved into the picture."""
        font = font_for([text], 14)
        left, top, right, bottom = self.pen.textbbox((0, 0), text, font)
        width, height = right - left + 6, bottom - top + 6
        x, y = self.at(corner) - [0, height]
        x = min(max(x, 0), max(self.picture.width - width, 0))
        y = min(max(y, 0), max(self.picture.height - height, 0))
        self.pen.rectangle((x, y, x + width, y + height), fill=color)
        self.pen.text((x + 3 - left, y + 3 - top), text, fill="black", font=font)


def heat(values: np.ndarray) -> np.ndarray:
    """Return values `(h, w)` in 0..1 as colours of viridis, `(h, w, 3)` uint8."""
    gray = np.clip(np.rint(255 * np.nan_to_num(values)), 0, 255).astype(np.uint8)
    return cv2.applyColorMap(gray, cv2.COLORMAP_VIRIDIS)[..., ::-1]


def stretched(values: np.ndarray) -> np.ndarray:
    """Return values moved and scaled to 0..1; all 0 where they are equal."""
    values = np.asarray(values, np.float32)
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def magnitude(values: np.ndarray) -> np.ndarray:
    """Return the mean of the channels' magnitudes `(h, w)`, in 0..1."""
    return stretched(np.abs(values).mean(axis=-1))


def enlarged(picture: np.ndarray, cell: int) -> Image.Image:
    """Return an `(h, w, 3)` picture with squares for pixels."""
    return Image.fromarray(np.ascontiguousarray(picture.repeat(cell, 0).repeat(cell, 1)))


def window_around(explanation: "Explanation", *boxes: np.ndarray | None) -> np.ndarray:
    """Return the part `xyxy` of the resized image that shows boxes with a margin."""
    shown = np.stack([box for box in boxes if box is not None])
    low, high = shown[:, :2].min(axis=0), shown[:, 2:].max(axis=0)
    half = (0.5 + MARGIN) * max(float((high - low).max()), 4.0)
    size = np.array(explanation.input.size[::-1], np.float32)
    centre = np.clip((low + high) / 2, 0, size)
    first = np.floor(np.clip(centre - half, 0, size - 1))
    return np.concatenate([first, np.ceil(np.clip(centre + half, first + 1, size))])


def draw_input(explanation: "Explanation") -> Image.Image:
    """See `Explanation.draw_input`."""
    given = Canvas(explanation.input.image).picture
    height, width = explanation.input.padded_size
    padded = np.full((height, width, 3), 235, np.uint8)
    rows, columns = np.indices((height, width))
    stripe = max(max(height, width) // 80, 1)
    padded[(rows + columns) // stripe % 3 == 0] = 170
    resized = explanation.input.resized
    padded[: resized.shape[0], : resized.shape[1]] = resized
    return grid([given, Canvas(padded).picture], columns=2)


def draw_features(explanation: "Explanation", level: int, channels: int) -> Image.Image:
    """See `Explanation.draw_features`."""
    features = _level(explanation, explanation.features, level, "feature maps")
    values = features.values
    strongest = np.argsort(-values.reshape(-1, values.shape[-1]).std(axis=0), kind="stable")
    maps = [magnitude(values), *(stretched(values[..., c]) for c in strongest[:channels])]
    cell = max(math.ceil(SHORTEST_MAP / max(values.shape[:2])), 1)
    return grid([enlarged(heat(each), cell) for each in maps], columns=3)


def draw_anchors(explanation: "Explanation", level: int) -> Image.Image:
    """See `Explanation.draw_anchors`."""
    anchors = _level(explanation, explanation.anchors, level, "anchors")
    height, width, k = explanation.objectness[level].shape
    canvas = Canvas(explanation.input.resized, faded=FADED)
    centres = anchors.reshape(height, width, k, 2, 2).mean(axis=(2, 3))
    step = max(math.ceil(math.sqrt(height * width / MAX_DOTS)), 1)
    canvas.dots(centres[::step, ::step].reshape(-1, 2), "#5B6875", 1.5)
    size = np.array(explanation.input.size) // 2 // explanation.features[level].stride
    row, column = (min(int(n), last - 1) for n, last in zip(size, (height, width), strict=True))
    for i, anchor in enumerate(anchors.reshape(height, width, k, 4)[row, column]):
        canvas.box(anchor, PALETTE[i % len(PALETTE)])
    canvas.dots(centres[row, column][None], "black", 4)
    return canvas.picture


def draw_objectness(explanation: "Explanation", level: int) -> Image.Image:
    """See `Explanation.draw_objectness`."""
    best = _level(explanation, explanation.objectness, level, "objectness").max(axis=-1)
    height, width = explanation.input.size
    stride = explanation.features[level].stride
    colours = heat(best).repeat(stride, axis=0).repeat(stride, axis=1)[:height, :width]
    image = explanation.input.resized
    seen = image[: colours.shape[0], : colours.shape[1]]
    return Canvas(np.rint(0.35 * seen + 0.65 * colours).astype(np.uint8)).picture


def draw_proposals(explanation: "Explanation", top: int, before_nms: bool) -> Image.Image:
    """See `Explanation.draw_proposals`."""
    _check_top(top)
    boxes, suppression = explanation.proposals.boxes, explanation.proposals.suppression
    if before_nms and suppression is None:
        raise ValueError(
            f"the proposals of this {explanation.architecture} come from outside: there are no "
            "candidates before NMS"
        )
    if before_nms and suppression is not None:
        boxes = suppression.boxes
    canvas = Canvas(explanation.input.resized, faded=0.4)
    count = min(top, len(boxes))
    colours = heat(np.linspace(0, 1, max(count, 1))[None])[0]
    for box, colour in zip(boxes[:count][::-1], colours, strict=False):
        canvas.box(box, "#{:02x}{:02x}{:02x}".format(*colour), width=2)
    return canvas.picture


def draw_roi(explanation: "Explanation", detection: int) -> Image.Image:
    """See `Explanation.draw_roi`."""
    roi = _one(explanation.rois, detection)
    window = window_around(explanation, roi.box)
    canvas = Canvas(explanation.input.resized, window, width=WIDTH // 2)
    canvas.box(roi.box, PROPOSAL)
    pictures = [canvas.picture]
    if roi.crop is not None:
        pictures.append(Image.fromarray(roi.crop).resize((WIDTH // 2, WIDTH // 2)))
    if roi.level is not None and roi.rows is not None and roi.columns is not None:
        features = explanation.features[roi.level]
        _draw_reads(canvas, roi, features.stride, roi.offset)
        pictures.append(_map_with_reads(features.values, roi))
    if roi.pooled.ndim == 3:
        cell = max(WIDTH // 2 // roi.pooled.shape[0], 1)
        pictures.append(enlarged(heat(magnitude(roi.pooled)), cell))
    return grid(pictures, columns=3)


def _cells(roi: "RoI") -> list[np.ndarray]:
    """Return the cells `xyxy` of RoIPool that hold positions of the map; none of RoIAlign."""
    assert roi.rows is not None
    assert roi.columns is not None
    if roi.rows.ndim == 1:
        return []
    return [
        np.array([left, top, right, bottom], np.float64)
        for top, bottom in roi.rows
        for left, right in roi.columns
        if bottom > top and right > left
    ]


def _samples(roi: "RoI") -> np.ndarray:
    """Return the points `(n, 2)` x and y that RoIAlign reads; none of RoIPool."""
    assert roi.rows is not None
    assert roi.columns is not None
    if roi.rows.ndim == 2:
        return np.zeros((0, 2))
    return np.stack(np.meshgrid(roi.columns, roi.rows), axis=-1).reshape(-1, 2)


def _draw_reads(canvas: Canvas, roi: "RoI", stride: float, offset: float) -> None:
    """Draw cells or points; `offset` is where in its stride a position's centre lies."""
    for cell in _cells(roi):
        canvas.box(cell * stride, "white", width=2, opacity=0.9)
    points = _samples(roi)
    radius = 1.5 if len(points) > 400 else 2.5
    canvas.dots((points + offset) * stride, "black", radius + 1)
    canvas.dots((points + offset) * stride, "white", radius)


def _map_with_reads(values: np.ndarray, roi: "RoI") -> Image.Image:
    """Draw the part of a map that a RoI reads, and where."""
    read = np.concatenate([_samples(roi), np.reshape(_cells(roi), (-1, 2))])
    size = np.array(values.shape[1::-1], np.float64)
    if len(read) == 0:  # the RoI lies outside the map
        read = np.zeros((1, 2))
    low = np.clip(np.floor(read.min(axis=0)) - 2, 0, size - 1)
    high = np.clip(np.ceil(read.max(axis=0)) + 2, low + 1, size)
    canvas = Canvas(heat(magnitude(values)), np.concatenate([low, high]), width=WIDTH // 2)
    _draw_reads(canvas, roi, 1, 0.5)
    return canvas.picture


def draw_probabilities(explanation: "Explanation", top: int) -> Image.Image:
    """See `Explanation.draw_probabilities`."""
    _check_top(top)
    most, side, row = 3, 64, 76  # classes a proposal, and pixels
    numbers = explanation.top_rois[:top]
    picture = Image.new("RGB", (WIDTH, row * max(len(numbers), 1)), "white")
    pen = ImageDraw.Draw(picture)
    font = font_for(explanation.classes, 14)
    for i, number in enumerate(numbers):
        box = explanation.proposals.boxes[number]
        crop = Canvas(explanation.input.resized, window_around(explanation, box), width=side)
        crop.box(box, PROPOSAL, width=2)
        picture.paste(crop.picture, (4, row * i + 6))
        for j, (name, value) in enumerate(class_bars(explanation, int(number), most)):
            y = row * i + 8 + 21 * j
            pen.rectangle((240, y, 240 + 330 * value, y + 16), fill="#0072B2")
            pen.text((232, y), name, fill="black", font=font, anchor="ra")
            pen.text((580, y), f"{value:.3f}", fill="black", font=font)
    return picture


def class_bars(explanation: "Explanation", roi: int, most: int) -> list[tuple[str, float]]:
    """Return the most probable classes of a proposal and their probabilities."""
    probabilities = explanation.probabilities[roi]
    names: Sequence[str] = explanation.classes
    if len(probabilities) > len(names):
        names = ("background", *names)
    order = np.argsort(-probabilities, kind="stable")[:most]
    return [(names[i], float(probabilities[i])) for i in order]


def draw_path(explanation: "Explanation", detection: int) -> Image.Image:
    """See `Explanation.draw_path`."""
    path = _one(explanation.paths, detection)
    window = window_around(explanation, path.anchor, path.proposal, path.box)
    canvas = Canvas(explanation.input.resized, window, faded=0.3)
    steps = [(path.anchor, ANCHOR), (path.proposal, PROPOSAL), (path.box, FINAL)]
    shown = [(box, color) for box, color in steps if box is not None]
    for box, color in shown:
        canvas.box(box, color)
    for (start, _), (end, color) in pairwise(shown):
        for corner in (slice(0, 2), slice(2, 4)):
            canvas.arrow(start[corner], end[corner], color)
        canvas.arrow(_centre(start), _centre(end), color)
    name = explanation.classes[path.label]
    canvas.tag(f"{name} {path.score:.2f}", path.box[:2], FINAL)
    return canvas.picture


def draw_suppressed(explanation: "Explanation", detection: int) -> Image.Image:
    """See `Explanation.draw_suppressed`."""
    path = _one(explanation.paths, detection)
    suppressed = explanation.suppressed
    removed = suppressed.removed_by(path.candidate)
    window = window_around(explanation, path.box, *suppressed.boxes[removed])
    canvas = Canvas(explanation.input.resized, window, faded=0.3)
    for place in removed[::-1]:
        canvas.box(suppressed.boxes[place], REMOVED, width=2)
    canvas.box(path.box, KEPT, width=4)
    canvas.tag(f"{explanation.classes[path.label]} {path.score:.2f}", path.box[:2], KEPT)
    return canvas.picture


def draw_mask(explanation: "Explanation", detection: int) -> Image.Image:
    """See `Explanation.draw_mask`."""
    path = _one(explanation.paths, detection)
    if explanation.masks is None:
        raise ValueError(f"a {explanation.architecture} has no masks")
    mask = explanation.masks[detection]
    small = enlarged(heat(mask), max(WIDTH // 2 // len(mask), 1))
    image = explanation.input.resized.copy()
    pasted = paste_masks(mask[None], path.box[None], explanation.input.size, 0.5)[0]
    color = np.array(ImageColor.getrgb(PALETTE[path.label % len(PALETTE)]))
    image[pasted] = np.rint(0.5 * image[pasted] + 0.5 * color)
    canvas = Canvas(image, window_around(explanation, path.box), width=WIDTH // 2)
    canvas.box(path.box, FINAL)
    return grid([small, canvas.picture], columns=2)


def draw_matches(explanation: "Explanation") -> Image.Image:
    """See `Explanation.draw_matches`."""
    training = _training(explanation)
    canvas = Canvas(explanation.input.resized, faded=0.3)
    if training.anchors is not None:
        boxes = np.concatenate(explanation.anchors)
        positive = training.anchors.match_labels == 1
        for box, match in zip(boxes[positive], training.anchors.matches[positive], strict=True):
            canvas.box(box, PALETTE[match % len(PALETTE)], width=1)
    for number, (box, label) in enumerate(zip(training.boxes, training.labels, strict=True)):
        color = PALETTE[number % len(PALETTE)]
        canvas.box(box, color, width=4)
        canvas.tag(explanation.classes[label], box[:2], color)
    return canvas.picture


def draw_samples(explanation: "Explanation") -> Image.Image:
    """See `Explanation.draw_samples`."""
    rois = _training(explanation).rois
    if rois is None:
        raise ValueError(f"{explanation.architecture} is trained in stages and samples no RoIs")
    canvas = Canvas(explanation.input.resized, faded=0.3)
    loss = np.sum(list(rois.losses.values()), axis=0)
    order = np.argsort(loss, kind="stable")
    opacity = 0.35 + 0.65 * stretched(loss)
    for i in order:
        color = KEPT if rois.classes[i] > 0 else REMOVED
        canvas.box(rois.boxes[i], color, width=2, opacity=float(opacity[i]))
    return canvas.picture


def _training(explanation: "Explanation") -> Any:
    if explanation.training is None:
        raise ValueError("no ground truth was given: explain a Record of a dataset")
    return explanation.training


def _centre(box: np.ndarray) -> np.ndarray:
    return (box[:2] + box[2:]) / 2


def _check_top(top: int) -> None:
    if top < 1:
        raise ValueError(f"top must be at least 1, not {top!r}")


def _level(explanation: "Explanation", levels: Sequence[Any], level: int, what: str) -> Any:
    if not levels:
        raise ValueError(f"this {explanation.architecture} has no {what} of the whole image")
    if level not in range(len(levels)):
        raise ValueError(f"level must be in 0..{len(levels) - 1}, not {level!r}")
    return levels[level]


def _one(detections: Sequence[Any], detection: int) -> Any:
    if not detections:
        raise ValueError("nothing was detected in this image; see why_empty")
    if detection not in range(len(detections)):
        raise ValueError(f"detection must be in 0..{len(detections) - 1}, not {detection!r}")
    return detections[detection]
