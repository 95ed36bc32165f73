"""RPN and detector trained alternately (Faster R-CNN, 3.2, "4-Step Alternating Training").

OUT/1_rpn/model.keras       the RPN, with its own convolutions
OUT/2_detector/model.keras  the second stage on the proposals of 1, with its own convolutions
OUT/3_rpn/model.keras       2, with an RPN on its convolutions
OUT/4_detector/model.keras  3, with the second stage on its proposals: the whole detector

OUT/checkpoints/1_rpn/ ..   with checkpoints, while a step is unfinished

A step's folder exists once the step is finished.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from rcnn_keras.models import FasterRCNN
from rcnn_keras.models.transforms import rebuilt
from rcnn_keras.utils.atomic import atomic_write


@dataclass(frozen=True)
class Step:
    """One of the four steps.

    Attributes:
        name: of its folder.
        rpn: whether the RPN is trained, and not the second stage.
        convolutions: whether the shared convolutions are trained too.
        proposer: the step whose proposals the second stage is trained on, if not the model's own.
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
    with as many proposals as in training, on the augmented images. A step that is finished in `out`
    is loaded and not run again.

    Args:
        model: with the weights to start from; trained in place, and at the end compiled again
            with the same trainable layers as before.
        batches: `Batches`, or a tf.data pipeline of `(inputs, targets)`.
        optimizer: makes a new optimizer from the model, in which only the layers of a step are
            trainable, and the step's epochs.
        epochs: of each of the four steps; they are counted across the steps, in the progress bar
            and for the order of the images.
        out: folder of the four steps, created if missing.
        callbacks: of each step's `fit`. AP says little before step 4: until then `detect` runs an
            RPN that was not trained on these convolutions.
        checkpoint: makes the `Checkpoint` of a step from a folder, so that an interrupted step
            resumes; without it such a step starts again.
        verbose: as in `fit`; 0 also omits the line that names a step.

    Returns:
        The History of each step that ran, by its name; it has only the losses that the step trains.

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
            with _trained_layers(model, step, out):
                if verbose:
                    trained = ", ".join(x.name for x in model.layers if x.trainable_weights)
                    print(f"Step {step.name}: {count} epochs of {trained}", flush=True)
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
def _trained_layers(model: FasterRCNN, step: Step, out: Path) -> Iterator[None]:
    """Let only a step's layers be trained, by its losses and on its proposals."""
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
    model.trainable = False  # batch norm is then frozen, also while training

    def propose(inputs: dict[str, Any]) -> dict[str, Any]:
        first = model.extract_features(inputs, training=True)
        return {name: first[name] for name in ("proposals", "num_proposals")}

    return propose


def _save(model: FasterRCNN, folder: Path) -> None:
    """Save a copy of the model without an optimizer, in an atomic write of the folder."""
    copy = rebuilt(model)
    copy.set_weights(model.get_weights())
    with atomic_write(folder) as temporary:
        temporary.mkdir()
        copy.save(temporary / "model.keras")


def _saved(folder: Path, model: FasterRCNN) -> FasterRCNN:
    """Load the model of a finished step; its configuration must be that of the given one."""
    path = folder / "model.keras"
    saved = keras.models.load_model(path, compile=False)
    if saved.get_config() | {"name": None} != model.get_config() | {"name": None}:
        raise FileExistsError(f"{path} is of another model: name another folder, or remove this")
    return saved
