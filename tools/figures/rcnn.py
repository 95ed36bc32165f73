"""Figures of docs/review/rcnn.md: the stages of R-CNN, and how a region becomes a crop."""

from pathlib import Path

import numpy as np

import rcnn_keras as rk
from figures import style
from figures.style import BLUE, GREEN, LIGHT, ORANGE, PINK, RED, SKY, YELLOW, arrow, block

SCENE = 23  # a square, a star and another square
CROP, CONTEXT = 227, 16  # pixels, as in the paper


def crops(image: np.ndarray, boxes: np.ndarray, context: int = CONTEXT) -> np.ndarray:
    """Return what the network sees of each region, `(n, 227, 227, 3)` uint8, grey beyond it.

    The package subtracts the mean first, so that what lies outside an image is 0; here it is
    added again.
    """
    mean = 127.0
    sizes = np.array([image.shape[:2]], np.int32)
    place = np.zeros(len(boxes), np.int32)
    warped = rk.ops.warp_regions(image[None] - mean, sizes, boxes, place, CROP, context)
    return np.uint8(np.clip(np.asarray(warped) + mean, 0, 255))


def proposals(image: np.ndarray, record: style.Record, count: int) -> np.ndarray:
    """Return selective search's best box of each object and the first ones of the background."""
    boxes = rk.proposals.selective_search(image, min_size=16)
    ious = np.asarray(rk.ops.iou(boxes, record.boxes))
    best = [int(i) for i in ious.argmax(axis=0)]
    others = [i for i in np.flatnonzero(ious.max(axis=1) < 0.3) if i not in best]
    return boxes[[*best, *others[: count - len(best)]]]


def stages(path: Path) -> None:
    """From an image to boxes, with the numbers of the paper's AlexNet."""
    image, record = style.scene(SCENE)
    all_boxes = rk.proposals.selective_search(image)
    chosen = proposals(image, record, 5)
    labels = [record.labels[i] for i in range(3)]
    warped = crops(image, chosen)
    fig, axes = style.canvas(4.5, layout="none")
    style.diagram(axes, 14, 9)
    axes.set_position((0, 0, 1, 1))

    def inset(x: float, y: float, width: float, height: float) -> style.Axes:
        return axes.inset_axes((x / 14, y / 9, width / 14, height / 9))

    first = inset(0.15, 3.4, 4.1, 3.075)
    style.show(first, image, fade=0.2)
    for b in all_boxes[:120]:
        style.box(first, b, YELLOW, width=0.35)
    colors = (GREEN, RED, BLUE, ORANGE, PINK)
    for b, color in zip(chosen, colors, strict=True):
        style.box(first, b, color, width=1.8)
    axes.text(0.15, 8.75, "1  propose regions", weight="bold", va="top")
    axes.text(0.15, 3.2, f"selective search: {len(all_boxes)} boxes here,", fontsize=8, va="top")
    axes.text(0.15, 2.8, "about 2,000 in a photograph", fontsize=8, va="top")

    axes.text(5.0, 8.75, "2  warp each", weight="bold", va="top")
    for k, (crop, color) in enumerate(zip(warped, colors, strict=True)):
        small = inset(5.1, 7.0 - k * 1.55, 1.4, 1.4)
        style.show(small, crop)
        style.box(small, (0, 0, CROP, CROP), color, width=4)
    arrow(axes, (4.3, 4.9), (5.0, 4.9))
    axes.text(5.0, 0.62, "227 x 227 each", fontsize=8, va="top")

    axes.text(7.2, 8.75, "3  features", weight="bold", va="top")
    for k in range(5):
        arrow(axes, (6.55, 7.7 - k * 1.55), (7.15, 7.7 - k * 1.55))
    block(
        axes,
        8.2,
        4.55,
        1.9,
        7.6,
        "one\nAlexNet,\nonce for\nevery\nregion:\n\nconv1 - 5\nfc6, fc7",
        SKY,
    )

    axes.text(10.1, 8.75, "4  classify, 5  tighten", weight="bold", va="top")
    arrow(axes, (9.2, 6.6), (10.0, 6.6), "fc7", GREEN)
    arrow(axes, (9.2, 4.5), (10.0, 4.5), "pool5", BLUE)
    block(axes, 11.9, 6.6, 3.7, 1.3, "K linear SVMs\non 4,096 numbers", LIGHT)
    block(axes, 11.9, 4.5, 3.7, 1.3, "K ridge regressions\non 9,216 numbers", LIGHT)
    arrow(axes, (11.9, 3.8), (11.9, 3.25))
    last = inset(10.0, 0.35, 3.8, 2.85)
    style.show(last, image, fade=0.2)
    for b, label, color in zip(record.boxes, labels, colors, strict=False):
        style.box(last, b, color, style.scenes().classes[label])
    style.save(fig, path)


def warp(path: Path) -> None:
    """A region inside the image and one at its border, with and without context."""
    image, record = style.scene(23)
    boxes = np.array([record.boxes[0], [0, 60, 90, 120]], np.float32)
    fig, axes = style.canvas(1.85, 1, 5, width_ratios=[1.55, 1, 1, 1, 1])
    style.show(axes[0], image, fade=0.2)
    for b, color in zip(boxes, (GREEN, RED), strict=True):
        style.box(axes[0], b, color)
        grown = b + np.array([-1, -1, 1, 1]) * np.tile((b[2:] - b[:2]) * CONTEXT / (CROP - 32), 2)
        style.box(axes[0], grown, color, style=":", width=1.3)
    axes[0].set_title("two regions", loc="left", fontsize=8.5)
    for k, (context, color) in enumerate(((0, GREEN), (CONTEXT, GREEN), (0, RED), (CONTEXT, RED))):
        crop = crops(image, boxes[k // 2 : k // 2 + 1], context)[0]
        style.show(axes[k + 1], crop)
        edge = (context, context, CROP - context, CROP - context)
        style.box(axes[k + 1], edge, color, width=1.5)
        name = f"{context} pixels\nof context" if context else "tight"
        axes[k + 1].set_title(name, loc="left", fontsize=8.5)
    style.save(fig, path)


FIGURES = {"rcnn_stages.webp": stages, "warp.webp": warp}
