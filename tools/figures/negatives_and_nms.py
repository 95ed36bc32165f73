"""Figures of docs/review/hard-negatives-and-nms.md: mining round by round, suppression by steps."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

import rcnn_keras as rk
from figures import style
from figures.selective_search import fitted_objectness
from figures.style import BLUE, GREEN, INK, LINE_COLORS, RED, SKY
from rcnn_keras.proposals.objectness import CUES
from rcnn_keras.training.rcnn.features import Windows, image_windows
from rcnn_keras.training.rcnn.linear_models import HARD_MARGIN, NEGATIVE_IOU, SVMs, train_svms

C = 1.0  # weight of the hinge loss


@cache
def examples() -> list[tuple[np.ndarray, Windows]]:
    """Return for 12 scenes two features of each window, ground truth first, and the windows.

    The features are two cues of objectness, so that an SVM is a line; R-CNN has 4,096 numbers.
    """
    model = fitted_objectness()
    found = []
    for record in style.scenes((240, 320), 24, 9):
        if len(found) == 12 or not len(record):
            continue
        sampled = rk.proposals.sample_windows(240, 320, 150, seed=record.image_id)
        record = replace(record, labels=np.zeros(len(record), np.int32), proposals=sampled)
        windows = image_windows(record, 1)
        image = rk.data.read_image(record.path)
        cues = [
            CUES[name][0](image, windows.boxes, model.cues[name].theta)
            for name in ("color_contrast", "superpixels_straddling")
        ]
        found.append((np.stack(cues, axis=1) * 4, windows))
    return found


@cache
def mined(images: int, passes: int) -> SVMs:
    """Return the SVM after some passes over the first images."""
    return train_svms(examples()[:images], 1, c=C, log=lambda line: None, max_passes=passes)


def hard_negatives(path: Path) -> None:
    """The SVM after the first image, after one pass and at the end, and what was hard for it."""
    states = [("after the first image", mined(1, 1)), ("after pass 1", mined(12, 1))]
    final = mined(12, 10)
    states.append((f"after pass {len(final.rounds)}: no new ones", final))
    features = np.concatenate([f for f, _ in examples()])
    windows = [w for _, w in examples()]
    positive = np.concatenate([w.labels == 0 for w in windows])
    negative = np.concatenate([w.overlaps[:, 0] < NEGATIVE_IOU for w in windows])
    fig, axes = style.canvas(3.0, 1, 3, sharey=True)
    for ax, (title, svm) in zip(axes, states, strict=True):
        margins = features @ svm.kernel[:, 0] + svm.bias[0]
        hard = negative & (margins > HARD_MARGIN)
        easy = negative & ~hard
        x = features / 4
        ax.plot(*x[easy].T, ".", color=SKY, markersize=2.5, label=f"easy negatives: {easy.sum()}")
        ax.plot(*x[hard].T, "x", color=RED, markersize=4, label=f"hard: {hard.sum()}")
        ax.plot(
            *x[positive].T,
            "^",
            color=GREEN,
            markersize=4.5,
            markeredgecolor=INK,
            markeredgewidth=0.4,
            label=f"positives: {positive.sum()}",
        )
        w = svm.kernel[:, 0] * 4
        across = np.linspace(-0.05, 1, 2)
        for margin, line in ((0, "-"), (-1, "--"), (1, ":")):
            ax.plot(
                across,
                (margin - svm.bias[0] - w[0] * across) / w[1],
                color=INK,
                linewidth=1.1,
                linestyle=line,
            )
        ax.set(xlim=(-0.03, 0.9), ylim=(-0.05, 1.02), xlabel="colour contrast")
        ax.set_title(title, loc="left")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), handletextpad=0.2, fontsize=7.5)
    axes[0].set(ylabel="superpixels straddling")
    style.save(fig, path)


# Two triangles; three boxes found each: box, score, corner of its tag.
TRIANGLES_SCENE = 16
TRIANGLES = (
    ([118, 2, 205, 72], 0.92, "top right"),
    ([106, 6, 194, 78], 0.81, "bottom left"),
    ([128, 0, 216, 62], 0.74, "right"),
    ([132, 94, 209, 168], 0.88, "top right"),
    ([146, 101, 223, 174], 0.69, "right"),
    ([119, 88, 196, 160], 0.55, "left"),
)
# Two stars that overlap, and five boxes.
STARS_SCENE = 21
STARS = (
    ([146, 43, 234, 128], 0.95, "top right"),
    ([140, 50, 226, 134], 0.83, "left"),
    ([157, 39, 242, 120], 0.70, "right"),
    ([156, 78, 230, 152], 0.90, "bottom left"),
    ([162, 84, 236, 156], 0.76, "lower right"),
)
NMS_THRESHOLD = 0.5
THRESHOLDS = (0.3, 0.5, 0.8)


def steps(
    boxes: np.ndarray, scores: np.ndarray, threshold: float
) -> list[tuple[int, dict[int, float]]]:
    """Return for each step of NMS the box kept and the boxes that it removes, with their IoU."""
    kept = [int(k) for k in rk.ops.nms_loop(boxes, scores, threshold)]
    ious = np.asarray(rk.ops.iou(boxes, boxes))
    rest = set(range(len(boxes)))
    found = []
    for k in kept:
        rest.discard(k)
        removed = {i: float(ious[k, i]) for i in sorted(rest) if ious[k, i] > threshold}
        rest -= set(removed)
        found.append((k, removed))
    return found


def triangles() -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes `(6, 4)` and scores of the example."""
    boxes, scores, _ = zip(*TRIANGLES, strict=True)
    return np.array(boxes, np.float32), np.array(scores, np.float32)


def stars() -> tuple[np.ndarray, np.ndarray, float]:
    """Return boxes around two stars that overlap, their scores, and the IoU of the two stars."""
    _, record = style.scene(STARS_SCENE)
    overlap = rk.evaluation.box_iou(record.boxes[3:4], record.boxes[4:5])[0, 0]
    boxes, scores, _ = zip(*STARS, strict=True)
    return np.array(boxes, np.float32), np.array(scores, np.float32), float(overlap)


def nms(path: Path) -> None:
    """Suppression step by step."""
    image, _ = style.scene(TRIANGLES_SCENE)
    boxes, scores = triangles()
    done = steps(boxes, scores, NMS_THRESHOLD)
    fig, axes = style.canvas(5.6, 2, 2)
    kept: list[int] = []
    gone: set[int] = set()
    for number, ax in enumerate(axes.flat):
        style.show(ax, image, fade=0.4)
        ax.set(xlim=(60, 270), ylim=(190, -12))
        now, removed = done[number - 1] if 0 < number <= len(done) else (-1, {})
        for i in np.argsort(scores):
            if i in gone:
                continue
            text, color, line = f"{scores[i]:.2f}", BLUE, "-"
            if i in removed:
                text, color, line = f"{text}, IoU {removed[i]:.2f}", RED, ":"
            if i == now or i in kept:
                color = GREEN
            style.box(ax, boxes[i], color, style=line, width=3 if i == now else 1.6)
            _tag_at(ax, boxes[i], text, color, TRIANGLES[i][2])
        if not number:
            title = f"{len(boxes)} triangles found"
        elif number <= len(done):
            title = f"step {number}: {scores[now]:.2f} is kept, {len(removed)} go"
        else:
            title = f"no box is left to look at: {len(done)} remain"
        ax.set_title(title, loc="left")
        kept += [now] if now >= 0 else []
        gone |= set(removed)
    style.save(fig, path)


def _tag_at(ax: style.Axes, box: np.ndarray, text: str, color: str, place: str) -> None:
    x1, y1, x2, y2 = box
    x, y, align = {
        "top right": (x2, y1, {"ha": "right", "va": "bottom"}),
        "bottom left": (x1, y2, {"ha": "left", "va": "top"}),
        "right": (x2, (y1 + y2) / 2, {"ha": "left", "va": "center"}),
        "lower right": (x2, y2, {"ha": "left", "va": "bottom"}),
        "left": (x1, (y1 + y2) / 2, {"ha": "right", "va": "center"}),
    }[place]
    style.tag(ax, x, y, text, color, **align)


def threshold(path: Path) -> None:
    """Three thresholds on two objects of a class that overlap."""
    image, _ = style.scene(STARS_SCENE)
    boxes, scores, _ = stars()
    fig, axes = style.canvas(2.2, 1, 4)
    views = [(np.arange(len(boxes)), f"{len(boxes)} boxes")]
    for value in THRESHOLDS:
        kept = rk.ops.nms_loop(boxes, scores, value)
        views.append((kept, f"threshold {value}: {len(kept)}"))
    for ax, (shown, title) in zip(axes, views, strict=True):
        style.show(ax, image, title, fade=0.4)
        for k in reversed(shown):
            style.box(ax, boxes[k], LINE_COLORS[k], style="-" if k in (0, 3) else "--")
            _tag_at(ax, boxes[k], f"{scores[k]:.2f}", LINE_COLORS[k], STARS[k][2])
        ax.set(xlim=(112, 272), ylim=(182, 20))
    style.save(fig, path)


FIGURES = {
    "hard_negatives.png": hard_negatives,
    "nms.webp": nms,
    "nms_threshold.webp": threshold,
}
