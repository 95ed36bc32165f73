"""Padded rows to the real ones and back, and functions over many rows in chunks.

B images, R rows an image, n real rows in the whole batch. Work that is done for real rows alone,
such as the mask branch's, takes a flat batch of them, as their number differs from batch to batch.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from rcnn_keras.ops.types import Kernels, Tensor


def flatten_batch(rows: Tensor) -> tuple[Tensor, Tensor]:
    """List all rows of a batch, padding too: a list whose length does not follow from the data.

    Args:
        rows: `(B, R, ...)`.

    Returns:
        `rows` `(B * R, ...)`, and `image` `(B * R,)` int32, the place in the batch of each.
    """
    batch, count = tf.shape(rows)[0], tf.shape(rows)[1]
    image = tf.reshape(tf.range(batch)[:, None] + tf.zeros([1, count], tf.int32), [-1])
    return tf.reshape(rows, [-1, *rows.shape[2:]]), image


def take_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Take rows of each image by their numbers: `(B, R, ...)` and `(B, n)` int32 to `(B, n, ...)`.

    By one list of all rows: where it has a batch axis, OpenVINO's gather crashes, or gives zeros
    for the first rows.
    """
    first = tf.range(tf.shape(rows)[0])[:, None] * tf.shape(rows)[1]
    return tf.gather(tf.reshape(rows, [-1, *rows.shape[2:]]), first + index)


def take_positions(
    maps: Tensor, place: Tensor, inside: Tensor, axis: int, kernels: Kernels = "native"
) -> Tensor:
    """Take rows (axis 1) or columns (axis 2) of each map by their numbers.

    Args:
        maps: `(B, H, W, C)` float32.
        place: `(B, n)` int32.
        inside: `(B, n)` bool; zeros are taken where it is false.
        axis: 1 or 2.
        kernels: `"portable"` multiplies by a matrix of zeros and ones, as every runtime can.

    Returns:
        `(B, n, W, C)` or `(B, H, n, C)`.
    """
    extent = tf.shape(maps)[axis]
    if kernels == "portable":
        chosen = (place[..., None] == tf.range(extent)) & inside[..., None]
        equation = "bnh,bhwc->bnwc" if axis == 1 else "bnw,bhwc->bhnc"
        return tf.einsum(equation, tf.cast(chosen, tf.float32), maps)
    taken = tf.gather(maps, tf.clip_by_value(place, 0, extent - 1), axis=axis, batch_dims=1)
    inside = inside[:, :, None, None] if axis == 1 else inside[:, None, :, None]
    return tf.where(inside, taken, 0.0)


def gather_valid(real: Tensor, *padded: Tensor) -> tuple[Tensor, ...]:
    """Take the real rows of a batch out of their padding.

    A batch without real rows gives its first one: TensorFlow's convolutions fail on nothing.

    Args:
        real: `(B, R)` bool.
        padded: tensors `(B, R, ...)`.

    Returns:
        `image` `(max(n, 1),)` int32, the place in the batch of each row's image, and then for each
        tensor its real rows `(max(n, 1), ...)`, image after image.
    """
    place = tf.where(real)
    place = tf.pad(place, [[0, tf.maximum(1 - tf.shape(place)[0], 0)], [0, 0]])
    return tf.cast(place[:, 0], tf.int32), *(tf.gather_nd(rows, place) for rows in padded)


def select_rows(kernels: Kernels, real: Tensor, *padded: Tensor) -> tuple[Tensor, ...]:
    """List the real rows by `gather_valid`, or with `"portable"` kernels all of them.

    XLA, for one, cannot have a list whose length follows from the data.
    """
    if kernels != "portable":
        return gather_valid(real, *padded)
    return flatten_batch(real)[1], *(flatten_batch(rows)[0] for rows in padded)


def unselect_rows(kernels: Kernels, real: Tensor, rows: Tensor) -> Tensor:
    """Put rows that `select_rows` listed back into their images: `(n, ...)` to `(B, R, ...)`.

    Places that are not real are zeros with native kernels, and keep their rows with portable ones.
    """
    if kernels != "portable":
        return scatter_valid(real, rows)
    return tf.reshape(rows, tf.concat([tf.shape(real), tf.shape(rows)[1:]], axis=0))


def scatter_valid(real: Tensor, rows: Tensor) -> Tensor:
    """Put the list's rows back where `real` `(B, R)` is true, among zeros: `(B, R, ...)`."""
    place = tf.cast(tf.where(real), tf.int32)
    shape = tf.concat([tf.shape(real), tf.shape(rows)[1:]], axis=0)
    return tf.scatter_nd(place, rows[: tf.shape(place)[0]], shape)


def in_chunks(
    function: Callable[..., Sequence[Tensor]],
    size: int,
    shapes: Sequence[tuple[int, ...]],
    *rows: Tensor,
) -> list[Tensor]:
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

    def step(k: Tensor, results: list[tf.TensorArray]) -> tuple[Tensor, list[tf.TensorArray]]:
        found = function(*(x[k * size : (k + 1) * size] for x in rows))
        return k + 1, [done.write(k, part) for done, part in zip(results, found, strict=True)]

    _, results = tf.while_loop(lambda k, _: k < parts, step, (0, results), parallel_iterations=1)
    return [done.concat() for done in results]


def in_equal_chunks(
    function: Callable[..., Sequence[Tensor]],
    size: int,
    shapes: Sequence[tuple[int, ...]],
    *rows: Tensor,
) -> list[Tensor]:
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
