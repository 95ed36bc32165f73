"""RPN and detector trained in turn (Faster R-CNN, 3.2, "4-Step Alternating Training").

OUT/1_rpn/model.keras       the RPN, with convolutions of its own
OUT/2_detector/model.keras  the second stage on its proposals, with convolutions of its own
OUT/3_rpn/model.keras       2, with an RPN on its convolutions
OUT/4_detector/model.keras  3, with the second stage on its proposals: the whole detector

OUT/checkpoints/1_rpn/ ..   if asked for, while a step is unfinished

A step's folder is there once the step is finished.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from rcnn_keras.models import FasterRCNN
from rcnn_keras.utils.atomic import atomic_write


@dataclass(frozen=True)
class Step:
    """One of the four steps.

    Attributes:
        name: that of its folder.
        rpn: whether the RPN learns, and not the second stage.
        convolutions: whether the convolutions that both share learn too.
        proposer: the step whose proposals the second stage learns on, if not the model's own.
    """

    name: str
    rpn: bool
    convolutions: bool
    proposer: str | None = None


STEPS = (
    Step("1_rpn", rpn=True, convolutions=True),
    Step("2_detector", rpn=False, convolutions=True, proposer="1_rpn"),
    Step("3_rpn", rpn=True, convolutions=False),
    Step("4_detector", rpn=False, convolutions=False),
)


CHECKPOINTS = "checkpoints"


def train_alternating(
    model: FasterRCNN,
    batches: Any,
    optimizer: Callable[[FasterRCNN, int], keras.optimizers.Optimizer],
    *,
    epochs: Sequence[int],
    out: str | Path,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    checkpoint: Callable[[Path], keras.callbacks.Callback] | None = None,
    verbose: str | int = "auto",
) -> dict[str, keras.callbacks.History]:
    """Train a detector in the four steps of the Faster R-CNN paper.

    1. The RPN, and with it the convolutions (backbone and pyramid), from the model's weights.
    2. The second stage (box head, mask head), and with it the convolutions, from the model's
       weights again, on the proposals of step 1.
    3. The RPN alone, on the convolutions of step 2.
    4. The second stage alone, on the proposals of step 3.

    The paper stores the proposals of step 1; here its model runs inside step 2, as at inference but
    with as many proposals as in training, on the very image that was flipped or scaled. A step that
    is finished in `out` is loaded and not run again.

    Args:
        model: with the weights to start from; trained in place, and at the end compiled anew with
            everything trainable that was so before.
        batches: `Batches`, or a tf.data pipeline of `(inputs, targets)`.
        optimizer: from the model, in which only what learns is trainable, and the epochs of a step
            to a new optimizer.
        epochs: of each of the four steps; they are counted on from step to step, in the progress
            bar and for the order of the images.
        out: folder of the four steps, made if missing.
        callbacks: of each step's `fit`. AP says little before step 4: until then `detect` runs an
            RPN that has not learnt on these convolutions.
        checkpoint: makes the `Checkpoint` of a step from a folder, so that a step that was stopped
            goes on where it was; without it such a step starts again.
        verbose: as in `fit`; 0 also leaves out the line that names a step.

    Returns:
        The History of each step that ran, by its name; losses that a step does not train are not
        in it.

    Raises:
        ValueError: `epochs` are not four.
        FileExistsError: `out` holds a step of another model.
    """
    if len(epochs) != len(STEPS):
        raise ValueError(f"epochs must be four numbers, one a step; received {epochs!r}")
    out, initial, histories, done, runs = Path(out), model.get_weights(), {}, 0, False
    for step, count in zip(STEPS, epochs, strict=True):
        folder, unfinished = out / step.name, out / CHECKPOINTS / step.name
        runs = runs or not folder.exists()
        if runs:
            with _learning(model, step, out):
                if verbose:
                    learns = ", ".join(part.name for part in model.layers if part.trainable_weights)
                    print(f"Step {step.name}: {count} epochs of {learns}", flush=True)
                model.compile(optimizer(model, count))
                histories[step.name] = model.fit(
                    batches,
                    initial_epoch=done,
                    epochs=done + count,
                    callbacks=[*callbacks, *([checkpoint(unfinished)] if checkpoint else [])],
                    verbose=verbose,
                )
            _save(model, folder)
            shutil.rmtree(unfinished, ignore_errors=True)
        else:
            if verbose:
                print(f"Step {step.name}: finished before", flush=True)
            model.set_weights(_saved(folder, model).get_weights())
        if step is STEPS[0]:
            model.set_weights(initial)
        done += count
    model.compile(optimizer(model, epochs[-1]))
    model.optimizer.build(model.trainable_variables)
    return histories


@contextmanager
def _learning(model: FasterRCNN, step: Step, out: Path) -> Iterator[None]:
    """Have the model learn what a step trains, by its losses and on its proposals alone."""
    frozen_stages = model.get_config()["frozen_stages"]
    for layer in model.layers:
        shared = layer in (model.backbone, model.fpn)
        layer.trainable = step.convolutions if shared else (layer is model.rpn_head) == step.rpn
    if step.convolutions:
        model.freeze_backbone(frozen_stages)
    model.trained_losses = tuple(n for n in model.loss_names if n.startswith("rpn_") == step.rpn)
    if step.proposer:
        model.proposer = _proposer(_saved(out / step.proposer, model))
    try:
        yield
    finally:
        model.trained_losses, model.proposer = model.loss_names, None
        for layer in model.layers:
            layer.trainable = True
        model.freeze_backbone(frozen_stages)


def _proposer(model: FasterRCNN) -> Callable[[dict], dict]:
    """Return the function from inputs to a model's proposals, as many as in training."""
    model.trainable = False  # batch norm then stands still, also while training

    def propose(inputs):
        first = model.first_stage(inputs, training=True)
        return {name: first[name] for name in ("proposals", "num_proposals")}

    return propose


def _save(model: FasterRCNN, folder: Path) -> None:
    """Save a copy of the model that has no optimizer; the folder appears when all is written."""
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    with atomic_write(folder) as aside:
        aside.mkdir()
        copy.save(aside / "model.keras")


def _saved(folder: Path, model: FasterRCNN) -> FasterRCNN:
    """Load the model that a step left, which must be built as the given one is."""
    path = folder / "model.keras"
    saved = keras.models.load_model(path, compile=False)
    if saved.get_config() | {"name": None} != model.get_config() | {"name": None}:
        raise FileExistsError(f"{path} is of another model: name another folder, or remove this")
    return saved
