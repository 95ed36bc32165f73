"""Pictures of the worst cases."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageColor

from rcnn_keras.evaluation import DetectionErrors
from rcnn_keras.evaluation.report.gallery import draw_worst
from rcnn_keras.visualize import PALETTE

A, FAR = [0, 0, 40, 40], [120, 120, 160, 160]


def panels(picture):
    """The left and the right panel as `(h, w, 3)` pixels."""
    pixels = np.asarray(Image.open(picture.path).convert("RGB"))
    width = (pixels.shape[1] - 8) // 2
    return pixels[:, :width], pixels[:, -width:]


def has(pixels, label):
    return bool((pixels == ImageColor.getrgb(PALETTE[label])).all(2).sum() > 100)


def test_false_positives_come_by_kind_and_score_then_the_largest_missed_objects(tmp_path, scene):
    found = [(0, 0.6, FAR), (1, 0.9, FAR), (0, 0.8, A), (0, 0.7, A), (0, 0.3, FAR)]
    scene.image([(0, A), (2, [60, 60, 90, 90])], found)
    scene.image([(2, [100, 100, 180, 180])])
    errors = DetectionErrors(scene.dataset, scene.detections)
    pictures = draw_worst(tmp_path / "new", errors, scene.dataset, scene.detections, count=2)
    assert [picture.caption for picture in pictures] == [
        "duplicate: cat 0.70, IoU 1.00 with cat, 1.png",
        "background: dog 0.90, 1.png",
        "background: cat 0.60, 1.png",
        "missed: owl, 2.png",
        "missed: owl, 1.png",
    ]
    assert [picture.path.name for picture in pictures] == [
        *("error_duplicate_1.png", "error_background_1.png", "error_background_2.png"),
        *("error_missed_1.png", "error_missed_2.png"),
    ]
    one = draw_worst(
        tmp_path, errors, scene.dataset, scene.detections, count=1, kinds=["background"]
    )
    assert [picture.caption for picture in one] == ["background: dog 0.90, 1.png"]


def test_ground_truth_is_left_and_only_the_detection_right(tmp_path, scene):
    scene.image([(0, [110, 110, 118, 118])], [(1, 0.9, FAR), (2, 0.95, [122, 122, 158, 158])])
    errors = DetectionErrors(scene.dataset, scene.detections)
    owl, dog = draw_worst(tmp_path, errors, scene.dataset, scene.detections, kinds=["background"])
    for picture, label in ((owl, 2), (dog, 1)):
        left, right = panels(picture)
        assert [has(left, k) for k in range(3)] == [True, False, False]
        assert [has(right, k) for k in range(3)] == [k == label for k in range(3)]


def test_beside_a_missed_object_all_detections_of_the_threshold_are_shown(tmp_path, scene):
    scene.image([(0, FAR)], [(1, 0.5, [100, 100, 125, 125]), (2, 0.4, [130, 130, 150, 150])])
    scene.image([(0, FAR)])
    errors = DetectionErrors(scene.dataset, scene.detections, background_iou=0.5)
    first, second = draw_worst(tmp_path, errors, scene.dataset, scene.detections, kinds=["missed"])
    left, right = panels(first)
    assert [has(left, k) for k in range(3)] == [True, False, False]
    assert [has(right, k) for k in range(3)] == [False, True, False]
    left, right = panels(second)  # of an image without detections
    assert has(left, 0)
    assert not has(right, 0)


def test_small_crops_are_enlarged_and_crops_end_at_the_border(tmp_path, scene):
    scene.image([], [(0, 0.9, [100, 100, 106, 106]), (0, 0.8, [150, 150, 210, 230])])
    errors = DetectionErrors(scene.dataset, scene.detections)
    small, border = draw_worst(tmp_path, errors, scene.dataset, scene.detections)
    assert panels(small)[0].shape == (48 * 5, 48 * 5, 3)
    # 1.1 times 80 on all sides of (180, 190), cut off at 200
    assert panels(border)[0].shape == (98 * 3, 108 * 3, 3)


def test_boxes_are_drawn_at_their_place_in_the_crop(tmp_path, scene):
    """The square is black in the image; the box must lie around it on both panels."""
    scene.image([(1, [60, 120, 100, 160])], [(1, 0.9, [60, 120, 100, 138])])
    scene.records[0].pixels[120:160, 60:100] = 0
    errors = DetectionErrors(scene.dataset, scene.detections)
    (picture,) = draw_worst(
        tmp_path, errors, scene.dataset, scene.detections, kinds=["localisation"]
    )
    left, right = panels(picture)
    for pixels, height in ((left, 40), (right, 18)):
        line = (pixels == ImageColor.getrgb(PALETTE[1])).all(2)
        black = (pixels == 0).all(2)
        rows, columns = np.nonzero(line[60:]), np.nonzero(black)
        assert rows[1].min() <= columns[1].min()
        bottom = line.any(1).nonzero()[0].max()
        zoom = pixels.shape[0] / 88  # 1.1 times 40 on both sides of the middle
        assert bottom / zoom == pytest.approx(24 + height, abs=1)


def test_masks_are_drawn_if_the_errors_are_those_of_masks(tmp_path, mask_scene):
    mask_scene.image([(0, [0, 0, 40, 40])], [(0, 0.9, [20, 0, 60, 40])])
    pictures = {}
    for kind in ("box", "mask"):
        errors = DetectionErrors(mask_scene.dataset, mask_scene.detections, kind=kind)
        args = errors, mask_scene.dataset, mask_scene.detections
        (pictures[kind],) = draw_worst(tmp_path / kind, *args, kinds=["localisation"])
    plain, filled = (panels(pictures[kind]) for kind in ("box", "mask"))
    gray = [[(side == 90).all(2).sum() for side in both] for both in (plain, filled)]
    assert gray[1][0] < 0.9 * gray[0][0]
    assert gray[1][1] < 0.9 * gray[0][1]


def test_images_are_read_from_their_files(tmp_path, scene):
    scene.image([(0, FAR)])
    Image.new("RGB", (200, 200), "red").save(tmp_path / "a.png")
    scene.records[0] = replace(scene.records[0], path=str(tmp_path / "a.png"), pixels=None)
    errors = DetectionErrors(scene.dataset, {})
    (picture,) = draw_worst(tmp_path, errors, scene.dataset, {})
    assert picture.caption == "missed: cat, a.png"
    assert (panels(picture)[1] == [255, 0, 0]).all()
