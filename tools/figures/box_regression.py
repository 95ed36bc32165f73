"""Figures of docs/review/box-regression.md: deltas, their logarithm, ridge regression."""

from functools import cache
from pathlib import Path

import numpy as np

import rcnn_keras as rk
from figures import style
from figures.style import BLUE, GREEN, GREY, INK, ORANGE, RED
from rcnn_keras.ops.boxes import MAX_LOG_SCALE
from rcnn_keras.training.rcnn.linear_models import ridge_regression

SCENE = 12  # a triangle and a star
PROPOSAL = np.array([196, 40, 296, 100], np.float32)  # of the star
LAMBDAS = 10.0 ** np.arange(-1, 7)
LEAST_IOU, TARGET_NORM = 0.6, 20.0  # as in the paper and its code


def example() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a proposal p, its object g, and the deltas t."""
    _, record = style.scene(SCENE)
    truth = record.boxes[1]
    return PROPOSAL, truth, np.asarray(rk.ops.encode_boxes(truth[None], PROPOSAL[None]))[0]


def deltas(path: Path) -> None:
    """A proposal, its object, and the four deltas; and why widths are compared by logarithm."""
    image, _ = style.scene(SCENE)
    p, g, t = example()
    fig, (ax, graph) = style.canvas(3.0, 1, 2, width_ratios=[1.25, 1])
    style.show(ax, image, fade=0.35)
    style.box(ax, p, RED, "p: proposal", style="--")
    style.box(ax, g, GREEN, "g: ground truth", at="bottom")
    centres = [((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in (p, g)]
    for centre, color in zip(centres, (RED, GREEN), strict=True):
        ax.plot(*centre, "o", color=color, markeredgecolor="white", markersize=6)
    style.arrow(ax, centres[0], centres[1], color=INK)
    ax.set(xlim=(90, 320), ylim=(172, 0))
    lines = [f"$t_{name}$ = {value:+.3f}" for name, value in zip("xywh", t, strict=True)]
    ax.text(
        100,
        12,
        "\n".join(lines),
        va="top",
        linespacing=1.5,
        fontsize=10,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7},
    )
    ratio = np.geomspace(1 / 8, 8, 200)
    boxes = np.stack([-ratio / 2, -ratio / 2, ratio / 2, ratio / 2], axis=1)
    unit = np.array([[-0.5, -0.5, 0.5, 0.5]])
    graph.plot(ratio, np.asarray(rk.ops.encode_boxes(boxes, unit))[:, 2], color=BLUE)
    graph.plot(ratio, ratio - 1, color=GREY, linestyle="--")
    graph.text(3.0, 2.35, "$g_w / p_w - 1$", color=GREY, ha="right")
    graph.text(4.2, 1.0, "$t_w = \\log(g_w / p_w)$", color=BLUE)
    for r in (0.5, 2.0):
        graph.plot(r, np.log(r), "o", color=BLUE, markersize=5)
    graph.annotate("half as wide: -0.69", (0.5, np.log(0.5)), (1.3, -1.5), fontsize=8)
    graph.annotate("twice as wide: +0.69", (2, np.log(2)), (2.3, 0.25), fontsize=8)
    graph.axhline(0, color=GREY, linewidth=0.6)
    graph.set(xlim=(0, 8), ylim=(-2.2, 3), xlabel="$g_w / p_w$", ylabel="delta of the width")
    style.save(fig, path)


def windows(dataset: rk.data.DetectionDataset, each: int, seed: int) -> list[tuple]:
    """Return for each scene windows near its objects, and the boxes of those."""
    rng = np.random.default_rng(seed)
    found = []
    for record in dataset:
        if not len(record):
            continue
        truth = np.repeat(record.boxes, each, axis=0)
        noise = rng.normal(0, [0.12, 0.12, 0.18, 0.18], truth.shape).astype(np.float32)
        moved = np.asarray(rk.ops.decode_boxes(noise, truth))
        moved = np.asarray(rk.ops.clip_boxes(moved[None], np.array([[128, 128]])))[0]
        near = np.array(
            [
                rk.evaluation.box_iou(a[None], b[None])[0, 0] > LEAST_IOU
                for a, b in zip(moved, truth, strict=True)
            ]
        )
        found.append((record, moved[near], truth[near]))
    return found


def pooled(found: list[tuple]) -> np.ndarray:
    """Return what the small detector's pyramid has in each window, `(n, P)`."""
    model, rows = style.detector(), []
    for record, boxes, _ in found:
        image = rk.data.read_image(record.path)[None].astype(np.float32)
        inputs = {"images": image, "image_sizes": np.array([[128, 128]], np.int32)}
        maps = model.run_backbone(inputs, training=False)["features"][:4]
        features = rk.ops.multilevel_roi_align(maps, boxes[None], 4, [1 / 4, 1 / 8, 1 / 16, 1 / 32])
        rows.append(np.asarray(features)[0].reshape(len(boxes), -1))
    return np.concatenate(rows)


@cache
def ridge_study() -> dict[str, np.ndarray]:
    """Return errors by lambda on the windows of the fit and on others, and IoU before and after."""
    scenes = style.scenes((128, 128), 100, 41)
    parts = windows(scenes[:60], 8, 0), windows(scenes[60:], 4, 1)
    features = [pooled(part) for part in parts]
    scale = TARGET_NORM / np.linalg.norm(features[0], axis=1).mean()
    boxes = [np.concatenate([p for _, p, _ in part]) for part in parts]
    truth = [np.concatenate([g for _, _, g in part]) for part in parts]
    targets = [np.asarray(rk.ops.encode_boxes(g, p)) for g, p in zip(truth, boxes, strict=True)]
    errors: list[list[float]] = [[], []]
    best: tuple[float, np.ndarray] = (np.inf, boxes[1])
    for ridge in LAMBDAS:
        w, b, _ = ridge_regression([(features[0] * scale, targets[0])], ridge)
        predicted = [x * scale @ w + b for x in features]
        for k in range(2):
            errors[k].append(float(((predicted[k] - targets[k]) ** 2).mean()))
        if errors[1][-1] < best[0]:
            best = (
                errors[1][-1],
                np.asarray(rk.ops.decode_boxes(predicted[1].astype(np.float32), boxes[1])),
            )
    pairs = [
        np.array(
            [
                rk.evaluation.box_iou(a[None], g[None])[0, 0]
                for a, g in zip(x, truth[1], strict=True)
            ]
        )
        for x in (boxes[1], best[1])
    ]
    still = float((targets[1] ** 2).mean())
    return {
        "train": np.array(errors[0]),
        "other": np.array(errors[1]),
        "still": np.array(still),
        "before": pairs[0],
        "after": pairs[1],
        "count": np.array([len(features[0]), features[0].shape[1]]),
    }


def ridge(path: Path) -> None:
    """Errors by lambda, and IoU before and after the regression."""
    study = ridge_study()
    fig, (ax, scatter) = style.canvas(2.9, 1, 2)
    ax.plot(LAMBDAS, study["train"], "o-", color=BLUE, markersize=4, label="windows of the fit")
    ax.plot(
        LAMBDAS, study["other"], "s--", color=RED, markersize=4, label="windows of other scenes"
    )
    ax.axhline(study["still"], color=GREY, linestyle=":", label="boxes left as they are")
    ax.set(xscale="log", yscale="log", xlabel="$\\lambda$", ylabel="mean squared error of $t$")
    ax.legend(loc="lower right")
    before, after = study["before"], study["after"]
    scatter.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    better = after > before
    scatter.plot(before[better], after[better], ".", color=BLUE, markersize=4)
    scatter.plot(before[~better], after[~better], "x", color=ORANGE, markersize=4)
    scatter.set(xlim=(0.58, 1), ylim=(0.4, 1), xlabel="IoU before", ylabel="IoU after")
    scatter.set_title(f"mean {before.mean():.2f} before, {after.mean():.2f} after", loc="left")
    style.save(fig, path)


def largest_growth() -> float:
    """Return the factor by which a box may grow at most."""
    return float(np.exp(MAX_LOG_SCALE))


FIGURES = {"box_deltas.webp": deltas, "ridge.png": ridge}
