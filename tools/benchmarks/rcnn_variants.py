"""Train a small R-CNN on drawn scenes, and compare SVM and softmax, with and without regression.

    python tools/benchmarks/rcnn_variants.py --out runs/rcnn_variants

Proposals are the ground truth moved at random, and boxes anywhere, so that no search for regions
is needed. The network is AlexNet with few channels on crops of 99 pixels, from random weights.
"""

import argparse

import keras
import numpy as np

import rcnn_keras as rk
from rcnn_keras.training import train_rcnn

SIZE = 96  # of the scenes, in pixels
MOVED, ANYWHERE = 6, 30  # proposals of each object, and of each image


def drawn_proposals(dataset, seed=0):
    """Return the dataset with proposals around its objects and all over its images."""
    proposals = {}
    for record in dataset:
        rng = np.random.default_rng((seed, record.image_id))
        near = np.repeat(record.boxes, MOVED, axis=0)
        sides = np.tile(near[:, 2:] - near[:, :2], 2)
        near = near + rng.normal(0, 0.12, near.shape) * sides
        corners = rng.uniform(0, SIZE, (ANYWHERE, 2, 2))
        anywhere = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        boxes = np.concatenate([near, anywhere])
        boxes = np.clip(boxes, 0, [record.width, record.height] * 2)
        boxes = boxes[np.all(boxes[:, 2:] - boxes[:, :2] >= 6, axis=1)]
        proposals[record.image_id] = rng.permutation(boxes)
    return dataset.with_proposals(proposals)


def small_rcnn(classes, **arguments):
    """Return an R-CNN on AlexNet with an eighth of its channels and a 32nd of its units."""
    small = {
        "crop_size": 99,
        "context": 8,
        "channels": (16, 32, 48, 48, 32),
        "units": 128,
        "box_score_thresh": 0.01,
    }
    return rk.models.RCNN("alexnet", classes, **(small | arguments))


def main():
    """Draw, train and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="folder of the run; a stopped one goes on")
    parser.add_argument("--train", type=int, default=300, help="images to train on")
    parser.add_argument("--val", type=int, default=100, help="images to score on")
    parser.add_argument("--steps", type=int, default=1000, help="steps of fine-tuning")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    size = (SIZE, SIZE)
    train = drawn_proposals(
        rk.data.draw_shapes(arguments.train, size=size, seed=2 * arguments.seed)
    )
    val = drawn_proposals(
        rk.data.draw_shapes(arguments.val, size=size, seed=2 * arguments.seed + 1)
    )
    keras.utils.set_random_seed(arguments.seed)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, arguments.steps, warmup_target=0.01, warmup_steps=100
    )
    train_rcnn(
        small_rcnn(train.classes),
        train,
        arguments.out,
        val=val,
        steps=arguments.steps,
        learning_rate=rate,
        seed=arguments.seed,
    )


if __name__ == "__main__":
    main()
