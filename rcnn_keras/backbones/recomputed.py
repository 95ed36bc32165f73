"""A backbone whose first stages run a second time for the gradient."""

import keras

from rcnn_keras.ops import recompute


class Recomputed:
    """Calls a backbone so that the maps inside its first stages are not kept for the gradient.

    These are the largest maps of all and the cheapest to compute.

    Args:
        backbone: functional model from images to `{"c2": .., ...}`, one layer after another where
            the stages meet. Its layers are shared.
        stages: what the names of the layers of these stages begin with, at least one.
    """

    def __init__(self, backbone, stages):
        inside = [layer for layer in backbone.layers if is_of(layer, stages)]
        border, names = inside[-1].output, {layer.name for layer in inside}
        maps = backbone.output
        early = {k: x for k, x in maps.items() if x._keras_history.operation.name in names}
        late = {k: x for k, x in maps.items() if k not in early}
        self.first = keras.Model(backbone.input, early | {"border": border})
        self.rest = keras.Model(border, late) if late else None

    def __call__(self, images, training):
        """Return the maps of `images` by their levels."""
        maps = recompute(lambda x: self.first(x, training=training), images)
        border = maps.pop("border")
        return maps | (self.rest(border, training=training) if self.rest else {})


def is_of(layer, stages):
    """Whether a layer belongs to stages that are given by what the names of theirs begin with."""
    names = [name for stage in stages for name in stage]
    return any(f"{layer.name}_".startswith(f"{name}_") for name in names)
