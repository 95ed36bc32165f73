"""Augmentations, by the pixels: each object is painted in a colour of its own and measured."""

import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.data import augmentation
from rcnn_keras.data.augmentation import (
    ColorJitter,
    Compose,
    RandomErasing,
    RandomFlip,
    RandomRotation,
    RandomTranslation,
    ScaleJitter,
)

COLOURS = np.float32([[250, 0, 0], [0, 250, 0], [0, 0, 250]])
BOXES = np.float32([[30, 24, 52, 40], [60, 30, 70, 62], [36, 50, 50, 58]])
SHAPE = (88, 110)


def painted(boxes=BOXES, shape=SHAPE):
    image = np.zeros((*shape, 3), np.float32)
    for (x1, y1, x2, y2), colour in zip(boxes.astype(int), COLOURS, strict=False):
        image[y1:y2, x1:x2] = colour
    return {
        "image": tf.constant(image),
        "boxes": tf.constant(boxes),
        "labels": tf.range(len(boxes)),
        "crowd": tf.constant(np.arange(len(boxes)) == 1),
    }


@pytest.fixture
def draw_high(monkeypatch):
    """Make every draw a given part of the way from its low to its high end."""

    def set_part(part):
        monkeypatch.setattr(
            augmentation,
            "_uniform",
            lambda _, shape, low, high: tf.fill(shape, low + part * (high - low)),
        )

    return set_part


def seed(number):
    return tf.constant([number, 7], tf.int64)


def measured(image, label):
    """The box of the pixels that are nearer to the object's colour than to black."""
    rows, columns = np.nonzero(image[..., label] > 125)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def assert_boxes_hold_their_colours(sample, tolerance):
    image = sample["image"].numpy()
    assert len(sample["labels"])
    for box, label in zip(sample["boxes"].numpy(), sample["labels"].numpy(), strict=True):
        np.testing.assert_allclose(box, measured(image, label), atol=tolerance)


@pytest.mark.parametrize(("horizontal", "vertical"), [(True, False), (False, True), (True, True)])
def test_flips_are_exact_and_each_happens_half_the_time(horizontal, vertical):
    sample = painted()
    image, outcomes = sample["image"].numpy(), []
    for number in range(40):
        flipped = RandomFlip(horizontal, vertical)(sample, seed(number))
        assert_boxes_hold_their_colours(flipped, tolerance=0)
        mirrored = (flipped["image"].numpy() == image[:, ::-1]).all()
        upside_down = (flipped["image"].numpy() == image[::-1]).all()
        both = (flipped["image"].numpy() == image[::-1, ::-1]).all()
        outcomes.append((bool(mirrored or both), bool(upside_down or both)))
    for used, happened in zip((horizontal, vertical), zip(*outcomes, strict=True), strict=True):
        assert 10 < sum(happened) < 30 if used else not any(happened)


def test_scale_jitter_follows_the_pixels_and_never_outgrows_the_image():
    heights = []
    for number in range(25):
        jittered = ScaleJitter(0.4, 2.0)(painted(), seed(number))
        height, width, _ = jittered["image"].shape
        assert height <= SHAPE[0]
        assert width <= SHAPE[1]
        heights.append(height)
        assert_boxes_hold_their_colours(jittered, tolerance=1)
    assert min(heights) < 0.6 * SHAPE[0]
    assert max(heights) == SHAPE[0]


def test_scale_jitter_by_hand(draw_high):
    draw_high(0.999)
    shrunk = ScaleJitter(0.5, 0.5)(painted(), seed(0))
    assert shrunk["image"].shape == (44, 55, 3)
    np.testing.assert_allclose(shrunk["boxes"], BOXES / 2)
    # a window of 44 x 55 from the bottom right corner, (55, 44), doubled
    doubled = ScaleJitter(2, 2)(painted(), seed(0))
    assert doubled["image"].shape == (88, 110, 3)
    assert doubled["labels"].numpy().tolist() == [1]
    np.testing.assert_allclose(doubled["boxes"], [[10, 0, 30, 36]])


def test_rotation_hull_holds_the_turned_object_tightly():
    angles = set()
    for number in range(12):
        turned = RandomRotation(25)(painted(), seed(number))
        assert len(turned["labels"]) == 3
        for box, label in zip(turned["boxes"].numpy(), turned["labels"].numpy(), strict=True):
            seen = measured(turned["image"].numpy(), label)
            assert (box[:2] <= seen[:2] + 0.5).all()
            assert (box[2:] >= seen[2:] - 0.5).all()
            np.testing.assert_allclose(box, seen, atol=2)  # sharp corners blend with the ground
        angles.add(float(turned["boxes"][0, 0]))
    assert len(angles) == 12


def test_rotation_by_a_quarter_turn_is_exact(draw_high):
    draw_high(1.0)
    boxes = np.float32([[10, 4, 32, 20], [40, 10, 50, 42]])
    sample = painted(boxes, shape=(56, 56))
    turned = RandomRotation(90)(sample, seed(0))
    np.testing.assert_allclose(turned["image"], np.rot90(sample["image"], -1), atol=0.01)
    x1, y1, x2, y2 = boxes.T
    np.testing.assert_allclose(
        turned["boxes"], np.stack([56 - y2, x1, 56 - y1, x2], axis=1), atol=1e-4
    )


def test_translation_is_exact_and_leaves_black():
    offsets = set()
    for number in range(20):
        moved = RandomTranslation(0.2)(painted(), seed(number))
        dx, dy = (moved["boxes"] - BOXES).numpy()[0, :2].astype(int).tolist()
        expected = np.zeros((*SHAPE, 3), np.float32)
        source = painted()["image"].numpy()
        rows, columns = slice(max(dy, 0), SHAPE[0] + dy), slice(max(dx, 0), SHAPE[1] + dx)
        expected[rows, columns] = source[
            max(-dy, 0) : SHAPE[0] - max(dy, 0), max(-dx, 0) : SHAPE[1] - max(dx, 0)
        ]
        np.testing.assert_allclose(moved["image"], expected, atol=1e-3)
        assert_boxes_hold_their_colours(moved, tolerance=0)
        offsets.add((dx, dy))
    assert len(offsets) > 15
    assert max(abs(dx) for dx, _ in offsets) <= 22
    assert max(abs(dy) for _, dy in offsets) <= 17.6


def test_objects_out_of_sight_are_dropped_with_all_their_entries(draw_high):
    draw_high(1.0)
    # shifted by 50 of 100: 40 px left of 60; 5 of 60 (under a tenth); 0.5 px left; outside
    boxes = np.float32([[0, 0, 60, 40], [45, 0, 100, 40], [49.5, 5, 52, 9], [60, 60, 80, 80]])
    sample = painted(boxes, (100, 100)) | {"scores": tf.reshape(tf.range(4), (4, 1, 1))}
    moved = RandomTranslation(0.5)(sample, seed(0))
    np.testing.assert_allclose(moved["boxes"], [[50, 50, 100, 90]])
    assert moved["labels"].numpy().tolist() == [0]
    assert moved["crowd"].numpy().tolist() == [False]
    assert moved["scores"].numpy().tolist() == [[[0]]]


def test_color_jitter_keeps_boxes_and_range():
    rng = np.random.default_rng(0)
    sample = painted() | {"image": tf.constant(rng.uniform(0, 255, (20, 30, 3)), tf.float32)}
    images = []
    for number in range(5):
        jittered = ColorJitter(0.4, 0.4, 0.4, 0.1)(sample, seed(number))
        images.append(jittered["image"].numpy())
        np.testing.assert_array_equal(jittered["boxes"], BOXES)
        assert images[-1].min() >= 0
        assert images[-1].max() <= 255
    assert np.ptp([image.mean() for image in images]) > 5
    unchanged = ColorJitter(0, 0, 0, 0)(sample, seed(0))
    np.testing.assert_allclose(unchanged["image"], sample["image"], atol=1e-3)


def test_brightness_adds_at_most_its_part_of_255():
    sample = painted() | {"image": tf.fill((4, 4, 3), 120.0)}
    added = [
        float(ColorJitter(0.2, 0, 0, 0)(sample, seed(number))["image"][0, 0, 0]) - 120
        for number in range(30)
    ]
    assert -51 <= min(added) < -25
    assert 25 < max(added) <= 51


def test_contrast_and_saturation_multiply():
    image = np.float32([[[100, 60, 60], [140, 100, 100]]])
    contrast = ColorJitter(0, 0.3, 0, 0)(painted() | {"image": tf.constant(image)}, seed(1))
    factor = float(contrast["image"][0, 1, 0] - 120) / 20
    assert 0.7 <= factor <= 1.3
    mean = image.mean(axis=(0, 1))
    np.testing.assert_allclose(contrast["image"], (image - mean) * factor + mean, atol=1e-2)
    gray = ColorJitter(0, 0, 1, 0)(painted() | {"image": tf.fill((2, 2, 3), 90.0)}, seed(1))
    np.testing.assert_allclose(gray["image"], 90, atol=1e-2)  # gray has no saturation to change


@pytest.mark.parametrize("fill", ["noise", "mean"])
def test_erasing_covers_one_rectangle_of_the_stated_size(fill):
    image = np.full((60, 80, 3), 1.5, np.float32)
    image[:30] = 300  # outside noise's range, so that every erased pixel shows
    sample = painted() | {"image": tf.constant(image)}
    for number in range(10):
        erased = RandomErasing(1.0, (0.1, 0.2), (0.5, 2.0), fill)(sample, seed(number))
        changed = (erased["image"].numpy() != image).any(axis=-1)
        rows, columns = np.nonzero(changed)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert changed.sum() == height * width
        assert 0.08 < height * width / (60 * 80) < 0.22
        assert 0.4 < height / width < 2.2
        if fill == "mean":
            np.testing.assert_allclose(erased["image"].numpy()[changed], 150.75, rtol=1e-5)
        np.testing.assert_array_equal(erased["boxes"], BOXES)


def test_erasing_happens_with_its_probability():
    sample = painted()
    changed = [
        bool((RandomErasing(0.25)(sample, seed(number))["image"] != sample["image"]).numpy().any())
        for number in range(60)
    ]
    assert 5 <= sum(changed) <= 25
    assert not (RandomErasing(0.0)(sample, seed(0))["image"] != sample["image"]).numpy().any()


def test_compose_is_a_function_of_the_seed_and_gives_each_its_own():
    augment = Compose(
        RandomFlip(),
        ScaleJitter(),
        RandomRotation(5),
        RandomTranslation(),
        ColorJitter(),
        RandomErasing(),
    )
    first, again, other = (augment(painted(), seed(number)) for number in (3, 3, 4))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    assert first["image"].shape != other["image"].shape
    seeds = []
    spy = Compose(*[lambda sample, seed: seeds.append(seed.numpy().tolist()) or sample] * 3)
    spy(painted(), seed(3))
    assert len({tuple(one) for one in seeds}) == 3


def test_image_without_objects():
    sample = painted(np.zeros((0, 4), np.float32))
    augment = Compose(
        RandomFlip(),
        ScaleJitter(),
        RandomRotation(5),
        RandomTranslation(),
        ColorJitter(),
        RandomErasing(),
    )
    augmented = augment(sample, seed(1))
    assert augmented["boxes"].shape == (0, 4)
    assert augmented["labels"].shape == (0,)


def test_repr_is_the_call():
    shown = "Compose(RandomFlip(horizontal=True, vertical=False), RandomRotation(degrees=5))"
    assert repr(Compose(RandomFlip(), RandomRotation(5))) == shown


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ScaleJitter(0, 1), "0 < low <= high, got 0 and 1"),
        (lambda: ScaleJitter(2, 1), "0 < low <= high"),
        (lambda: ColorJitter(hue=0.6), r"hue must be in 0\.\.0\.5, got 0\.6"),
        (lambda: ColorJitter(contrast=-1), "contrast must be"),
        (lambda: RandomRotation(200), r"degrees must be in 0\.\.180, got 200"),
        (lambda: RandomTranslation(1.5), "fraction must be"),
        (lambda: RandomErasing(2), "probability must be"),
        (lambda: RandomErasing(area=(0.0, 0.2)), "area"),
        (lambda: RandomErasing(aspect=(2.0, 0.2)), "aspect"),
        (lambda: RandomErasing(fill="black"), '"noise" or "mean", got \'black\''),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_compose_takes_callables_only():
    with pytest.raises(TypeError, match="'flips' is not callable"):
        Compose("flips")
