import numpy as np

from rcnn_keras.ops import gather_valid, scatter_valid, select_rows

REAL = np.array([(True, False, True), (False, False, False), (False, True, False)])
ROWS = np.arange(18, dtype=np.float32).reshape(3, 3, 2)


def test_real_rows_come_out_image_after_image():
    image, rows, flags = gather_valid(REAL, ROWS, REAL)
    np.testing.assert_array_equal(image, [0, 0, 2])
    np.testing.assert_array_equal(rows, [(0, 1), (4, 5), (14, 15)])
    assert np.all(flags)


def test_rows_go_back_to_their_places_among_zeros():
    _, rows = gather_valid(REAL, ROWS)
    np.testing.assert_array_equal(scatter_valid(REAL, rows), np.where(REAL[..., None], ROWS, 0))


def test_without_real_rows_the_first_stands_in_and_does_not_come_back():
    nothing = np.zeros_like(REAL)
    image, rows = gather_valid(nothing, ROWS)
    np.testing.assert_array_equal(image, [0])
    np.testing.assert_array_equal(rows, ROWS[0, :1])
    np.testing.assert_array_equal(scatter_valid(nothing, rows), np.zeros_like(ROWS))


def test_portable_kernels_leave_the_padding_in():
    for one, other in zip(select_rows("native", REAL, ROWS), gather_valid(REAL, ROWS), strict=True):
        np.testing.assert_array_equal(one, other)
    image, rows, flags = select_rows("portable", REAL, ROWS, REAL)
    np.testing.assert_array_equal(image, np.repeat([0, 1, 2], 3))
    np.testing.assert_array_equal(rows, ROWS.reshape(9, 2))
    np.testing.assert_array_equal(flags, REAL.reshape(9))
