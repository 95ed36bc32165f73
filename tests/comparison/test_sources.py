import cv2
import numpy as np
import pytest

import rcnn_keras as rk
from rcnn_keras.comparison import Settings
from rcnn_keras.comparison.sources import Sources
from rcnn_keras.data.dataset import Record
from rcnn_keras.proposals import save_proposals


def two_images(folder):
    """Three objects and a crowd region in two images of 100 x 50."""
    records = [
        Record(
            image_id=number,
            path=str(folder / name),
            height=50,
            width=100,
            boxes=np.array(boxes),
            labels=np.zeros(2),
            crowd=np.array(crowd),
        )
        for number, name, boxes, crowd in (
            (1, "a.png", [[0, 0, 10, 10], [20, 0, 40, 20]], [False, False]),
            (2, "b.png", [[0, 0, 30, 30], [50, 0, 99, 49]], [False, True]),
        )
    ]
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(folder / name), np.zeros((50, 100, 3), np.uint8))
    rk.data.DetectionDataset(records, ["thing"]).save_coco(folder / "val.json")
    return folder / "val.json"


def test_recall_by_hand(tmp_path):
    """Found: the first object exactly, the second at IoU 0.5 and so not, the third at 25 / 30."""
    val = two_images(tmp_path)
    proposals = {
        1: np.array([[0, 0, 10, 10], [20, 0, 40, 10], [60, 10, 70, 20]], np.float32),
        2: np.array([[0, 0, 25, 30]], np.float32),
    }
    save_proposals(tmp_path / "val.npz", proposals, method="by hand")
    sources = Sources(Settings(val=val, val_proposals=tmp_path / "val.npz"), tmp_path / "out")
    assert sources.recall() == {"recall": pytest.approx(2 / 3), "boxes": 2.0}
    assert not sources.has_masks
    assert sources.search() is None  # nobody knows how to do that again
    assert len(sources.val_set(proposals=True)[0].proposals) == 3


def test_what_is_missing_is_searched_once_and_can_be_searched_again(val, tmp_path, monkeypatch):
    sources = Sources(Settings(val=val), tmp_path)
    assert sources.has_masks
    sources.propose()
    found = sources.val_set(proposals=True)
    image = rk.data.read_image(found[0].path)
    np.testing.assert_array_equal(sources.search()(image), found[0].proposals)
    monkeypatch.setattr("rcnn_keras.comparison.sources.propose", None)  # not called again
    sources.propose()


def test_proposals_of_other_images_are_told(val, tmp_path):
    save_proposals(tmp_path / "other.npz", {99: np.zeros((1, 4))}, method="by hand")
    with pytest.raises(ValueError, match="6 of 6 images have no proposals"):
        Sources(Settings(val=val, val_proposals=tmp_path / "other.npz"), tmp_path / "out")
