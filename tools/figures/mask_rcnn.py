"""Figures of docs/review/mask-rcnn.md: the mask branch, its targets and loss, RoIAlign."""

from functools import cache
from pathlib import Path

import cv2
import numpy as np

import rcnn_keras as rk
from figures import style
from figures.style import BLUE, GREEN, GREY, INK, LIGHT, ORANGE, PINK, RED, SKY, arrow, block
from rcnn_keras.data.masks import decode_mask, paste_masks

SCENE = 11  # a circle, two triangles and two stars
OBJECT = 0  # of the scene, whose mask is looked at: the circle
IMAGE, MAP = 128, 25  # pixels, positions
SCALE = MAP / IMAGE
ROI = np.array([47, 39, 62, 54], np.float32)  # 15 x 15 pixels


def small_map() -> np.ndarray:
    """Return a drawn scene as a map `(25, 25)` of whole numbers in 0..255."""
    record = style.scenes((IMAGE, IMAGE), 8, 7)[2]
    grey = cv2.cvtColor(rk.data.read_image(record.path), cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (MAP, MAP), interpolation=cv2.INTER_AREA).astype(np.float32)


def pooled(shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return RoIPool's and RoIAlign's `(2, 2)` of the RoI, moved right by some positions."""
    features = small_map()[None, :, :, None]
    rois = (ROI + np.float32([shift / SCALE, 0] * 2))[None, None]
    pool = rk.ops.roi_pool(features, rois, 2, SCALE)
    align = rk.ops.roi_align(features, rois, 2, SCALE, sampling_ratio=2, aligned=True)
    return np.asarray(pool)[0, 0, ..., 0], np.asarray(align)[0, 0, ..., 0]


def positions() -> np.ndarray:
    """Return how many positions RoIPool gives a side of 2.93, for a thousand places of it."""
    low = np.linspace(8, 9, 1000, endpoint=False)
    return np.floor(low + 15 * SCALE + 0.5) - np.floor(low + 0.5) + 1


def roi_align(path: Path) -> None:
    """A RoI of 2.93 x 2.93 positions, pooled both ways, and both as it moves."""
    x1, y1, x2, y2 = exact = ROI * SCALE
    left, top, count = 8, 6, 6
    part = small_map()[top : top + count, left : left + count]
    fig, axes = style.canvas(2.75, 1, 3)
    pool, align = pooled()
    for ax, values, name in ((axes[0], pool, "RoIPool"), (axes[1], align, "RoIAlign")):
        style.cells(ax, count, count)
        style.numbers(ax, part, color=GREY, fontsize=7)
        style.box(ax, exact - [left, top] * 2, RED, style="--", width=1.8)
        rows = "\n".join("   ".join(f"{v:5.1f}" for v in row) for row in values)
        ax.set_title(name, loc="left")
        ax.text(0, count + 0.35, f"result\n{rows}", va="top", fontsize=8, family="DejaVu Sans Mono")
    low = np.floor([x1 + 0.5, y1 + 0.5]) - [left, top]
    high = np.floor([x2 + 0.5, y2 + 0.5]) + 1 - [left, top]
    middle = (low + high) / 2
    style.box(axes[0], (*low, *high), INK, width=2)
    axes[0].plot([middle[0]] * 2, [low[1], high[1]], color=INK, linewidth=1.2)
    axes[0].plot([low[0], high[0]], [middle[1]] * 2, color=INK, linewidth=1.2)
    half = (x1 + x2) / 2 - left, (y1 + y2) / 2 - top
    axes[1].plot([half[0]] * 2, [y1 - top, y2 - top], color=RED, linewidth=1)
    axes[1].plot([x1 - left, x2 - left], [half[1]] * 2, color=RED, linewidth=1)
    steps = (np.arange(4) + 0.5) / 4
    for y in y1 + steps * (y2 - y1) - top:
        for x in x1 + steps * (x2 - x1) - left:
            axes[1].plot(x, y, "o", color=BLUE, markersize=3.5)
    x, y = x1 + steps[0] * (x2 - x1) - left, y1 + steps[0] * (y2 - y1) - top
    for dx in (0, 1):
        for dy in (0, 1):
            centre = np.floor([x - 0.5, y - 0.5]) + 0.5 + np.array([dx, dy])
            axes[1].plot([x, centre[0]], [y, centre[1]], color=ORANGE, linewidth=1)
    shifts = np.linspace(0, 2, 81)
    first = np.array([[p[0, 0], a[0, 0]] for p, a in map(pooled, shifts)])
    axes[2].plot(shifts, first[:, 0], drawstyle="steps-mid", color=INK, label="RoIPool")
    axes[2].plot(shifts, first[:, 1], color=BLUE, linestyle="--", label="RoIAlign")
    axes[2].set(xlabel="RoI moved right, in positions")
    axes[2].set_title("the upper left number", loc="left")
    axes[2].legend(loc="upper left")
    style.save(fig, path)


@cache
def example() -> dict[str, np.ndarray]:
    """Return an object's mask, the small detector's box for it, targets, and its four maps."""
    image, record = style.scene(SCENE)
    model = style.detector()
    found = model.detect(image[None])[0]
    ious = rk.evaluation.box_iou(found.boxes, record.boxes[OBJECT : OBJECT + 1])[:, 0]
    box = found.boxes[int((ious * (found.scores > 0.5)).argmax())]
    mask = decode_mask(record.segmentations[OBJECT], 240, 320)
    sides = {"min_size": model.min_size, "max_size": model.max_size}
    inputs, _ = next(iter(style.scenes()[SCENE : SCENE + 1].batches(1, **sides)))
    scale = float(np.asarray(inputs["image_sizes"])[0, 0]) / 240
    maps = model.run_backbone(inputs, training=False)["features"]
    place = np.zeros(1, np.int32)
    logits = model.mask_head(model.mask_roi_align(maps, box[None] * scale, place))
    return {
        "image": image,
        "box": box,
        "mask": mask,
        "logits": np.asarray(logits)[0],
        "label": np.asarray(record.labels[OBJECT]),
        **{f"target_{m}": target(mask, box, m) for m in (7, 14, 28)},
    }


def target(mask: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """Return the mask target `(m, m)` of a RoI, in 0..1."""
    packed = rk.ops.pack_bits(mask[None, None])
    place = np.zeros(1, np.int32)
    sizes = np.array([mask.shape], np.int32)
    return np.asarray(rk.ops.mask_targets(packed, sizes, box[None], place, place, size))[0]


def pasted_iou(size: int) -> float:
    """Return the IoU of an object's mask with its target of a size, pasted back, in the RoI."""
    it = example()
    pasted = paste_masks(it[f"target_{size}"][None], it["box"][None], it["mask"].shape, 0.5)[0]
    x1, y1, x2, y2 = np.rint(it["box"]).astype(int)
    a, b = (m[max(y1, 0) : y2, max(x1, 0) : x2] for m in (pasted, it["mask"]))
    return float((a & b).sum() / (a | b).sum())


def targets(path: Path) -> None:
    """A RoI, the targets of three sizes, and what is left of them in the image."""
    it = example()
    fig, axes = style.canvas(3.5, 2, 4)
    outlined = it["image"].copy()
    outlined[~it["mask"]] = np.uint8(255 - (255 - outlined[~it["mask"]]) * 0.4)
    style.show(axes[0, 0], outlined, "RoI and true mask")
    style.box(axes[0, 0], it["box"], RED)
    x1, y1, x2, y2 = it["box"]
    view = {"xlim": (x1 - 12, x2 + 12), "ylim": (y2 + 12, y1 - 12)}
    axes[0, 0].set(**view)
    axes[1, 0].axis("off")
    axes[1, 0].text(0, 0.5, "pasted into the image\nand cut at 0.5", va="center", fontsize=8.5)
    for (top, bottom), size in zip(axes[:, 1:].T, (7, 14, 28), strict=True):
        values = it[f"target_{size}"]
        top.imshow(values, cmap="cividis", vmin=0, vmax=1)
        top.set(xticks=[], yticks=[], title=f"m = {size}")
        pasted = paste_masks(values[None], it["box"][None], it["mask"].shape, 0.5)[0]
        style.show(bottom, it["image"], fade=0.5)
        contours, _ = cv2.findContours(
            pasted.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        for contour in contours:
            bottom.plot(*(np.concatenate([contour[:, 0], contour[:1, 0]]).T + 0.5), color=RED)
        bottom.set(**view)
        bottom.set_xlabel(f"IoU {pasted_iou(size):.3f}")
    style.save(fig, path)


def class_maps(path: Path) -> None:
    """The four maps of one RoI, its target, and the loss of each cell."""
    it = example()
    label = int(it["label"])
    names = style.scenes().classes
    p = 1 / (1 + np.exp(-it["logits"]))
    fig, axes = style.canvas(3.6, 2, 4)
    for k, ax in enumerate(axes[0]):
        ax.imshow(p[..., k], cmap="cividis", vmin=0, vmax=1)
        own = k == label
        ax.set_title(f"{names[k]}: {'counts' if own else 'no loss'}", loc="left")
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set(visible=own, edgecolor=RED, linewidth=3)
    y, own_p = it["target_28"], p[..., label]
    cross_entropy = -(y * np.log(own_p) + (1 - y) * np.log(1 - own_p))
    panels = (
        (y, "target $y$", "cividis", 1),
        (own_p, f"$\\hat y$ of its class, {names[label]}", "cividis", 1),
        (cross_entropy, "cross-entropy of each cell", "magma", 2),
    )
    for ax, (values, title, colors, most) in zip(axes[1], panels, strict=False):
        ax.imshow(values, cmap=colors, vmin=0, vmax=most)
        ax.set(xticks=[], yticks=[])
        ax.set_title(title, loc="left")
    axes[1, 3].axis("off")
    axes[1, 3].text(
        0, 0.5, f"their mean:\n$L_{{mask}}$ = {cross_entropy.mean():.3f}", va="center", fontsize=11
    )
    style.save(fig, path)


def loss() -> tuple[float, float]:
    """Return the loss of the example by the package, and as the equation has it."""
    it = example()
    own, y = it["logits"][..., int(it["label"])], it["target_28"]
    total, cells = rk.losses.mask_head_loss(own[None], y[None], np.array([True]))["mask_loss"]
    p = 1 / (1 + np.exp(-own.astype(np.float64)))
    return float(total) / float(cells), float(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean())


def branch(path: Path) -> None:
    """The two heads on a feature pyramid, with the paper's numbers."""
    fig, ax = style.canvas(2.75, layout="none")
    ax.set_position((0, 0, 1, 1))
    style.diagram(ax, 14, 5.5)
    block(ax, 1.3, 2.75, 2.2, 1.9, "feature\npyramid,\nRoIs", LIGHT)
    arrow(ax, (2.4, 3.2), (3.2, 4.1))
    arrow(ax, (2.4, 2.3), (3.2, 1.4))
    block(ax, 4.1, 4.2, 1.8, 1.4, "RoIAlign\n7x7x256", ORANGE)
    arrow(ax, (5.0, 4.2), (5.6, 4.2))
    block(ax, 6.5, 4.2, 1.8, 1.4, "two dense,\n1,024", SKY)
    arrow(ax, (7.4, 4.4), (8.1, 4.75))
    arrow(ax, (7.4, 4.0), (8.1, 3.65))
    block(ax, 9.2, 4.8, 2.2, 0.85, "softmax, K + 1", GREEN, color="white")
    block(ax, 9.2, 3.6, 2.2, 0.85, "4 deltas x K", BLUE, color="white")
    block(ax, 4.1, 1.3, 1.8, 1.4, "RoIAlign\n14x14x256", ORANGE)
    arrow(ax, (5.0, 1.3), (5.6, 1.3))
    block(ax, 6.5, 1.3, 1.8, 1.4, "four conv\n3x3, 256", SKY)
    arrow(ax, (7.4, 1.3), (8.1, 1.3))
    block(ax, 9.2, 1.3, 2.2, 1.4, "transposed conv\n2x2, stride 2\n28x28x256", SKY)
    arrow(ax, (10.3, 1.3), (11.0, 1.3))
    block(ax, 12.4, 1.3, 2.6, 1.4, "conv 1x1:\n28x28xK, a\nsigmoid a cell", PINK)
    ax.text(
        10.6, 4.2, "at test the masks are\ndrawn for the final\nboxes only", fontsize=8, va="center"
    )
    style.save(fig, path)


FIGURES = {
    "mask_branch.png": branch,
    "mask_targets.webp": targets,
    "mask_loss.png": class_maps,
    "roi_align.png": roi_align,
}
