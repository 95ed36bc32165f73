"""The types that signatures of operations and layers speak of; shapes stand in the docstrings."""

from typing import Literal, TypeAlias

import keras
import tensorflow as tf

# A tensor with values, or one of Keras' symbols of it while a functional model is built.
Tensor: TypeAlias = tf.Tensor | keras.KerasTensor
Shape: TypeAlias = tuple[int | None, ...]
# The fastest kernels of TensorFlow, or those that XLA, LiteRT, ONNX and OpenVINO have as well.
Kernels: TypeAlias = Literal["native", "portable"]
