"""Fixtures that every room's tests share."""

import logging
from pathlib import Path

import keras
import pytest
import tensorflow as tf
import yaml
from click.testing import CliRunner

from rcnn_keras.cli import main
from rcnn_keras.data import draw_shapes
from rcnn_keras.parallel.processes import outcome
from rcnn_keras.runs.configuration import load_configuration
from rcnn_keras.runs.run import train

SHARED = (Path(__file__).resolve().parents[2] / "shared").resolve()


def pytest_configure(config):
    # Two devices on which tf.distribute can be tested; possible only before the first operation.
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


@pytest.fixture(scope="module", autouse=True)
def seed():
    """The weights that a file's tests draw are the same in every run."""
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not (SHARED / "data").is_dir():
        pytest.skip("the folder of real images `shared/data` is not beside this checkout")
    return SHARED / "data"


@pytest.fixture(scope="session")
def small_arguments():
    """A detector that is quick to build, on images of 64 x 64, as a configuration has it."""
    return {
        "backbone": "resnet18_fpn",
        "backbone_width": 0.25,
        "recompute_stages": 0,  # less to trace
        "min_size": 64,
        "max_size": 64,
        "fpn_channels": 8,
        "box_units": 8,
        "anchor_sizes": [[8], [16], [32], [64], [128]],
        "rpn_pre_nms_top_n_train": 50,
        "rpn_post_nms_top_n_train": 20,
        "rpn_pre_nms_top_n_test": 50,
        "rpn_post_nms_top_n_test": 20,
        "box_batch_size_per_image": 16,
        "box_detections_per_img": 5,
    }


@pytest.fixture
def logged(caplog):
    """A function that returns what the package has logged since its last call."""
    caplog.set_level(logging.INFO, "rcnn_keras")

    def messages():
        text = "\n".join(caplog.messages)
        caplog.clear()
        return text

    return messages


@pytest.fixture(scope="session")
def rcnn():
    """The command line, called with any arguments."""

    def call(*arguments):
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return call


@pytest.fixture(scope="session")
def error_of(rcnn):
    """What the command line prints of arguments that are wrong."""

    def call(*arguments):
        result = rcnn(*arguments)
        assert result.exit_code in (1, 2)
        assert "Traceback" not in result.output
        return result.output

    return call


@pytest.fixture(scope="session")
def in_process():
    """The class of an engine of this process alone, which stops after some shards."""

    class InProcess:
        def __init__(self, max_shards=None):
            self.max_shards = max_shards

        def outcomes(self, work, shards):
            for number, shard in enumerate(shards):
                if number == self.max_shards:
                    raise KeyboardInterrupt
                yield shard, outcome(work, shard)

    return InProcess


@pytest.fixture(scope="session")
def two_replicas():
    """One for the whole run: two strategies on the same devices mix up their collectives' keys."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(params=["graph", "xla"])
def compiled(request):
    """A function of (function, *(shape, dtype)) that traces it once, None for unknown sizes."""

    def trace(function, *signature):
        return tf.function(
            function,
            input_signature=[tf.TensorSpec(shape, dtype) for shape, dtype in signature],
            jit_compile=request.param == "xla",
            autograph=False,
        )

    return trace


SECTIONS = {
    "data": {
        "format": "coco",
        "train": {"annotations": "train/annotations.json"},
        "val": {"annotations": "val/annotations.json"},
    },
    "optimizer": {"name": "sgd", "learning_rate": 0.01},
}


@pytest.fixture(scope="session")
def write_config(small_arguments):
    """Return a function that draws data and writes a configuration of it, which it returns."""

    def write(folder, sections, *, train_images=2, val_images=2):
        draw_shapes(train_images, size=(64, 64), out=folder / "train")
        draw_shapes(val_images, size=(64, 64), seed=1, out=folder / "val")
        small = SECTIONS | {"model": small_arguments}
        merged = {name: small.get(name, {}) | keys for name, keys in (small | sections).items()}
        path = folder / "shapes.yaml"
        path.write_text(yaml.safe_dump(merged))
        return path

    return write


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """A finished run of a module's fixture `config`: its configuration, folder and history."""
    out = tmp_path_factory.mktemp("runs") / "shapes"
    configuration = load_configuration(config)
    return configuration, out, train(configuration, out)
