"""Figures of docs/review/fast-rcnn.md: data flow, RoIPool and its gradient, smooth L1."""

import math
from pathlib import Path

import numpy as np
import tensorflow as tf

import rcnn_keras as rk
from figures import style
from figures.style import BLUE, GREEN, GREY, INK, LIGHT, ORANGE, PINK, RED, SKY, arrow, block

SIZE, POOLED, STRIDE = 8, 2, 16  # of the map, of the result, pixels a position
ROI = np.array([18, 30, 97, 94], np.float32)  # in pixels
SECOND_ROI = np.array([48, 0, 104, 60], np.float32)
CELL_COLORS = (BLUE, ORANGE, GREEN, PINK)
SCENE = 23


def feature_map() -> np.ndarray:
    """Return a map `(8, 8)` of whole numbers in 0..99, all different."""
    return np.random.default_rng(3).permutation(100)[: SIZE**2].reshape(SIZE, SIZE)


def rounded(roi: np.ndarray) -> np.ndarray:
    """Return the first and last positions of a RoI on the map: x1, y1, x2, y2, both ends in it."""
    return np.floor(roi / STRIDE + 0.5)


def cells(roi: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Return each cell's first position and the one after its last, row by row: x1, y1, x2, y2."""
    x1, y1, x2, y2 = rounded(roi)
    sides = []
    for low, high in ((x1, x2), (y1, y2)):
        step = (high - low + 1) / POOLED
        sides.append(
            [
                (int(low + math.floor(i * step)), int(low + math.ceil((i + 1) * step)))
                for i in range(POOLED)
            ]
        )
    columns, rows = sides
    return [(c[0], r[0], c[1], r[1]) for r in rows for c in columns]


def pooled(*rois: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what RoIPool gives for RoIs, `(n, 2, 2)`, and the gradient of its sum, `(8, 8)`."""
    features = tf.constant(feature_map()[None, :, :, None], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(features)
        values = rk.ops.roi_pool(features, np.stack(rois)[None], POOLED, 1 / STRIDE)
        total = tf.reduce_sum(values)
    gradient = tape.gradient(total, features)
    return np.asarray(values)[0, ..., 0], np.asarray(gradient)[0, ..., 0]


def maxima(roi: np.ndarray) -> list[tuple[int, int]]:
    """Return the position x, y of each cell's maximum, row by row."""
    features, found = feature_map(), []
    for x1, y1, x2, y2 in cells(roi):
        y, x = np.unravel_index(features[y1:y2, x1:x2].argmax(), (y2 - y1, x2 - x1))
        found.append((int(x) + x1, int(y) + y1))
    return found


def animation(path: Path) -> None:
    """RoIPool on an 8x8 map, cell by cell."""
    features, (values, _) = feature_map(), pooled(ROI)
    of_cells = [features[y1:y2, x1:x2].max() for x1, y1, x2, y2 in cells(ROI)]
    assert of_cells == values[0].astype(int).ravel().tolist()  # the figure shows what is computed
    x1, y1, x2, y2 = rounded(ROI)
    exact = ROI / STRIDE
    titles = [
        "one channel of a map of 8x8 positions",
        f"the RoI {tuple(int(v) for v in ROI)} in pixels, divided by the stride of 16",
        f"rounded; both ends belong to it: {int(x2 - x1 + 1)} x {int(y2 - y1 + 1)} positions",
        *(
            f"cell {k + 1}: {b - a} x {d - c} positions, maximum {of_cells[k]}"
            for k, (a, c, b, d) in enumerate(cells(ROI))
        ),
        "2x2 numbers, whatever the RoI's size",
    ]
    frames = []
    for number, title in enumerate(titles):
        fig, (left, right) = style.canvas(4.1, 1, 2, width_ratios=[2.3, 1])
        style.cells(left, SIZE, SIZE)
        style.numbers(left, features, fontsize=10)
        left.set_title(title, loc="left", fontsize=11)
        style.cells(right, POOLED, POOLED)
        if number in (1, 2):
            style.box(left, exact, RED, style="--", width=1.8)
        if number >= 2:
            style.box(left, (x1, y1, x2 + 1, y2 + 1), INK, width=2.2)
        current = number - 3
        for k in range(POOLED**2):
            if k > current:
                break
            color = CELL_COLORS[k]
            x, y = maxima(ROI)[k]
            if k == current or number == len(titles) - 1:
                a, c, b, d = cells(ROI)[k]
                if k == current:
                    style.box(
                        left, (a, c, b, d), color, width=0, fill=True, facecolor=color, alpha=0.3
                    )
                    style.box(left, (a, c, b, d), color, width=2.5)
            left.add_patch(
                style.mpl.patches.Circle(
                    (x + 0.5, y + 0.5), 0.42, fill=False, edgecolor=color, linewidth=2.4
                )
            )
            right.text(
                k % 2 + 0.5,
                k // 2 + 0.5,
                str(of_cells[k]),
                ha="center",
                va="center",
                fontsize=14,
                color=color,
                weight="bold",
            )
        right.set_title("result", loc="left", fontsize=11)
        frames.append(style.picture(fig, 100))
    style.save_animation(frames, [1500, 2500, 2500, *[2000] * 4, 3000], path)


def gradient(path: Path) -> None:
    """Two RoIs on one map, and where the gradient of the sum of their pools goes."""
    _, slope = pooled(ROI, SECOND_ROI)
    fig, (left, right) = style.canvas(3.7, 1, 2)
    style.cells(left, SIZE, SIZE)
    style.numbers(left, feature_map(), color=GREY)
    for roi, color, line, radius in ((ROI, BLUE, "-", 0.34), (SECOND_ROI, RED, "--", 0.44)):
        for a, c, b, d in cells(roi):
            style.box(left, (a + 0.04, c + 0.04, b - 0.04, d - 0.04), color, style=line, width=1.6)
        for x, y in maxima(roi):
            left.add_patch(
                style.mpl.patches.Circle(
                    (x + 0.5, y + 0.5),
                    radius,
                    fill=False,
                    edgecolor=color,
                    linewidth=1.8,
                    linestyle=line,
                )
            )
    left.set_title("two RoIs, 2x2 cells each, and their maxima", loc="left")
    style.cells(right, SIZE, SIZE)
    shown = np.where(slope > 0, slope, np.nan)
    for y in range(SIZE):
        for x in range(SIZE):
            if slope[y, x]:
                right.add_patch(
                    style.Rectangle(
                        (x, y),
                        1,
                        1,
                        facecolor=SKY if slope[y, x] == 1 else ORANGE,
                        edgecolor="none",
                    )
                )
    style.numbers(right, shown, fontsize=11, weight="bold")
    right.set_title("gradient of the map, 1 arriving at each cell", loc="left")
    style.save(fig, path)


def smooth_l1(path: Path) -> None:
    """Smooth L1 with two betas beside L1 and L2, and their derivatives."""
    x = np.linspace(-3, 3, 601, dtype=np.float32)
    fig, (values, slopes) = style.canvas(2.8, 1, 2)
    losses = (
        ("$L_2$: $x^2/2$", GREY, ":", lambda v: 0.5 * v * v),
        ("$L_1$: $|x|$", ORANGE, "-.", tf.abs),
        ("smooth $L_1$", BLUE, "-", lambda v: rk.losses.smooth_l1(v, 0.0, beta=1.0)),
        ("smooth $L_1$, $\\beta$ = 1/9", RED, "--", lambda v: rk.losses.smooth_l1(v, 0.0)),
    )
    for name, color, line, loss in losses:
        v = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(v)
            y = loss(v)
        values.plot(x, y, color=color, linestyle=line, label=name)
        slopes.plot(x, tape.gradient(y, v), color=color, linestyle=line)
    values.set(xlabel="error", ylabel="loss", ylim=(0, 3), xlim=(-3, 3))
    slopes.set(xlabel="error", ylabel="derivative", ylim=(-2.2, 2.2), xlim=(-3, 3))
    slopes.axhline(0, color=GREY, linewidth=0.6)
    values.legend(loc="upper center", fontsize=7.5)
    style.save(fig, path)


def data_flow(path: Path) -> None:
    """Data flow, with the shapes of the paper's VGG-16."""
    image, record = style.scene(SCENE)
    model = style.detector()
    inputs = {
        "images": image[None].astype(np.float32),
        "image_sizes": np.array([[240, 320]], np.int32),
    }
    maps = model.run_backbone(inputs, training=False)["features"]
    features = np.asarray(maps[1])[0]  # a map of stride 8 of the small detector
    strongest = features[..., features.max(axis=(0, 1)).argmax()]
    box = record.boxes[0]
    fig, ax = style.canvas(3.1, layout="none")
    ax.set_position((0, 0, 1, 1))
    style.diagram(ax, 14, 6.2)

    def inset(x: float, y: float, width: float, height: float) -> style.Axes:
        return ax.inset_axes((x / 14, y / 6.2, width / 14, height / 6.2))

    first = inset(0.1, 3.3, 2.9, 2.2)
    style.show(first, image, fade=0.2)
    style.box(first, box, RED)
    ax.text(0.1, 5.6, "image, once", fontsize=8)
    arrow(ax, (3.05, 4.4), (3.5, 4.4))
    block(ax, 4.2, 4.4, 1.3, 1.8, "13 conv\nlayers", SKY)
    arrow(ax, (4.9, 4.4), (5.3, 4.4))
    second = inset(5.35, 3.3, 2.9, 2.2)
    second.imshow(strongest, cmap="Greys", extent=(0, 320, 240, 0), interpolation="nearest")
    second.set(xticks=[], yticks=[])
    style.box(second, box, RED)
    ax.text(5.35, 5.6, "map, H/16 x W/16 x 512", fontsize=8)
    block(ax, 1.55, 1.3, 2.7, 1.3, "R RoIs (here one)\nof selective search", LIGHT)
    ax.plot([2.9, 9.25], [1.3, 1.3], color=RED, linewidth=1.2)
    arrow(ax, (9.25, 1.3), (9.25, 3.4), color=RED)
    arrow(ax, (8.3, 4.4), (8.7, 4.4))
    block(ax, 9.25, 4.4, 1.1, 1.9, "RoI-\nPool", ORANGE)
    ax.text(9.25, 5.6, "R x 7 x 7 x 512", fontsize=8, ha="center")
    arrow(ax, (9.8, 4.4), (10.2, 4.4))
    block(ax, 10.85, 4.4, 1.2, 1.9, "fc6\nfc7\n4,096", SKY)
    arrow(ax, (11.45, 4.7), (12.0, 5.2))
    arrow(ax, (11.45, 4.1), (12.0, 3.4))
    block(ax, 12.95, 5.2, 1.85, 1.2, "softmax\nK + 1 classes", GREEN, color="white", fontsize=7.5)
    block(ax, 12.95, 3.4, 1.85, 1.2, "boxes\n4 deltas x K", BLUE, color="white", fontsize=7.5)
    ax.text(3.1, 0.45, "left of RoIPool: once an image", fontsize=8, color=INK)
    ax.text(9.6, 0.45, "right of it: once a RoI", fontsize=8, color=INK)
    ax.plot([9.25, 9.25], [0.2, 1.0], color=GREY, linestyle=":", linewidth=1)
    style.save(fig, path)


FIGURES = {
    "fast_rcnn.webp": data_flow,
    "roi_pool.gif": animation,
    "roi_pool_gradient.png": gradient,
    "smooth_l1.png": smooth_l1,
}
