"""Feature Pyramid Network (Lin et al. 2017)."""

import keras
from keras import layers


@keras.saving.register_keras_serializable(package="rcnn_keras")
class FeaturePyramid(layers.Layer):
    """Give every level of a backbone the meaning of the deepest one.

    A 1x1 convolution brings each map to the same channels, each map is added to the doubled one
    above it, and a 3x3 convolution smooths the sum. The coarsest level is halved once more for
    the RPN, as in the paper.

    Args:
        channels: channels of every level, 256 in the paper.

    Call arguments:
        features: list of maps C2..C5 `(B, H_l, W_l, C_l)`, finest first.

    Returns:
        List of maps P2..P6 `(B, H_l, W_l, channels)`, one more than was given.
    """

    def __init__(self, channels=256, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels

    def build(self, input_shape):
        """Create a lateral and an output convolution for each level."""
        initializer = keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")
        self.lateral, self.output_convs = [], []
        for level, shape in enumerate(input_shape, start=2):
            lateral = layers.Conv2D(
                self.channels,
                1,
                kernel_initializer=initializer,
                dtype=self.dtype_policy,
                name=f"lateral{level}",
            )
            output = layers.Conv2D(
                self.channels,
                3,
                padding="same",
                kernel_initializer=initializer,
                dtype=self.dtype_policy,
                name=f"output{level}",
            )
            lateral.build(shape)
            output.build((*shape[:-1], self.channels))
            self.lateral.append(lateral)
            self.output_convs.append(output)
        self.upsample = layers.UpSampling2D(2, dtype=self.dtype_policy)
        self.halve = layers.MaxPooling2D(1, strides=2, dtype=self.dtype_policy)

    def call(self, features):
        """Merge from the coarsest level down; see the class."""
        merged = [self.lateral[-1](features[-1])]
        for lateral, feature in zip(self.lateral[-2::-1], features[-2::-1], strict=True):
            merged.insert(0, lateral(feature) + self.upsample(merged[0]))
        maps = [output(x) for output, x in zip(self.output_convs, merged, strict=True)]
        return [*maps, self.halve(maps[-1])]

    def compute_output_shape(self, input_shape):
        """Same sizes as the input's, and one level of half the last."""
        shapes = [(*shape[:-1], self.channels) for shape in input_shape]
        batch, height, width, _ = shapes[-1]
        half = [None if n is None else (n + 1) // 2 for n in (height, width)]
        return [*shapes, (batch, *half, self.channels)]

    def get_config(self):
        """Return the constructor's arguments."""
        return super().get_config() | {"channels": self.channels}
