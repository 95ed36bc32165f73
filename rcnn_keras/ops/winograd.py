"""3x3 convolution by Winograd's minimal filtering (Lavin and Gray 2016), for inference on a CPU.

A tile of 4x4 outputs takes 36 multiplications a pair of channels instead of 144: six points of
Toom and Cook (0, 1, -1, 2, -2 and infinity) along each axis, where convolving is multiplying. The
transforms to and from the points are matrix products as well.

B images, H, W of the map, C channels in, F out, T = ceil(H / 4) * ceil(W / 4) tiles an image.
"""

import numpy as np
from keras import ops

from rcnn_keras.ops.types import Tensor

TILE, POINTS = 4, 6
_INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_KERNEL = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
_OUTPUT = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
)


def winograd_conv(images: Tensor, kernel: Tensor) -> Tensor:
    """Convolve with a 3x3 kernel, stride 1, zeros around the map.

    It pays from about 256 channels on; with fewer, moving the transformed tiles costs what the
    multiplications save. Rounding is about ten times that of the plain sum, 2e-5 of the largest
    output in float32.

    Args:
        images: `(B, H, W, C)` float32.
        kernel: `(3, 3, C, F)` float32.

    Returns:
        `(B, H, W, F)`.
    """
    batch, height, width = (ops.shape(images)[axis] for axis in range(3))
    channels, filters = kernel.shape[2:]
    rows, columns = -(-height // TILE), -(-width // TILE)

    tiles = ops.matmul(_both_axes(_INPUT), _tiles(images, rows, columns))  # (36, B T C)
    points = ops.matmul(_both_axes(_KERNEL), ops.reshape(kernel, (9, -1)))  # (36, C F)
    product = ops.matmul(
        ops.reshape(tiles, (POINTS**2, -1, channels)),
        ops.reshape(points, (POINTS**2, channels, filters)),
    )
    out = ops.matmul(_both_axes(_OUTPUT), ops.reshape(product, (POINTS**2, -1)))  # (16, B T F)
    out = ops.reshape(out, (TILE, TILE, batch, rows, columns, filters))
    out = ops.transpose(out, (2, 3, 0, 4, 1, 5))
    out = ops.reshape(out, (batch, rows * TILE, columns * TILE, filters))
    return out[:, :height, :width]


def _both_axes(transform: np.ndarray) -> Tensor:
    """Return the matrix that transforms rows and columns of a flattened tile."""
    return ops.convert_to_tensor(np.kron(transform, transform).astype("float32"))


def _tiles(images: Tensor, rows: int | Tensor, columns: int | Tensor) -> Tensor:
    """Cut a map into tiles of 6x6 that overlap by two; return `(36, B T C)`."""
    batch, height, width = (ops.shape(images)[axis] for axis in range(3))
    channels = images.shape[-1]
    tall, wide = (rows + 1) * TILE, (columns + 1) * TILE
    padded = ops.pad(images, ((0, 0), (1, tall - height - 1), (1, wide - width - 1), (0, 0)))
    blocks = ops.reshape(padded, (batch, rows + 1, TILE, columns + 1, TILE, channels))
    blocks = ops.transpose(blocks, (2, 4, 0, 1, 3, 5))  # (4, 4, B, rows + 1, columns + 1, C)
    places = [
        blocks[y % TILE, x % TILE, :, y // TILE :, x // TILE :][:, :rows, :columns]
        for y in range(POINTS)
        for x in range(POINTS)
    ]
    return ops.reshape(ops.stack(places), (POINTS**2, -1))
