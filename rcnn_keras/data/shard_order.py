"""The order of an epoch that visits record files a few at a time, as a pure function."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from rcnn_keras.data.records import Record

AT_ONCE = 8  # record files among which images are shuffled


class ShardOrder:
    """Which record comes at which place of an epoch, in shuffled shards.

    The shards of an epoch come in a random order; among each eight that follow one another, images
    come in a random order. So an epoch reads eight files at a time, and not all of them: what is
    on a slow disk or far away is read through once.

    Args:
        records: those of one record file stand together.

    Raises:
        ValueError: an image is in no record file.
    """

    def __init__(self, records: "Sequence[Record]"):
        files = []
        for record in records:
            if record.packed is None:
                raise ValueError(
                    f"shuffle='shards' needs record files, and {record.path} is in none: "
                    f"`rcnn data pack` writes them"
                )
            files.append(record.packed.file)
        starts = [i for i in range(len(files)) if i == 0 or files[i] != files[i - 1]]
        self.starts = tf.constant(starts, tf.int64)
        self.sizes = tf.constant(np.diff([*starts, len(files)]), tf.int64)

    def index(self, place: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return the record at a place of an epoch.

        Args:
            place: in 0..records-1, an int64 scalar.
            seed: `(2,)` int64, another one for each epoch.
        """
        count = tf.size(self.sizes, tf.int64)
        shuffle = tf.random.experimental.index_shuffle
        shards = shuffle(tf.range(count), seed=seed, max_index=count - 1)
        ends = tf.cumsum(tf.gather(self.sizes, shards))
        begins = ends - tf.gather(self.sizes, shards)
        first = _holding(ends, place) // AT_ONCE * AT_ONCE
        last = tf.minimum(first + AT_ONCE, count) - 1
        begin, end = begins[first], ends[last]
        seed = tf.random.experimental.stateless_fold_in(seed, first)
        place = begin + shuffle(place - begin, seed=seed, max_index=end - begin - 1)
        shard = _holding(ends, place)
        return self.starts[shards[shard]] + place - begins[shard]


def _holding(ends: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """Return which of the shards that end at these places holds a place."""
    return tf.searchsorted(ends, place[None], side="right", out_type=tf.int64)[0]
