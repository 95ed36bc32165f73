"""Weight decay, its exclusions, clipping and the moving average, against arithmetic by hand."""

import keras
import numpy as np
import pytest

from rcnn_keras.training.optimizers import OPTIMIZERS, build_optimizer, undecayed
from rcnn_keras.training.schedules import StepDecay


def small_model():
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((8, 8, 4)),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.GroupNormalization(2),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    for variable in model.trainable_variables:  # no value at 0, where decay has no effect
        variable.assign(np.full(variable.shape, 2.0))
    return model


def zero_gradients(model):
    return [keras.ops.zeros(variable.shape) for variable in model.trainable_variables]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_kernels_decay_and_by_rate_times_decay(name):
    model = small_model()
    kernels = [model.layers[0].kernel, model.layers[-1].kernel]
    optimizer = build_optimizer(name, model, StepDecay(0.5, [1]), weight_decay=0.1)
    optimizer.apply(zero_gradients(model), model.trainable_variables)
    optimizer.apply(zero_gradients(model), model.trainable_variables)
    shrunk = 2.0 * (1 - 0.5 * 0.1) * (1 - 0.05 * 0.1)  # the second step has the second rate
    for variable in model.trainable_variables:
        expected = shrunk if any(variable is kernel for kernel in kernels) else 2.0
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6, err_msg=variable.path)


def test_biases_gains_and_offsets_are_not_decayed():
    names = sorted(variable.name for variable in undecayed(small_model()))
    assert names == ["beta", "beta", "bias", "bias", "gamma", "gamma"]


def test_decoupled_decay_equals_torchs_once_its_momentum_has_accumulated():
    """Torch: v = m v + d w, w -= lr v. Ours: w -= lr d / (1 - m) w. The same rate of shrinking."""
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    kernel = model.layers[0].kernel
    kernel.assign([[1.0]])
    optimizer = build_optimizer("sgd", model, 0.1, momentum=0.9, weight_decay=0.01)
    torch_weight, velocity = 1.0, 0.001 / (1 - 0.9)
    for _ in range(50):
        optimizer.apply([keras.ops.zeros((1, 1))], [kernel])
        velocity = 0.9 * velocity + 0.001 * torch_weight
        torch_weight -= 0.1 * velocity
    assert float(kernel[0, 0]) == pytest.approx((1 - 0.1 * 0.01) ** 50, rel=1e-5)
    assert float(kernel[0, 0]) == pytest.approx(torch_weight, rel=1e-3)


def test_clipping_is_by_the_norm_of_all_gradients():
    model = small_model()
    before = [variable.numpy() for variable in model.trainable_variables]
    gradients = [keras.ops.ones(variable.shape) for variable in model.trainable_variables]
    count = sum(variable.size for variable in before)
    build_optimizer("sgd", model, 1.0, clip_global_norm=0.5).apply(
        gradients, model.trainable_variables
    )
    for old, new in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_allclose(old - new.numpy(), 0.5 / np.sqrt(count), rtol=1e-3)


def test_callbacks_and_checkpoints_see_the_moving_average(tmp_path):
    """SwapEMAWeights as the trainer has it: the average at epochs' ends, else the raw weights."""
    momentum, rate = 0.5, 0.1
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    kernel = model.layers[0].kernel
    kernel.assign([[1.0]])
    model.compile(build_optimizer("sgd", model, rate, ema_momentum=momentum), loss="mse")
    seen = []
    spy = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(float(kernel[0, 0]))
    )
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    model.fit(
        np.ones((3, 1)), np.zeros((3, 1)), 1, epochs=2, verbose=0, callbacks=[swap, spy, checkpoint]
    )

    weight, average, expected = 1.0, None, []
    for _ in range(2):
        for _ in range(3):
            weight -= rate * 2 * weight  # the gradient of weight ** 2
            average = weight if average is None else momentum * average + (1 - momentum) * weight
        expected.append(average)
    np.testing.assert_allclose(seen, expected, rtol=1e-5)
    for epoch, value in enumerate(expected, start=1):
        saved = keras.models.load_model(tmp_path / f"{epoch}.keras")
        np.testing.assert_allclose(saved.layers[0].kernel[0, 0], value, rtol=1e-5)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="'adam' is not one of sgd, adamw, lamb"):
        build_optimizer("adam", small_model(), 0.1)


class Staged(keras.Sequential):
    """A model whose backbone has two stages of one dense layer each."""

    @property
    def backbone_stages(self):
        return [[self.layers[0]], [self.layers[1]]]


def staged_model():
    dense = keras.layers.Dense
    model = Staged([keras.layers.Input((2,)), dense(2), dense(2), dense(1)])
    for variable in model.trainable_variables:
        variable.assign(np.full(variable.shape, 2.0))
    return model


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_stage_of_the_backbone_has_its_rate_and_decays_by_it(name):
    """One step of each group at its rate alone is what Keras' optimizer does at that rate."""
    factors = [0.1 * 0.5, 0.1, 1.0]  # backbone_rate, once more times layer_decay below
    model = staged_model()
    optimizer = build_optimizer(
        name, model, 0.5, weight_decay=0.1, backbone_rate=0.1, layer_decay=0.5
    )
    assert list(optimizer.rate_factors) == [f for f in factors for _ in range(2)]
    rng = np.random.default_rng(0)
    gradients = [rng.normal(size=v.shape).astype("float32") for v in model.trainable_variables]
    for _ in range(3):
        optimizer.apply([keras.ops.array(g) for g in gradients], model.trainable_variables)
    for number, factor in enumerate(factors):
        alone = staged_model()
        whole = {"sgd": "SGD", "adamw": "AdamW", "lamb": "Lamb"}[name]
        peer = getattr(keras.optimizers, whole)(0.5 * factor, weight_decay=0.1)
        peer.exclude_from_weight_decay(var_list=undecayed(alone))
        for _ in range(3):
            peer.apply([keras.ops.array(g) for g in gradients], alone.trainable_variables)
        for ours, theirs in zip(
            model.layers[number].trainable_variables,
            alone.layers[number].trainable_variables,
            strict=True,
        ):
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_need_not_decay(name):
    model = small_model()
    build_optimizer(name, model, 0.5).apply(zero_gradients(model), model.trainable_variables)
    for variable in model.trainable_variables:
        np.testing.assert_array_equal(variable.numpy(), 2.0)


def test_rates_survive_a_file():
    optimizer = build_optimizer("adamw", staged_model(), 0.5, backbone_rate=0.1)
    config = keras.saving.serialize_keras_object(optimizer)
    again = keras.saving.deserialize_keras_object(config)
    assert again.rate_factors == (0.1, 0.1, 0.1, 0.1, 1.0, 1.0)


def test_rates_of_a_model_that_was_frozen_afterwards_are_refused():
    model = staged_model()
    optimizer = build_optimizer("sgd", model, 0.5, backbone_rate=0.1)
    model.layers[0].trainable = False
    with pytest.raises(ValueError, match="built for 6 trainable variables, and the model has 4"):
        optimizer.build(model.trainable_variables)


def test_a_model_without_a_backbone_has_no_other_rate():
    with pytest.raises(ValueError, match="Sequential has no backbone"):
        build_optimizer("sgd", small_model(), 0.5, backbone_rate=0.1)
