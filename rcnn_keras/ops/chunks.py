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


def in_equal_chunks(function, size, shapes, *rows):
    """`in_chunks` with a last chunk as large as the others: all shapes are known beforehand.

    Args:
        function: as in `in_chunks`.
        size: as in `in_chunks`.
        shapes: as in `in_chunks`.
        rows: as in `in_chunks`; the last chunk is filled up with zeros.

    Returns:
        As `in_chunks`.
    """
    count = rows[0].shape[0] or tf.shape(rows[0])[0]
    parts = -(-count // size)
    filled = [tf.pad(x, [[0, parts * size - count], *[[0, 0]] * (len(x.shape) - 1)]) for x in rows]
    chunks = [tf.reshape(x, [parts, size, *x.shape[1:]]) for x in filled]
    signature = [tf.TensorSpec((size, *shape), tf.float32) for shape in shapes]
    results = tf.map_fn(
        lambda chunk: function(*chunk),
        chunks,
        fn_output_signature=signature,
        parallel_iterations=1,
    )
    return [tf.reshape(x, [-1, *shape])[:count] for x, shape in zip(results, shapes, strict=True)]
