"""The networks that R-CNN runs on warped regions, by name."""

import keras
from keras import layers

from rcnn_keras.backbones.alexnet import alexnet
from rcnn_keras.backbones.vgg import vgg16, vgg16_fc

CROP_SIZES = {"alexnet": 227, "vgg16": 224}  # side of the crop that each was made for
SMALLEST_CROP = 67  # that leaves AlexNet's pool5 a position


def crop_network(name, *, crop_size=None, channels=None, units=4096):
    """Build a network from crops to R-CNN's two kinds of features.

    Args:
        name: `"alexnet"` or `"vgg16"`.
        crop_size: side S of the crops in pixels; default that of the papers. VGG-16 has no other.
        channels: of AlexNet's five convolutions, see `alexnet`. VGG-16 has its own.
        units: width of fc6 and fc7.

    Returns:
        Functional model from `(n, S, S, 3)` to `{"pool5" (n, s, s, C), "fc7" (n, units)}`, where
        s x s x C is 6 x 6 x 256 for AlexNet and 7 x 7 x 512 for VGG-16.
    """
    crop_size = crop_size or CROP_SIZES[name]
    if name == "alexnet":
        more = {} if channels is None else {"channels": channels}
        return alexnet(crop_size, units=units, **more)
    inputs = keras.Input((crop_size, crop_size, 3), name="crops")
    pool5 = layers.MaxPooling2D(2, strides=2, name="pool5")(vgg16()(inputs)["c4"])
    fc7 = vgg16_fc(units, name="box_trunk")(pool5)
    return keras.Model(inputs, {"pool5": pool5, "fc7": fc7}, name="vgg16_crops")
