"""The pictures of an explanation, on one that was put together by hand."""

import numpy as np
import pytest
from PIL import ImageColor

from rcnn_keras.explain import pictures

NAMES = (
    *("input", "features", "anchors", "objectness", "proposals", "roi", "probabilities"),
    *("path", "suppressed", "mask", "matches", "samples"),
)


def colours(picture):
    return {tuple(pixel) for pixel in np.asarray(picture.convert("RGB")).reshape(-1, 3)}


def rgb(name):
    return ImageColor.getrgb(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_part_is_a_picture_that_fits_a_page(by_hand, name):
    picture = getattr(by_hand, f"draw_{name}")()
    assert 200 <= picture.width <= 1400
    assert 100 <= picture.height <= 1400
    assert len(colours(picture)) > 3


def test_boxes_have_the_colours_of_their_parts(by_hand):
    path = colours(by_hand.draw_path(0))
    assert {rgb(pictures.ANCHOR), rgb(pictures.PROPOSAL), rgb(pictures.FINAL)} <= path
    assert rgb(pictures.REMOVED) in colours(by_hand.draw_suppressed(0))
    assert rgb(pictures.REMOVED) not in colours(by_hand.draw_suppressed(1))


def test_a_canvas_enlarges_its_window_and_draws_in_pixels_of_the_image():
    image = np.zeros((40, 60, 3), np.uint8)
    canvas = pictures.Canvas(image, np.array([10, 10, 30, 20]), width=200)
    assert canvas.picture.size == (200, 100)
    canvas.box(np.array([15, 12, 25, 18]), "#ffffff", width=1)
    rows, columns = np.asarray(canvas.picture).any(axis=2).nonzero()
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (50, 150, 20, 80)


def test_heat_of_an_objectness_map_lies_over_its_positions(by_hand):
    objectness = np.zeros((8, 8, 2), np.float32)
    objectness[2, 3, 1] = 1
    object.__setattr__(by_hand, "objectness", (objectness,))
    drawn = np.asarray(by_hand.draw_objectness()).astype(int)
    scale = drawn.shape[1] / 60
    brightness = drawn[..., 1]  # viridis: from dark blue to yellow
    top, bottom, left, right = (round(x * scale) for x in (16, 24, 24, 32))
    inside = brightness[top:bottom, left:right]
    assert inside.min() > 0.65 * 225
    assert np.median(brightness) < inside.min()


def test_channels_that_vary_most_come_first(by_hand):
    values = np.zeros((8, 8, 3), np.float32)
    values[0, 0, 2], values[7, 7, 1] = 10, 1
    object.__setattr__(by_hand.features[0], "values", values)
    drawn = np.asarray(by_hand.draw_features(channels=2))
    cell = 20
    yellow = pictures.heat(np.ones((1, 1)))[0, 0]
    gap = 8
    # mean, channel 2, channel 1: the last one is bright in its last position
    assert (drawn[cell // 2, 8 * cell + gap + cell // 2] == yellow).all()
    assert (drawn[8 * cell - 1, 3 * 8 * cell + 2 * gap - 1] == yellow).all()


def test_before_nms_the_candidates_are_drawn(by_hand):
    after, before = by_hand.draw_proposals(4), by_hand.draw_proposals(4, before_nms=True)
    assert (np.asarray(before) != np.asarray(after)).any()


def test_without_detections_there_is_nothing_to_draw_of_them(empty):
    for name in ("roi", "path", "suppressed", "mask"):
        with pytest.raises(ValueError, match="nothing was detected in this image; see why_empty"):
            getattr(empty, f"draw_{name}")()
    assert empty.draw_probabilities().width == 640


def test_numbers_that_are_not_there_are_refused(by_hand):
    with pytest.raises(ValueError, match=r"level must be in 0\.\.0, not 1"):
        by_hand.draw_anchors(1)
    with pytest.raises(ValueError, match=r"detection must be in 0\.\.1, not -1"):
        by_hand.draw_path(-1)
    with pytest.raises(ValueError, match="top must be at least 1, not 0"):
        by_hand.draw_proposals(0)


def test_parts_that_an_architecture_has_not_are_refused(of_crops, empty, without_proposals):
    with pytest.raises(ValueError, match="this RCNN has no feature maps of the whole image"):
        of_crops.draw_features()
    with pytest.raises(ValueError, match="a RCNN has no masks"):
        of_crops.draw_mask()
    with pytest.raises(ValueError, match="there are no candidates before NMS"):
        of_crops.draw_proposals(before_nms=True)
    with pytest.raises(ValueError, match="RCNN is trained in stages"):
        of_crops.draw_samples()
    with pytest.raises(ValueError, match="no ground truth was given"):
        empty.draw_matches()
    assert without_proposals.draw_proposals().width == 640
