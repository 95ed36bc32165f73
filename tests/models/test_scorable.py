"""Warnings of data whose objects a detector cannot all find."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from rcnn_keras.data import DetectionDataset, Record
from rcnn_keras.models.scorable import warn_unscorable
from rcnn_keras.training.callbacks import CocoEvaluation

MODEL = SimpleNamespace(
    detection_layer=SimpleNamespace(max_detections=3),
    classes=("cat",),
    has_masks=False,
    skeleton=None,
)


def dataset(*counts, crowd=0):
    records = []
    for number, count in enumerate(counts):
        boxes = np.tile([[1, 2, 30, 20]], (count, 1))
        is_crowd = np.arange(count) < crowd
        records.append(
            Record(number, f"{number}.png", 40, 60, boxes, np.zeros(count, int), is_crowd)
        )
    return DetectionDataset(records, ["cat"], name="val")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (dataset(0, 0), "val: no image has an object to find"),
        (dataset(2, 0, crowd=2), "val: no image has an object to find"),
        (dataset(1, 5, 4), r"val: 2 images have more objects than the 3 detections .* 5 in 1\.png"),
        (dataset(4), r"val: 1 image has more objects .*\(box_detections_per_img\)"),
    ],
)
def test_each_dataset_is_warned_of_once(data, message):
    with pytest.warns(UserWarning, match=message):
        warn_unscorable(MODEL, data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_unscorable(MODEL, data, "data.val")


def test_is_silent_about_what_can_be_found():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_unscorable(MODEL, dataset(3, 0, 1))
        warn_unscorable(MODEL, dataset(5, crowd=2))


def test_the_callback_warns_before_training():
    callback = CocoEvaluation(dataset(0))
    callback.set_model(MODEL)
    with pytest.warns(UserWarning, match="no image has an object to find"):
        callback.on_train_begin()


def test_fit_warns_once_of_images_with_more_objects_than_detections(scenes, make_detector):
    model = make_detector(scenes.classes, box_detections_per_img=1)
    model.compile("sgd")
    data = scenes[:2].batches(1)
    with pytest.warns(UserWarning, match=r"more objects than the 1 detections"):
        model.fit(data, epochs=1, steps_per_epoch=1, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(data, epochs=1, steps_per_epoch=1, verbose=0)
