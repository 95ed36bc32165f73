import keras
import numpy as np
import pytest

from rcnn_keras.layers import BoxHead

POOLED = (2, 3, 4, 4, 5)  # two images of three RoIs


def make_trunk(dropout=0.0):
    inputs = keras.Input(POOLED[2:])
    x = keras.layers.Flatten()(inputs)
    x = keras.layers.Dense(6, activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dropout(dropout, seed=0)(x))


@pytest.fixture
def pooled():
    return np.random.default_rng(0).normal(size=POOLED).astype(np.float32)


def test_each_roi_is_classified_by_itself(pooled):
    head = BoxHead(4, make_trunk())
    logits, deltas = head(pooled)
    assert logits.shape == (2, 3, 5)
    assert deltas.shape == (2, 3, 4, 4)
    rng = np.random.default_rng(1)
    for layer in (head.class_logits, head.box_deltas):
        layer.bias.assign(rng.normal(size=layer.bias.shape))
    logits, deltas = head(pooled)
    for b in range(2):
        for r in range(3):
            vector = head.trunk(pooled[b, r : r + 1]).numpy()[0].astype(np.float64)
            expected = vector @ head.class_logits.kernel.numpy() + head.class_logits.bias.numpy()
            np.testing.assert_allclose(logits[b, r], expected, atol=1e-5)
            for k in range(4):  # each class has four columns beside one another
                columns = slice(4 * k, 4 * k + 4)
                expected = vector @ head.box_deltas.kernel.numpy()[:, columns]
                expected += head.box_deltas.bias.numpy()[columns]
                np.testing.assert_allclose(deltas[b, r, k], expected, atol=1e-5)


def test_the_trunk_receives_the_training_flag(pooled):
    head = BoxHead(4, make_trunk(dropout=0.9))
    still, _ = head(pooled)
    np.testing.assert_array_equal(still, head(pooled, training=False)[0])
    assert (still.numpy() != head(pooled, training=True)[0].numpy()).any()


def test_weights_are_drawn_as_in_the_paper():
    inputs = keras.Input((1, 1, 300))
    head = BoxHead(20, keras.Model(inputs, keras.layers.Flatten()(inputs)))
    head.build((None, None, 1, 1, 300))
    for layer, std in ((head.class_logits, 0.01), (head.box_deltas, 0.001)):
        assert np.std(layer.kernel.numpy()) == pytest.approx(std, rel=0.1)
        assert not layer.bias.numpy().any()
    assert len(head.trainable_variables) == 4


def test_trunk_may_come_unbuilt(pooled):
    trunk = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(6)])
    logits, _ = BoxHead(4, trunk)(pooled)
    assert logits.shape == (2, 3, 5)


def test_outputs_are_float32_under_mixed_precision(pooled, mixed_bfloat16):
    head = BoxHead(4, make_trunk())
    logits, deltas = head(pooled)
    assert head.trunk.output.dtype == "bfloat16"
    assert logits.dtype == deltas.dtype == "float32"


def test_no_rois_give_no_rows(pooled):
    logits, deltas = BoxHead(4, make_trunk())(pooled[:, :0])
    assert logits.shape == (2, 0, 5)
    assert deltas.shape == (2, 0, 4, 4)
