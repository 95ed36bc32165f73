import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.layers import ProposalLayer

SIZES = np.array([(60, 100), (90, 50)], np.int32)


@pytest.fixture
def rpn():
    """Two levels, 60 and 20 anchors, some of them outside both images."""
    rng = np.random.default_rng(0)
    anchors, logits, deltas = [], [], []
    for count, size in ((60, 20), (20, 45)):
        corner = rng.uniform(-30, 90, (count, 2))
        box = np.concatenate([corner, corner + rng.uniform(size / 2, size, (count, 2))], axis=1)
        anchors.append(box.astype(np.float32))
        logits.append(rng.normal(size=(2, count)).astype(np.float32))
        deltas.append(rng.normal(0, 0.3, (2, count, 4)).astype(np.float32))
    deltas[0][0, :5, 2:] = 60  # asks for more than the largest growth
    return logits, deltas, anchors


def one_image(reference, rpn, image, pre, post, threshold):
    """The proposals of one image, as Faster R-CNN describes them."""
    found = []
    for logit, delta, anchors in zip(*rpn, strict=True):
        best = np.argsort(-logit[image], kind="stable")[:pre]
        boxes = [reference.decode(delta[image, i], anchors[i]) for i in best]
        boxes = [reference.clip(box, SIZES[image]) for box in boxes]
        real = [k for k, b in enumerate(boxes) if min(b[2] - b[0], b[3] - b[1]) >= 1e-3]
        boxes, scores = [boxes[k] for k in real], [logit[image, best[k]] for k in real]
        found += [(scores[k], boxes[k]) for k in reference.nms(boxes, scores, threshold)]
    found.sort(key=lambda pair: -pair[0])
    return np.array([box for _, box in found[:post]])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("pre", "post"),
    [
        ((30, 12), (70, 70)),  # the second level has fewer anchors than 30; some proposals missing
        ((60, 60), (20, 9)),  # more survive than are wanted
    ],
)
def test_against_a_slow_reference(reference, rpn, pre, post, training):
    layer = ProposalLayer(pre, post, nms_thresh=0.5)
    proposals, count = layer(*rpn, SIZES, training=training)
    pre, post = (pre[0], post[0]) if training else (pre[1], post[1])
    assert proposals.shape == (2, post, 4)
    assert proposals.dtype == "float32"
    assert count.dtype == "int32"
    for image in range(2):
        expected = one_image(reference, rpn, image, pre, post, 0.5)
        assert count[image] == len(expected)
        np.testing.assert_allclose(proposals[image, : len(expected)], expected, atol=2e-4)
        assert not proposals[image, len(expected) :].numpy().any()
    assert max(count) == post or post == 70


def test_other_levels_do_not_suppress():
    box = np.array([[10, 10, 30, 30]], np.float32)
    logits = [np.full((1, 1), score, np.float32) for score in (1, 2)]
    deltas = [np.zeros((1, 1, 4), np.float32)] * 2
    proposals, count = ProposalLayer((5, 5), (5, 5))(logits, deltas, [box, box], SIZES[:1])
    assert count[0] == 2
    np.testing.assert_allclose(proposals[0, :2], [box[0], box[0]], atol=1e-4)


def test_every_anchor_outside_the_image(rpn):
    logits, deltas, anchors = rpn
    deltas = [np.zeros_like(d) for d in deltas]
    outside = [a + np.array([500, 0, 500, 0], np.float32) for a in anchors]
    proposals, count = ProposalLayer((30, 30), (10, 10))(logits, deltas, outside, SIZES)
    assert count.numpy().tolist() == [0, 0]
    assert proposals.shape == (2, 10, 4)
    assert not proposals.numpy().any()


def test_no_gradient_flows_through_proposals(rpn):
    logits, deltas, anchors = rpn
    logits, deltas = ([tf.constant(x) for x in part] for part in (logits, deltas))
    with tf.GradientTape() as tape:
        tape.watch((logits, deltas))
        proposals, _ = ProposalLayer((30, 30), (10, 10))(logits, deltas, anchors, SIZES)
        loss = tf.reduce_sum(proposals)
    assert tape.gradient(loss, [*logits, *deltas]) == [None] * 4


def test_works_in_a_graph_of_unknown_sizes(rpn):
    layer = ProposalLayer((30, 30), (10, 10))
    eager, _ = layer(*rpn, SIZES)
    unknown = [
        [tf.TensorSpec((None, None))] * 2,
        [tf.TensorSpec((None, None, 4))] * 2,
        [tf.TensorSpec((None, 4))] * 2,
        tf.TensorSpec((None, 2), tf.int32),
    ]
    graph = tf.function(lambda *args: layer(*args), input_signature=unknown)
    np.testing.assert_allclose(graph(*rpn, SIZES)[0], eager, atol=1e-4)


def test_scores_and_boxes_stay_float32_under_mixed_precision(rpn, mixed_bfloat16):
    logits, deltas, anchors = rpn
    moved = [a + 3000 for a in anchors]
    proposals, _ = ProposalLayer((9, 9), (9, 9))(logits, deltas, moved, SIZES + 4000)
    rounded = proposals.numpy().astype(tf.bfloat16.as_numpy_dtype).astype(np.float32)
    assert np.abs(proposals - rounded).max() > 1
