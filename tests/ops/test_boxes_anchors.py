import numpy as np
import pytest
from keras import ops

from rcnn_keras.ops import base_anchors, grid_anchors

RATIOS = (0.5, 1.0, 2.0)


def slow_anchors(base, feature_size, stride):
    """Row by row, position by position, anchor by anchor."""
    anchors = []
    for row in range(feature_size[0]):
        for column in range(feature_size[1]):
            x, y = column * stride[1], row * stride[0]
            anchors += [[x + x1, y + y1, x + x2, y + y2] for x1, y1, x2, y2 in base]
    return np.reshape(anchors, (-1, 4))


def test_base_anchors_have_the_areas_and_ratios_asked_for():
    base = base_anchors([64, 200], [0.25, 1, 4])
    assert base.dtype == np.float32
    expected = [
        [-64, -16, 64, 16],  # the flattest first, sizes varying fastest
        [-200, -50, 200, 50],
        [-32, -32, 32, 32],
        [-100, -100, 100, 100],
        [-16, -64, 16, 64],
        [-50, -200, 50, 200],
    ]
    np.testing.assert_array_equal(base, expected)


def test_base_anchors_are_centred_and_rounded():
    base = base_anchors((8, 17, 33.3, 512), (0.5, 0.8, 1.7))
    assert base.shape == (12, 4)
    np.testing.assert_array_equal(base, np.round(base))
    np.testing.assert_array_equal(base[:, :2], -base[:, 2:])
    sides = base[:, 2:] - base[:, :2]
    ratios = np.repeat([0.5, 0.8, 1.7], 4)
    sizes = np.tile([8, 17, 33.3, 512], 3)
    np.testing.assert_allclose(sides[:, 1], sizes * np.sqrt(ratios), atol=1)
    np.testing.assert_allclose(sides[:, 0], sizes / np.sqrt(ratios), atol=1)


@pytest.mark.parametrize(
    ("feature_size", "stride"), [((3, 5), (16, 16)), ((7, 2), (15, 17)), ((1, 1), (32, 32))]
)
def test_grid_anchors_are_those_of_loops(feature_size, stride):
    base = base_anchors((32, 64), RATIOS)
    expected = slow_anchors(base, feature_size, stride)
    np.testing.assert_array_equal(grid_anchors(base, feature_size, stride), expected)


@pytest.mark.parametrize("case", ["pyramid", "single"])
def test_anchors_are_torchvisions(case, torchvision_numbers):
    stored = {k.split("/")[1]: v for k, v in torchvision_numbers.items() if f"{case}_" in k}
    image_size = stored[f"{case}_image_size"]
    levels = []
    for shape, sizes in zip(stored[f"{case}_shapes"], stored[f"{case}_sizes"], strict=True):
        levels.append(grid_anchors(base_anchors(sizes, RATIOS), shape, image_size // shape))
    np.testing.assert_array_equal(np.concatenate(levels), stored[f"{case}_anchors"])


def test_compiled_anchors_follow_the_map_at_hand(compiled):
    base = base_anchors((32,), RATIOS)
    traced = compiled(
        lambda maps: grid_anchors(base, ops.shape(maps)[1:3], (8, 4)),
        ((None, None, None, 1), "float32"),
    )
    for size in ((4, 3), (2, 5), (0, 5)):
        anchors = traced(np.zeros((1, *size, 1), "float32"))
        np.testing.assert_array_equal(anchors, slow_anchors(base, size, (8, 4)))
