"""The datasets that a configuration names."""

from pathlib import Path
from typing import Any

from rcnn_keras.data.coco import load_coco
from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.problems import DatasetError, Problem
from rcnn_keras.data.tfrecord import check_tfrecord, load_tfrecord
from rcnn_keras.data.validation import undecodable
from rcnn_keras.data.via import load_via
from rcnn_keras.data.voc import load_voc
from rcnn_keras.evaluation import check_segmentations
from rcnn_keras.evaluation.keypoints import check_keypoints_there
from rcnn_keras.proposals.proposal_file import read_into
from rcnn_keras.runs.document import ConfigurationError
from rcnn_keras.runs.schema import AnyData, CocoSource, RecordSource, ViaSource, VocSource


def read_data(
    data: AnyData, *, masks: bool = False, keypoints: bool = False
) -> tuple[DetectionDataset, DetectionDataset]:
    """Return the training and the validation data, of the same classes in the same order.

    Args:
        data: where they are.
        masks: every object but the crowds must have a segmentation.
        keypoints: some object must have a keypoint.

    Raises:
        DatasetError: with everything that is wrong in any of the files.
        ConfigurationError: the classes differ between the files, or the training data have no
            object; or one has no segmentation and `masks` are wanted, or none a keypoint and
            `keypoints` are.
    """
    sources = [*data.train, *data.val]
    datasets: list[DetectionDataset] = []
    problems: list[Problem] = []
    for source in sources:
        try:
            datasets.append(_read(source, data))
        except DatasetError as error:  # reported together with what is wrong in the other files
            problems.extend(error.problems)
    if problems:
        raise DatasetError(list(dict.fromkeys(problems)))  # one file may be read twice
    classes = datasets[0].classes
    errors = [_class_error(dataset, classes) for dataset in datasets]
    if any(errors):
        raise ConfigurationError(error for error in errors if error)
    datasets = [dataset.with_classes(classes) for dataset in datasets]
    train = _joined(datasets[: len(data.train)])
    if data.validation_split is None:
        val = _joined(datasets[len(data.train) :])
    else:
        val, train = train.split(data.validation_split)
    if all(record.crowd.all() for record in train):
        raise ConfigurationError([_empty_error("data.train", train)])
    parts = {"data.train": train, "data.val": val}
    checks = [check_segmentations] * masks + [check_keypoints_there] * keypoints
    for name, part in parts.items():
        for check in checks:
            try:
                check(part)
            except ValueError as error:
                raise ConfigurationError([f"{name}: {error}"]) from error
    return parts["data.train"], parts["data.val"]


def check_images(*datasets: DetectionDataset) -> None:
    """Decode every image once; raise DatasetError with all that cannot be decoded.

    Those in record files were decoded when they were packed: of them the hashes are looked at.
    """
    records = [record for dataset in datasets for record in dataset]
    paths = list(dict.fromkeys(record.path for record in records if record.tfrecord is None))
    places = [record.tfrecord for record in records if record.tfrecord is not None]
    print(f"checking {len(paths) + len(places):,} images", flush=True)
    problems = undecodable(paths)
    for folder in dict.fromkeys(Path(place.file).parent for place in places):
        problems += check_tfrecord(folder)
    if problems:
        raise DatasetError(problems)


def _read(
    source: CocoSource | ViaSource | VocSource | RecordSource, data: AnyData
) -> DetectionDataset:
    options: dict[str, Any] = {
        "classes": data.classes,
        "crowd": data.crowd,
        "without_mask": data.without_mask,
    }
    if isinstance(source, VocSource):
        dataset = load_voc(source.root, source.split, **options)
    elif isinstance(source, RecordSource):
        dataset = load_tfrecord(source.root, **options)
    elif isinstance(source, ViaSource):
        options["attribute"] = source.attribute
        dataset = load_via(source.annotations, source.images, **options)
    else:
        dataset = load_coco(source.annotations, source.images, **options)
    if source.proposals is None:
        return dataset
    return read_into(dataset, source.proposals, data.max_proposals)


def _joined(datasets: list[DetectionDataset]) -> DetectionDataset:
    return sum(datasets[1:], start=datasets[0])


def _empty_error(name: str, part: DetectionDataset) -> str:
    """Say that nothing in a part of the data can be learned, and why."""
    crowds = sum(len(record) for record in part)
    if not crowds:
        return f"{name}: no image has an object"
    return (
        f"{name}: no image has an object other than crowd regions or difficult ones ({crowds}); "
        "data.crowd: objects reads them as ordinary objects"
    )


def _class_error(dataset: DetectionDataset, classes: tuple[str, ...]) -> str | None:
    """Say how the classes of a dataset differ from those of the first one, whatever the order."""
    more = [name for name in dataset.classes if name not in classes]
    less = [name for name in classes if name not in dataset.classes]
    if not more and not less:
        return None
    return (
        f"the classes of {dataset.name} are not those of the training data: "
        f"only here {more}, missing here {less}"
    )
