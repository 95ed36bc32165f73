"""What `Detector.fit` makes of its callbacks before Keras sees them."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras


def scores_first(callbacks: Any) -> Any:
    """Order callbacks so that scores are in the logs before another callback looks for them.

    Keras knows whether to maximise what a callback monitors only for its own metrics; average
    precision, the larger the better, is told here.
    """
    if not isinstance(callbacks, Sequence):
        return callbacks
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        scores = isinstance(monitor, str) and re.fullmatch(r"val_(mask_)?A[PR]\w*(/.*)?", monitor)
        if scores and getattr(callback, "mode", None) == "auto":
            callback.mode = "max"
    return sorted(callbacks, key=lambda c: not getattr(c, "writes_scores", False))


def go_on(model: Any, batches: Any, steps: int) -> None:
    """Have the next `fit` read on where the one before ended, and not the same order again.

    Args:
        model: its `data_place` says what is behind; one that was loaded with its optimizer has the
            optimizer's steps behind.
        batches: what it reads.
        steps: that `initial_epoch` says are behind, counted in those that were read.
    """
    place, images = model.data_place, len(batches.dataset)
    samples = place["samples"]
    if samples == 0 and model.optimizer is not None:
        samples = int(model.optimizer.iterations) * batches.batch_size
    elif place["images"] != images:  # other data begin with a whole pass
        samples = -(-samples // images) * images
    first = max(samples - steps * batches.batch_size, 0)
    place.update({"first_sample": first, "images": images})


class _Counting(keras.callbacks.Callback):
    """Count the samples that are behind."""

    def __init__(self, place: dict[str, int], batch_size: int, steps: int):
        super().__init__()
        self.place, self.batch_size, self.steps, self.epoch = place, batch_size, steps, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Note the epoch."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count to the end of this batch."""
        steps = self.epoch * self.steps + batch + 1
        self.place["samples"] = self.place["first_sample"] + steps * self.batch_size


def counting(model: Any, callbacks: Any, batch_size: int, steps: int) -> Any:
    """Return the callbacks with one, before all others, that counts samples in `data_place`."""
    count = _Counting(model.data_place, batch_size, steps)
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.callbacks.insert(0, count)
        count.set_model(model)
        return callbacks
    if callbacks is None:
        return [count]
    return [count, *(callbacks if isinstance(callbacks, Sequence) else [callbacks])]


@contextmanager
def resumed(
    model: keras.Model, data: Any, callbacks: Any, *, initial_epoch: int, **how: Any
) -> Iterator[tuple[Any, int, int]]:
    """Yield callbacks for Keras' `fit`, the epoch to begin with, and how much of it is behind.

    A callback with a method `resumed`, `Checkpoint`, says so; it stands above the models. Without
    one the training begins at the beginning of `initial_epoch`.

    Raises:
        ValueError: if there are several.
    """
    each = callbacks if isinstance(callbacks, Sequence) else [callbacks]
    checkpoints = [callback for callback in each if hasattr(callback, "resumed")]
    if len(checkpoints) > 1:
        raise ValueError(f"fit takes one Checkpoint, not {len(checkpoints)}")
    if not checkpoints:
        yield callbacks, initial_epoch, 0
        return
    with checkpoints[0].resumed(model, data, each, initial_epoch=initial_epoch, **how) as begins:
        yield begins
