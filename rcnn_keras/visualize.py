"""Pictures of images with boxes, masks and keypoints, and of what a detector computes."""

import importlib
import math
from collections.abc import Callable, Sequence
from functools import partial
from os import PathLike
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageColor, ImageDraw

from rcnn_keras.data.dataset import Record
from rcnn_keras.data.detections import Detections
from rcnn_keras.data.images import read_image
from rcnn_keras.data.keypoints import NOT_LABELLED, VISIBLE, Pairs, Skeleton
from rcnn_keras.data.masks import decode_mask, paste_masks
from rcnn_keras.data.tfrecord_images import TFRecordImage
from rcnn_keras.data.value_range import FULL, ValueRange
from rcnn_keras.utils.fonts import Font, font_for

# Okabe and Ito, "Color Universal Design" (2008), without black: apart for all common kinds of
# colour blindness. The tags carry the names, so that more than seven classes may share colours.
__all__ = ["draw", "grid"]

PALETTE = ("#D55E00", "#56B4E9", "#009E73", "#E69F00", "#CC79A7", "#0072B2", "#F0E442")
FILL = 0.4  # of a mask's colour in its pixels

Picture = str | PathLike[str] | np.ndarray | Image.Image
Corners = tuple[int, int, int, int]  # first and last pixel: x, y, x, y


def draw(
    image: str | PathLike[str] | np.ndarray | TFRecordImage,
    detections: Detections | Record,
    *,
    classes: Sequence[str] | None = None,
    skeleton: Skeleton | None = None,
    min_score: float = 0.5,
    min_keypoint_score: float = 0.05,
    width: int | None = None,
    zoom: int = 1,
    font: str | PathLike[str] | None = None,
    value_range: ValueRange = FULL,
) -> Image.Image:
    """Draw boxes, masks, keypoints and names on a copy of an image, the best detection on top.

    A mask is filled with its class's colour, through which the image is seen, and outlined in it;
    those of Detections are set above 0.5. Keypoints are dots, connected as `Detections.skeleton`
    or `skeleton` says; hidden ones of a Record are rings.

    Args:
        image: a path, or an array `(H, W, 3)`, as `read_image` takes it.
        detections: what a model found in this image, or the image's ground truth.
        classes: names for a Record, whose labels are shown as numbers without it; Detections bring
            their own.
        skeleton: of a Record's keypoints, as `dataset.skeleton`; without it no lines are drawn.
        min_score: detections below it are left out, 0..1. Ground truth has no scores: all is drawn.
        min_keypoint_score: keypoints of detections below it are left out.
        width: of the lines in pixels; by default 0.4 % of the image's longer side, at least 2.
        zoom: whole number by which the picture is enlarged first, so that tags fit beside small
            objects.
        font: file of a font for the tags; by default one of the system that has the characters of
            the names, see `fonts.font_for`.
        value_range: of an image of more than 8 bits, as the model's, see `read_image`.

    Returns:
        An RGB picture of `zoom` times the image's size. A tag that is wider than the picture loses
        its score, and then is left out.

    Raises:
        ImageError: the image cannot be read.
        ValueError: an argument is out of range, `font` is not a font, the boxes belong to an image
            of another size, or a segmentation is malformed.
    """
    if not 0 <= min_score <= 1:
        raise ValueError(f"draw: min_score must be in 0..1, not {min_score!r}")
    if width is not None and width < 1:
        raise ValueError(f"draw: width must be at least 1 pixel, not {width!r}")
    if zoom < 1:
        raise ValueError(f"draw: zoom must be at least 1, not {zoom!r}")
    marks = _marks(detections, classes, min_score)
    keypoints, bones = _keypoints(detections, skeleton, min_score, min_keypoint_score)
    picture = Image.fromarray(read_image(image, value_range))
    expected = _size(detections)
    if picture.size != expected:
        raise ValueError(
            f"draw: the image has {picture.width}x{picture.height} pixels, "
            f"the boxes belong to one of {expected[0]}x{expected[1]}"
        )
    picture = picture.resize((picture.width * zoom, picture.height * zoom))
    long_side = max(picture.size)
    line = width or max(2, round(0.004 * long_side))
    picture = _with_masks(picture, marks, zoom, line)
    canvas = ImageDraw.Draw(picture)
    text_size = max(11, round(0.022 * long_side))
    corners = [_corners(np.asarray(mark.box) * zoom, picture.size) for mark in marks]
    for mark, corner in zip(marks, corners, strict=True):
        canvas.rectangle(corner, outline=_color(mark.label), width=line)
    for mark, points in zip(marks, keypoints, strict=True):
        _draw_keypoints(
            canvas, points * np.array([zoom, zoom, 1], np.float32), bones, mark.label, line
        )
    tags: list[_Tag] = []
    # The best detection chooses its place first, and its tag is drawn last.
    for mark, corner in zip(reversed(marks), reversed(corners), strict=True):
        tags += _tag(canvas, mark, corner, font_for(mark.texts, text_size, font), tags)
    for tag in reversed(tags):
        _draw_tag(canvas, tag)
    return picture


def explain(model: Any, image: Any, *, proposals: Any = None) -> Any:
    """Look inside a detector: all that it computes on the way from an image to its detections.

    Args:
        model: a detector.
        image: one image, as `Detector.detect` takes it, or a `Record`, whose ground truth is then
            explained, too.
        proposals: for R-CNN and Fast R-CNN, as `Detector.detect` takes them.

    Returns:
        An `rcnn_keras.explain.Explanation`: arrays, pictures, and a page of all; see
        `rcnn_keras.explain.explain`, which also says what is raised.
    """
    # What needs a model stands above this module and is fetched when asked for.
    room = importlib.import_module("rcnn_keras.explain")
    return room.explain(model, image, proposals=proposals)


def grid(images: Sequence[Picture], columns: int = 4, *, gap: int = 8) -> Image.Image:
    """Tile pictures row by row, each in the middle of a cell as large as the largest, on white.

    Args:
        images: paths, arrays as `read_image` takes them, or Pillow images; at least one.
        columns: most pictures in a row.
        gap: pixels between neighbours.

    Raises:
        ValueError: there is no image, or `columns` or `gap` is out of range.
    """
    if not images or columns < 1 or gap < 0:
        raise ValueError(
            f"grid: needs an image, columns >= 1 and gap >= 0, not {len(images)} images, "
            f"columns={columns}, gap={gap}"
        )
    pictures = [
        image.convert("RGB")
        if isinstance(image, Image.Image)
        else Image.fromarray(read_image(image))
        for image in images
    ]
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    wide = max(picture.width for picture in pictures) + gap
    high = max(picture.height for picture in pictures) + gap
    sheet = Image.new("RGB", (columns * wide - gap, rows * high - gap), "white")
    for i, picture in enumerate(pictures):
        left = i % columns * wide + (wide - gap - picture.width) // 2
        top = i // columns * high + (high - gap - picture.height) // 2
        sheet.paste(picture, (left, top))
    return sheet


class _Mark(NamedTuple):
    """One object to draw: its box `(4,)`, its class, and texts for its tag, the longest first.

    `mask` gives its `(H, W)` bool mask in a picture enlarged by a zoom.
    """

    box: np.ndarray
    label: int
    texts: tuple[str, ...]
    mask: Callable[[int], np.ndarray] | None = None


class _Tag(NamedTuple):
    """The text of one object, the place of its ground, the ground's colour, and the font."""

    text: str
    place: Corners
    color: str
    font: Font


def _marks(
    detections: Detections | Record, classes: Sequence[str] | None, min_score: float
) -> list[_Mark]:
    """Return what to draw, the best last."""
    if isinstance(detections, Detections):
        if classes is not None:
            raise ValueError("draw: classes name the labels of a Record; Detections bring theirs")
        found = detections.above(min_score)
        marks = [
            _Mark(box, int(label), (f"{name} {score:.2f}", name), _detected_mask(found, i))
            for i, (box, label, name, score) in enumerate(
                zip(found.boxes, found.labels, found.class_names, found.scores, strict=True)
            )
        ]
        return [marks[i] for i in np.argsort(found.scores, kind="stable")]
    if not isinstance(detections, Record):
        raise ValueError(
            f"draw: detections must be Detections or a Record, not {type(detections).__name__}"
        )
    if classes is not None and len(detections) and detections.labels.max() >= len(classes):
        raise ValueError(
            f"draw: {detections.path} has label {detections.labels.max()}, "
            f"but there are {len(classes)} classes"
        )
    marks = []
    for i, (box, label, crowd) in enumerate(
        zip(detections.boxes, detections.labels, detections.crowd, strict=True)
    ):
        name = str(label) if classes is None else classes[label]
        texts = (f"{name} (crowd)", name) if crowd else (name,)
        marks.append(_Mark(box, int(label), texts, _stated_mask(detections, i)))
    return marks


def _detected_mask(found: Detections, i: int) -> Callable[[int], np.ndarray] | None:
    """Return the function from a zoom to the mask of detection i, None without masks."""
    if found.masks is None:
        return None
    masks, boxes = found.masks[i : i + 1], found.boxes[i : i + 1]
    height, width = found.image_size
    return lambda zoom: paste_masks(
        masks, boxes * zoom, (height * zoom, width * zoom), 0.5, found.mask_pasting
    )[0]


def _stated_mask(record: Record, i: int) -> Callable[[int], np.ndarray] | None:
    """Return the function from a zoom to the mask of a record's object i, None without one."""
    if record.segmentations is None or record.segmentations[i] is None:
        return None
    decode = partial(decode_mask, record.segmentations[i], record.height, record.width)
    return lambda zoom: decode().repeat(zoom, axis=0).repeat(zoom, axis=1)


def _with_masks(picture: Image.Image, marks: Sequence[_Mark], zoom: int, line: int) -> Image.Image:
    """Return the picture with all masks filled and outlined, one at a time in pixels."""
    pixels = np.array(picture)
    around = np.ones((2 * line + 1, 2 * line + 1), np.uint8)
    for mark in marks:
        if mark.mask is None:
            continue
        mask = mark.mask(zoom)
        inner = cv2.erode(mask.astype(np.uint8), around).astype(bool)
        color = np.array(ImageColor.getrgb(_color(mark.label)))
        pixels[inner] = np.rint((1 - FILL) * pixels[inner] + FILL * color)
        pixels[mask & ~inner] = color
    return Image.fromarray(pixels)


def _keypoints(
    detections: Detections | Record,
    skeleton: Skeleton | None,
    min_score: float,
    min_keypoint_score: float,
) -> tuple[Sequence[np.ndarray], Pairs]:
    """Return the keypoints `(P, 3)` of each mark, visibility 0 to leave one out, and the edges."""
    if isinstance(detections, Record):
        if detections.keypoints is None:
            return [np.zeros((0, 3), np.float32)] * len(detections), ()
        count = detections.keypoints.shape[1]
        if skeleton is not None and len(skeleton) != count:
            raise ValueError(
                f"draw: {detections.path} has {count} keypoints an object, the skeleton "
                f"{len(skeleton)}"
            )
        return list(detections.keypoints), () if skeleton is None else skeleton.edges
    if skeleton is not None:
        raise ValueError("draw: skeleton is for a Record; Detections bring theirs")
    found = detections.above(min_score)
    if found.keypoints is None or found.skeleton is None:
        return [np.zeros((0, 3), np.float32)] * len(found), ()
    seen = np.where(found.keypoints[..., 2:] >= min_keypoint_score, VISIBLE, NOT_LABELLED)
    keypoints = np.concatenate([found.keypoints[..., :2], seen], axis=-1)
    order = np.argsort(found.scores, kind="stable")  # as the marks
    return list(keypoints[order]), found.skeleton.edges


def _draw_keypoints(
    canvas: ImageDraw.ImageDraw, keypoints: np.ndarray, edges: Pairs, label: int, line: int
) -> None:
    """Draw an object's keypoints `(P, 3)`, in pixels of the picture, and the lines between them."""
    color, points = _color(label), keypoints[:, :2] - 0.5  # from the centre of the first pixel
    shown = keypoints[:, 2] > NOT_LABELLED
    for one, other in edges:
        if shown[one] and shown[other]:
            canvas.line([*map(tuple, points[[one, other]].tolist())], fill=color, width=line)
    radius = 1.5 * line
    for (x, y), visibility in zip(points.tolist(), keypoints[:, 2].tolist(), strict=True):
        if visibility > NOT_LABELLED:
            place = (x - radius, y - radius, x + radius, y + radius)
            fill = color if visibility == VISIBLE else None
            canvas.ellipse(place, fill=fill, outline="white" if fill else color)


def _size(detections: Detections | Record) -> tuple[int, int]:
    """Return width and height of the image that the boxes belong to."""
    if isinstance(detections, Record):
        return detections.width, detections.height
    height, width = detections.image_size
    return width, height


def _corners(box: np.ndarray, size: tuple[int, int]) -> Corners:
    """Return the first and last pixel that a box covers inside the image, at least one."""
    if not np.isfinite(box).all():
        raise ValueError(f"draw: a box has no finite corners: {box.tolist()}")
    last = np.array(size) - 1
    low = np.clip(np.floor(box[:2]), 0, last)
    high = np.maximum(np.clip(np.ceil(box[2:]) - 1, 0, last), low)
    x1, y1, x2, y2 = np.concatenate([low, high]).astype(int).tolist()
    return x1, y1, x2, y2


def _color(label: int) -> str:
    return PALETTE[label % len(PALETTE)]


def _tag(
    canvas: ImageDraw.ImageDraw, mark: _Mark, corners: Corners, font: Font, tags: list[_Tag]
) -> list[_Tag]:
    """Return the first text that fits, at the first free place: above the box, in it, below it."""
    image_width, image_height = canvas.im.size
    height = _line_height(font)[1] + 2 * _padding(font)
    for text in mark.texts:
        width = math.ceil(canvas.textlength(text, font)) + 2 * _padding(font)
        if width <= image_width and height <= image_height:
            break
    else:
        return []
    x1, y1, _, y2 = corners
    left = min(x1, image_width - width)
    tops = [min(max(0, top), image_height - height) for top in (y1 - height, y1, y2 + 1)]
    places = [(left, top, left + width - 1, top + height - 1) for top in tops]
    free = (place for place in places if not any(_meet(place, tag.place) for tag in tags))
    return [_Tag(text, next(free, places[0]), _color(mark.label), font)]


def _draw_tag(canvas: ImageDraw.ImageDraw, tag: _Tag) -> None:
    canvas.rectangle(tag.place, fill=tag.color)
    padding = _padding(tag.font)
    left, top = tag.place[0] + padding, tag.place[1] + padding - _line_height(tag.font)[0]
    canvas.text((left, top), tag.text, fill=_ink(tag.color), font=tag.font)


def _line_height(font: Font) -> tuple[float, int]:
    """Return where a line of text begins below its origin, and its height in pixels."""
    _, top, _, bottom = font.getbbox("Ag")
    return top, math.ceil(bottom - top)


def _padding(font: Font) -> int:
    return max(2, round(0.25 * _line_height(font)[1]))


def _meet(a: Corners, b: Corners) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _ink(color: str) -> str:
    """Return black or white, whichever has the greater WCAG contrast ratio on a colour."""
    channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    return "black" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "white"
