"""Keras optimizers as detection uses them: weight decay, except for biases and norms."""

from typing import Any

import keras

OPTIMIZERS = {
    "sgd": keras.optimizers.SGD,
    "adamw": keras.optimizers.AdamW,
    "lamb": keras.optimizers.Lamb,
}


def build_optimizer(
    name: str,
    model: keras.Model,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    *,
    weight_decay: float = 0.0,
    clip_global_norm: float | None = None,
    ema_momentum: float | None = None,
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
        **arguments: further arguments of the Keras optimizer, such as `momentum` or `beta_1`.

    Raises:
        ValueError: an unknown name.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer {name!r} is not one of {', '.join(OPTIMIZERS)}")
    average = {} if ema_momentum is None else {"use_ema": True, "ema_momentum": ema_momentum}
    optimizer = OPTIMIZERS[name](
        learning_rate,
        weight_decay=weight_decay or None,
        global_clipnorm=clip_global_norm,
        **average,
        **arguments,
    )
    optimizer.exclude_from_weight_decay(var_list=undecayed(model))
    return optimizer


def undecayed(model: keras.Model) -> list[keras.Variable]:
    """Return the trainable variables with fewer than two dimensions: biases, gains and offsets."""
    return [variable for variable in model.trainable_variables if len(variable.shape) < 2]
