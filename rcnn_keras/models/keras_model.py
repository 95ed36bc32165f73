"""What a detector does otherwise than other Keras models, said plainly."""

import functools
import os
import warnings
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from rcnn_keras.models.batch_check import checked


def refuse(given: dict[str, Any]) -> None:
    """Raise a ValueError that names each of Keras' arguments that a detector cannot use."""
    names = [name for name, value in given.items() if value is not None]
    if not names:
        return
    why = {
        "loss": "a detector has losses of its own; model.trained_losses chooses among them",
        "loss_weights": "losses are added as they are; model.trained_losses chooses some",
        "metrics": "scores come from rk.callbacks, as rk.callbacks.CocoEvaluation(val)",
        "weighted_metrics": "scores come from rk.callbacks, as rk.callbacks.CocoEvaluation(val)",
        "sample_weight": "images are not weighted; repeat those that should count more",
        "class_weight": "classes are not weighted; repeat the images of rare ones",
    }
    raise ValueError("; ".join(f"{name} is not supported: {why[name]}" for name in names))


def check_process(pid: int) -> None:
    """Raise a RuntimeError in a forked child of the process that built a model."""
    if os.getpid() != pid:
        raise RuntimeError(
            "this model was built in another process, of which this one is a fork, and TensorFlow "
            "does not run in forks: load the model in each process, and start them by "
            "multiprocessing.get_context('spawn')"
        )


def warn_of_slow_precision(policy: str) -> None:
    """Warn, once a process, of bfloat16 on an x86 CPU without matrix tiles (AMX)."""
    if policy == "mixed_bfloat16" and not tf.config.list_physical_devices("GPU"):
        _warn_once()


@functools.cache
def _warn_once() -> None:
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text() if cpu.is_file() else ""
    if "flags" in flags and "amx_bf16" not in flags:
        warnings.warn(
            "mixed_bfloat16 is slower than float32 on a CPU without AMX, such as this one",
            stacklevel=4,
        )


class KerasModel:
    """Comes before `keras.Model` among the bases of a detector."""

    def compile(
        self: Any,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **options: Any,
    ) -> None:
        """Compile as `keras.Model.compile` does, with an optimizer and without losses and metrics.

        Raises:
            ValueError: for losses, metrics and their weights; says what to do instead.
        """
        refuse(
            {
                "loss": loss,
                "loss_weights": loss_weights,
                "metrics": metrics,
                "weighted_metrics": weighted_metrics,
            }
        )
        warn_of_slow_precision(self.dtype_policy.name)
        super().compile(optimizer, **options)  # type: ignore[misc]

    def train_on_batch(
        self: Any,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Take a step as `keras.Model.train_on_batch` does, on a batch that is checked.

        Raises:
            BatchError: for a batch that a detector cannot train on.
            ValueError: for weights of images or classes.
        """
        check_process(self._process)
        refuse({"sample_weight": sample_weight, "class_weight": class_weight})
        checked(self, x, y, source="training data")
        return super().train_on_batch(x, y, return_dict=return_dict)  # type: ignore[misc]

    def test_on_batch(
        self: Any, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """Return the losses as `keras.Model.test_on_batch` does, of a batch that is checked.

        Raises:
            BatchError: for a batch that a detector cannot be evaluated on.
            ValueError: for weights of images.
        """
        check_process(self._process)
        refuse({"sample_weight": sample_weight})
        checked(self, x, y, source="data")
        return super().test_on_batch(x, y, return_dict=return_dict)  # type: ignore[misc]

    def compile_from_config(self: Any, config: dict[str, Any]) -> None:
        """Compile as a saved model was, and make the optimizer's variables."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)
