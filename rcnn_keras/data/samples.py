"""A sample: one image and its objects on the way to a batch; `augmentation` lists its entries."""

import tensorflow as tf

from rcnn_keras.data.packed_masks import visible_masks

Sample = dict[str, tf.Tensor]

NOT_OF_OBJECTS = ("image", "proposals")


def keep_objects(sample: Sample, keep: tf.Tensor) -> Sample:
    """Return the sample with the objects that `keep`, `(n,)` bool, is true for."""
    rows = {name: value for name, value in sample.items() if name not in NOT_OF_OBJECTS}
    return sample | {name: tf.boolean_mask(value, keep) for name, value in rows.items()}


def drop_empty_masks(sample: Sample) -> Sample:
    """Return the sample without the objects whose mask has no pixel; crowd regions stay."""
    return keep_objects(sample, visible_masks(sample["masks"]) | sample["crowd"])
