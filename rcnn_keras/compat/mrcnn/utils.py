"""`mrcnn.utils`: datasets, boxes `y1, x1, y2, x2`, masks `(H, W, N)`, and average precision.

Boxes have whole pixels and end a pixel after the last one that is inside.
"""

import logging
import urllib.error
import urllib.request
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from rcnn_keras.data.image_rule import MatterportImageRule, resize_on_zeros
from rcnn_keras.data.images import read_image
from rcnn_keras.data.masks import paste_masks
from rcnn_keras.ops import nms_loop
from rcnn_keras.utils.atomic import atomic_write

COCO_MODEL_URL = "https://github.com/matterport/Mask_RCNN/releases/download/v2.0/mask_rcnn_coco.h5"

Padding = list[tuple[int, int]]
Crop = tuple[int, int, int, int]


class Dataset:
    """Images and their objects, to be read by a subclass: `load_mask`, perhaps `load_image`.

    A program calls `add_class` and `add_image` for all that there is, and then `prepare`.

    Attributes:
        image_info: a dict for each image: `id`, `source`, `path` and what `add_image` was given.
        class_info: a dict for each class: `source`, `id` and `name`; the first is the background.
        num_classes, class_ids, class_names: since `prepare`, with the background.
        num_images, image_ids: since `prepare`.
    """

    def __init__(self, class_map: Any = None) -> None:
        self._image_ids: Any = []
        self.image_info: list[dict[str, Any]] = []
        self.class_info: list[dict[str, Any]] = [{"source": "", "id": 0, "name": "BG"}]
        self.source_class_ids: dict[str, list[int]] = {}

    def add_class(self, source: str, class_id: Any, class_name: str) -> None:
        """Add a class of a source, unless it is there already.

        Raises:
            ValueError: for a source with a dot, which stands between source and id elsewhere.
        """
        if "." in source:
            raise ValueError(f"the name of a source cannot have a dot; received {source!r}")
        if not any(c["source"] == source and c["id"] == class_id for c in self.class_info):
            self.class_info.append({"source": source, "id": class_id, "name": class_name})

    def add_image(self, source: str, image_id: Any, path: Any, **kwargs: Any) -> None:
        """Add an image; what else is given is kept in `image_info`."""
        self.image_info.append({"id": image_id, "source": source, "path": path, **kwargs})

    def image_reference(self, image_id: int) -> Any:
        """Return where to look the image up; a subclass says it."""
        return ""

    def prepare(self, class_map: Any = None) -> None:
        """Number classes and images; call it once all are added."""
        self.num_classes = len(self.class_info)
        self.class_ids = np.arange(self.num_classes)
        self.class_names = [str(c["name"]).split(",")[0] for c in self.class_info]
        self.num_images = len(self.image_info)
        self._image_ids = np.arange(self.num_images)
        self.class_from_source_map = {
            f"{info['source']}.{info['id']}": number for number, info in enumerate(self.class_info)
        }
        self.image_from_source_map = {
            f"{info['source']}.{info['id']}": number for number, info in enumerate(self.image_info)
        }
        self.sources = list(dict.fromkeys(info["source"] for info in self.class_info))
        self.source_class_ids = {
            source: [
                number
                for number, info in enumerate(self.class_info)
                if number == 0 or info["source"] == source
            ]
            for source in self.sources
        }

    def map_source_class_id(self, source_class_id: str) -> int:
        """Return the number of a class such as `"coco.12"`."""
        return self.class_from_source_map[source_class_id]

    def get_source_class_id(self, class_id: int, source: str) -> Any:
        """Return the source's own id of a class."""
        info = self.class_info[class_id]
        if info["source"] != source:
            raise ValueError(
                f"class {class_id} is of the source {info['source']!r}, not {source!r}"
            )
        return info["id"]

    @property
    def image_ids(self) -> Any:
        """The numbers of the images."""
        return self._image_ids

    def source_image_link(self, image_id: int) -> Any:
        """Return the path of an image."""
        return self.image_info[image_id]["path"]

    def load_image(self, image_id: int) -> np.ndarray:
        """Return an image, `(H, W, 3)` uint8 RGB, upright.

        Raises:
            ImageError: for a file that cannot be read; names it.
        """
        return read_image(self.image_info[image_id]["path"])

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an image's masks, `(H, W, N)` bool, and their class ids, `(N,)` int32."""
        logging.warning("this Dataset has no load_mask of its own: its images have no objects")
        return np.empty([0, 0, 0]), np.empty([0], np.int32)


def extract_bboxes(mask: np.ndarray) -> np.ndarray:
    """Return the boxes `(N, 4)` int32 around masks `(H, W, N)`; zeros for empty ones."""
    boxes = np.zeros((mask.shape[-1], 4), np.int32)
    for i, box in enumerate(boxes):
        y, x = (np.flatnonzero(np.any(mask[..., i], axis=axis)) for axis in (1, 0))
        if len(y):
            box[:] = y[0], x[0], y[-1] + 1, x[-1] + 1
    return boxes


def compute_iou(
    box: np.ndarray, boxes: np.ndarray, box_area: Any, boxes_area: np.ndarray
) -> np.ndarray:
    """Return the IoU of a box with others, `(N, 4)` to `(N,)`, whose areas are known."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:], boxes[:, 2:])
    intersection = np.maximum(high - low, 0).prod(axis=1)
    return intersection / (box_area + boxes_area - intersection)


def compute_overlaps(boxes1: np.ndarray, boxes2: np.ndarray) -> np.ndarray:
    """Return the IoU of boxes `(n, 4)` and `(m, 4)`: `(n, m)`."""
    areas1, areas2 = ((b[:, 2:] - b[:, :2]).prod(axis=1) for b in (boxes1, boxes2))
    overlaps = np.zeros((len(boxes1), len(boxes2)))
    for i, (box, area) in enumerate(zip(boxes1, areas1, strict=True)):
        overlaps[i] = compute_iou(box, boxes2, area, areas2)
    return overlaps


def compute_overlaps_masks(masks1: np.ndarray, masks2: np.ndarray) -> np.ndarray:
    """Return the IoU of masks `(H, W, n)` and `(H, W, m)`: `(n, m)`; of empty ones 0."""
    if masks1.shape[-1] == 0 or masks2.shape[-1] == 0:
        return np.zeros((masks1.shape[-1], masks2.shape[-1]))
    one, two = (np.reshape(m > 0.5, (-1, m.shape[-1])).astype(np.float32) for m in (masks1, masks2))
    both = one.T @ two
    union = one.sum(axis=0)[:, None] + two.sum(axis=0) - both
    return both / np.maximum(union, 1)


def non_max_suppression(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Return the indices of the boxes that NMS keeps, best first, int32."""
    return nms_loop(boxes, scores, threshold)


def apply_box_deltas(boxes: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """Move boxes `(N, 4)` by deltas `(dy, dx, log(dh), log(dw))`."""
    boxes = boxes.astype(np.float32)
    size = boxes[:, 2:] - boxes[:, :2]
    centre = boxes[:, :2] + 0.5 * size + deltas[:, :2] * size
    size = size * np.exp(deltas[:, 2:])
    low = centre - 0.5 * size
    return np.concatenate([low, low + size], axis=1)


def box_refinement(box: np.ndarray, gt_box: np.ndarray) -> np.ndarray:
    """Return the deltas `(N, 4)` that move boxes onto others, as `apply_box_deltas` takes them."""
    box, gt_box = box.astype(np.float32), gt_box.astype(np.float32)
    size, gt_size = box[:, 2:] - box[:, :2], gt_box[:, 2:] - gt_box[:, :2]
    moved = gt_box[:, :2] + 0.5 * gt_size - box[:, :2] - 0.5 * size
    return np.concatenate([moved / size, np.log(gt_size / size)], axis=1)


def resize(
    image: np.ndarray, output_shape: Sequence[int], preserve_range: bool = False, **_: Any
) -> np.ndarray:
    """Resize `(H, W)` or `(H, W, C)` as scikit-image's `resize` with order 1 and zeros around it.

    Integers come as floats in 0..1, unless `preserve_range`.
    """
    values = np.asarray(image)
    scaled = values.astype(np.float64)
    if not preserve_range and values.dtype.kind in "ui":
        scaled /= np.iinfo(values.dtype).max
    planes = scaled[..., None] if scaled.ndim == 2 else scaled
    resized = np.asarray(resize_on_zeros(planes, *output_shape[:2]))
    return resized[..., 0] if scaled.ndim == 2 else resized


def resize_image(
    image: np.ndarray,
    min_dim: int | None = None,
    max_dim: int | None = None,
    min_scale: float | None = None,
    mode: str = "square",
) -> tuple[np.ndarray, tuple[int, int, int, int], float, Padding, Crop | None]:
    """Resize an image and pad it all around with zeros.

    Args:
        image: `(H, W, 3)`.
        min_dim: length to which the shorter side is enlarged.
        max_dim: most pixels of the longer side, and the side of the result in mode "square".
        min_scale: least factor, unless `max_dim` forbids it.
        mode: "none", "square", "pad64" (sides become multiples of 64), or "crop": a part of
            `min_dim` x `min_dim` pixels, drawn by chance.

    Returns:
        The image, of the type that was given; `window`, where it is in the result; `scale`;
        `padding`, for `numpy.pad`; and `crop`, `y, x, h, w`, None in other modes.

    Raises:
        ValueError: for another mode, and for "crop" without `min_dim`.
    """
    height, width = image.shape[:2]
    if mode == "none":
        return image, (0, 0, height, width), 1, [(0, 0)] * 3, None
    if mode not in ("square", "pad64", "crop"):
        raise ValueError(f"mode must be 'none', 'square', 'pad64' or 'crop'; received {mode!r}")
    square = mode == "square" and bool(max_dim)
    rule = MatterportImageRule(
        "square" if square else "pad64", min_dim or 1, max_dim or 1, min_scale or 0.0
    )
    scale, (h, w) = rule.scale(height, width), rule.size(height, width)
    if (h, w) != (height, width):
        resized = np.asarray(resize_on_zeros(image, h, w))
        image = (np.floor(resized) if image.dtype.kind in "ui" else resized).astype(image.dtype)
    if mode == "crop":
        if not min_dim:
            raise ValueError("mode 'crop' needs min_dim, the side of the part")
        y, x = (int(np.random.randint(0, side - min_dim + 1)) for side in (h, w))
        part = image[y : y + min_dim, x : x + min_dim]
        return part, (0, 0, min_dim, min_dim), scale, [(0, 0)] * 3, (y, x, min_dim, min_dim)
    sides = (max_dim, max_dim) if square else tuple(-(-side // 64) * 64 for side in (h, w))
    top, left = (int(sides[0] or h) - h) // 2, (int(sides[1] or w) - w) // 2
    bottom, right = int(sides[0] or h) - h - top, int(sides[1] or w) - w - left
    padding: Padding = [(top, bottom), (left, right), (0, 0)]
    window = (top, left, h + top, w + left)
    return np.pad(image, padding[: image.ndim]), window, scale, padding, None


def resize_mask(
    mask: np.ndarray, scale: float, padding: Padding, crop: Crop | None = None
) -> np.ndarray:
    """Resize masks `(H, W, N)` by the nearest pixel, and pad or crop them as `resize_image` did."""
    height, width = (max(round(side * scale), 1) for side in mask.shape[:2])
    rows, columns = (
        np.floor(np.arange(new) * ((old - 1) / max(new - 1, 1)) + 0.5).astype(int)
        for old, new in zip(mask.shape[:2], (height, width), strict=True)
    )
    mask = mask[rows][:, columns]
    if crop is None:
        return np.pad(mask, padding)
    y, x, h, w = crop
    return mask[y : y + h, x : x + w]


def minimize_mask(bbox: np.ndarray, mask: np.ndarray, mini_shape: Sequence[int]) -> np.ndarray:
    """Return masks `(H, W, N)` cut to their boxes and resized: `(h, w, N)` bool.

    Raises:
        ValueError: for a box without area.
    """
    mini = np.zeros((*mini_shape, mask.shape[-1]), bool)
    for i, (y1, x1, y2, x2) in enumerate(np.asarray(bbox)[:, :4].astype(int)):
        part = mask[y1:y2, x1:x2, i]
        if part.size == 0:
            raise ValueError(f"box {i} has no area: {[y1, x1, y2, x2]}")
        mini[..., i] = np.round(resize(part.astype(float), mini_shape)).astype(bool)
    return mini


def expand_mask(bbox: np.ndarray, mini_mask: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
    """Undo `minimize_mask`: return masks `(H, W, N)` bool of the whole image."""
    masks = np.zeros((*image_shape[:2], mini_mask.shape[-1]), bool)
    for i, (y1, x1, y2, x2) in enumerate(np.asarray(bbox)[:, :4].astype(int)):
        part = resize(mini_mask[..., i].astype(float), (y2 - y1, x2 - x1))
        masks[y1:y2, x1:x2, i] = np.round(part).astype(bool)
    return masks


def unmold_mask(mask: np.ndarray, bbox: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
    """Return a mask `(M, M)` in 0..1 of a box as a bool mask of the whole image, `(H, W)`."""
    y1, x1, y2, x2 = (int(side) for side in bbox)
    box, size = np.array([[x1, y1, x2, y2]]), (int(image_shape[0]), int(image_shape[1]))
    return paste_masks(np.asarray(mask)[None], box, size, 0.5, "matterport")[0]


def norm_boxes(boxes: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return boxes in pixels as float32 in 0..1 of an image of height and width `shape`."""
    h, w = shape[:2]
    scale, shift = np.array([h - 1, w - 1] * 2), np.array([0, 0, 1, 1])
    return ((boxes - shift) / scale).astype(np.float32)


def denorm_boxes(boxes: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return boxes in 0..1 as whole pixels of an image of height and width `shape`, int32."""
    h, w = shape[:2]
    scale, shift = np.array([h - 1, w - 1] * 2), np.array([0, 0, 1, 1])
    return np.around(boxes * scale + shift).astype(np.int32)


def generate_anchors(
    scales: Any, ratios: Any, shape: Sequence[int], feature_stride: int, anchor_stride: int
) -> np.ndarray:
    """Return the anchors of one map, `(n, 4)` in pixels: rows, columns, then scales and ratios."""
    scales, ratios = np.meshgrid(np.atleast_1d(scales), np.atleast_1d(ratios))
    roots = np.sqrt(ratios.ravel())
    size = np.stack([scales.ravel() / roots, scales.ravel() * roots], axis=-1)
    y, x = (np.arange(0, side, anchor_stride) * feature_stride for side in shape[:2])
    grid = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 1, 2)
    return np.concatenate([grid - 0.5 * size, grid + 0.5 * size], axis=-1).reshape(-1, 4)


def generate_pyramid_anchors(
    scales: Any, ratios: Any, feature_shapes: Any, feature_strides: Any, anchor_stride: int
) -> np.ndarray:
    """Return the anchors of all maps, one scale a map: `(n, 4)` in pixels, the finest first."""
    levels = zip(scales, feature_shapes, feature_strides, strict=True)
    return np.concatenate(
        [generate_anchors(s, ratios, shape, stride, anchor_stride) for s, shape, stride in levels]
    )


def trim_zeros(x: np.ndarray) -> np.ndarray:
    """Return the rows of `(n, m)` that are not all zeros."""
    return x[~np.all(x == 0, axis=1)]


def compute_matches(
    gt_boxes: np.ndarray,
    gt_class_ids: np.ndarray,
    gt_masks: np.ndarray,
    pred_boxes: np.ndarray,
    pred_class_ids: np.ndarray,
    pred_scores: np.ndarray,
    pred_masks: np.ndarray,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Match predictions to ground truth of their class by the masks' IoU, the best score first.

    Returns:
        `gt_match` `(N,)`, the prediction of each object; `pred_match` `(M,)`, the object of each
        prediction, in the order of their scores, -1 for none; and `overlaps` `(M, N)`.
    """
    gt_boxes = trim_zeros(gt_boxes)
    gt_masks = gt_masks[..., : len(gt_boxes)]
    count = len(trim_zeros(pred_boxes))
    order = np.argsort(pred_scores[:count])[::-1]
    labels = pred_class_ids[order]
    overlaps = compute_overlaps_masks(pred_masks[..., order], gt_masks)
    pred_match, gt_match = np.full(count, -1.0), np.full(len(gt_boxes), -1.0)
    for i in range(count):
        for j in np.argsort(overlaps[i])[::-1]:
            if overlaps[i, j] < max(iou_threshold, score_threshold):
                break
            if gt_match[j] < 0 and labels[i] == gt_class_ids[j]:
                gt_match[j], pred_match[i] = i, j
                break
    return gt_match, pred_match, overlaps


def compute_ap(
    gt_boxes: np.ndarray,
    gt_class_ids: np.ndarray,
    gt_masks: np.ndarray,
    pred_boxes: np.ndarray,
    pred_class_ids: np.ndarray,
    pred_scores: np.ndarray,
    pred_masks: np.ndarray,
    iou_threshold: float = 0.5,
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Return the average precision of an image's predictions, over all classes together.

    Returns:
        The area below the curve of precision over recall; `precisions` and `recalls` at each
        prediction, with a point before and after; and `overlaps`, see `compute_matches`.
    """
    gt_match, pred_match, overlaps = compute_matches(
        gt_boxes,
        gt_class_ids,
        gt_masks,
        pred_boxes,
        pred_class_ids,
        pred_scores,
        pred_masks,
        iou_threshold,
    )
    found = np.cumsum(pred_match > -1)
    precisions = np.concatenate([[0], found / (np.arange(len(pred_match)) + 1), [0]])
    recalls = np.concatenate([[0], found.astype(np.float32) / max(len(gt_match), 1), [1]])
    precisions = np.maximum.accumulate(precisions[::-1])[::-1]
    steps = np.flatnonzero(recalls[1:] != recalls[:-1]) + 1
    average = float(np.sum((recalls[steps] - recalls[steps - 1]) * precisions[steps]))
    return average, precisions, recalls, overlaps


def compute_ap_range(
    gt_box: np.ndarray,
    gt_class_id: np.ndarray,
    gt_mask: np.ndarray,
    pred_box: np.ndarray,
    pred_class_id: np.ndarray,
    pred_score: np.ndarray,
    pred_mask: np.ndarray,
    iou_thresholds: Any = None,
    verbose: int = 1,
) -> float:
    """Return the mean of `compute_ap` over IoU thresholds, by default 0.5 to 0.95."""
    truth, found = (gt_box, gt_class_id, gt_mask), (pred_box, pred_class_id, pred_score, pred_mask)
    thresholds = np.arange(0.5, 1.0, 0.05) if iou_thresholds is None else iou_thresholds
    scores = [compute_ap(*truth, *found, iou_threshold=threshold)[0] for threshold in thresholds]
    if verbose:
        for threshold, score in zip(thresholds, scores, strict=True):
            print(f"AP @{threshold:.2f}:\t {score:.3f}")
        print(f"AP @{thresholds[0]:.2f}-{thresholds[-1]:.2f}:\t {np.mean(scores):.3f}")
    return float(np.mean(scores))


def compute_recall(
    pred_boxes: np.ndarray, gt_boxes: np.ndarray, iou: float
) -> tuple[float, np.ndarray]:
    """Return the share of the objects whose box a prediction meets, and the predictions that do."""
    overlaps = compute_overlaps(pred_boxes, gt_boxes)
    best, which = overlaps.max(axis=1), overlaps.argmax(axis=1)
    positive = np.flatnonzero(best >= iou)
    return len(set(which[positive])) / len(gt_boxes), positive


def download_trained_weights(coco_model_path: str | PathLike[str], verbose: int = 1) -> None:
    """Fetch matterport's weights for COCO, 246 MB, into a file.

    Raises:
        OSError: if they cannot be fetched; says which file to put where.
    """
    if verbose > 0:
        print(f"Downloading pretrained model to {coco_model_path} ...")
    try:
        with (
            urllib.request.urlopen(COCO_MODEL_URL, timeout=30) as answer,
            atomic_write(Path(coco_model_path)) as temporary,
            open(temporary, "wb") as file,
        ):
            while block := answer.read(1 << 20):
                file.write(block)
    except (urllib.error.URLError, TimeoutError) as error:
        raise OSError(
            f"{COCO_MODEL_URL} cannot be fetched ({error}); fetch it with another machine and put "
            f"it at {Path(coco_model_path).resolve()}"
        ) from error
    if verbose > 0:
        print("... done downloading pretrained model!")
