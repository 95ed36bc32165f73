from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageColor

from rcnn_keras.data.dataset import Record
from rcnn_keras.data.detections import Detections
from rcnn_keras.data.images import ImageError
from rcnn_keras.data.keypoints import Skeleton
from rcnn_keras.visualize import PALETTE, draw, grid

CLASSES = ["cat", "dog", "bird"]
GRAY = 90


def picture(height=200, width=300):
    return np.full((height, width, 3), GRAY, np.uint8)


def found(boxes, labels=None, scores=None, size=(200, 300), classes=CLASSES):
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    labels = np.asarray([0] * len(boxes) if labels is None else labels, np.int32)
    scores = np.asarray([0.9] * len(boxes) if scores is None else scores, np.float32)
    return Detections(boxes, scores, labels, classes, size)


def truth(boxes, labels, crowd=None, size=(200, 300)):
    crowd = [False] * len(boxes) if crowd is None else crowd
    return Record(1, "scene.png", *size, np.asarray(boxes, np.float32), labels, crowd)


def rgb(label):
    return np.array(ImageColor.getrgb(PALETTE[label]))


def changed(drawn, image):
    return (np.asarray(drawn) != image).any(-1)


def test_the_border_has_the_class_colour_and_the_rest_is_unchanged():
    image = picture()
    drawn = np.asarray(draw(image, found([[100, 80, 180, 150]], labels=[2]), width=3))
    assert drawn.shape == image.shape
    assert (image == GRAY).all()  # the argument is not drawn on
    border = np.zeros((200, 300), bool)
    border[80:150, 100:180] = True
    border[83:147, 103:177] = False
    assert (drawn[border] == rgb(2)).all()
    below_the_tag = np.ones((200, 300), bool)
    below_the_tag[:80] = False
    np.testing.assert_array_equal(drawn[below_the_tag & ~border], GRAY)
    # the tag lies on the box: in its colour, and with text of another one
    tag = changed(drawn, image)[:80]
    rows, columns = np.nonzero(tag)
    assert rows.max() == 79
    assert columns.min() == 100
    ground = (drawn[:80] == rgb(2)).all(-1)
    assert 0.4 * tag.sum() < ground.sum() < tag.sum()


def test_fractional_corners_cover_the_pixels_they_touch():
    drawn = draw(picture(), found([[100.6, 80.2, 150.1, 130.0]]), width=1)
    rows, columns = np.nonzero(changed(drawn, picture())[80:])
    assert (rows.max() + 80, columns.max()) == (129, 150)


def test_detections_below_the_score_are_left_out():
    detections = found([[10, 50, 60, 90], [100, 50, 160, 90]], scores=[0.5, 0.49])
    drawn = changed(draw(picture(), detections), picture())
    assert drawn[:, :100].any()
    assert not drawn[:, 100:].any()
    assert changed(draw(picture(), detections, min_score=0.3), picture())[:, 100:].any()


def test_the_best_detection_is_drawn_on_top():
    boxes = [[50, 60, 150, 160], [50, 60, 150, 160]]
    for scores, top in (([0.9, 0.6], 0), ([0.6, 0.9], 1)):
        drawn = np.asarray(draw(picture(), found(boxes, [0, 1], scores)))
        assert (drawn[159, 50:150] == rgb(top)).all()


def test_tags_do_not_overlap_if_there_is_room():
    boxes = [[100, 80, 180, 150], [100, 80, 180, 150]]
    drawn = np.asarray(draw(picture(), found(boxes, [0, 1], [0.9, 0.8])))
    above = (drawn[:80] == rgb(0)).all(-1).sum()
    inside = (drawn[83:147, 103:177] == rgb(1)).all(-1).sum()
    assert above > 100
    assert inside > 100


@pytest.mark.parametrize("box", [[0, 0, 300, 200], [290, 0, 300, 10], [0, 190, 5, 200]])
def test_tags_stay_inside_the_image(box):
    """The text is as large at the border as in the middle, where nothing cuts it off."""

    def text_size(box):
        drawn = np.asarray(draw(picture(), found([box]), width=1)).astype(int)
        return tuple(np.ptp(np.nonzero(drawn.sum(-1) < 150), axis=1))  # dark ink alone

    assert text_size(box) == text_size([100, 100, 101, 101])


@pytest.mark.parametrize(
    "box",
    [
        [50, 50, 50, 50],  # no area
        [-40, -30, 20, 20],  # over the border
        [400, 400, 500, 500],  # outside
        [299.9, 199.9, 300, 200],  # the last pixel
        [60, 60, 50, 50],  # corners exchanged
    ],
)
def test_unusual_boxes_are_drawn_inside_the_image(box):
    assert changed(draw(picture(), found([box])), picture()).any()


def test_without_objects_the_image_is_unchanged():
    np.testing.assert_array_equal(draw(picture(), found([])), picture())
    np.testing.assert_array_equal(draw(picture(), truth(np.zeros((0, 4)), [])), picture())


def test_ground_truth_is_drawn_with_and_without_names():
    record = truth([[100, 80, 180, 150]], [1])
    plain = draw(picture(), record)
    named = draw(picture(), record, classes=CLASSES)
    crowd = draw(picture(), truth([[100, 80, 180, 150]], [1], [True]), classes=CLASSES)
    widths = [np.ptp(np.nonzero(changed(d, picture())[:80])[1]) for d in (plain, named, crowd)]
    assert widths == sorted(set(widths))  # "1", "dog", "dog (crowd)"


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (32, 32), (20, 2000), (3000, 40)])
def test_images_of_any_size_are_drawn(size):
    box = [[0, 0, size[1], size[0]]]
    drawn = draw(picture(*size), found(box, size=size))
    assert drawn.size == size[::-1]
    assert (np.asarray(drawn)[-1, 0] == rgb(0)).all()


def test_lines_and_text_grow_with_the_image():
    heights = []
    for size in ((200, 300), (2000, 3000)):
        box = [[0.3 * size[1], 0.5 * size[0], 0.6 * size[1], 0.9 * size[0]]]
        drawn = changed(draw(picture(*size), found(box, size=size)), picture(*size))
        heights.append(drawn[: size[0] // 2].any(1).sum())
    assert heights[1] > 3 * heights[0]


def test_an_image_is_read_from_its_path(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    detections = found([[100, 80, 180, 150]])
    np.testing.assert_array_equal(draw(tmp_path / "a.png", detections), draw(picture(), detections))


def test_colours_repeat_for_more_classes_than_colours():
    many = [f"class {i}" for i in range(20)]
    drawn = np.asarray(draw(picture(), found([[50, 50, 90, 90]], [7 + 3], classes=many)))
    assert (drawn[89, 50:90] == rgb(3)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_score": 50}, "min_score .* 50"),
        ({"width": 0}, "width .* 0"),
        ({"classes": CLASSES}, "classes"),
        ({"detections": found([[0, 0, 1, 1]], size=(10, 10))}, "300x200 .* 10x10"),
        ({"detections": found([[0, 0, np.nan, 1]])}, "nan"),
        ({"detections": [[0, 0, 1, 1]]}, "not list"),
        ({"detections": truth([[0, 0, 9, 9]], [3]), "classes": CLASSES}, "label 3, .* 3 classes"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw(**{"image": picture(), "detections": found([[0, 0, 9, 9]]), **arguments})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ImageError, match="nowhere"):
        draw(tmp_path / "nowhere.png", found([]))


def test_grid_places_pictures_in_the_middle_of_equal_cells(tmp_path):
    Image.new("RGB", (20, 30), "red").save(tmp_path / "red.png")
    images = [
        np.full((10, 40, 3), 7, np.uint8),
        tmp_path / "red.png",
        Image.new("L", (40, 30), 9),
    ]
    sheet = np.asarray(grid(images, columns=2, gap=6))
    assert sheet.shape == (30 + 6 + 30, 40 + 6 + 40, 3)
    expected = np.full(sheet.shape, 255, np.uint8)
    expected[10:20, :40] = 7
    expected[:30, 46 + 10 : 46 + 30] = (255, 0, 0)
    expected[36:66, :40] = 9
    np.testing.assert_array_equal(sheet, expected)


@pytest.mark.parametrize("arguments", [{"images": []}, {"columns": 0}, {"gap": -1}])
def test_grid_refuses_wrong_arguments(arguments):
    with pytest.raises(ValueError, match="grid: needs"):
        grid(**{"images": [picture()], **arguments})


def test_zoom_enlarges_picture_and_boxes(tmp_path):
    image = np.full((40, 60, 3), 255, np.uint8)
    record = Record(1, "x.png", 40, 60, [[10, 10, 30, 30]], [0], [False])
    picture = np.asarray(draw(image, record, classes=["a"], zoom=4, width=2))
    assert picture.shape == (160, 240, 3)
    rows, columns = np.nonzero((picture != 255).any(-1))
    assert (columns.min(), columns.max()) == (40, 119)
    assert rows.max() == 119
    with pytest.raises(ValueError, match="zoom"):
        draw(image, record, zoom=0)


def test_masks_are_filled_and_outlined_above_one_half():
    masks = np.zeros((2, 28, 28), np.float32)
    masks[0, :, :14] = 1
    masks[1] = 0.49
    boxes = np.float32([[100, 60, 212, 172], [10, 60, 66, 116]])
    detections = Detections(
        boxes, np.float32([0.9, 0.8]), np.array([2, 0]), CLASSES, (200, 300), masks
    )
    drawn = np.asarray(draw(picture(), detections, width=3))
    fill = np.rint(0.6 * GRAY + 0.4 * rgb(2)).astype(int)
    assert (drawn[70:160, 110:148] == fill).all()
    outline = drawn[100, 150:157]  # the mask ends after half of the box's 112 pixels
    assert (outline == rgb(2)).all(-1).sum() == 3
    np.testing.assert_array_equal(drawn[70:160, 160:205], GRAY)
    np.testing.assert_array_equal(drawn[70:110, 20:60], GRAY)  # below one half


@pytest.mark.parametrize("zoom", [1, 3])
def test_masks_of_ground_truth_are_drawn_at_any_zoom(zoom):
    polygon = [[120, 110, 150, 110, 150, 130, 120, 130]]
    boxes = [[110, 60, 180, 190], [5, 60, 95, 190]]
    record = Record(1, "a", 200, 300, boxes, [1, 1], [0, 0], (polygon, None))
    options = {"zoom": zoom, "width": 1, "classes": CLASSES}
    drawn = np.asarray(draw(picture(), record, **options))
    plain = np.asarray(draw(picture(), replace(record, segmentations=None), **options))
    expected = np.zeros((200, 300), bool)
    expected[110:130, 120:150] = True
    changed = (drawn != plain).any(-1)
    np.testing.assert_array_equal(changed, expected.repeat(zoom, 0).repeat(zoom, 1))


def test_a_malformed_segmentation_is_refused():
    record = Record(1, "a", 40, 60, [[5, 5, 55, 35]], [1], [0], ([[1, 2, 3]],))
    with pytest.raises(ValueError, match=r"segmentation\.0"):
        draw(picture(40, 60), record)


LINE = Skeleton(("a", "b", "c"), edges=((0, 1), (1, 2)))
POINTS = np.array([[[120, 100, 0.9], [160, 100, 0.5], [160, 140, 0.01]]], np.float32)


def test_keypoints_are_dots_with_lines_between_them():
    """The third scores too little, so neither its dot nor its line is drawn."""
    image = picture()
    boxes = replace(found([[100, 80, 180, 150]], labels=[1]), keypoints=POINTS, skeleton=LINE)
    drawn = np.asarray(draw(image, boxes, width=2))
    for x, y in ((120, 100), (160, 100), (140, 100)):
        assert (drawn[y - 1 : y + 1, x - 1 : x + 1] == rgb(1)).all(-1).any()
    inside = changed(drawn, image)[105:145, 105:175]
    assert not inside.any()
    more = np.asarray(draw(image, boxes, width=2, min_keypoint_score=0.0))
    assert (more[139:141, 159:161] == rgb(1)).all(-1).any()
    assert (more[118:122, 159:161] == rgb(1)).all(-1).any()


def test_the_keypoints_of_the_best_detection_are_its_own():
    """Drawn in the order of the scores, whatever order they are given in."""
    image = picture()
    both = found([[20, 80, 60, 150], [100, 80, 180, 150]], labels=[0, 1], scores=[0.6, 0.9])
    points = np.concatenate([POINTS - [80, 0, 0], POINTS]).astype("float32")
    drawn = np.asarray(draw(image, replace(both, keypoints=points, skeleton=LINE)))
    assert (drawn[99:101, 39:41] == rgb(0)).all(-1).any()
    assert (drawn[99:101, 119:121] == rgb(1)).all(-1).any()


def test_hidden_keypoints_of_a_record_are_rings():
    image = picture()
    record = truth([[100, 80, 180, 150]], [0])
    keypoints = [[[120, 120, 2], [150, 120, 1], [0, 0, 0]]]
    drawn = np.asarray(draw(image, replace(record, keypoints=keypoints), zoom=1, width=4))
    assert (drawn[119:121, 119:121] == rgb(0)).all()
    np.testing.assert_array_equal(drawn[118:122, 148:152], GRAY)
    ring = (drawn[112:128, 142:158] == rgb(0)).all(-1)
    assert 8 < ring.sum() < 60
    with pytest.raises(ValueError, match="3 keypoints an object, the skeleton 2"):
        draw(image, replace(record, keypoints=keypoints), skeleton=Skeleton(("a", "b")))
    with pytest.raises(ValueError, match="skeleton is for a Record"):
        draw(image, found([[1, 1, 9, 9]]), skeleton=LINE)
