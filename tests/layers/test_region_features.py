import keras
import numpy as np

from rcnn_keras.layers import RegionFeatures
from rcnn_keras.ops import warp_regions

RNG = np.random.default_rng(1)
IMAGES = RNG.normal(size=(2, 30, 40, 3)).astype("f4")
SIZES = np.array([(30, 40), (22, 25)], "i4")
ROIS = np.sort(RNG.uniform(0, 22, (2, 7, 2, 2)), axis=2).reshape(2, 7, 4).astype("f4")
COUNT = np.array([7, 3], "i4")


def network():
    inputs = keras.Input((8, 8, 3))
    pool5 = keras.layers.MaxPooling2D(4)(inputs)
    fc7 = keras.layers.Dense(5, "relu")(keras.layers.Flatten()(pool5))
    return keras.Model(inputs, {"pool5": pool5, "fc7": keras.layers.Dropout(0.5)(fc7)})


def test_each_region_goes_through_the_network_alone():
    net = network()
    layer = RegionFeatures(net, context=2, chunk_size=3)
    assert layer.feature_sizes == {"pool5": 12, "fc7": 5}
    found = layer(IMAGES, SIZES, ROIS, COUNT)
    for b in range(2):
        for r in range(7):
            crop = warp_regions(IMAGES, SIZES, ROIS[b, r : r + 1], [b], 8, 2)
            for name, features in net(crop).items():
                expected = np.reshape(features, -1) * (r < COUNT[b])  # zeros for padding
                np.testing.assert_allclose(found[name][b, r], expected, rtol=1e-5, atol=1e-6)


def test_a_batch_without_regions():
    found = RegionFeatures(network(), context=2)(IMAGES, SIZES, ROIS, COUNT * 0)
    assert found["fc7"].shape == (2, 7, 5)
    assert not np.any(found["fc7"])
