"""The windows that R-CNN is trained on, and their features, computed once and kept on disk.

FOLDER/key.txt             what the features depend on, as a hash
FOLDER/<image id>_fc7.npy    `(w, F)` of every window, ground truth first
FOLDER/<image id>_pool5.npy  `(v, P)` of the windows near to ground truth, in the same order
FOLDER/<image id>_norms.npy  `(w, 2)` Euclidean norms of pool5 and fc7 of every window

w windows of an image (its ground truth and its proposals), v of them near to ground truth, F and P
features per window, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from rcnn_keras.data.dataset import DetectionDataset, Record
from rcnn_keras.data.images import read_image
from rcnn_keras.models import RCNN, load_detector
from rcnn_keras.ops import encode_boxes, iou
from rcnn_keras.parallel import Engine, run_shards
from rcnn_keras.parallel.resumable import ResumableFolder
from rcnn_keras.utils.atomic import atomic_write


@dataclass(frozen=True, eq=False)
class Windows:
    """The windows of one image, its ground truth first.

    Attributes:
        boxes: `(w, 4)` float32 `xyxy` in pixels.
        labels: `(w,)` int32 in 0..K-1 for ground truth, -1 for proposals.
        overlaps: `(w, K)` float32, IoU with the nearest ground truth of each class, 0 without one.
        nearest: `(w,)` int32, the row of the ground truth of greatest IoU, -1 without any.
    """

    boxes: np.ndarray
    labels: np.ndarray
    overlaps: np.ndarray
    nearest: np.ndarray

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.labels)

    def classes(self, positive_iou: float) -> np.ndarray:
        """Return each window's class `(w,)` int32: 1 + its object's label, 0 for background."""
        label = self.labels[self.nearest]  # without ground truth no window is near
        return np.where(self.best() >= positive_iou, label + 1, 0).astype(np.int32)

    def best(self) -> np.ndarray:
        """Return `(w,)` float32, the IoU with the nearest ground truth of any class."""
        return self.overlaps.max(axis=1, initial=0.0)

    def targets(self) -> np.ndarray:
        """Return `(w, 4)` float32, the deltas from each window to its nearest ground truth.

        These are `t_x = (G_x - P_x) / P_w`, `t_y`, `t_w = log(G_w / P_w)` and `t_h` of the paper's
        appendix C; meaningless for windows without an object nearby.
        """
        return np.asarray(encode_boxes(self.boxes[self.nearest], self.boxes))


def image_windows(record: Record, num_classes: int) -> Windows:
    """Return the windows of a record, without crowd regions and ground truth without area.

    Raises:
        ValueError: for a record without proposals.
    """
    if record.proposals is None:
        raise ValueError(f"{record.path} has no proposals")
    sides = record.boxes[:, 2:] - record.boxes[:, :2]
    truth = ~record.crowd & np.all(sides > 0, axis=1)
    boxes, labels = record.boxes[truth], record.labels[truth]
    windows = np.concatenate([boxes, record.proposals])
    overlaps = np.zeros((len(windows), num_classes), np.float32)
    nearest = np.full(len(windows), -1, np.int32)
    if len(boxes):
        ious = np.asarray(iou(windows, boxes))
        nearest = ious.argmax(axis=1).astype(np.int32)
        for label in np.unique(labels):
            overlaps[:, label] = ious[:, labels == label].max(axis=1)
    window_labels = np.full(len(windows), -1, np.int32)
    window_labels[: len(boxes)] = labels
    return Windows(windows, window_labels, overlaps, nearest)


NEAR_IOU = 0.6  # windows of a larger IoU with ground truth are trained to regress to it

TARGET_NORM = 20.0  # mean norm to which the published code scales features

IMAGES_PER_LOG_LINE = 500

SHARD_SIZE = 20  # images that a worker takes at a time


class FeatureExtractor:
    """Computes the features of windows of an image, as the detector does for its proposals."""

    def __init__(self, model: RCNN):
        self.value_range = model.value_range
        self._features = tf.function(
            lambda image, boxes: model.extract_features(
                {
                    "images": image[None],
                    "image_sizes": tf.shape(image)[:2][None],
                    "proposals": boxes[None],
                    "num_proposals": tf.shape(boxes)[:1],
                },
                training=False,
            ),
            input_signature=[
                tf.TensorSpec((None, None, 3), tf.uint8),
                tf.TensorSpec((None, 4), tf.float32),
            ],
            autograph=False,
        )

    def __call__(self, record: Record, boxes: np.ndarray) -> dict[str, tf.Tensor]:
        """Return the model's first stage for `(w, 4)` boxes, `pool5` `(1, w + 1, P)` and so on."""
        image = read_image(record.image, self.value_range)
        return self._features(image, boxes)


class FeatureCache(Sequence[tuple[np.ndarray, Windows]]):
    """The features of a dataset's windows in a folder; item i is `(fc7 (w, F), windows)`.

    Args:
        folder: created if missing.
        key: fingerprint of the network's weights and arguments and of the windows.
        dataset: images with proposals.

    Raises:
        ValueError: if the folder has features of another key.
    """

    def __init__(self, folder: Path, key: str, dataset: DetectionDataset):
        self.folder, self.dataset = folder, dataset
        ResumableFolder(folder, {"network and windows": key}, "features")

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        """Return the fc7 features `(w, F)` of an image, memory-mapped, and its windows."""
        return self._read(index, "fc7"), self.windows(index)

    def windows(self, index: int) -> Windows:
        """Return the windows of an image."""
        return image_windows(self.dataset[index], len(self.dataset.classes))

    def near(self, index: int) -> tuple[np.ndarray, Windows, np.ndarray]:
        """Return pool5 `(v, P)` of the windows near to ground truth, all windows, and which."""
        windows = self.windows(index)
        return self._read(index, "pool5"), windows, np.flatnonzero(windows.best() > NEAR_IOU)

    def scale(self, name: str) -> float:
        """Return the factor that makes the mean norm of `pool5` or `fc7` 20, 1 if all are zero."""
        column = ("pool5", "fc7").index(name)
        norms = np.concatenate([self._read(i, "norms")[:, column] for i in range(len(self))])
        mean = norms.mean(dtype=np.float64)
        return TARGET_NORM / mean if mean > 0 else 1.0

    def fill(self, model: RCNN, log: Callable[[str], None], engine: Engine | None = None) -> int:
        """Compute the missing features, image by image; return the number of those images.

        Args:
            model: the network.
            log: called with lines of progress.
            engine: workers that share the images, with one thread and a copy of the model each;
                they need access to the folder. By default this process computes, on all threads.
        """
        missing = [i for i in range(len(self)) if not self._path(i, "norms").exists()]
        if missing and engine is None:
            extract = FeatureExtractor(model)
            for done, index in enumerate(missing, start=1):
                write_features(self.folder, extract, self.dataset[index], self.windows(index))
                if done % IMAGES_PER_LOG_LINE == 0:
                    log(f"features of {done} of {len(missing)} images")
        elif missing:
            copy = self.folder / "model.keras"
            with atomic_write(copy) as temporary:
                model.save(temporary)
            starts = range(0, len(missing), SHARD_SIZE)
            indices = [tuple(missing[start : start + SHARD_SIZE]) for start in starts]
            shards = ([(self.dataset[i], self.windows(i)) for i in shard] for shard in indices)
            done = 0
            for shard, _ in run_shards(partial(fill_shard, self.folder, copy), shards, engine):
                done += len(shard)
                log(f"features of {done} of {len(missing)} images")
            copy.unlink()
        return len(missing)

    def _path(self, index: int, name: str) -> Path:
        return self.folder / f"{self.dataset[index].image_id}_{name}.npy"

    def _read(self, index: int, name: str) -> np.ndarray:
        return np.load(self._path(index, name), mmap_mode="r")


def fill_shard(folder: Path, model: Path, shard: Sequence[tuple[Record, Windows]]) -> None:
    """Write the features of a shard of images; runs in a worker."""
    extract = _extractor(model)
    for record, windows in shard:
        write_features(folder, extract, record, windows)


def write_features(
    folder: Path, extract: FeatureExtractor, record: Record, windows: Windows
) -> None:
    """Compute and write the features of an image; `norms` last, as the mark of completion."""
    features = extract(record, windows.boxes)
    pool5, fc7 = (features[name][0, :-1].numpy() for name in ("pool5", "fc7"))
    norms = np.stack([np.linalg.norm(x, axis=1) for x in (pool5, fc7)], axis=1)
    near = windows.best() > NEAR_IOU
    for name, rows in (("fc7", fc7), ("pool5", pool5[near]), ("norms", norms)):
        with atomic_write(folder / f"{record.image_id}_{name}.npy") as temporary:
            np.save(temporary, rows)


@cache
def _extractor(model: Path) -> FeatureExtractor:
    """Return a worker's extractor, created once."""
    detector = load_detector(model)
    assert isinstance(detector, RCNN)
    return FeatureExtractor(detector)
