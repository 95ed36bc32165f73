"""Keras optimizers as detection uses them: weight decay, except for biases and norms, and a lower
rate for a pre-trained backbone.
"""

from typing import Any

import keras

from rcnn_keras.keras_internals import VariableRates


@keras.saving.register_keras_serializable(package="rcnn_keras")
class SGD(VariableRates, keras.optimizers.SGD):
    """Keras' SGD with a factor of the rate for each variable, see `VariableRates`."""


@keras.saving.register_keras_serializable(package="rcnn_keras")
class AdamW(VariableRates, keras.optimizers.AdamW):
    """Keras' AdamW with a factor of the rate for each variable, see `VariableRates`."""


@keras.saving.register_keras_serializable(package="rcnn_keras")
class Lamb(VariableRates, keras.optimizers.Lamb):
    """Keras' Lamb with a factor of the rate for each variable, see `VariableRates`."""


OPTIMIZERS: dict[str, Any] = {"sgd": SGD, "adamw": AdamW, "lamb": Lamb}


def build_optimizer(
    name: str,
    model: keras.Model,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    *,
    weight_decay: float = 0.0,
    clip_global_norm: float | None = None,
    ema_momentum: float | None = None,
    backbone_rate: float = 1.0,
    layer_decay: float = 1.0,
    **arguments: Any,
) -> keras.optimizers.Optimizer:
    """Build the optimizer of `model`'s trainable variables.

    Weight decay is Keras': decoupled, `w -= w * weight_decay * rate` before each update. Torch's
    SGD adds `d * w` to the gradient, where momentum m accumulates it up to `d / (1 - m)`: that is
    the `weight_decay` to give here, 1e-3 for torch's 1e-4 under momentum 0.9. A `.keras` file does
    not keep the exclusions: to train a loaded model further, compile it with a new optimizer.

    Args:
        name: `sgd`, `adamw` or `lamb`.
        model: a built model; its variables of one dimension or none (biases, and the gains and
            offsets of norms) are not decayed.
        learning_rate: a number or a schedule.
        weight_decay: decay per step at a learning rate of 1; 0 for none.
        clip_global_norm: largest norm of all gradients together, or None.
        ema_momentum: share that the moving average of the weights keeps at each step, or None for
            no average. `keras.callbacks.SwapEMAWeights` puts the average into the model.
        backbone_rate: factor of the rate in the backbone, whose pre-trained weights need less
            change than the new layers; 1 for the same.
        layer_decay: further factor of each stage of the backbone below the last, once more for each
            one: the features near the image are the most general ones.
        **arguments: further arguments of the Keras optimizer, such as `momentum` or `beta_1`.

    Raises:
        ValueError: an unknown name, and a rate of the backbone for a model that has none.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer {name!r} is not one of {', '.join(OPTIMIZERS)}")
    if (backbone_rate, layer_decay) != (1.0, 1.0):
        arguments["rate_factors"] = rate_factors(model, backbone_rate, layer_decay)
    average = {} if ema_momentum is None else {"use_ema": True, "ema_momentum": ema_momentum}
    optimizer = OPTIMIZERS[name](
        learning_rate,
        weight_decay=weight_decay or (0.0 if name == "adamw" else None),  # which it insists on
        global_clipnorm=clip_global_norm,
        **average,
        **arguments,
    )
    optimizer.exclude_from_weight_decay(var_list=undecayed(model))
    return optimizer


def rate_factors(
    model: keras.Model, backbone_rate: float = 1.0, layer_decay: float = 1.0
) -> list[float]:
    """Return the factor of the learning rate of each trainable variable, in the model's order.

    Args:
        model: a detector with a backbone.
        backbone_rate: factor of the backbone's last stage.
        layer_decay: further factor of each stage before, see `build_optimizer`.

    Raises:
        ValueError: if the model has no backbone.
    """
    stages = getattr(model, "backbone_stages", None)
    if stages is None:
        raise ValueError(f"{type(model).__name__} has no backbone whose rate could be another")
    factors: dict[int, float] = {}
    for depth, stage in enumerate(reversed(stages)):
        for layer in stage:
            for variable in layer.trainable_variables:
                factors[id(variable)] = backbone_rate * layer_decay**depth
    return [factors.get(id(variable), 1.0) for variable in model.trainable_variables]


def undecayed(model: keras.Model) -> list[keras.Variable]:
    """Return the trainable variables with fewer than two dimensions: biases, gains and offsets."""
    return [variable for variable in model.trainable_variables if len(variable.shape) < 2]
