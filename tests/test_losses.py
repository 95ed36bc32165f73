import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.losses import (
    box_head_losses,
    keypoint_head_loss,
    mask_head_loss,
    mean_over_batch,
    rpn_losses,
    smooth_l1,
)

BETA = 1 / 9


def slow_smooth_l1(prediction, target, beta=BETA):
    error = abs(float(prediction) - float(target))
    return error**2 / (2 * beta) if error < beta else error - beta / 2


def slow_rpn_losses(logits, deltas, target_deltas, match_labels):
    """Sums over the samples of a batch, and how many there are."""
    objectness, box, count = 0.0, 0.0, 0
    for at in np.ndindex(*match_labels.shape):
        if match_labels[at] == -1:
            continue
        p = 1 / (1 + math.exp(-float(logits[at])))
        objectness -= math.log(p if match_labels[at] == 1 else 1 - p)
        if match_labels[at] == 1:
            box += sum(map(slow_smooth_l1, deltas[at], target_deltas[at]))
        count += 1
    return objectness, box, count


def slow_box_head_losses(logits, deltas, target_deltas, classes):
    """Sums over the samples of a batch, and how many there are."""
    class_loss, box, count = 0.0, 0.0, 0
    for at in np.ndindex(*classes.shape):
        u = classes[at]
        if u == -1:
            continue
        z = logits[at].astype(float)
        class_loss += math.log(sum(np.exp(z))) - z[u]
        if u > 0:
            box += sum(map(slow_smooth_l1, deltas[at][u - 1], target_deltas[at]))
        count += 1
    return class_loss, box, count


def near(rng, target_deltas, shape):
    """Predictions within and beyond beta of `target_deltas`."""
    scale = rng.choice([0.05, 1.0], shape)
    return (target_deltas + rng.normal(size=shape) * scale).astype("float32")


def rpn_batch(rng, images, samples):
    target_deltas = rng.normal(size=(images, samples, 4)).astype("float32")
    logits = rng.normal(size=(images, samples)).astype("float32")
    match_labels = rng.choice([1, 0, -1], (images, samples), p=[0.3, 0.4, 0.3]).astype("int32")
    return logits, near(rng, target_deltas, target_deltas.shape), target_deltas, match_labels


def box_head_batch(rng, images, samples, classes=3):
    target_deltas = rng.normal(size=(images, samples, 4)).astype("float32")
    logits = rng.normal(size=(images, samples, classes + 1)).astype("float32")
    deltas = near(rng, target_deltas[:, :, None], (images, samples, classes, 4))
    own = rng.integers(-1, classes + 1, (images, samples)).astype("int32")
    return logits, deltas, target_deltas, own


def with_gradient(loss, predictions, *truth):
    """Return `{name: mean}` and the gradients of their sum with respect to the predictions."""
    predictions = [tf.constant(value) for value in predictions]
    with tf.GradientTape() as tape:
        tape.watch(predictions)
        losses = {k: mean_over_batch(*v) for k, v in loss(*predictions, *truth).items()}
        total = sum(losses.values())
    return losses, [gradient.numpy() for gradient in tape.gradient(total, predictions)]


@pytest.mark.parametrize("beta", [BETA, 0.5, 1.0])
def test_smooth_l1_and_its_slope(beta):
    errors = np.float32([0, 0.5, -0.5, 1, -1, 2, -2, 30, -3000]) * beta
    values = tf.constant(errors + 7)
    with tf.GradientTape() as tape:
        tape.watch(values)
        loss = smooth_l1(values, 7.0, beta)
    expected = [slow_smooth_l1(error, 0, beta) for error in errors]
    np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-6)
    slope = np.clip(errors / beta, -1, 1)
    np.testing.assert_allclose(tape.gradient(loss, values), slope, atol=1e-4)


def test_smooth_l1_defaults_to_a_ninth():
    np.testing.assert_allclose(smooth_l1(np.float32([1, 1 / 18]), 0.0), [17 / 18, 1 / 72])


def test_the_difference_of_two_logits_has_the_softmaxs_cross_entropy_and_gradient():
    rng = np.random.default_rng(4)
    pairs = rng.normal(0, 3, (2, 9, 2)).astype("float32")  # background, object
    _, deltas, target_deltas, match_labels = rpn_batch(rng, 2, 9)
    scores = tf.constant(pairs)
    with tf.GradientTape() as tape:
        tape.watch(scores)
        losses = rpn_losses(scores[..., 1] - scores[..., 0], deltas, target_deltas, match_labels)
        total, _ = losses["rpn_objectness_loss"]
    p = np.exp(pairs.astype(float))
    p /= p.sum(-1, keepdims=True)
    expected, slope = 0.0, np.zeros_like(p)
    for at in np.ndindex(*match_labels.shape):
        if match_labels[at] != -1:
            expected -= math.log(p[at][match_labels[at]])
            slope[at] = p[at] - np.eye(2)[match_labels[at]]
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(total, scores), slope, atol=1e-5)


def test_hand_worked_rpn_losses():
    losses = rpn_losses(
        np.float32([[0, 0, math.log(3), 9]]),
        np.float32([[[1, 0, 0, 0], [5, 5, 5, 5], [0, 0, 1 / 18, -1], [7, 7, 7, 7]]]),
        np.zeros((1, 4, 4), "float32"),
        np.int32([[1, 0, 1, -1]]),
    )
    total, count = losses["rpn_objectness_loss"]
    np.testing.assert_allclose(total, 2 * math.log(2) + math.log(4 / 3), rtol=1e-6)
    assert count == 3
    total, count = losses["rpn_box_loss"]
    np.testing.assert_allclose(total, 17 / 18 + 1 / 72 + 17 / 18, rtol=1e-6)
    assert count == 3


def test_hand_worked_box_head_losses():
    deltas = np.zeros((1, 4, 2, 4), "float32")
    deltas[0, 0] = [[1, 0, 0, 0], [9, 9, 9, 9]]
    deltas[0, 1:] = 5
    losses = box_head_losses(
        np.float32([[[0, 0, 0], [math.log(2), 0, 0], [0, 0, math.log(6)], [9, 0, 0]]]),
        deltas,
        np.float32([[[0, 0, 0, 0], [0, 0, 0, 0], [5, 5, 3, 5], [0, 0, 0, 0]]]),
        np.int32([[1, 0, 2, -1]]),
    )
    total, count = losses["class_loss"]
    np.testing.assert_allclose(total, math.log(3) + math.log(2) + math.log(8 / 6), rtol=1e-6)
    assert count == 3
    total, count = losses["box_loss"]
    np.testing.assert_allclose(total, 17 / 18 + (2 - 1 / 18), rtol=1e-6)
    assert count == 3


@pytest.mark.parametrize(
    ("loss", "slow", "batch"),
    [
        (rpn_losses, slow_rpn_losses, rpn_batch),
        (box_head_losses, slow_box_head_losses, box_head_batch),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_losses_are_those_of_loops(seed, loss, slow, batch):
    inputs = batch(np.random.default_rng(seed), 2, 25)
    (first, count), (second, same_count) = loss(*inputs).values()
    slow_first, slow_second, slow_count = slow(*inputs)
    np.testing.assert_allclose([first, second], [slow_first, slow_second], rtol=1e-5)
    assert count == same_count == slow_count


@pytest.mark.parametrize("stage", ["rpn", "head"])
def test_losses_and_gradients_are_torchvisions(stage):
    with np.load(Path(__file__).parent / "ops" / "torchvision_ops.npz") as file:
        stored = {k.split("/")[1]: file[k] for k in file if k.startswith("losses/")}
    loss, truth = {"rpn": (rpn_losses, "kinds"), "head": (box_head_losses, "classes")}[stage]
    losses, gradients = with_gradient(
        loss,
        [stored[f"{stage}_logits"], stored[f"{stage}_deltas"]],
        stored[f"{stage}_target_deltas"],
        stored[f"{stage}_{truth}"].astype("int32"),
    )
    for name, value in losses.items():
        np.testing.assert_allclose(value, stored[name], rtol=1e-5)
    for gradient, name in zip(gradients, ("logits", "deltas"), strict=True):
        np.testing.assert_allclose(gradient, stored[f"{stage}_{name}_gradient"], atol=1e-6)


def test_gradients_in_closed_form():
    rng = np.random.default_rng(3)
    logits, deltas, target_deltas, match_labels = rpn_batch(rng, 2, 20)
    _, (of_logits, of_deltas) = with_gradient(
        rpn_losses, [logits, deltas], target_deltas, match_labels
    )
    n = (match_labels >= 0).sum()
    expected = np.where(match_labels >= 0, 1 / (1 + np.exp(-logits)) - (match_labels == 1), 0) / n
    np.testing.assert_allclose(of_logits, expected, atol=1e-6)
    slope = np.clip((deltas - target_deltas) / BETA, -1, 1)
    np.testing.assert_allclose(of_deltas, slope * (match_labels == 1)[..., None] / n, atol=1e-6)

    logits, deltas, target_deltas, classes = box_head_batch(rng, 2, 20)
    _, (of_logits, of_deltas) = with_gradient(
        box_head_losses, [logits, deltas], target_deltas, classes
    )
    n = (classes >= 0).sum()
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    own = np.arange(4) == classes[..., None]
    np.testing.assert_allclose(of_logits, (p - own) * (classes >= 0)[..., None] / n, atol=1e-6)
    slope = np.clip((deltas - target_deltas[:, :, None]) / BETA, -1, 1)
    np.testing.assert_allclose(of_deltas, slope * own[..., 1:, None] / n, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "batch"), [(rpn_losses, rpn_batch), (box_head_losses, box_head_batch)]
)
class TestBothStages:
    def test_padding_changes_nothing(self, loss, batch):
        logits, deltas, target_deltas, truth = batch(np.random.default_rng(4), 2, 12)
        truth[:, ::3] = -1
        expected, _ = with_gradient(loss, [logits, deltas], target_deltas, truth)
        padding = truth == -1
        logits[padding], deltas[padding], target_deltas[padding] = 1e4, 1e10, -1e10
        losses, gradients = with_gradient(loss, [logits, deltas], target_deltas, truth)
        for name in expected:
            np.testing.assert_allclose(losses[name], expected[name], rtol=1e-6)
        for gradient in gradients:
            assert (gradient[padding] == 0).all()
            assert np.isfinite(gradient).all()

    def test_without_positives_the_box_loss_is_zero(self, loss, batch):
        logits, deltas, target_deltas, truth = batch(np.random.default_rng(5), 2, 12)
        losses, gradients = with_gradient(
            loss, [logits, deltas], target_deltas, np.minimum(truth, 0)
        )
        first, box_loss = losses.values()
        assert first > 0
        assert box_loss == 0
        assert np.isfinite(gradients[0]).all()
        assert np.abs(gradients[0]).sum() > 0
        assert (gradients[1] == 0).all()

    @pytest.mark.parametrize("samples", [0, 6])
    def test_without_samples_all_is_zero(self, loss, batch, samples):
        logits, deltas, target_deltas, truth = batch(np.random.default_rng(6), 2, samples)
        truth[:] = -1
        losses, gradients = with_gradient(loss, [logits, deltas], target_deltas, truth)
        for value in (*losses.values(), *gradients):
            assert (np.asarray(value) == 0).all()

    def test_confident_logits_stay_finite(self, loss, batch):
        logits, deltas, target_deltas, truth = batch(np.random.default_rng(7), 2, 12)
        losses, gradients = with_gradient(loss, [logits * 1e4, deltas], target_deltas, truth)
        for value in (*losses.values(), *gradients):
            assert np.isfinite(value).all()

    def test_compiled_losses_are_the_eager_ones(self, loss, batch, compiled):
        def run(*inputs):
            return {name: mean_over_batch(*pair) for name, pair in loss(*inputs).items()}

        rng = np.random.default_rng(8)
        batches = batch(rng, 2, 9), batch(rng, 1, 3)
        shapes = [(None, None, *value.shape[2:]) for value in batches[0]]
        dtypes = [value.dtype.name for value in batches[0]]
        traced = compiled(run, *zip(shapes, dtypes, strict=True))
        for inputs in batches:
            expected = run(*inputs)
            for name, value in traced(*inputs).items():
                np.testing.assert_allclose(value, expected[name], rtol=1e-5)

    def test_two_replicas_equal_one_device_with_the_whole_batch(self, loss, batch, two_replicas):
        whole = batch(np.random.default_rng(9), 4, 16)
        whole[-1][2:, 3:] = -1  # the second replica has few samples
        halves = [[tf.constant(v[rows]) for v in whole] for rows in (slice(2), slice(2, None))]
        with two_replicas.scope():
            weight = tf.Variable([0.7, 1.3])

        def step(logits, deltas, target_deltas, truth):
            with tf.GradientTape() as tape:
                losses = loss(logits * weight[0], deltas * weight[1], target_deltas, truth)
                losses = [mean_over_batch(*pair) for pair in losses.values()]
                total = sum(losses)
            return tf.stack(losses), tape.gradient(total, weight)

        @tf.function
        def run(inputs):
            results = two_replicas.run(step, inputs)
            return [two_replicas.reduce("SUM", result, axis=None) for result in results]

        shared = two_replicas.experimental_distribute_values_from_function(
            lambda context: halves[context.replica_id_in_sync_group]
        )
        alone = [step(*half) for half in halves]
        for k, (got, expected) in enumerate(zip(run(shared), step(*whole), strict=True)):
            np.testing.assert_allclose(got, expected, rtol=1e-5)
            mean_of_means = (alone[0][k] + alone[1][k]) / 2
            assert not np.allclose(got, mean_of_means, rtol=1e-2)


def test_mask_loss_is_the_cross_entropy_of_every_cell():
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(3, 4, 4)).astype("float32") * 3
    targets = rng.choice([0.0, 0.3, 1.0], (3, 4, 4)).astype("float32")
    p = 1 / (1 + np.exp(-logits.astype(float)))
    cells = -(targets * np.log(p) + (1 - targets) * np.log(1 - p))
    for real in (np.bool([1, 1, 1]), np.bool([1, 0, 1])):
        total, count = mask_head_loss(logits, targets, real)["mask_loss"]
        assert float(total) == pytest.approx(cells[real].sum(), rel=1e-5)
        assert float(count) == 16 * real.sum()


def test_mask_loss_over_no_roi_is_nothing():
    nothing = np.zeros((0, 4, 4), "float32")
    total, count = mask_head_loss(nothing, nothing, np.zeros(0, bool))["mask_loss"]
    assert (float(total), float(count)) == (0, 0)


def test_the_keypoint_loss_is_a_softmax_over_all_cells():
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 3, (4, 6, 6, 3)).astype("float32")
    cells, valid = rng.integers(0, 36, (4, 3)), rng.random((4, 3)) < 0.6
    expected = 0.0
    for n, p in np.argwhere(valid):
        z = logits[n, :, :, p].astype(float).ravel()
        expected += math.log(np.exp(z).sum()) - z[cells[n, p]]
    total, count = keypoint_head_loss(logits, cells, valid)["keypoint_loss"]
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert float(count) == valid.sum() > 0
    total, count = keypoint_head_loss(logits, cells, np.zeros_like(valid))["keypoint_loss"]
    assert float(mean_over_batch(total, count)) == 0
