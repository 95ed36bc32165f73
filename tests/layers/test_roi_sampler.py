import numpy as np
import pytest

from rcnn_keras.layers import RoISampler

GT = [[10, 10, 30, 30], [60, 60, 80, 80], [0, 0, 0, 0]]
LABELS = [4, 0, -1]
PROPOSALS = np.array(
    [
        [
            [10, 10, 30, 28],  # IoU 0.9 with the first box
            [10, 10, 30, 18],  # 0.4 with it
            [60, 60, 80, 72],  # 0.6 with the second box
            [90, 10, 99, 20],  # 0
            [60, 60, 80, 80],  # padding, whatever its numbers are
        ]
    ],
    np.float32,
)


def targets(boxes=(GT,), labels=(LABELS,), crowd=((False, False, False),)):
    return {
        "boxes": np.array(boxes, np.float32),
        "labels": np.array(labels, np.int32),
        "crowd": np.array(crowd, bool),
    }


def sampled(gt, proposals=PROPOSALS, num_proposals=(4,), **options):
    sampler = RoISampler(**{"batch_size_per_image": 16, "positive_fraction": 1.0} | options)
    found = sampler(proposals, np.array(num_proposals, np.int32), gt, np.array([3]), np.array(0))
    return [x.numpy() for x in found]


def boxes_of(rois, classes, wanted):
    return sorted(rois[0][classes[0] == wanted].tolist())


def test_samples_equal_those_by_hand():
    rois, classes, deltas, matches = sampled(targets())
    assert rois.shape == (1, 16, 4)
    assert deltas.shape == (1, 16, 4)
    assert classes.dtype == matches.dtype == np.int32
    # label 4 is class 5, label 0 is class 1; the ground truth itself is among the RoIs
    assert boxes_of(rois, classes, 5) == [[10, 10, 30, 28], [10, 10, 30, 30]]
    assert boxes_of(rois, classes, 1) == [[60, 60, 80, 72], [60, 60, 80, 80]]
    assert boxes_of(rois, classes, 0) == [[10, 10, 30, 18], [90, 10, 99, 20]]
    assert classes[0].tolist()[6:] == [-1] * 10
    assert set(matches[classes == 5]) == {0}
    assert set(matches[classes == 1]) == {1}


def test_background_below_the_lowest_iou_is_left_out():
    rois, classes, _, _ = sampled(targets(), bg_iou_low_thresh=0.1)
    assert boxes_of(rois, classes, 0) == [[10, 10, 30, 18]]
    assert (classes >= 0).sum() == 5


def test_thresholds_decide_foreground_and_background():
    rois, classes, _, _ = sampled(targets(), fg_iou_thresh=0.95, bg_iou_thresh=0.1)
    assert boxes_of(rois, classes, 5) == [[10, 10, 30, 30]]
    assert boxes_of(rois, classes, 1) == [[60, 60, 80, 80]]
    assert boxes_of(rois, classes, 0) == [[90, 10, 99, 20]]
    assert (classes >= 0).sum() == 3


@pytest.mark.parametrize("weights", [(10.0, 10.0, 5.0, 5.0), (1.0, 2.0, 3.0, 4.0)])
def test_deltas_decode_to_the_matched_box(reference, weights):
    rois, classes, deltas, matches = sampled(targets(), box_weights=weights)
    foreground = np.flatnonzero(classes[0] > 0)
    assert len(foreground) == 4
    for place in foreground:
        box = reference.decode(deltas[0, place], rois[0, place], weights)
        np.testing.assert_allclose(box, GT[matches[0, place]], atol=1e-4)
    assert np.isfinite(deltas).all()


def test_crowds_are_no_ground_truth():
    rois, classes, _, _ = sampled(targets(crowd=[[True, False, False]]))
    assert boxes_of(rois, classes, 5) == []
    assert boxes_of(rois, classes, 1) == [[60, 60, 80, 72], [60, 60, 80, 80]]
    expected = [[10, 10, 30, 18], [10, 10, 30, 28], [90, 10, 99, 20]]  # not joined either
    assert boxes_of(rois, classes, 0) == expected


def test_image_without_objects_gives_background_alone():
    rois, classes, deltas, _ = sampled(targets(labels=[[-1, -1, -1]]))
    assert boxes_of(rois, classes, 0) == sorted(PROPOSALS[0, :4].tolist())
    assert (classes == -1).sum() == 12
    assert np.isfinite(deltas).all()


def test_no_proposals_and_no_objects_give_padding_alone():
    _, classes, deltas, _ = sampled(targets(labels=[[-1, -1, -1]]), num_proposals=(0,))
    assert (classes == -1).all()
    assert np.isfinite(deltas).all()


def test_no_proposals_leave_the_ground_truth():
    rois, classes, _, _ = sampled(targets(), num_proposals=(0,))
    assert boxes_of(rois, classes, 5) == [GT[0]]
    assert boxes_of(rois, classes, 1) == [GT[1]]
    assert (classes == -1).sum() == 14


def test_share_of_foreground_and_the_draw():
    rng = np.random.default_rng(0)
    near = np.array(GT[0]) + rng.uniform(-1, 1, (2, 60, 4))
    far = np.array([60, 10, 70, 20]) + rng.uniform(-5, 5, (2, 60, 4))
    proposals = np.concatenate([near, far], axis=1).astype(np.float32)
    gt = targets([GT] * 2, [LABELS] * 2, [[False] * 3] * 2)
    count = np.array([120, 120], np.int32)

    def draw(image_ids, step, proposals=proposals, seed=0):
        sampler = RoISampler(batch_size_per_image=32, positive_fraction=0.25, seed=seed)
        found = sampler(proposals, count, gt, np.array(image_ids), np.array(step))
        return found[0].numpy(), found[1].numpy()

    rois, classes = draw([8, 9], 0)
    assert (classes[:, :8] > 0).all()  # foreground first
    assert (classes[:, 8:] == 0).all()
    np.testing.assert_array_equal(rois, draw([9, 8], 0, proposals[::-1])[0][::-1])
    assert (rois != draw([8, 9], 1)[0]).any()
    assert (rois != draw([1, 2], 0)[0]).any()
    assert (rois != draw([8, 9], 0, seed=1)[0]).any()
