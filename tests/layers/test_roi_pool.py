import numpy as np

from rcnn_keras.layers import RoIPool

FEATURES = np.arange(2 * 4 * 6, dtype="f4").reshape(2, 4, 6, 1)  # of images of 16 x 24 pixels


def test_maxima_equal_those_by_hand():
    """A RoI of 0..15 by 0..11 pixels has positions 0..4 by 0..3: cells of 2.5 by 2."""
    pooled = RoIPool(2, 4)([FEATURES], np.array([[[0, 0, 16, 12]], [[0, 0, 16, 12]]], "f4")).numpy()
    assert pooled.shape == (2, 1, 2, 2, 1)
    np.testing.assert_array_equal(pooled[0, 0, ..., 0], [[8, 10], [20, 22]])
    np.testing.assert_array_equal(pooled[1] - pooled[0], np.full((1, 2, 2, 1), 24))


def test_a_list_of_rois_names_their_images():
    rois = np.array([[0, 0, 16, 12], [4, 4, 8, 8], [0, 0, 16, 12]], "f4")
    image = np.array([1, 0, 0], "i4")
    layer = RoIPool(2, 4)
    listed = layer([FEATURES], rois, image).numpy()
    for roi, place, found in zip(rois, image, listed, strict=True):
        np.testing.assert_array_equal(
            found, layer([FEATURES[place : place + 1]], roi[None, None])[0, 0]
        )
