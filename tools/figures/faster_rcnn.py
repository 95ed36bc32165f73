"""Figures of docs/review/faster-rcnn.md: RPN, anchors, their labels, the sample, four steps."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

import rcnn_keras as rk
from figures import style
from figures.style import BLUE, GREEN, GREY, INK, LIGHT, ORANGE, PINK, RED, SKY, arrow, block
from rcnn_keras.layers import AnchorSampler
from rcnn_keras.ops.matching import IGNORED, NEGATIVE, POSITIVE
from rcnn_keras.training.alternating import STEPS

SIZES, RATIOS, STRIDE = (128, 256, 512), (0.5, 1.0, 2.0), 16  # the paper's
HEIGHT, WIDTH = 600, 800
SEED = 12  # of the scene: two circles and a triangle
PROPOSALS_SCENE = 11  # five shapes that touch
SHAPE = (38, 50)  # of the map of an image of 800x600, padded to 800x608
PAPER_SHAPE = (40, 60)
LABEL_COLORS = {POSITIVE: GREEN, -2: ORANGE, NEGATIVE: SKY, IGNORED: LIGHT}


def scene() -> tuple[np.ndarray, style.Record]:
    """Return an image of 800x600 and its ground truth."""
    record = style.scenes((HEIGHT, WIDTH), 1, SEED)[0]
    return rk.data.read_image(record.path), record


def anchors(shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Return the anchors of a map of stride 16, `(H * W * 9, 4)`."""
    base = rk.ops.base_anchors(SIZES, RATIOS)
    return np.asarray(rk.ops.grid_anchors(base, shape, (STRIDE, STRIDE)))


def inside(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return which anchors cross no border, `(n,)` bool."""
    return np.asarray(rk.ops.inside_image(boxes[None], np.array([[height, width]])))[0]


def nine(path: Path) -> None:
    """The nine anchors of one position."""
    image, _ = scene()
    at = (SHAPE[0] // 2) * SHAPE[1] + SHAPE[1] // 2
    own = anchors().reshape(-1, 9, 4)[at]
    fig, ax = style.canvas(4.9)
    style.show(ax, image, fade=0.35)
    for k, b in enumerate(own):
        ratio, size = divmod(k, 3)  # sizes vary fastest
        color, line = (BLUE, GREEN, RED)[size], ("-", "--", ":")[ratio]
        style.box(ax, b, color, style=line, width=2.4)
    x, y = own[0, :2] + (own[0, 2:] - own[0, :2]) / 2
    ax.plot(x, y, "o", color=INK, markersize=6)
    ax.set(xlim=(-30, 830), ylim=(690, -80))
    style.box(ax, (0, 0, WIDTH, HEIGHT), INK, width=1)
    names = [f"area {s}²" for s in SIZES] + [
        "height = width / 2",
        "height = width",
        "height = 2 width",
    ]
    looks = [(BLUE, "-"), (GREEN, "-"), (RED, "-"), (INK, "-"), (INK, "--"), (INK, ":")]
    handles = [
        style.mpl.lines.Line2D([], [], color=c, linestyle=line, linewidth=2, label=n)
        for n, (c, line) in zip(names, looks, strict=True)
    ]
    ax.legend(
        handles=handles, loc="lower left", ncols=2, facecolor="white", frameon=True, framealpha=0.9
    )
    style.save(fig, path)


class Count(NamedTuple):
    """Anchors of a map: all, and those inside of the image."""

    positions: int
    all: int
    inside: int


def count(shape: tuple[int, int], height: int, width: int) -> Count:
    """Count the anchors of a map."""
    boxes = anchors(shape)
    return Count(shape[0] * shape[1], len(boxes), int(inside(boxes, height, width).sum()))


def border(path: Path) -> None:
    """How many anchors of each position stay inside, and how many of each size."""
    within = inside(anchors(), HEIGHT, WIDTH).reshape(*SHAPE, 9)
    fig, (ax, bars) = style.canvas(2.9, 1, 2, width_ratios=[1.3, 1])
    shown = ax.imshow(
        within.sum(axis=2), cmap="cividis", vmin=0, vmax=9, extent=(0, WIDTH, HEIGHT, 0)
    )
    ax.set(xlabel="x of the position in pixels", ylabel="y")
    ax.set_title("of its 9 anchors inside of the image", loc="left")
    fig.colorbar(shown, ax=ax, ticks=range(0, 10, 3), shrink=0.85)
    names = [f"{s}², {r}" for r in ("1:2", "1:1", "2:1") for s in SIZES]
    totals = within.reshape(-1, 9).sum(axis=0)
    y = np.arange(9)
    bars.barh(y, within.shape[0] * within.shape[1], color=LIGHT, height=0.75)
    bars.barh(y, totals, color=BLUE, height=0.75)
    for k, total in enumerate(totals):
        bars.text(total + 30, k, f"{total:,}", va="center", fontsize=8)
    bars.set_yticks(y, names)
    bars.invert_yaxis()
    bars.set(xlabel="anchors inside, of 1,900 each")
    bars.set_title("area, height : width", loc="left")
    style.save(fig, path)


@cache
def labels() -> tuple[np.ndarray, np.ndarray]:
    """Return each anchor's label and its largest IoU, as `AnchorSampler` sees them.

    Labels are 1 positive, 0 negative, -1 crossing the border, and -2 neutral.
    """
    _, record = scene()
    boxes = anchors()
    within = inside(boxes, HEIGHT, WIDTH)
    ious = np.asarray(rk.ops.iou(record.boxes, boxes)) * within
    found = rk.ops.match(
        lambda n: ious[None, int(n)], np.ones((1, len(record)), bool), 0.7, 0.3, True
    )[1]
    matched = np.asarray(found)[0]
    return np.where(within, np.where(matched == IGNORED, -2, matched), IGNORED), ious.max(axis=0)


def label_counts() -> dict[str, int]:
    """Return how many anchors of the scene are of each kind."""
    found = labels()[0]
    kinds = {"positive": POSITIVE, "neutral": -2, "negative": NEGATIVE, "crossing": IGNORED}
    counts = {name: int((found == value).sum()) for name, value in kinds.items()}
    return counts | {"by the second rule": int(((found == POSITIVE) & (labels()[1] < 0.7)).sum())}


def label_map(path: Path) -> None:
    """Positive anchors, and the best label at each position."""
    image, record = scene()
    found, ious = labels()
    boxes = anchors()
    fig, (left, right) = style.canvas(2.85, 1, 2)
    style.show(left, image, fade=0.35)
    for b, overlap in zip(boxes[found == POSITIVE], ious[found == POSITIVE], strict=True):
        first_rule = overlap >= 0.7
        style.box(
            left, b, GREEN if first_rule else RED, style="-" if first_rule else "--", width=1.2
        )
    for b in record.boxes:
        style.box(left, b, INK, width=2.2)
    left.set_title(f"{(found == POSITIVE).sum()} positive anchors", loc="left")
    left.set_xlabel("green: IoU from 0.7 up; red: the best of an object", fontsize=8)
    style.show(right, image, fade=0.6)
    order = [POSITIVE, -2, NEGATIVE, IGNORED]
    rank = np.array([order.index(v) for v in found]).reshape(-1, 9).min(axis=1)
    ys, xs = np.divmod(np.arange(len(rank)), SHAPE[1])
    names = ("positive", "neutral", "negative", "all cross the border")
    for k, (marker, name) in enumerate(zip("so.x", names, strict=True)):
        of_kind = rank == k
        color = (GREEN, ORANGE, BLUE, GREY)[k]
        size = (4.5, 3, 1.5, 2)[k]
        right.plot(
            xs[of_kind] * 16, ys[of_kind] * 16, marker, color=color, markersize=size, label=name
        )
    for b in record.boxes:
        style.box(right, b, INK, width=1.6)
    right.set_title("the best of the 9 at each position", loc="left")
    right.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=4,
        handletextpad=0.1,
        columnspacing=0.8,
        fontsize=7.5,
    )
    style.save(fig, path)


@cache
def sampled() -> tuple[np.ndarray, np.ndarray]:
    """Return the indices and labels of the 256 anchors that one step trains on."""
    _, record = scene()
    sampler = AnchorSampler(ignore_border=True)
    targets = {
        "boxes": record.boxes[None],
        "labels": record.labels[None],
        "crowd": record.crowd[None],
    }
    sizes, ids = np.array([[HEIGHT, WIDTH]], np.int32), np.array([record.image_id])
    indices, match_labels, _ = sampler(anchors(), targets, sizes, ids, step=0)
    return np.asarray(indices)[0], np.asarray(match_labels)[0]


def sample(path: Path) -> None:
    """The 256 anchors of one step."""
    image, record = scene()
    indices, match_labels = sampled()
    boxes = anchors()[indices]
    fig, axes = style.canvas(2.75, 1, 2)
    for ax, value, color, name in ((axes[0], 1, GREEN, "positive"), (axes[1], 0, BLUE, "negative")):
        style.show(ax, image, fade=0.45)
        own = boxes[match_labels == value]
        for b in own:
            style.box(ax, b, color, width=1.1 if value else 0.5)
            ax.plot(*(b[:2] + b[2:]) / 2, "o", color=color, markersize=2)
        for b in record.boxes:
            style.box(ax, b, INK, width=2)
        ax.set_title(f"{len(own)} {name}", loc="left")
    style.save(fig, path)


def head(path: Path) -> None:
    """The RPN's layers, with the paper's numbers for VGG-16."""
    fig, ax = style.canvas(2.5, layout="none")
    ax.set_position((0, 0, 1, 1))
    style.diagram(ax, 14, 5)
    block(ax, 1.5, 2.5, 2.4, 1.7, "map of VGG-16\nH/16 x W/16\nx 512", LIGHT)
    arrow(ax, (2.7, 2.5), (3.6, 2.5))
    block(ax, 4.7, 2.5, 2.2, 1.7, "conv 3x3, 512\npadding 1\nReLU", SKY)
    arrow(ax, (5.8, 2.8), (6.8, 3.6))
    arrow(ax, (5.8, 2.2), (6.8, 1.4))
    block(ax, 8.0, 3.7, 2.4, 1.4, "conv 1x1, 2k = 18\nsoftmax of two", GREEN, color="white")
    block(ax, 8.0, 1.3, 2.4, 1.4, "conv 1x1, 4k = 36\ndeltas", BLUE, color="white")
    arrow(ax, (9.2, 3.7), (10.0, 2.9))
    arrow(ax, (9.2, 1.3), (10.0, 2.1))
    block(ax, 10.9, 2.5, 1.8, 1.7, "move anchors,\nclip, NMS 0.7", ORANGE)
    arrow(ax, (11.8, 2.5), (12.3, 2.5))
    block(ax, 13.1, 2.5, 1.5, 1.7, "2,000\nRoIs, at\ntest 300", LIGHT)
    ax.text(
        0.3, 4.6, "k = 9 anchors at each position; the same weights at every position", fontsize=8.5
    )
    style.save(fig, path)


def proposals(path: Path) -> None:
    """Objectness of the small detector, its best boxes before NMS and those after it."""
    image, _ = style.scene(PROPOSALS_SCENE)
    model = style.detector()
    sides = {"min_size": model.min_size, "max_size": model.max_size}
    inputs, _ = next(
        iter(style.scenes()[PROPOSALS_SCENE : PROPOSALS_SCENE + 1].batches(1, **sides))
    )
    first = model.extract_features(inputs, training=False)
    height, width = (int(v) for v in np.asarray(first["image_sizes"])[0])
    scale = 240 / height
    heat = np.zeros((240, 320))
    all_boxes, all_scores = [], []
    for logits, deltas, boxes, features in zip(
        first["rpn_logits"], first["rpn_deltas"], first["anchors"], first["features"], strict=True
    ):
        p = 1 / (1 + np.exp(-np.asarray(logits)[0]))
        rows, columns = features.shape[1:3]
        best = p.reshape(rows, columns, 3).max(axis=2).astype(np.float32)
        stride = first["images"].shape[1] / rows
        used = best[: int(np.ceil(height / stride)), : int(np.ceil(width / stride))]
        heat = np.maximum(heat, cv2.resize(used, (320, 240), interpolation=cv2.INTER_LINEAR))
        all_boxes.append(np.asarray(rk.ops.decode_boxes(np.asarray(deltas)[0], np.asarray(boxes))))
        all_scores.append(p)
    moved, p = np.concatenate(all_boxes), np.concatenate(all_scores)
    top = np.argsort(-p)[:100]
    fig, axes = style.canvas(1.9, 1, 3)
    style.show(axes[0], image, "objectness, best of all levels", fade=0.5)
    axes[0].imshow(heat, cmap="magma", extent=(0, 320, 240, 0), alpha=0.75, vmin=0, vmax=1)
    style.show(axes[1], image, "100 best boxes before NMS", fade=0.35)
    for b in moved[top]:
        style.box(axes[1], b * scale, BLUE, width=0.5)
    style.show(axes[2], image, "12 best after it", fade=0.35)
    for b in np.asarray(first["proposals"])[0][:12]:
        style.box(axes[2], b * scale, RED, width=1.1)
    style.save(fig, path)


def four_steps(path: Path) -> None:
    """What each of the four steps trains, and from which weights."""
    fig, ax = style.canvas(2.8, layout="none")
    ax.set_position((0, 0, 1, 1))
    style.diagram(ax, 14, 5.6)
    heads = (
        ("RPN,\nnew weights", PINK),
        ("fc6, fc7, classes,\nboxes", GREEN),
        ("RPN,\nnew weights", ORANGE),
        ("fc6, fc7, classes,\nboxes of step 2", GREEN),
    )
    for k, (step, (head_text, color)) in enumerate(zip(STEPS, heads, strict=True)):
        x = 1.75 + 3.5 * k
        name = "RPN" if step.rpn else "Fast R-CNN"
        ax.text(x, 5.3, f"step {k + 1}: {name}", ha="center", weight="bold")
        trunk = "convolutions\nof ImageNet" if step.convolutions else "convolutions\nof step 2"
        _part(ax, x, 1.45, trunk, step.convolutions, BLUE if k == 0 else RED)
        _part(ax, x, 3.9, head_text, True, color)
        arrow(ax, (x, 2.18), (x, 3.18))
        if step.rpn:
            arrow(ax, (x + 1.2, 3.9), (x + 2.3, 3.9), "RoIs", INK)
        elif k == 1:
            arrow(ax, (x + 1.2, 1.45), (x + 2.3, 1.45), "frozen", RED)
    arrow(ax, (1.75 + 7 + 1.2, 1.45), (1.75 + 7 + 2.3, 1.45), "frozen", RED)
    text = "solid: trained in this step    dashed: frozen    same colour: the same weights"
    ax.text(0.5, 0.2, text, fontsize=8.5)
    style.save(fig, path)


def _part(ax: style.Axes, x: float, y: float, text: str, trained: bool, color: str) -> None:
    block(ax, x, y, 2.35, 1.4, text, "white", linestyle="-" if trained else "--", fontsize=7.5)
    patch = ax.patches[-1]
    patch.set(edgecolor=color, linewidth=2.6)


FIGURES = {
    "rpn.png": head,
    "nine_anchors.webp": nine,
    "border.png": border,
    "anchor_labels.webp": label_map,
    "sampled_anchors.webp": sample,
    "rpn_proposals.webp": proposals,
    "four_steps.png": four_steps,
}
