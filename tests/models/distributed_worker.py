"""One worker of a training, or all of it. TF_CONFIG says which; arguments: DATA OUT.

Writes OUT/NUMBER.npz (weights, detections) and OUT/NUMBER.json (losses, scores).
"""

import json
import os
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

# Before TensorFlow computes anything.
STRATEGY = (
    tf.distribute.MultiWorkerMirroredStrategy()
    if "TF_CONFIG" in os.environ
    else tf.distribute.get_strategy()
)

import rcnn_keras as rk  # noqa: E402

SMALL = {
    "min_size": 64,
    "max_size": 64,
    "anchor_sizes": ((8, 16, 32),),
    "recompute_stages": 0,
    "rpn_pre_nms_top_n_train": 50,
    "rpn_post_nms_top_n_train": 20,
    "rpn_pre_nms_top_n_test": 50,
    "rpn_post_nms_top_n_test": 20,
    "box_units": 8,
    "box_batch_size_per_image": 16,
    "box_detections_per_img": 5,
    "box_score_thresh": 0.0,
}


def build(scenes):
    """A small detector whose gradients are clipped nearly always."""
    keras.utils.set_random_seed(0)
    model = rk.models.FasterRCNN("zf", scenes.classes, **SMALL)
    model.compile(keras.optimizers.SGD(0.001, momentum=0.9, global_clipnorm=1.0))
    return model


def results_of(model, scenes):
    """Train for 20 steps on images that jitter in size, and return all that comes out."""
    augment = rk.data.ScaleJitter(0.5, 1.0)
    history = model.fit(
        scenes.batches(2, shuffle=True, augment=augment),
        steps_per_epoch=10,
        epochs=2,
        validation_data=scenes.batches(2),  # of five scenes: the last has one
        callbacks=[rk.callbacks.CocoEvaluation(scenes)],
        verbose=0,
    ).history
    evaluated = model.evaluate(scenes.batches(2), verbose=0, return_dict=True)
    found = model.predict(scenes.batches(2), verbose=0)
    numbers = {k: [float(v) for v in values] for k, values in history.items()} | {
        f"evaluated_{k}": [v] for k, v in evaluated.items()
    }
    return model.get_weights(), numbers, found


def main():
    """Train, and write down."""
    scenes = rk.data.load_coco(sys.argv[1])
    with STRATEGY.scope():
        model = build(scenes)
    weights, numbers, found = results_of(model, scenes)
    task = json.loads(os.environ.get("TF_CONFIG", '{"task": {"index": "alone"}}'))["task"]
    out = Path(sys.argv[2])
    np.savez(out / f"{task['index']}.npz", *weights, **found)
    (out / f"{task['index']}.json").write_text(json.dumps(numbers))


if __name__ == "__main__":
    main()
