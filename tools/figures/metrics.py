"""Figures of docs/review/metrics.md: IoU, kinds of detections, precision and recall, AP."""

from functools import cache
from pathlib import Path

import numpy as np

import rcnn_keras as rk
from figures import style
from figures.style import BLUE, GREEN, GREY, INK, ORANGE, PINK, RED, SKY
from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.detections import Detections
from rcnn_keras.evaluation.coco import THRESHOLDS
from rcnn_keras.evaluation.voc import VocCurve

SCENE = 10  # two stars, a square and a small triangle
EXAMPLE = VocCurve(
    scores=np.array([0.97, 0.94, 0.90, 0.85, 0.80, 0.71, 0.66, 0.58, 0.52, 0.41]),
    hits=np.array([1, 1, 0, 1, 0, 0, 1, 0, 1, 0], bool),
    positives=6,
)
KIND_COLORS = {
    "true positive": GREEN,
    "duplicate": ORANGE,
    "localisation": RED,
    "wrong class": BLUE,
    "background": PINK,
    "missed": "#333333",
}


def shifted_iou(shift: float, diagonal: bool) -> float:
    """Return the IoU of a box with its copy moved by a share of its width (and its height)."""
    moved = np.array([[shift, shift * diagonal, 1 + shift, 1 + shift * diagonal]], np.float32)
    return float(np.asarray(rk.ops.iou(np.array([[0, 0, 1, 1]], np.float32), moved))[0, 0])


def iou(path: Path) -> None:
    """Three predictions of one object, and the IoU of a box moved by a part of its side."""
    image, record = style.scene(SCENE)
    x1, y1, x2, y2 = truth = record.boxes[1]
    w, h = x2 - x1, y2 - y1
    fig, axes = style.canvas(4.3, 2, 2)
    for ax, share in zip(axes.flat, (0.1, 0.25, 0.5), strict=False):
        found = truth + np.float32([share * w, -share * h] * 2)
        value = float(np.asarray(rk.ops.iou(truth[None], found[None]))[0, 0])
        style.show(ax, image, fade=0.35)
        low, high = np.maximum(truth[:2], found[:2]), np.minimum(truth[2:], found[2:])
        style.box(ax, [*low, *high], GREY, fill=True, facecolor=SKY, alpha=0.75, width=0)
        style.box(ax, truth, GREEN)
        style.box(ax, found, RED, style="--")
        ax.set(xlim=(15, 215), ylim=(238, 72))
        ax.set_title(f"IoU = {value:.2f}: moved by {share:.0%} of both sides", loc="left")
    shares = np.linspace(0, 1, 101)
    ax = axes[1, 1]
    for diagonal, color, line, name in ((0, BLUE, "-", "one side"), (1, RED, "--", "both sides")):
        ious = [shifted_iou(s, bool(diagonal)) for s in shares]
        ax.plot(shares, ious, color=color, linestyle=line, label=f"moved along {name}")
    ax.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    ax.plot([1 / 3], [0.5], "o", color=BLUE, markersize=5)
    ax.annotate("1/3 of a side: 0.5", (1 / 3, 0.5), (0.4, 0.62), fontsize=8)
    ax.set(xlabel="shift, as a share of the side", ylabel="IoU", xlim=(0, 1), ylim=(0, 1))
    ax.legend(loc="upper right")
    style.save(fig, path)


def detections_of_each_kind() -> tuple[DetectionDataset, Detections]:
    """Return a scene as a dataset, and a detection of every kind in it."""
    dataset = style.scenes()[SCENE : SCENE + 1]
    record = dataset[0]
    rows = [  # class, score, box
        ("star", 0.95, [44, 118, 134, 210]),
        ("star", 0.80, [30, 132, 124, 220]),
        ("star", 0.75, [178, 34, 246, 100]),
        ("circle", 0.70, [209, 139, 268, 207]),
        ("square", 0.60, [258, 24, 308, 74]),
    ]
    names, scores, boxes = zip(*rows, strict=True)
    classes = tuple(dataset.classes)
    return dataset, Detections(
        boxes=np.array(boxes, np.float32),
        scores=np.array(scores, np.float32),
        labels=np.array([classes.index(name) for name in names], np.int32),
        classes=classes,
        image_size=(record.height, record.width),
    )


def kinds(path: Path) -> None:
    """A detection of every kind, and what each counts as."""
    dataset, found = detections_of_each_kind()
    errors = rk.evaluation.DetectionErrors(dataset, {dataset[0].image_id: found}, iou=0.5)
    image, record = style.scene(SCENE)
    fig, (ax, text) = style.canvas(3.3, 1, 2, width_ratios=[1.45, 1])
    style.show(ax, image, fade=0.3)
    for b in record.boxes:
        style.box(ax, b, "white", width=3)
        style.box(ax, b, INK, width=1.2)
    text.axis("off")
    text.set(xlim=(0, 1), ylim=(0, 1))
    rows = []
    for i, b in enumerate(found.boxes):
        kind = rk.evaluation.errors.KINDS[errors.kinds[i]]
        color = KIND_COLORS[kind]
        style.box(ax, b, color, f"{i + 1}: {found.class_names[i]} {found.scores[i]:.2f}")
        right = kind == "true positive"
        detail = f"IoU {errors.overlaps[i]:.2f}, {'TP' if right else 'FP'}"
        rows.append((f"{i + 1}", f"{kind}", detail, color))
    for _, k, label in errors.missed:
        x1, _, _, y2 = record.boxes[k]
        style.tag(ax, x1, y2, "missed", KIND_COLORS["missed"], va="top")
        rows.append(("", f"{dataset.classes[label]} missed", "FN", KIND_COLORS["missed"]))
    for k, (number, kind, detail, color) in enumerate(rows):
        y = 0.97 - k * 0.118
        style.tag(text, 0.0, y, number or "  ", color, va="center", fontsize=8)
        text.text(0.09, y, kind, va="center", fontsize=8.5, weight="bold")
        text.text(0.58, y, detail, va="center", fontsize=8.5)
    style.save(fig, path)


def threshold(path: Path) -> None:
    """Recall and precision of the worked example over the score's threshold."""
    fig, (ax, curve) = style.canvas(2.9, 1, 2)
    scores, hits = EXAMPLE.scores, EXAMPLE.hits
    edges = np.concatenate([[1.0], scores])
    for values, color, line, name in (
        (EXAMPLE.recall, BLUE, "-", "recall"),
        (EXAMPLE.precision, RED, "--", "precision"),
    ):
        steps = np.concatenate([[0.0 if name == "recall" else np.nan], values])
        ax.step(edges, steps, where="post", color=color, linestyle=line, label=name)
    for score, hit in zip(scores, hits, strict=True):
        ax.plot(score, -0.06, "o" if hit else "x", color=GREEN if hit else RED, clip_on=False)
    chosen = int(np.argmax(EXAMPLE.recall >= 0.5))
    ax.axvline(scores[chosen], color=GREY, linestyle=":", linewidth=1)
    ax.annotate(
        f"score {scores[chosen]:.2f}:\nrecall {EXAMPLE.recall[chosen]:.2f},\n"
        f"precision {EXAMPLE.precision[chosen]:.2f}",
        (scores[chosen], EXAMPLE.recall[chosen]),
        (0.66, 0.1),
        fontsize=8,
        arrowprops={"arrowstyle": "-", "color": GREY},
    )
    ax.set(xlim=(1, 0.35), ylim=(-0.06, 1.05), xlabel="threshold of the score, falling")
    ax.set_title("what a lower threshold lets in", loc="left")
    ax.legend(loc="upper right")
    _zigzag(curve)
    curve.plot(EXAMPLE.recall[chosen], EXAMPLE.precision[chosen], "o", color=INK, markersize=7)
    curve.annotate("score 0.85", (0.5, 0.75), (0.53, 0.78), fontsize=8)
    curve.set_title("the same ten detections as a curve", loc="left")
    style.save(fig, path)


def _zigzag(ax: style.Axes, **options: object) -> None:
    recall = np.concatenate([[0], EXAMPLE.recall])
    precision = np.concatenate([[1], EXAMPLE.precision])
    line = {"color": BLUE, "linewidth": 1.4, "marker": ".", "markersize": 5} | options
    ax.plot(recall, precision, **line)
    ax.set(xlim=(0, 1.02), ylim=(0, 1.05), xlabel="recall", ylabel="precision")


def average_precision(path: Path) -> None:
    """The envelope of the zig-zag, VOC 2007's eleven points, and the area of VOC 2010."""
    fig, axes = style.canvas(2.7, 1, 3, sharey=True)
    envelope = EXAMPLE.interpolated
    recall = np.concatenate([[0], EXAMPLE.recall, [EXAMPLE.recall[-1], 1]])
    steps = np.concatenate([[envelope[0]], envelope, [0, 0]])
    for ax in axes:
        _zigzag(ax, color=GREY, linewidth=0.9, markersize=3)
        ax.set(ylabel="")
        ax.step(recall, steps, where="pre", color=BLUE, linewidth=1.6)
    axes[0].set(ylabel="precision")
    axes[0].set_title("envelope: the best precision\nat this recall or a higher one", loc="left")
    for i in (3, 6, 8):
        below = EXAMPLE.precision[i]
        axes[0].annotate(
            "",
            (EXAMPLE.recall[i], below),
            (EXAMPLE.recall[i] - 0.155, below),
            arrowprops={"arrowstyle": "<|-", "color": RED, "linewidth": 1},
        )
    levels = np.arange(11) / 10
    values = [
        envelope[np.argmax(EXAMPLE.recall >= r - 1e-9)] if r <= EXAMPLE.recall[-1] else 0
        for r in levels
    ]
    axes[1].vlines(levels, 0, values, color=ORANGE, linewidth=1)
    axes[1].plot(levels, values, "o", color=ORANGE, markeredgecolor=INK, markersize=5)
    axes[1].set_title(
        f"VOC 2007: mean of 11 points\nAP = {EXAMPLE.eleven_points():.3f}", loc="left"
    )
    axes[2].fill_between(recall, 0, steps, step="pre", color=SKY, alpha=0.45)
    axes[2].set_title(f"VOC 2010: area\nAP = {EXAMPLE.area():.3f}", loc="left")
    style.save(fig, path)


@cache
def coco_scores() -> rk.evaluation.CocoScores:
    """Return COCO's scores of the small detector on 60 scenes that it has not seen."""
    dataset = style.scenes((128, 128), 60, 31)
    found = style.detector().detect(dataset)
    ids = [record.image_id for record in dataset]
    return rk.evaluation.CocoScores(dataset, dict(zip(ids, found, strict=True)))


def coco_curves(path: Path) -> None:
    """Precision and recall at COCO's ten IoU thresholds."""
    scores = coco_scores()
    fig, (ax, bars) = style.canvas(2.9, 1, 2, width_ratios=[1.25, 1])
    precision = scores.precision_and_recall()[0][..., 0].mean(axis=2)  # over classes: (T, R)
    for k, t in enumerate(THRESHOLDS):
        shade = mix(SKY, "#00304F", k / 9)
        ax.plot(np.linspace(0, 1, 101), precision[k], color=shade, linewidth=1.3)
        bars.barh(t, precision[k].mean(), 0.035, color=shade)
        bars.text(precision[k].mean() + 0.02, t, f"{precision[k].mean():.2f}", va="center")
    ax.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.05))
    ax.set_title("mean over the classes, IoU 0.50 (light) to 0.95 (dark)", loc="left", fontsize=8)
    bars.set(xlabel="AP at this threshold", ylabel="IoU threshold", xlim=(0, 1.12))
    bars.set(yticks=THRESHOLDS[::3])
    bars.set_title(f"their mean: COCO's AP = {precision.mean():.2f}", loc="left")
    style.save(fig, path)


def mix(a: str, b: str, share: float) -> tuple[float, ...]:
    """Return a colour between two."""
    first, second = (np.array(style.mpl.colors.to_rgb(c)) for c in (a, b))
    return tuple(first * (1 - share) + second * share)


FIGURES = {
    "iou.webp": iou,
    "kinds.webp": kinds,
    "threshold.png": threshold,
    "average_precision.png": average_precision,
    "coco.png": coco_curves,
}
