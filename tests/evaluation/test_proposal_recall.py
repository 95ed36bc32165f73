import numpy as np
import pytest

from rcnn_keras.data.dataset import DetectionDataset, Record
from rcnn_keras.evaluation import proposal_recall


def image(number, boxes, crowd):
    return Record(
        image_id=number,
        path=f"{number}.png",
        height=50,
        width=100,
        boxes=np.array(boxes),
        labels=np.zeros(len(boxes)),
        crowd=np.array(crowd),
    )


@pytest.fixture
def dataset():
    """Three objects and a crowd region in two images."""
    records = [
        image(1, [[0, 0, 10, 10], [20, 0, 40, 20]], [False, False]),
        image(2, [[0, 0, 30, 30], [50, 0, 99, 49]], [False, True]),
    ]
    return DetectionDataset(records, ["thing"])


def test_recall_is_that_counted_by_hand(dataset):
    """Found: the first object exactly, the second at IoU 0.5 and so not, the third at 25 / 30."""
    proposals = {
        1: np.array([[0, 0, 10, 10], [20, 0, 40, 10], [60, 10, 70, 20]], np.float32),
        2: np.array([[0, 0, 25, 30]], np.float32),
    }
    found = dataset.with_proposals(proposals)
    assert proposal_recall(found) == {"recall": pytest.approx(2 / 3), "boxes": 2.0}
    assert proposal_recall(found, iou_thresh=0.9)["recall"] == pytest.approx(1 / 3)


def test_images_without_objects_or_with_no_box_count(dataset):
    none = np.zeros((0, 4), np.float32)
    assert proposal_recall(dataset.with_proposals({1: none, 2: none})) == {"recall": 0, "boxes": 0}
    empty = DetectionDataset([image(3, np.zeros((0, 4)), [])], ["thing"])
    assert np.isnan(proposal_recall(empty.with_proposals({3: none}))["recall"])


def test_a_dataset_without_proposals_is_refused(dataset):
    with pytest.raises(ValueError, match=r"image 1 \(1\.png\) has no proposals"):
        proposal_recall(dataset)
