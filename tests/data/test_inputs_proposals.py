import numpy as np
import pytest

from rcnn_keras.data import DetectionDataset, Record
from rcnn_keras.data.inputs import with_given_proposals

EMPTY = np.zeros((0, 4)), np.zeros(0), np.zeros(0)
BOXES = [np.array([[0, 0, 10, 20]], "f4"), np.array([[5, 5, 9, 9], [1, 2, 3, 4]], "f4")]


@pytest.fixture
def dataset():
    pixels = [np.full((20, 30, 3), n, "u1") for n in (3, 7)]
    return DetectionDataset(
        [
            Record(n, f"{n}.png", 20, 30, *EMPTY, pixels=p)
            for n, p in zip((4, 9), pixels, strict=True)
        ],
        ["thing"],
    )


@pytest.mark.parametrize(
    "proposals",
    [
        BOXES,
        {4: BOXES[0], 9: BOXES[1]},
        lambda image: {3: BOXES[0], 7: BOXES[1].tolist()}[int(image[0, 0, 0])],
    ],
    ids=["list", "mapping", "function"],
)
def test_every_form_gives_each_image_its_own(proposals, dataset):
    for record, boxes in zip(with_given_proposals(dataset, proposals), BOXES, strict=True):
        np.testing.assert_array_equal(record.proposals, boxes)


def test_none_found_are_no_rows(dataset):
    assert with_given_proposals(dataset, [[], BOXES[1]])[0].proposals.shape == (0, 4)


@pytest.mark.parametrize(
    ("proposals", "message"),
    [
        (BOXES[:1], "proposals of 1 images for 2 images"),
        ({4: BOXES[0]}, "no proposals for image id 9, 9.png"),
        ([BOXES[0], BOXES[1] + 90], "9.png: proposals outside the image of 30 x 20 pixels"),
    ],
)
def test_what_does_not_fit_is_named(proposals, message, dataset):
    with pytest.raises(ValueError, match=message):
        with_given_proposals(dataset, proposals)
