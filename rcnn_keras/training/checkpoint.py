"""A training that is saved as it goes and resumes exactly, also after Ctrl-C and SIGTERM.

`checkpoint_state` has what is saved, and the files.
"""

import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import keras

from rcnn_keras.data.pipeline import Batches
from rcnn_keras.ops import is_multi_worker
from rcnn_keras.training.checkpoint_state import (
    CheckpointError,
    Saved,
    description,
    differences,
    latest,
    prepare,
    restore,
    save,
    size_of,
    state_of,
    versions,
)

DEFAULTS: dict[int, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}


class StopRequest:
    """Whether somebody wants the training to end.

    Attributes:
        signal: the one that came, None if none did.
        at_once: nothing is to be saved now, so the training ends where it is.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self.signal: int | None = None
        self.at_once = at_once

    def end(self) -> NoReturn:
        """End the training as the signal would have: by KeyboardInterrupt, or SystemExit(143)."""
        if self.signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt


@contextmanager
def stop_requests(request: StopRequest) -> Iterator[None]:
    """Note Ctrl-C and SIGTERM in `request` inside the block; the second ends the process at once.

    Only Python's main thread can listen. Who listens already is left to it, unless it is another
    block of this kind around this one, which then hears nothing.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in DEFAULTS}
    heard = [n for n, h in before.items() if h == DEFAULTS[n] or isinstance(h, _Handler)]
    handler = _Handler(request, heard)
    for number in heard:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


class _Handler:
    """What is called when a signal comes."""

    def __init__(self, request: StopRequest, heard: list[int]):
        self.request = request
        self.heard = heard

    def __call__(self, number: int, frame: Any) -> None:
        for each in self.heard:
            signal.signal(each, signal.SIG_DFL)
        self.request.signal = number
        if self.request.at_once:
            self.request.end()
        # Not `print`, in the middle of which the signal may have come.
        os.write(2, b"\nStopping after this step, to save. Once more ends it at once.\n")


class Checkpoint(keras.callbacks.Callback):
    """Save a training as it goes; the same `fit` started again goes on at the very step.

    What it ends with is what the training would have ended with undisturbed, to the last bit: a
    checkpoint has the model, the optimizer, the running means of the losses, the place in the data,
    and what `EarlyStopping`, `ReduceLROnPlateau`, `ModelCheckpoint`, `SwapEMAWeights`,
    `CocoEvaluation` and `History` remember, which gets all epochs. A callback of one's own takes
    part by methods `get_state()` and `set_state(state)`.

    It is written before the first step, every so many steps, before the last step of an epoch, so
    that little is lost if scoring is cut short, and after an epoch's end. Ctrl-C and SIGTERM write
    one after the step that runs and then end the training; a second one ends it at once. With other
    data than `Batches`, whose place nobody knows, it is written after an epoch's end alone. Under
    `tf.distribute` the chief writes, and all read; of several workers none saves when a signal
    comes.

    Args:
        directory: a folder of its own for the checkpoints, see `checkpoint_files`.
        every_steps: steps between two checkpoints; None for those of the epochs alone.
        keep: how many to keep.

    Raises:
        ValueError: a number is out of range.
        CheckpointError: by `fit` before it trains, if the checkpoints are of another model, other
            classes, another optimizer or other data, says which; or if none of them is sound.
        OSError: by `fit` before it trains, if the folder cannot be written to, or has no room for a
            checkpoint.
    """

    def __init__(self, directory: str | Path, every_steps: int | None = None, keep: int = 2):
        super().__init__()
        for name, value in {"every_steps": every_steps, "keep": keep}.items():
            if value is not None and value < 1:
                raise ValueError(f"Checkpoint: {name} must be at least 1, not {value}")
        self.directory = Path(directory)
        self.every_steps = every_steps
        self.keep = keep
        self.others: list[keras.callbacks.Callback] = []  # whose states are saved too
        self._run: dict[str, Any] = {}
        self._stop = StopRequest()
        self._anywhere = False  # whether the data can begin at any step
        self._shared = False  # by workers, which hear a signal at different steps
        self._epoch = 0

    @contextmanager
    def resumed(
        self,
        model: keras.Model,
        data: Any,
        callbacks: Sequence[keras.callbacks.Callback],
        *,
        epochs: int,
        initial_epoch: int = 0,
        steps: int | None = None,
        verbose: str | int = "auto",
    ) -> Iterator[tuple["ResumableCallbacks", int, int]]:
        """Look for a checkpoint to go on from; inside the block Ctrl-C and SIGTERM are heard.

        Args:
            model: compiled and not trained yet.
            data: `Batches`; a dict that describes the data; or anything else.
            callbacks: of `fit`, this one among them.
            epochs: in all.
            initial_epoch: where to begin if there is no checkpoint.
            steps: an epoch; None where it is not known.
            verbose: as in `fit`.

        Yields:
            The callbacks for Keras' `fit`, its `initial_epoch`, and how many batches of that epoch
            are behind.
        """
        self._run = description(model, data, steps, callbacks)
        self._anywhere = isinstance(data, Batches | Mapping)
        self._shared = is_multi_worker(model.distribute_strategy)
        size = size_of(model)  # all workers read together what is summed over them
        if model.distribute_strategy.extended.should_checkpoint:
            prepare(self.directory, size)
        found = latest(self.directory)
        epoch, batch = initial_epoch, 0
        if found is not None:
            if differ := differences(found.state["run"], self._run):
                raise CheckpointError(
                    f"{self.directory} has checkpoints of another run: {'; '.join(differ)}. Name "
                    f"another folder, or remove this one"
                )
            epoch, batch = found.state["epoch"], found.state["batch"]
            if hasattr(model, "data_offset"):  # an earlier `fit` may have read the first samples
                model.data_offset = found.state.get("data_offset", 0)
            if found.state["stopped"]:
                epoch = epochs
            if verbose:
                where = f"going on at step {found.step}, epoch {epoch + 1} of {epochs}"
                done = "trained to the end before"
                print(f"{self.directory}: {where if epoch < epochs else done}", flush=True)
        self._stop = StopRequest()
        with stop_requests(self._stop):
            how = {"model": model, "epochs": epochs, "steps": steps, "verbose": verbose}
            resumable = ResumableCallbacks(self, callbacks, found, initial_epoch, **how)
            del found  # as large as the model and its optimizer
            yield resumable, epoch, batch
        if self._stop.signal is not None:  # after the last step
            self._stop.end()

    def save(self, epoch: int, batch: int, *, stopped: bool = False) -> None:
        """Write a checkpoint.

        Args:
            epoch: the epoch to go on in, from 0.
            batch: how many of its batches are behind.
            stopped: a callback has ended the training.

        Raises:
            OSError: it could not be written; those before it are kept.
        """
        states, arrays = state_of(self.model, self.others)
        state = {
            "epoch": epoch,
            "batch": batch,
            "stopped": stopped,
            "data_offset": getattr(self.model, "data_offset", 0),
            "run": self._run,
            "versions": versions(),
            "callbacks": states,
        }
        if self.model.distribute_strategy.extended.should_checkpoint:
            save(self.directory, Saved(self._step(epoch, batch), state, arrays), self.keep)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Nothing can be saved before the first step."""
        self._stop.at_once = self._shared or not self._anywhere

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Save if it is time to, and end the training if somebody wants that."""
        if not self._anywhere:
            return
        done, at_once = batch + 1, self.model.steps_per_execution
        left = self.params["steps"] - done
        if left > 0:
            due = left <= at_once  # the last step, which is taken again if scoring is cut short
            if self.every_steps is not None:
                due |= self._step(self._epoch, done) % self.every_steps < at_once
            if due or self._stop.signal is not None:
                self.save(self._epoch, done)
        if self._stop.signal is not None:
            self._end()
        self._stop.at_once = self._shared or left <= 0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Save, after all other callbacks; and end the training if somebody wants that."""
        self._stop.at_once = self._shared
        self.save(epoch + 1, 0, stopped=self.model.stop_training)
        if self._stop.signal is not None:
            self._end()
        self._stop.at_once = self._shared or not self._anywhere

    def _end(self) -> NoReturn:
        print(f"\n{self.directory}: saved; started again, the training goes on here", flush=True)
        self._stop.end()

    def _step(self, epoch: int, batch: int) -> int:
        """Return the step of training; of data of unknown length the number of the epoch."""
        return epoch * (self.params["steps"] or 1) + batch


class ResumableCallbacks(keras.callbacks.CallbackList):
    """The callbacks of a `fit` that is saved, and that may begin in the middle of an epoch.

    Keras knows no such beginning: its first epoch has `steps` batches like any other. So the
    batches of a resumed epoch get the numbers that they have in the whole one, and after the last
    of them the epoch is ended by `stop_training`, which is taken back before anybody sees it.

    Args:
        checkpoint: comes after all others, also after `History`.
        callbacks: all, the checkpoint among them.
        saved: to go on from; None for a training from the start.
        initial_epoch: its start.
        **how: as `keras.callbacks.CallbackList` has it.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        callbacks: Sequence[keras.callbacks.Callback],
        saved: Saved | None,
        initial_epoch: int,
        **how: Any,
    ):
        self._checkpoint = checkpoint
        self._saved = saved
        self._begins = initial_epoch
        self._behind = 0 if saved is None else saved.state["batch"]
        self._cut = False
        super().__init__(list(callbacks), add_history=True, add_progbar=how["verbose"] != 0, **how)
        self.callbacks.remove(checkpoint)
        checkpoint.others = list(self.callbacks)
        self.callbacks.append(checkpoint)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Restore the state, once the callbacks have reset theirs; or save the beginning."""
        super().on_train_begin(logs)
        if self._saved is None:
            self._checkpoint.save(self._begins, 0)
        self._restore()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Restore what Keras, and callbacks at an epoch's beginning, have changed since."""
        super().on_epoch_begin(epoch, logs)
        if self._behind:
            self._restore()
        self._saved = None

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count from the beginning of the epoch."""
        super().on_train_batch_begin(batch + self._behind, logs)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count from the beginning of the epoch, and end it after its last batch."""
        super().on_train_batch_end(batch + self._behind, logs)
        if self._behind and batch + self._behind + 1 >= self.params["steps"]:
            self._cut = not self.model.stop_training
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Have all later epochs whole."""
        if self._cut:
            self.model.stop_training = False
        self._behind, self._cut = 0, False
        super().on_epoch_end(epoch, logs)

    def _restore(self) -> None:
        if self._saved is not None:
            states = self._saved.state["callbacks"]
            restore(self.model, self.callbacks, states, self._saved.arrays)
