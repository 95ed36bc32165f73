import numpy as np
import pytest

from rcnn_keras.layers import AnchorSampler

SIZES = np.array([(100, 100)], np.int32)
IDS, STEP = np.array([7]), np.array(0)
GT = [[10, 10, 30, 30], [60, 60, 80, 80]]
ANCHORS = np.array(
    [
        [10, 10, 30, 30],  # 0: IoU 1 with the first box
        [10, 10, 30, 26],  # 1: 0.8 with it
        [10, 10, 30, 20],  # 2: 0.5, in between
        [10, 10, 30, 15],  # 3: 0.25
        [40, 10, 50, 20],  # 4: 0
        [60, 60, 80, 68],  # 5: 0.4 with the second box, and the best that it has
        [60, 60, 80, 66],  # 6: 0.3 with it, from where on nothing is negative
        [85, 85, 105, 105],  # 7: 0, over the border
    ],
    np.float32,
)
MATCH_LABELS = {0: 1, 1: 1, 2: None, 3: 0, 4: 0, 5: 1, 6: None, 7: 0}


def targets(boxes=(GT,), labels=((0, 1),), crowd=((False, False),)):
    return {
        "boxes": np.array(boxes, np.float32),
        "labels": np.array(labels, np.int32),
        "crowd": np.array(crowd, bool),
    }


def match_labels_of(sampled, image=0):
    """`{anchor: kind}` of the anchors that were drawn, and how often padding was."""
    indices, match_labels, _ = (np.asarray(x)[image] for x in sampled)
    drawn = {int(i): int(k) for i, k in zip(indices, match_labels, strict=True) if k >= 0}
    assert len(drawn) == np.count_nonzero(match_labels >= 0)  # none twice
    return drawn


def test_samples_equal_those_by_hand():
    sampled = AnchorSampler(batch_size_per_image=20)(ANCHORS, targets(), SIZES, IDS, STEP)
    assert match_labels_of(sampled) == {a: k for a, k in MATCH_LABELS.items() if k is not None}
    indices, match_labels, _ = sampled
    assert indices.shape == match_labels.shape == (1, 20)
    assert np.count_nonzero(match_labels == -1) == 14
    assert match_labels.numpy()[0].tolist() == [1] * 3 + [0] * 3 + [-1] * 14


def test_thresholds_decide_positive_and_negative():
    sampled = AnchorSampler(0.45, 0.28, batch_size_per_image=20)(
        ANCHORS, targets(), SIZES, IDS, STEP
    )
    assert match_labels_of(sampled) == {0: 1, 1: 1, 2: 1, 3: 0, 4: 0, 5: 1, 7: 0}


def test_anchors_across_the_border_are_left_out_if_asked():
    sampled = AnchorSampler(batch_size_per_image=20, ignore_border=True)(
        ANCHORS, targets(), SIZES, IDS, STEP
    )
    assert match_labels_of(sampled) == {
        a: k for a, k in MATCH_LABELS.items() if k is not None and a != 7
    }
    wide = AnchorSampler(batch_size_per_image=20, ignore_border=True)(
        ANCHORS, targets(), SIZES + 5, IDS, STEP
    )
    assert 7 in match_labels_of(wide)


def test_the_best_anchor_is_sought_inside_the_border():
    """The box's best anchor crosses the border; the best of those inside takes its place."""
    anchors = np.array([[-2, 0, 20, 20], [0, 0, 12, 20], [50, 50, 60, 60]], np.float32)
    goal = targets(boxes=[[[0, 0, 20, 20]]], labels=[[0]], crowd=[[False]])
    sampled = AnchorSampler(batch_size_per_image=9, ignore_border=True)(
        anchors, goal, SIZES, IDS, STEP
    )
    assert match_labels_of(sampled) == {1: 1, 2: 0}
    everywhere = AnchorSampler(batch_size_per_image=9)(anchors, goal, SIZES, IDS, STEP)
    assert match_labels_of(everywhere) == {0: 1, 2: 0}


def test_crowds_are_no_ground_truth():
    sampled = AnchorSampler(batch_size_per_image=20)(
        ANCHORS, targets(crowd=[[True, False]]), SIZES, IDS, STEP
    )
    assert match_labels_of(sampled) == {0: 0, 1: 0, 2: 0, 3: 0, 4: 0, 5: 1, 7: 0}


def test_padded_boxes_are_no_ground_truth():
    sampled = AnchorSampler(batch_size_per_image=20)(
        ANCHORS, targets(labels=[[-1, 1]]), SIZES, IDS, STEP
    )
    assert match_labels_of(sampled) == {0: 0, 1: 0, 2: 0, 3: 0, 4: 0, 5: 1, 7: 0}


def test_image_without_objects_gives_negatives_alone():
    nothing = targets(np.zeros((1, 2, 4)), [[-1, -1]])
    indices, match_labels, deltas = AnchorSampler(batch_size_per_image=6)(
        ANCHORS, nothing, SIZES, IDS, STEP
    )
    assert match_labels.numpy().tolist() == [[0] * 6]
    assert len(set(indices.numpy()[0])) == 6
    assert np.isfinite(deltas).all()


def test_deltas_decode_to_the_matched_box(reference):
    indices, match_labels, deltas = AnchorSampler(batch_size_per_image=20)(
        ANCHORS, targets(), SIZES, IDS, STEP
    )
    expected = {0: GT[0], 1: GT[0], 5: GT[1]}
    for place in np.flatnonzero(match_labels[0] == 1):
        anchor = int(indices[0, place])
        box = reference.decode(deltas[0, place], ANCHORS[anchor])
        np.testing.assert_allclose(box, expected[anchor], atol=1e-4)
    assert np.isfinite(deltas).all()


@pytest.fixture
def crowded():
    """A grid of 400 anchors, of which 100 are exactly the one object."""
    side = np.arange(300) % 20 * 4.0
    others = np.stack([side + 50, side, side + 58, side + 8], axis=1)
    anchors = np.concatenate([np.tile([[0, 0, 20, 20]], (100, 1)), others]).astype(np.float32)
    boxes = np.tile([[[0, 0, 20, 20]]], (3, 1, 1))
    return anchors, targets(boxes, [[0]] * 3, [[False]] * 3), np.tile(SIZES, (3, 1))


@pytest.mark.parametrize(("fraction", "positives"), [(0.5, 32), (0.25, 16), (0.0, 0)])
def test_share_of_positives(crowded, fraction, positives):
    anchors, gt, sizes = crowded
    sampler = AnchorSampler(batch_size_per_image=64, positive_fraction=fraction)
    indices, match_labels, _ = sampler(anchors, gt, sizes, np.array([1, 2, 3]), STEP)
    assert (match_labels.numpy() == 1).sum(axis=1).tolist() == [positives] * 3
    assert (match_labels.numpy() == 0).sum(axis=1).tolist() == [64 - positives] * 3
    assert ((indices.numpy() < 100) == (match_labels.numpy() == 1)).all()


def test_draw_depends_on_seed_image_and_step_alone(crowded):
    anchors, gt, sizes = crowded

    def draw(seed, image_ids, step):
        sampler = AnchorSampler(batch_size_per_image=64, seed=seed)
        return sampler(anchors, gt, sizes, np.array(image_ids), np.array(step))[0].numpy()

    drawn = draw(5, [1, 2, 3], 10)
    np.testing.assert_array_equal(drawn, draw(5, [3, 1, 2], 10)[[1, 2, 0]])
    assert (drawn[0] != drawn[1]).any()
    assert (drawn != draw(5, [1, 2, 3], 11)).any()
    assert (drawn != draw(6, [1, 2, 3], 10)).any()
