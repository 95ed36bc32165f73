"""Figures of docs/review/selective-search.md: regions, similarities, grouping, objectness.

The search itself is OpenCV's. Here it is written out with the measures of
`rcnn_keras.proposals.selective_search`, so that each step can be seen.
"""

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import rcnn_keras as rk
from figures import style
from figures.style import BLUE, GREEN, GREY, INK, ORANGE, PINK, RED, SKY, YELLOW
from rcnn_keras.proposals import objectness_cues

# The package has a function of the module's name.
search: Any = import_module("rcnn_keras.proposals.selective_search")
SCENE = 3  # a circle and a triangle
GROUPED_SCENE, K = 10, 200  # of the animation; k is the scale of the first regions
DIRECTIONS = ("right", "down right", "down", "down left", "left", "up left", "up", "up right")


def segment(image: np.ndarray, k: float) -> np.ndarray:
    """Return the first regions `(H, W)`, numbered from 0 (Felzenszwalb and Huttenlocher 2004)."""
    graph = cv2.ximgproc.segmentation.createGraphSegmentation(
        search.SIGMA, k, search.SMALLEST_REGION
    )
    return graph.processImage(image)


@dataclass
class Region:
    """A region of the grouping: its pixels, its box, its histograms."""

    mask: np.ndarray
    box: np.ndarray
    size: float
    colour: np.ndarray
    texture: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray, mask: np.ndarray) -> "Region":
        """Measure the region of a mask."""
        rows, columns = np.nonzero(mask)
        corners = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        return cls(
            mask,
            np.array(corners, float),
            float(mask.sum()),
            search.colour_histogram(image, mask),
            search.texture_histogram(image, mask),
        )

    def merged(self, other: "Region") -> "Region":
        """Return the union; its histograms are the mean of both, weighted by size."""
        return Region(
            self.mask | other.mask,
            np.concatenate(
                [np.minimum(self.box[:2], other.box[:2]), np.maximum(self.box[2:], other.box[2:])]
            ),
            self.size + other.size,
            search.merge_histograms(self.colour, self.size, other.colour, other.size),
            search.merge_histograms(self.texture, self.size, other.texture, other.size),
        )

    def touches(self, other: "Region") -> bool:
        """Tell whether the regions are neighbours."""
        grown = cv2.dilate(self.mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        return bool((grown & other.mask).any())

    def similarities(self, other: "Region", image_size: float) -> dict[str, float]:
        """Return the four measures."""
        sizes = self.size, other.size
        return {
            "colour": search.histogram_intersection(self.colour, other.colour),
            "texture": search.histogram_intersection(self.texture, other.texture),
            "size": search.size_similarity(*sizes, image_size),
            "fill": search.fill_similarity(*sizes, self.box, other.box, image_size),
        }


@cache
def grouping(
    number: int = GROUPED_SCENE,
) -> tuple[np.ndarray, list[list[Region]], list[tuple[int, int]]]:
    """Return a scene, the regions before each merge and at the end, and the pairs merged."""
    image, _ = style.scene(number)
    labels = segment(image, K)
    size = float(labels.size)
    regions = [Region.of(image, labels == label) for label in range(labels.max() + 1)]
    steps, pairs = [regions], []
    scores = {
        (i, j): sum(regions[i].similarities(regions[j], size).values())
        for i in range(len(regions))
        for j in range(i)
        if regions[i].touches(regions[j])
    }
    everything: dict[int, Region] = dict(enumerate(regions))
    while len(everything) > 1:
        i, j = max(scores, key=lambda pair: scores[pair])
        order = list(everything)
        pairs.append((order.index(i), order.index(j)))
        union, new = everything[i].merged(everything[j]), max(everything) + 1
        del everything[i], everything[j]
        scores = {pair: s for pair, s in scores.items() if not {i, j} & set(pair)}
        for n, other in everything.items():
            if union.touches(other):
                scores[new, n] = sum(union.similarities(other, size).values())
        everything[new] = union
        steps.append(list(everything.values()))
    return image, steps, pairs


def painted(image: np.ndarray, regions: list[Region]) -> np.ndarray:
    """Return the image with every region in its mean colour and a dark line around it."""
    shown = np.zeros_like(image)
    for region in regions:
        shown[region.mask] = np.rint(image[region.mask].mean(axis=0))
        inner = cv2.erode(region.mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        shown[region.mask & ~inner] = (40, 40, 40)
    return shown


def regions_by_k(path: Path) -> None:
    """The first regions for three values of k."""
    image, _ = style.scene(SCENE)
    fig, axes = style.canvas(1.5, 1, 4)
    style.show(axes[0], image, "image")
    for ax, k in zip(axes[1:], (50, 150, 450), strict=True):
        labels = segment(image, k)
        regions = [Region.of(image, labels == n) for n in range(labels.max() + 1)]
        style.show(ax, painted(image, regions), f"k = {k}: {len(regions)} regions")
    style.save(fig, path)


def animation(path: Path) -> None:
    """Every merge: regions on the left, proposals so far on the right."""
    image, steps, pairs = grouping()
    boxes = [region.box for region in steps[0]]
    frames, times = [], []
    for number, regions in enumerate(steps):
        merging = pairs[number] if number < len(pairs) else ()
        fig, (left, right) = style.canvas(2.95, 1, 2)
        style.show(left, painted(image, regions), f"{len(regions)} regions")
        for n in merging:
            contours, _ = cv2.findContours(
                regions[n].mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
            )
            for contour in contours:
                line = np.concatenate([contour[:, 0], contour[:1, 0]]) + 0.5
                left.plot(*line.T, color=YELLOW, linewidth=2)
        if merging:
            pair = [regions[n] for n in merging]
            measures = pair[0].similarities(pair[1], float(image.shape[0] * image.shape[1]))
            text = " + ".join(f"{name} {value:.2f}" for name, value in measures.items())
            left.set_xlabel(f"{text} = {sum(measures.values()):.2f}", fontsize=7.5)
        else:
            left.set_xlabel("one region is left: the end", fontsize=7.5)
        style.show(right, np.full_like(image, 255), f"{len(boxes)} boxes so far")
        for b in boxes[:-1] if number else boxes:
            style.box(right, b, SKY, width=0.9)
        if number:
            style.box(right, boxes[-1], RED, width=2)
        right.set_xlabel(
            "the newest in red" if number else "one for each first region", fontsize=7.5
        )
        right.spines[:].set_visible(True)
        frames.append(style.picture(fig, 100))
        times.append(500 if number < len(steps) - 6 else 1000)
        if merging:
            pair = [regions[n] for n in merging]
            boxes.append(pair[0].merged(pair[1]).box)
    times[0], times[-1] = 1500, 3000
    style.save_animation(frames, times, path)


@cache
def triangle_and_circle() -> tuple[np.ndarray, list[Region], list[Region]]:
    """Return an image, two parts of one object, and parts of two objects."""
    image, record = style.scene(SCENE)
    masks = [rk.data.masks.decode_mask(s, 240, 320) for s in record.segmentations or ()]
    columns = np.arange(320)[None]
    half = columns < 86
    circle = [Region.of(image, masks[0] & half), Region.of(image, masks[0] & ~half)]
    return image, circle, [circle[0], Region.of(image, masks[1])]


def similarities(path: Path) -> None:
    """Histograms of two halves of a circle, and of the circle and the triangle."""
    image, same, different = triangle_and_circle()
    fig, axes = style.canvas(4.3, 2, 3, width_ratios=[0.75, 1, 1.5])
    for row, (pair, name) in zip(
        axes, ((same, "one object"), (different, "two objects")), strict=True
    ):
        shown = np.uint8(255 - (255 - image) * 0.25)
        for region in pair:
            shown[region.mask] = image[region.mask]
        style.show(row[0], shown, name)
        row[0].set(xlim=(40, 215), ylim=(165, 40))
        measures = pair[0].similarities(pair[1], 240 * 320)
        for ax, kind, bins in ((row[1], "colour", 75), (row[2], "texture", 240)):
            a, b = (getattr(region, kind) for region in pair)
            x = np.arange(bins)
            ax.step(x, a, where="mid", color=BLUE, linewidth=0.9)
            ax.step(x, b, where="mid", color=RED, linewidth=0.9, linestyle="--")
            ax.fill_between(x, np.minimum(a, b), step="mid", color=GREY, alpha=0.6)
            ax.set_title(f"{kind}: s = {measures[kind]:.2f}", loc="left")
            ax.set(xlim=(-1, bins), ylim=(0, None), yticks=[])
            third = bins // 3
            ax.set_xticks([third // 2 + third * c for c in range(3)], ("red", "green", "blue"))
            for c in (1, 2):
                ax.axvline(third * c - 0.5, color=GREY, linewidth=0.5)
        row[0].set_xlabel(f"size {measures['size']:.2f}, fill {measures['fill']:.2f}", fontsize=8.5)
    style.save(fig, path)


def derivatives(path: Path) -> None:
    """The Gaussian derivatives in eight directions around the image."""
    image, _ = style.scene(SCENE)
    part = image[30:170, 40:215]
    slopes = search.gaussian_derivatives(part).clip(0)[..., 1]  # of green, where they rise
    fig, axes = style.canvas(4.6, 3, 3)
    places = {
        0: (1, 2),
        1: (2, 2),
        2: (2, 1),
        3: (2, 0),
        4: (1, 0),
        5: (0, 0),
        6: (0, 1),
        7: (0, 2),
    }
    style.show(axes[1, 1], part, "image")
    for direction, place in places.items():
        rising = np.sqrt(slopes[direction] / slopes.max())
        grey = np.uint8(np.rint(255 * (1 - rising)))[..., None].repeat(3, axis=2)
        title = f"{45 * direction}°: {DIRECTIONS[direction]}"
        style.show(axes[place], grey, title)
    style.save(fig, path)


@cache
def fitted_objectness() -> rk.proposals.Objectness:
    """Return objectness fitted to drawn scenes, others than those that are shown."""
    dataset = style.scenes((240, 320), 30, 8)
    return rk.proposals.Objectness.fit(dataset, images=30, windows=600)


def objectness(path: Path) -> None:
    """The three cues of a window on an object and of one beside it, and their likelihoods."""
    image, record = style.scene(SCENE)
    model = fitted_objectness()
    windows = np.stack([record.boxes[0], record.boxes[0] + np.float32([34, 22, 34, 22])])
    names = {
        "color_contrast": "colour contrast",
        "edge_density": "edge density",
        "superpixels_straddling": "superpixels straddling",
    }
    graph = cv2.ximgproc.segmentation.createGraphSegmentation(
        objectness_cues.SMOOTHING,
        model.cues["superpixels_straddling"].theta,
        max(1, round(objectness_cues.SMALLEST_SUPERPIXEL * 240 * 320)),
    )
    superpixels = graph.processImage(image)
    pictures = {
        "color_contrast": image,
        "edge_density": np.uint8(255 * (1 - objectness_cues._edges(image)))[..., None].repeat(3, 2),
        "superpixels_straddling": painted(
            image,
            [Region.of(image, superpixels == n) for n in range(superpixels.max() + 1)],
        ),
    }
    fig, axes = style.canvas(4.2, 2, 3)
    for (top, bottom), (cue, name) in zip(axes.T, names.items(), strict=True):
        likelihoods = model.cues[cue]
        compute = rk.proposals.objectness.CUES[cue][0]
        values = compute(image, windows, likelihoods.theta)
        style.show(top, pictures[cue], name, fade=0.25 if cue == "color_contrast" else 0)
        top.set(xlim=(20, 220), ylim=(165, 25))
        for window, color, line in zip(windows, (GREEN, RED), ("-", "--"), strict=True):
            style.box(top, window, color, style=line)
            if cue != "superpixels_straddling":
                factor = likelihoods.theta if cue == "color_contrast" else 1 / likelihoods.theta
                ring = objectness_cues.scaled(window[None], factor, 240, 320)[0]
                style.box(top, ring, color, style=":", width=1.2)
        edges = likelihoods.edges
        widths = np.diff(
            np.concatenate([[edges[0] - (edges[1] - edges[0])], edges, [edges[-1] * 1.1]])
        )
        x = np.concatenate([[edges[0] - widths[0]], edges])
        ratio = np.log(likelihoods.object / likelihoods.background)
        bottom.step(
            [*x, x[-1] + widths[-1]], [*ratio, ratio[-1]], where="post", color=INK, linewidth=1
        )
        bottom.axhline(0, color=GREY, linewidth=0.7)
        for value, color, marker in zip(values, (GREEN, RED), "os", strict=True):
            height = float(likelihoods.log_ratio(np.array([value]))[0])
            bottom.plot(value, height, marker, color=color, markersize=7, markeredgecolor=INK)
        bottom.set(xlabel="value of the cue")
    axes[1, 0].set_ylabel("log p(value | object)\n- log p(value | background)", fontsize=8)
    scores = model.score(image, windows)
    fig.suptitle(
        f"p(object): {scores[0]:.3f} of the green window, {scores[1]:.3f} of the red one",
        fontsize=9,
        x=0.01,
        ha="left",
    )
    style.save(fig, path)


@cache
def recall_by_count() -> dict[str, np.ndarray]:
    """Return the share of objects that the first 1, 2, .. 200 boxes of each method find."""
    dataset = style.scenes()
    model = fitted_objectness()
    methods = {
        "selective search": lambda image: rk.proposals.selective_search(image),
        "objectness": lambda image: model.propose(image, 200, candidates=4000)[0],
        "random windows": lambda image: rk.proposals.sample_windows(240, 320, 200, seed=1),
    }
    found: dict[str, np.ndarray] = {}
    for name, method in methods.items():
        firsts = []
        for record in dataset:
            boxes = method(rk.data.read_image(record.path))[:200]
            hits = rk.evaluation.box_iou(boxes, record.boxes) > 0.5
            firsts += [int(h.argmax()) if h.any() else 10**9 for h in hits.T]
        found[name] = np.array([(np.array(firsts) < n).mean() for n in range(1, 201)])
    return found


def recall(path: Path) -> None:
    """Recall by the number of boxes."""
    fig, ax = style.canvas(2.6)
    colors, lines = (BLUE, ORANGE, PINK), ("-", "--", ":")
    for (name, values), color, line in zip(recall_by_count().items(), colors, lines, strict=True):
        ax.plot(np.arange(1, 201), values, color=color, linestyle=line, label=name)
    ax.set(xlabel="boxes an image", ylabel="recall at IoU 0.5", xlim=(0, 200), ylim=(0, 1.02))
    ax.legend(loc="lower right")
    style.save(fig, path)


FIGURES = {
    "regions.webp": regions_by_k,
    "grouping.gif": animation,
    "similarities.webp": similarities,
    "derivatives.png": derivatives,
    "objectness.webp": objectness,
    "proposal_recall.png": recall,
}
