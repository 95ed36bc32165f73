"""The largest of many numbers for every runtime: OpenVINO's `TopK` inserts them one by one.

B images, n scores an image, of which the k largest are wanted.
"""

import tensorflow as tf

from rcnn_keras.ops.batching import take_rows

BLOCK = 8  # scores; both steps take about the same time where n is 10 to 200 times k


def top_k(scores: tf.Tensor, k: int | tf.Tensor, kernels: str = "native"):
    """Return the k largest scores of each image, the largest first; of equal ones the first.

    The k largest scores lie in the k blocks of largest maxima: each of those blocks has one score,
    its maximum, that is at least as large as any score of the other blocks. Portable kernels choose
    these blocks first. OpenVINO compares each of n scores with k others, for a stable order, and so
    looks at n / BLOCK + k BLOCK of them instead of n; the result is the same.

    Args:
        scores: `(B, n)` float32.
        k: how many, at most n.
        kernels: `"native"`, or `"portable"` for blocks.

    Returns:
        The scores `(B, k)` and their places `(B, k)` int32, as `tf.math.top_k`.
    """
    n, known = scores.shape[1], tf.get_static_value(k)
    few = n is not None and known is not None and n <= 2 * BLOCK * int(known)
    if kernels != "portable" or few:
        return tf.math.top_k(scores, k)
    length = tf.shape(scores)[1]
    blocks = (length + BLOCK - 1) // BLOCK
    missing = blocks * BLOCK - length
    padded = tf.pad(scores, [[0, 0], [0, missing]], constant_values=float("-inf"))
    table = tf.reshape(padded, [tf.shape(scores)[0], blocks, BLOCK])
    chosen = tf.minimum(k, blocks)
    _, best = tf.math.top_k(tf.reduce_max(table, axis=2), chosen)
    best = -tf.math.top_k(-best, chosen)[0]  # ascending, so that equal scores keep their order
    candidates = tf.reshape(take_rows(table, best), [tf.shape(scores)[0], chosen * BLOCK])
    largest, place = tf.math.top_k(candidates, k)
    return largest, take_rows(best, place // BLOCK) * BLOCK + place % BLOCK
