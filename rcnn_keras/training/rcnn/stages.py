"""R-CNN's training, stage after stage, in a folder from which an interrupted run resumes.

OUT/train.log              log of the training
OUT/fine_tuned.npz         stage 1: the network and its softmax
OUT/fine_tuning/           checkpoints of stage 1, while it is unfinished
OUT/features/              features of all windows, see `FeatureCache`
OUT/svm.npz                stage 2: one SVM per class
OUT/box_regressor.npz      stage 3: one box regressor per class
OUT/rcnn.keras             the model
OUT/error_analysis.json    AP with SVMs or softmax, with and without box regression
"""

import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np

from rcnn_keras.data.dataset import DetectionDataset, Record
from rcnn_keras.data.pipeline import require_proposals
from rcnn_keras.models import RCNN
from rcnn_keras.parallel import Engine
from rcnn_keras.parallel.resumable import Result, once
from rcnn_keras.training.checkpoint import Checkpoint
from rcnn_keras.training.rcnn.error_analysis import error_analysis, table
from rcnn_keras.training.rcnn.features import FeatureCache, Windows
from rcnn_keras.training.rcnn.fine_tuning import WindowSampler, fine_tune
from rcnn_keras.training.rcnn.linear_models import require_sklearn, train_box_regressors, train_svms
from rcnn_keras.utils.atomic import atomic_write
from rcnn_keras.utils.hashing import fingerprint

# Arguments of the model that no stage depends on.
NOT_TRAINED_WITH = (
    *("name", "classifier", "box_regression"),
    *("box_score_thresh", "box_nms_thresh", "box_detections_per_img"),
)


@dataclass
class TrainedRCNN:
    """The result of a training.

    Attributes:
        model: the given model, trained.
        mining: for each pass over the images a dict: `images` seen, and lists over the classes of
            hard negatives `added`, negatives `kept` and `retrainings`.
        scores: AP of the four variants, see `error_analysis`; None without images to score.
    """

    model: RCNN
    mining: list[dict]
    scores: dict[str, dict[str, float]] | None


def train_rcnn(
    model: RCNN,
    dataset: DetectionDataset,
    out: str | PathLike,
    *,
    val: DetectionDataset | None = None,
    steps: int = 70_000,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.001,
    positives: int = 32,
    negatives: int = 96,
    svm_c: float = 0.001,
    ridge: float = 1000.0,
    seed: int = 0,
    every_steps: int = 500,
    engine: Engine | None = None,
) -> TrainedRCNN:
    """Train R-CNN as the paper does, and write each stage's result into a folder.

    First the network is fine-tuned as a classifier of windows into K classes and background; then
    its features train one linear SVM per class, on ground truth against hard negatives; then a
    ridge regression per class learns to move proposals onto objects. The model is scored with the
    SVMs and with the softmax, with and without box regression.

    Called again with the same arguments and folder, finished stages are not run again, and an
    interrupted one resumes bit-exactly: fine-tuning at its last checkpoint, the SVMs from the
    features on disk. The features of one window take 4 F bytes, 16 KB for AlexNet: 160 GB for the
    10 million windows of Pascal VOC 2007 trainval.

    Args:
        model: preferably with a backbone pre-trained on ImageNet; trained in place.
        dataset: images with proposals, of the model's classes.
        out: the folder, created if missing.
        val: images with proposals to score on.
        steps: of fine-tuning; default those of the published model for Pascal VOC 2007.
        learning_rate: of fine-tuning; the paper's is a tenth of the pre-training's.
        positives: windows of objects per batch of fine-tuning.
        negatives: windows of background per batch.
        svm_c: C of the SVMs, the weight of the hinge loss, on features of mean norm 20.
        ridge: lambda of the box regression, on features of mean norm 20.
        seed: of the sampled windows.
        every_steps: steps between two checkpoints of fine-tuning.
        engine: where to compute the features of all windows, `rcnn_keras.parallel.Processes(8)` for
            one; by default this process computes them. With another number of threads floats are
            summed in another order, so that features may differ in their last bits.

    Raises:
        ImportError: without scikit-learn; says how to install it.
        ValueError: before any work, for other classes than the model's, images without proposals,
            numbers out of range, and if the folder belongs to other data or arguments.
    """
    require_sklearn()
    numbers = {"steps": steps, "positives": positives, "negatives": negatives, "seed": seed}
    numbers |= {"every_steps": every_steps}
    _check(model, dataset, val, numbers | {"svm_c": svm_c, "ridge": ridge})
    sampler = WindowSampler(dataset, positives, negatives, seed)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    log = Log(out / "train.log")

    checkpoint = Checkpoint(out / "fine_tuning", every_steps)
    rate: Any = learning_rate
    if isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        rate = keras.optimizers.schedules.serialize(learning_rate)
    config = {k: v for k, v in model.get_config().items() if k not in NOT_TRAINED_WITH}
    data = [array for record in dataset for array in _arrays(record)]
    key = fingerprint(config, data, steps, rate, positives, negatives, seed)

    def stage_1() -> Result:
        log(f"stage 1: fine-tuning, {steps} batches of {positives} + {negatives} windows")
        fine_tune(
            model,
            dataset,
            steps=steps,
            learning_rate=learning_rate,
            sampler=sampler,
            checkpoint=checkpoint,
            key=key,
            log=log,
        )
        weights = [*model.network.get_weights(), *model.class_logits.get_weights()]
        return Result(None, weights)

    weights = once(out / "fine_tuned.npz", key, stage_1).arrays
    model.network.set_weights(weights[:-2])
    model.class_logits.set_weights(weights[-2:])
    shutil.rmtree(checkpoint.directory, ignore_errors=True)
    key = fingerprint(config, data, model.network.get_weights())
    cache = FeatureCache(out / "features", key, dataset)

    def stage_2() -> Result:
        log("stage 2: one SVM per class")
        log(f"features of {cache.fill(model, log, engine)} images were computed")
        scale = cache.scale("fc7")
        log(f"features are scaled by {scale:.4g} to a mean norm of 20")
        svms = train_svms(_Scaled(cache, scale), len(model.classes), c=svm_c, log=log)
        if not svms.converged:
            log("hard negatives were still found in the last pass")
        return Result(svms.rounds, [svms.kernel * scale, svms.bias])

    mining, weights = once(out / "svm.npz", fingerprint(key, svm_c), stage_2)
    model.svm.set_weights(weights)

    def stage_3() -> Result:
        log("stage 3: box regression")
        cache.fill(model, log, engine)
        kernel, bias, counts = train_box_regressors(cache, len(model.classes), ridge)
        log(f"examples of {dict(zip(model.classes, counts, strict=True))}")
        return Result(counts, [kernel, bias])

    regressors = once(out / "box_regressor.npz", fingerprint(key, ridge), stage_3)
    model.box_regressor.set_weights(regressors.arrays)
    with atomic_write(out / "rcnn.keras") as temporary:
        model.save(temporary)
    scores = None
    if val is not None:
        scores = error_analysis(model, val)
        plain = {
            n: {k: None if math.isnan(v) else v for k, v in s.items()} for n, s in scores.items()
        }
        (out / "error_analysis.json").write_text(json.dumps(plain, indent=2) + "\n", "utf-8")
        for line in table(scores, model.classes):
            log(line)
    return TrainedRCNN(model, mining, scores)


def _arrays(record: Record) -> Iterable[np.ndarray | None]:
    """Return all of a record that the stages learn from but the pixels."""
    yield np.array([record.image_id, record.height, record.width])
    yield from (record.boxes, record.labels, record.crowd, record.proposals)


class Log:
    """Prints lines and appends them to a file."""

    def __init__(self, path: Path):
        self.path = path

    def __call__(self, line: str) -> None:
        """Write one line."""
        print(line, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


class _Scaled(Sequence[tuple[np.ndarray, Windows]]):
    """The items of a `FeatureCache` with their features times a factor."""

    def __init__(self, cache: FeatureCache, factor: float):
        self.cache, self.factor = cache, factor

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, index: Any) -> Any:
        features, windows = self.cache[index]
        return features * features.dtype.type(self.factor), windows


def number_errors(numbers: Mapping[str, Any]) -> dict[str, str]:
    """Return each argument of `train_rcnn` that is out of range, and its rule."""
    rules = dict.fromkeys(
        ("steps", "negatives", "svm_c", "ridge", "every_steps"), "must be above 0"
    )
    errors = {name: rule for name, rule in rules.items() if not numbers[name] > 0}
    for name in ("positives", "seed"):
        if not numbers[name] >= 0:
            errors[name] = "must be at least 0"
    return errors


def _check(
    model: RCNN,
    dataset: DetectionDataset,
    val: DetectionDataset | None,
    numbers: Mapping[str, float],
) -> None:
    """Raise ValueError for arguments that would fail later."""
    if not isinstance(model, RCNN):
        raise ValueError(f"train_rcnn trains an RCNN, not a {type(model).__name__}")
    for data in (dataset, val):
        if data is None:
            continue
        if tuple(data.classes) != model.classes:
            raise ValueError(
                f"the data's classes {list(data.classes)} are not the model's "
                f"{list(model.classes)}; load the data with classes=model.classes"
            )
        if len(data) == 0:
            raise ValueError("the dataset has no images")
        require_proposals(data)
    for name, rule in number_errors(numbers).items():
        raise ValueError(f"{name} {rule}; received {numbers[name]!r}")
