"""Heat maps and targets of keypoints against Detectron2's numbers.

A part of them lies beside this file, cut out by tools/parity/store_detectron2_keypoints.py.
"""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.evaluation import box_iou
from rcnn_keras.ops import decode_heatmaps, keypoint_targets, portable_decode_heatmaps

STORED = Path(__file__).parent / "detectron2_keypoints.npz"


@pytest.fixture(scope="module")
def stored():
    with np.load(STORED) as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize("decode", [decode_heatmaps, portable_decode_heatmaps])
def test_keypoints_of_a_heat_map(stored, decode):
    maps = tf.constant(stored["heatmap"].transpose(1, 2, 0)[None])
    found = decode(maps, tf.constant(stored["boxes_network"][None]))[0].numpy()
    assert stored["keypoint_margin"].min() > 1e-5
    np.testing.assert_allclose(found[:, :2], stored["keypoints_network"][:, :2], atol=1e-3)
    np.testing.assert_allclose(found[:, 2], stored["keypoints_network"][:, 2], rtol=1e-4)


@pytest.mark.parametrize("k", range(2))
def test_targets_of_positive_regions(stored, k):
    rois = stored[f"full/keypoint_fg/{k}/boxes"]
    own = box_iou(rois, stored[f"gt/{k}/boxes"]).argmax(axis=1)
    truth = stored[f"gt/{k}/keypoints"][own]
    cells, valid = keypoint_targets(tf.constant(truth), tf.constant(rois), 56)
    assert stored[f"full/keypoint_fg/{k}/valid"].any(axis=1).all()
    np.testing.assert_array_equal(valid, stored[f"full/keypoint_fg/{k}/valid"].astype(bool))
    np.testing.assert_array_equal(cells, stored[f"full/keypoint_fg/{k}/target_index"])
