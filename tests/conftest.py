"""Fixtures that every room's tests share."""

from pathlib import Path

import pytest
import tensorflow as tf

SHARED = (Path(__file__).resolve().parents[2] / "shared").resolve()


def pytest_configure(config):
    # Two devices on which tf.distribute can be tested; possible only before the first operation.
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not (SHARED / "data").is_dir():
        pytest.skip("the folder of real images `shared/data` is not beside this checkout")
    return SHARED / "data"


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
