import numpy as np
import pytest

from rcnn_keras.layers import AnchorGenerator


def one_by_one(image_size, feature_size, sizes, ratios):
    """Anchors by the definition: a shift of whole strides, then every ratio, then every size."""
    stride_y, stride_x = image_size[0] // feature_size[0], image_size[1] // feature_size[1]
    boxes = []
    for row in range(feature_size[0]):
        for column in range(feature_size[1]):
            for ratio in ratios:
                for size in sizes:
                    w = np.round(size / np.sqrt(ratio) / 2)
                    h = np.round(size * np.sqrt(ratio) / 2)
                    x, y = column * stride_x, row * stride_y
                    boxes.append([x - w, y - h, x + w, y + h])
    return np.array(boxes)


def test_odd_sizes_on_two_levels():
    images = np.zeros((2, 100, 131, 3), np.float32)
    features = [np.zeros((2, 25, 33, 4), np.float32), np.zeros((2, 7, 9, 4), np.float32)]
    sizes, ratios = ((10, 17), (40,)), (0.5, 1.0, 3.0)
    anchors = AnchorGenerator(sizes, ratios)(images, features)
    for level, feature in enumerate(features):
        expected = one_by_one((100, 131), feature.shape[1:3], sizes[level], ratios)
        np.testing.assert_allclose(anchors[level], expected, rtol=1e-6)
    assert anchors[0].shape == (25 * 33 * 6, 4)
    assert anchors[0].dtype == "float32"


def test_anchors_equal_those_by_hand():
    images, feature = np.zeros((1, 32, 32, 3)), np.zeros((1, 2, 2, 1))
    (anchors,) = AnchorGenerator(((32,),))(images, [feature])
    np.testing.assert_array_equal(
        anchors[:3], [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]]
    )
    np.testing.assert_array_equal(anchors[4], [0, -16, 32, 16])  # one stride of 16 to the right
    np.testing.assert_array_equal(anchors[7], [-16, 0, 16, 32])  # one stride down


def test_sizes_for_each_level_are_needed():
    images, feature = np.zeros((1, 32, 32, 3)), np.zeros((1, 2, 2, 1))
    with pytest.raises(ValueError, match="zip"):
        AnchorGenerator(((32,), (64,)))(images, [feature])


def test_anchors_are_exact_under_mixed_precision(mixed_bfloat16):
    images, feature = np.zeros((1, 2, 4004, 3)), np.zeros((1, 1, 1001, 1))
    (anchors,) = AnchorGenerator(((2,),), (1.0,))(images, [feature])
    assert anchors.dtype == "float32"
    np.testing.assert_array_equal(anchors[-1], [3999, -1, 4001, 1])  # bfloat16 knows 4000, 4016
