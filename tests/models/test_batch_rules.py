"""The rules for the values of a batch, one by one, in numpy."""

import re

import numpy as np
import pytest

from rcnn_keras.models import batch_rules as rules

SIZES = np.array([[64, 96], [48, 96]])
BOXES = np.array([[[50, 5, 90, 50], [10, 20, 30, 60], [0, 0, 0, 0]]] * 2, "float32")
BOXES[1, 1, 3] = 40
REAL = np.array([[True, True, False]] * 2)


def boxes_as(order, scale=1.0):
    x1, y1, x2, y2 = np.moveaxis(BOXES / scale, -1, 0)
    numbers = {
        "yxyx": (y1, x1, y2, x2),
        "xywh": (x1, y1, x2 - x1, y2 - y1),
        "center": ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1),
        "xyxy": (x1, y1, x2, y2),
    }
    return np.stack(numbers[order], axis=-1)


def fits(boxes, real=REAL, is_first=True):
    return rules.boxes_fit(boxes, real, SIZES, is_first)


def test_sound_boxes_pass():
    assert fits(BOXES) is None
    assert fits(np.add(BOXES, (0, 0, 7.9, 0))) is None  # resizing rounds
    assert fits(np.full((2, 3, 4), np.nan), np.zeros((2, 3), bool)) is None


@pytest.mark.parametrize(
    ("order", "name"),
    [
        ("yxyx", r"\(y1, x1, y2, x2\)"),
        ("xywh", r"\(x, y, width, height\)"),
        ("center", r"\(center x, center y, width, height\)"),
    ],
)
def test_another_order_of_the_numbers_is_recognised(order, name):
    found = str(fits(boxes_as(order)))
    assert found.startswith("box ")
    assert re.search(f"Or are they .*{name}", found), found


@pytest.mark.parametrize("order", ["xyxy", "xywh", "center", "yxyx"])
def test_fractions_are_recognised_in_any_order(order):
    scale = SIZES[:, None, [1, 0, 1, 0]].astype("float32")
    assert "within 0..1, and pixels are needed" in str(fits(boxes_as(order, scale)))


def test_an_image_of_fractions_among_others_is_found_in_the_first_batch():
    boxes = BOXES.copy()
    boxes[1] /= 96
    found = fits(boxes)
    assert (found.image, found.row) == (1, 0)
    assert fits(boxes, is_first=False) is None
    assert fits(boxes / 96, is_first=False).image == 0


def test_a_corner_that_augmentation_left_of_the_only_object_does_not_end_a_training():
    boxes = np.zeros((2, 3, 4), "float32")
    boxes[0, 0] = [0, 0, 0.7, 0.9]
    real = np.zeros((2, 3), bool)
    real[0, 0] = True
    assert fits(boxes, real, is_first=False) is None


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [
        ((1, 1, 0), np.nan, "is not finite"),
        ((1, 1, 2), np.inf, "is not finite"),
        ((1, 1, 2), 10, "has no area"),
        ((1, 1, 3), 19, "has no area"),
        ((1, 1, 3), 60, r"is outside the image, which is 96 x 48 pixels"),
        ((1, 1, 0), -5, "is outside the image"),
    ],
)
def test_the_box_is_named(place, value, what):
    boxes = BOXES.copy()
    boxes[place] = value
    found = fits(boxes, is_first=False)
    assert (found.image, found.noun, found.row) == (1, "box", 1)
    assert what in found.problem


def test_how_many_more_is_said():
    boxes = BOXES.copy()
    boxes[:, :2, 0] = boxes[:, :2, 2]
    assert "the same is true of 3 more" in str(fits(boxes))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_images_in_0_to_255_pass(dtype):
    images = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(dtype)
    assert rules.image_values(images, True) is None


@pytest.mark.parametrize(
    ("images", "what"),
    [
        (np.array([0.0, 0.3, 1.0]), "look like 0..1; multiply by 255"),
        (np.array([-1.0, 0.3, 1.0]), "leave out a normalization"),
        (np.array([-2.1, 0.3, 2.6]), "leave out a normalization"),
        (np.array([-123.0, 3, 151]), "leave out a normalization"),
        (np.array([0, 4095, 900], "uint16"), "are not 0..255; scale them"),
        (np.array([0.0, 65535, 900]), "are not 0..255; scale them"),
        (np.array([-7.3, 100, 260]), "clip_by_value"),
        (np.array([5, np.nan, 7]), "not finite"),
        (np.array([5, np.inf, 7]), "not finite"),
    ],
)
def test_images_of_another_range_are_refused(images, what):
    sound = np.full((1, 1, 1, 3), 200 if images.max() > 9 else 0.5)
    batch = np.concatenate([sound.astype(images.dtype), images.reshape(1, 1, 1, 3)])
    found = rules.image_values(batch, True)
    assert what in found.problem
    assert found.image in (1, None)


def test_a_later_batch_may_be_of_dark_images():
    assert rules.image_values(np.full((2, 4, 4, 3), 0.5), False) is None
    assert rules.image_values(np.zeros((2, 4, 4, 3)), True) is None


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        ([[0, 3, -1]], "label 3 of object 1 .*counted from 1"),
        ([[0, 255, 255]], "uint8 has no -1"),
        ([[0, -2, -1]], "label -2 of object 1"),
    ],
)
def test_labels_out_of_range_are_named(labels, what):
    dtype = "uint8" if 255 in labels[0] else "int32"
    found = rules.labels_fit(np.array(labels, dtype), 3)
    assert re.search(what, found.problem), found


def test_crowd_is_0_or_1_where_there_is_an_object():
    real = np.array([[True, False]])
    assert rules.crowd_fits(np.array([[1, -1]]), real) is None
    assert rules.crowd_fits(np.array([[-1, 1]]), real).problem.startswith("crowd -1 of object 0")
    assert rules.crowd_fits(np.array([[np.nan, 1]]), real) is not None


MASKS = np.zeros((2, 3, 64, 96), "uint8")
for _i in range(2):
    MASKS[_i, 0, 5:50, 50:90] = 1
    MASKS[_i, 1, 20:40, 10:30] = 1


@pytest.mark.parametrize("factor", [255, 2, 0.5])
def test_masks_have_two_values(factor):
    assert rules.mask_values(MASKS, REAL) is None
    assert rules.mask_values(MASKS.astype(bool), REAL) is None
    assert "and masks are of 0 and 1" in rules.mask_values(MASKS * factor, REAL).problem


@pytest.mark.parametrize("packed", [False, True])
def test_masks_are_where_their_boxes_are(packed):
    def meet(masks):
        masks = np.packbits(masks, axis=-1) if packed else masks
        return rules.masks_meet_boxes(masks, BOXES, REAL, packed)

    assert meet(MASKS) is None
    one_sound = MASKS.copy()
    one_sound[0] = 0
    assert meet(one_sound) is None
    assert "are empty" in meet(MASKS * 0).problem
    assert "in the order of 'boxes'" in meet(MASKS[:, [1, 0, 2]]).problem


class TestSuspicions:
    def of(self, boxes=BOXES, labels=None, **more):
        labels = np.where(REAL, 0, -1) if labels is None else labels
        return list(rules.suspicions({"boxes": boxes, "labels": labels} | more, SIZES))

    def test_sound_data(self):
        crowd = np.array([[1, 0, 0], [1, 1, 1]])
        assert self.of(crowd=crowd) == []

    def test_labels_counted_from_minus_1(self):
        labels = np.array([[-1, 0, -1], [-1, -1, -1]])
        (found,) = self.of(labels=labels)
        assert found.startswith("3 boxes have an area and the label -1")

    def test_padding_of_other_tools(self):
        for value in (0, -1):
            boxes = np.where(REAL[..., None], BOXES, value)
            assert self.of(boxes) == []

    def test_all_crowd(self):
        (found,) = self.of(crowd=REAL)
        assert found.startswith("crowd is 1 for all 4 objects")

    def test_tiny(self):
        (found,) = self.of(BOXES / 40)
        assert "another unit than pixels" in found


KEYPOINTS = np.zeros((2, 3, 2, 3), "float32")
KEYPOINTS[:, :2] = [[60, 30, 2], [70, 40, 1]]
KEYPOINTS[1, 1, 0] = 0


@pytest.mark.parametrize(
    ("place", "value", "rule"),
    [
        ((1, 0, 1), [70, 40, 3], r"keypoint 1 \(b\) of object 0, .* visibility must be 0"),
        ((0, 1, 0), [60, 30, 0.7], "visibility must be 0"),
        ((0, 1, 0), [np.nan, 30, 2], r"keypoint 0 \(a\) of object 1, .* is not finite"),
        ((0, 1, 0), [99, 30, 2], "outside the image, which is 96 x 64 pixels"),
        ((1, 0, 0), [60, 60, 1], "outside the image, which is 96 x 48"),
        ((0, 2, 0), [500, 500, 9], None),  # padding
        ((0, 1, 0), [500, 500, 0], None),  # not labelled
        ((0, 1, 0), [97.5, -1.5, 2], None),  # resizing rounds
    ],
)
def test_keypoints_are_in_their_images_with_a_visibility(place, value, rule):
    keypoints = KEYPOINTS.copy()
    keypoints[place] = value
    found = rules.keypoints_fit(keypoints, BOXES, REAL, SIZES, ["a", "b"])
    assert (found is None) == (rule is None)
    assert rule is None or re.search(rule, str(found)), str(found)
    assert found is None or found.image == place[0]


def test_other_forms_of_keypoints_are_recognised():
    names = ["a", "b"]
    found = str(
        rules.keypoints_fit(KEYPOINTS[..., [1, 0, 2]] * [1, 1.2, 1], BOXES, REAL, SIZES, names)
    )
    assert "(y, x, visibility)" in found
    fractions = KEYPOINTS / [96, 64, 1]
    assert "within 0..1" in str(rules.keypoints_fit(fractions, BOXES, REAL, SIZES, names))
    found = str(rules.keypoints_fit(KEYPOINTS, BOXES, REAL, SIZES, ["a"]))
    assert "2 keypoints of an object, the model 1" in found
