"""`mrcnn.visualize`: pictures of images, objects and scores by matplotlib."""

import colorsys
import random
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from rcnn_keras.compat.mrcnn.utils import compute_matches, extract_bboxes

Color = tuple[float, ...]


def display_images(
    images: Sequence[np.ndarray],
    titles: Sequence[str] | None = None,
    cols: int = 4,
    cmap: Any = None,
    norm: Any = None,
    interpolation: str | None = None,
) -> None:
    """Show images side by side, so many in a row."""
    import matplotlib.pyplot as plt

    titles = [""] * len(images) if titles is None else titles
    rows = -(-len(images) // cols)
    plt.figure(figsize=(14, 14 * max(rows, 1) // cols + 1))
    for number, (image, title) in enumerate(zip(images, titles, strict=False), start=1):
        plt.subplot(rows, cols, number)
        plt.title(title, fontsize=9)
        plt.axis("off")
        shown = image if np.issubdtype(np.asarray(image).dtype, np.floating) else _pixels(image)
        plt.imshow(shown, cmap=cmap, norm=norm, interpolation=interpolation)
    plt.show()


def _pixels(image: Any) -> np.ndarray:
    return np.asarray(image).astype(np.uint8)


def random_colors(N: int, bright: bool = True) -> list[Color]:
    """Return N colours that differ as much as they can, in random order: RGB in 0..1."""
    colors: list[Color] = [colorsys.hsv_to_rgb(i / N, 1, 1.0 if bright else 0.7) for i in range(N)]
    random.shuffle(colors)
    return colors


def apply_mask(
    image: np.ndarray, mask: np.ndarray, color: Sequence[float], alpha: float = 0.5
) -> np.ndarray:
    """Blend a colour, RGB in 0..1, into the pixels of a mask; changes and returns the image."""
    covered = np.asarray(mask) == 1
    paint = alpha * 255 * np.asarray(color[:3], np.float64)
    image[covered] = image[covered] * (1 - alpha) + paint
    return image


def display_instances(
    image: np.ndarray,
    boxes: np.ndarray,
    masks: np.ndarray | None,
    class_ids: np.ndarray,
    class_names: Sequence[str],
    scores: np.ndarray | None = None,
    title: str = "",
    figsize: tuple[float, float] = (16, 16),
    ax: Any = None,
    show_mask: bool = True,
    show_bbox: bool = True,
    colors: Sequence[Color] | None = None,
    captions: Sequence[str] | None = None,
) -> None:
    """Draw objects on an image, and show it unless the axes were given.

    Args:
        image: `(H, W, 3)`.
        boxes: `(N, 4)`; rows of zeros are left out.
        masks: `(H, W, N)`; None where `show_mask` is False.
        class_ids: `(N,)`.
        class_names: of all classes, the background first.
        scores: `(N,)` or None.
        title: of the picture.
        figsize: in inches, of a new figure.
        ax: matplotlib's axes to draw into.
        show_mask: draw masks and their outlines.
        show_bbox: draw boxes.
        colors: of the objects, RGB in 0..1.
        captions: of the objects, instead of class and score.

    Raises:
        ValueError: if boxes, masks and class ids are not equally many.
    """
    import matplotlib.pyplot as plt
    from matplotlib import patches

    count = len(boxes)
    of_masks = count if masks is None else masks.shape[-1]
    if not count == of_masks == len(class_ids):
        raise ValueError(
            f"boxes, masks and class ids must be equally many; there are {count}, {of_masks} and "
            f"{len(class_ids)}"
        )
    if not count:
        print("\n*** No instances to display *** \n")
    given = ax is not None
    if ax is None:
        _, ax = plt.subplots(1, figsize=figsize)
    colors = colors or random_colors(count)
    height, width = image.shape[:2]
    ax.set_ylim(height + 10, -10)
    ax.set_xlim(-10, width + 10)
    ax.axis("off")
    ax.set_title(title)
    painted = np.asarray(image).astype(np.uint32).copy()
    for i in range(count):
        if not np.any(boxes[i]):
            continue
        color = colors[i]
        y1, x1, y2, x2 = boxes[i]
        if show_bbox:
            frame = patches.Rectangle(
                (x1, y1),
                x2 - x1,
                y2 - y1,
                linewidth=2,
                alpha=0.7,
                linestyle="dashed",
                edgecolor=color,
                facecolor="none",
            )
            ax.add_patch(frame)
        if captions:
            caption = captions[i]
        else:
            name = class_names[class_ids[i]]
            caption = name if scores is None else f"{name} {scores[i]:.3f}"
        ax.text(x1, y1 + 8, caption, color="w", size=11, backgroundcolor="none")
        if masks is not None and show_mask:
            painted = apply_mask(painted, masks[:, :, i], color)
            for outline in _outlines(masks[:, :, i]):
                ax.add_patch(patches.Polygon(outline, facecolor="none", edgecolor=color))
    ax.imshow(painted.astype(np.uint8))
    if not given:
        plt.show()


def _outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Return the polygons around a mask's regions, points `(n, 2)` x and y."""
    found, _ = cv2.findContours(
        np.asarray(mask).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    return [outline[:, 0] for outline in found if len(outline) > 2]


def display_top_masks(
    image: np.ndarray,
    mask: np.ndarray,
    class_ids: np.ndarray,
    class_names: Sequence[str],
    limit: int = 4,
) -> None:
    """Show an image beside the masks of its classes that cover most of it."""
    pictures, titles = [image], [f"H x W={image.shape[0]}x{image.shape[1]}"]
    areas = {i: int(mask[:, :, np.asarray(class_ids) == i].sum()) for i in np.unique(class_ids)}
    largest = [i for i in sorted(areas, key=lambda i: -areas[i]) if areas[i] > 0][:limit]
    for place in range(limit):
        of_class = np.zeros(mask.shape[:2], np.uint8)
        title = "-"
        if place < len(largest):
            chosen = mask[:, :, np.asarray(class_ids) == largest[place]]
            of_class = (chosen * np.arange(1, chosen.shape[-1] + 1)).sum(-1).astype(np.uint8)
            title = class_names[largest[place]]
        pictures.append(of_class)
        titles.append(title)
    display_images(pictures, titles=titles, cols=limit + 1, cmap="Blues_r")


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray | None = None,
    refined_boxes: np.ndarray | None = None,
    masks: np.ndarray | None = None,
    captions: Sequence[str] | None = None,
    visibilities: Sequence[int] | None = None,
    title: str = "",
    ax: Any = None,
) -> None:
    """Draw boxes, and what they became, on an image.

    `visibilities` are 0 for gray and thin, 1 for coloured, and 2 for coloured and thick.
    """
    import matplotlib.pyplot as plt
    from matplotlib import patches

    shown = refined_boxes if boxes is None else boxes
    count = 0 if shown is None else len(shown)
    given = ax is not None
    if ax is None:
        _, ax = plt.subplots(1, figsize=(12, 12))
    colors = random_colors(count)
    margin = image.shape[0] // 10
    ax.set_ylim(image.shape[0] + margin, -margin)
    ax.set_xlim(-margin, image.shape[1] + margin)
    ax.axis("off")
    ax.set_title(title)
    painted = np.asarray(image).astype(np.uint32).copy()
    for i in range(count):
        visible = 1 if visibilities is None else visibilities[i]
        color: Any = "gray" if visible == 0 else colors[i]
        for of_kind, style in (
            (boxes, "dotted" if visible < 2 else "dashed"),
            (refined_boxes, "-"),
        ):
            if of_kind is None or not np.any(of_kind[i]):
                continue
            y1, x1, y2, x2 = of_kind[i]
            ax.add_patch(
                patches.Rectangle(
                    (x1, y1), x2 - x1, y2 - y1, linestyle=style, edgecolor=color, facecolor="none"
                )
            )
            if captions and (of_kind is refined_boxes or refined_boxes is None):
                ax.text(x1, y1, captions[i], size=11, color="w")
        if masks is not None:
            painted = apply_mask(painted, masks[:, :, i], colors[i])
    ax.imshow(painted.astype(np.uint8))
    if not given:
        plt.show()


def display_differences(
    image: np.ndarray,
    gt_box: np.ndarray,
    gt_class_id: np.ndarray,
    gt_mask: np.ndarray,
    pred_box: np.ndarray,
    pred_class_id: np.ndarray,
    pred_score: np.ndarray,
    pred_mask: np.ndarray,
    class_names: Sequence[str],
    title: str = "",
    ax: Any = None,
    show_mask: bool = True,
    show_box: bool = True,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.5,
) -> None:
    """Draw ground truth (green) and predictions (red) on one image, with scores and IoUs."""
    gt_match, pred_match, overlaps = compute_matches(
        gt_box,
        gt_class_id,
        gt_mask,
        pred_box,
        pred_class_id,
        pred_score,
        pred_mask,
        iou_threshold=iou_threshold,
        score_threshold=score_threshold,
    )
    order = np.argsort(pred_score)[::-1]
    captions = [""] * len(gt_match) + [
        f"{pred_score[i]:.2f} / {overlaps[place].max() if overlaps[place].size else 0.0:.2f}"
        for place, i in enumerate(order)
    ]
    display_instances(
        image,
        np.concatenate([gt_box, pred_box[order]]),
        np.concatenate([gt_mask, pred_mask[..., order]], axis=2),
        np.concatenate([gt_class_id, pred_class_id[order]]),
        class_names,
        title=title or "Ground Truth and Detections\n GT=green, pred=red, captions: score/IoU",
        ax=ax,
        show_mask=show_mask,
        show_bbox=show_box,
        colors=[(0, 1, 0, 0.8)] * len(gt_match) + [(1, 0, 0, 1)] * len(pred_match),
        captions=captions,
    )


def plot_precision_recall(AP: float, precisions: np.ndarray, recalls: np.ndarray) -> None:
    """Plot precision over recall, as `utils.compute_ap` returns them."""
    import matplotlib.pyplot as plt

    _, ax = plt.subplots(1)
    ax.set_title(f"Precision-Recall Curve. AP@50 = {AP:.3f}")
    ax.set_xlim(0, 1.1)
    ax.set_ylim(0, 1.1)
    ax.plot(recalls, precisions)
    plt.show()


def plot_overlaps(
    gt_class_ids: np.ndarray,
    pred_class_ids: np.ndarray,
    pred_scores: np.ndarray,
    overlaps: np.ndarray,
    class_names: Sequence[str],
    threshold: float = 0.5,
) -> None:
    """Show the IoU of each prediction with each object as a table."""
    import matplotlib.pyplot as plt

    gt_class_ids = gt_class_ids[gt_class_ids != 0]
    pred_class_ids = pred_class_ids[pred_class_ids != 0]
    plt.figure(figsize=(12, 10))
    plt.imshow(overlaps, interpolation="nearest", cmap="Blues")
    rows = [
        f"{class_names[i]} ({s:.2f})" for i, s in zip(pred_class_ids, pred_scores, strict=False)
    ]
    plt.yticks(np.arange(len(rows)), rows)
    plt.xticks(np.arange(len(gt_class_ids)), [class_names[i] for i in gt_class_ids], rotation=90)
    half = overlaps.max() / 2.0 if overlaps.size else 0
    for (row, column), value in np.ndenumerate(overlaps):
        own = value > threshold and gt_class_ids[column] == pred_class_ids[row]
        mark = "match" if own else "wrong" if value > threshold else ""
        color = "white" if value > half else "black"
        plt.text(column, row, f"{value:.3f}\n{mark}", ha="center", va="center", color=color)
    plt.tight_layout()
    plt.xlabel("Ground Truth")
    plt.ylabel("Predictions")
    plt.show()


def draw_box(image: np.ndarray, box: Sequence[int], color: Sequence[int]) -> np.ndarray:
    """Draw a box two pixels wide into an image, which is changed and returned."""
    y1, x1, y2, x2 = box
    image[y1 : y1 + 2, x1:x2] = color
    image[y2 : y2 + 2, x1:x2] = color
    image[y1:y2, x1 : x1 + 2] = color
    image[y1:y2, x2 : x2 + 2] = color
    return image


__all__ = [
    "apply_mask",
    "display_differences",
    "display_images",
    "display_instances",
    "display_top_masks",
    "draw_box",
    "draw_boxes",
    "extract_bboxes",
    "plot_overlaps",
    "plot_precision_recall",
    "random_colors",
]
