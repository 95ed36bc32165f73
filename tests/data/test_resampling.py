"""How Detectron2 sees an image: sides, and Pillow's arithmetic in the graph."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from rcnn_keras.data.resampling import Detectron2ImageRule, resize_as_pillow

RULE = Detectron2ImageRule((640, 800), 1333)


@pytest.fixture(scope="module")
def resize():
    """Traced once for all sizes."""
    size = tf.TensorSpec((), tf.int32)
    signature = [tf.TensorSpec((None, None, 3), tf.uint8), size, size]
    return tf.function(resize_as_pillow, input_signature=signature)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        *[((37, 53), (80, 115)), ((120, 160), (40, 53)), ((100, 9), (33, 200))],
        *[((64, 64), (64, 64)), ((1, 1), (7, 5)), ((200, 300), (1, 1)), ((5, 250), (250, 5))],
    ],
)
def test_pixels_are_pillows_to_the_bit(resize, old, new):
    image = np.random.default_rng(0).integers(0, 256, (*old, 3), "uint8")
    expected = np.asarray(Image.fromarray(image).resize(new[::-1], Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resize(image, *new), expected)


def test_images_of_a_batch_are_resized_together():
    images = np.random.default_rng(1).integers(0, 256, (2, 9, 12, 3), "uint8")
    expected = [Image.fromarray(x).resize((5, 4), Image.Resampling.BILINEAR) for x in images]
    np.testing.assert_array_equal(RULE.resize(images, 4, 5), np.stack(expected))


# Height, width, and what Detectron2 makes of them at 800 and 1333.
SIZES = (
    *((480, 640, 800, 1067), (500, 333, 1201, 800), (1000, 1500, 800, 1200)),
    *((600, 2400, 333, 1333), (37, 53, 800, 1146), (800, 1066, 800, 1066)),
    *((427, 640, 800, 1199), (1201, 399, 1333, 443), (3, 3000, 1, 1333)),
)


@pytest.mark.parametrize(("height", "width", "new_height", "new_width"), SIZES)
def test_sides_are_rounded_as_detectron2_does(height, width, new_height, new_width):
    assert RULE.size(height, width) == (new_height, new_width)
    assert RULE.size_in_graph(tf.constant([height, width])).numpy().tolist() == [
        new_height,
        new_width,
    ]


def test_a_training_draws_one_of_all_sizes():
    assert RULE.sizes(480, 640) == [(640, 853), (800, 1067)]


def test_boxes_return_to_the_image_and_end_at_its_borders():
    boxes = [[[0, 0, 100, 100], [90, 10, 120, 180]]]
    found = RULE.restore(np.float32(boxes), [[200, 110]], [[100, 55]])
    np.testing.assert_allclose(found, [[[0, 0, 50, 50], [45, 5, 55, 90]]])
