"""What `Detector.fit` makes of its callbacks before Keras sees them."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from rcnn_keras.models.saving import check_ending
from rcnn_keras.utils.output_paths import check_output_folder


def scores_first(callbacks: Any) -> Any:
    """Order callbacks so that scores are in the logs before another callback looks for them.

    Keras knows whether to maximise what a callback monitors only for its own metrics; average
    precision, the larger the better, is set here.

    Raises:
        ValueError: for a `ModelCheckpoint` whose files could not be loaded again.
        OSError: for one whose files could not be written.
    """
    for callback in callbacks if isinstance(callbacks, Sequence) else [callbacks]:
        if isinstance(callback, keras.callbacks.ModelCheckpoint) and not callback.save_weights_only:
            check_ending(callback.filepath)
            folder = Path(callback.filepath).parent
            if "{" not in str(folder):  # otherwise it is known only when an epoch ends
                check_output_folder(folder)
    if not isinstance(callbacks, Sequence):
        return callbacks
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        scores = isinstance(monitor, str) and re.fullmatch(r"val_(mask_)?A[PR]\w*(/.*)?", monitor)
        if scores and getattr(callback, "mode", None) == "auto":
            callback.mode = "max"
    return sorted(callbacks, key=lambda c: not getattr(c, "writes_scores", False))


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
