"""A function over many rows, a few at a time, so that what it needs on the way stays small."""

import tensorflow as tf


def in_chunks(function, size, shapes, *rows):
    """Apply a function to rows in chunks, one after the other, and join what it returns.

    Args:
        function: takes slices of `rows` and returns as many float32 tensors as there are `shapes`,
            with the slices' number of rows.
        size: rows at a time.
        shapes: shape of one row of each result.
        rows: tensors of the same number n of rows, n > 0.

    Returns:
        A list of tensors `(n, *shape)`.
    """
    parts = -(-tf.shape(rows[0])[0] // size)
    results = [
        tf.TensorArray(tf.float32, parts, infer_shape=False, element_shape=[None, *shape])
        for shape in shapes
    ]

    def step(k, results):
        found = function(*(x[k * size : (k + 1) * size] for x in rows))
        return k + 1, [done.write(k, part) for done, part in zip(results, found, strict=True)]

    _, results = tf.while_loop(lambda k, _: k < parts, step, (0, results), parallel_iterations=1)
    return [done.concat() for done in results]
